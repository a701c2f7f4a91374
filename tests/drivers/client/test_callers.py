"""How much of a client one caller gets, before anything is decided for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AuditLog, GatewayClient, Principal, RateOptions
from sark_trio.errors import ConfigError, Overloaded
from sark_trio.governance.decision import Decision
from sark_trio.telemetry.events import CallFinished, Event
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, audited, check_log, desk, hang, open_client
from tests.support.governance import Answers

BOB = Principal(id="bob", roles=("analyst",))
#: Of the same name, and somebody else.
ROBOT = Principal(id="alice", kind="service")


@pytest.mark.security(34)
@pytest.mark.anyio
async def test_whoever_has_too_many_calls_is_refused_before_a_decision() -> None:
    told: list[Event] = []
    server, disk, policy = desk(hang, hang), MemoryDisk(), Answers(Decision(allow=True))
    async with open_client(
        server, disk, policy=policy, hooks=[told.append], concurrent_max=2
    ) as client:
        async with anyio.create_task_group() as tasks:

            async def call(who: Principal) -> Any:
                return await client.invoke_tool("desk", "echo", principal=who, timeout_s=60)

            tasks.start_soon(call, ALICE)
            tasks.start_soon(call, ALICE)
            while len(server.times) < 2:
                await anyio.lowlevel.checkpoint()
            asked, records = len(policy.asked), len(audited(disk, "intent"))
            with pytest.raises(Overloaded) as caught:
                await call(ALICE)
            assert (caught.value.delivery, caught.value.attempts) == ("not_sent", 0)
            assert caught.value.reason == "concurrency_caller"
            assert len(policy.asked) == asked
            assert len(audited(disk, "intent")) == records
            assert audited(disk, "denied") == []
            for other in (BOB, ROBOT):
                assert (await call(other)).text == "done"
            tasks.cancel_scope.cancel()
        assert (await call(ALICE)).text == "done"  # a call that ended gives its place back
    assert "rejected" in {one.outcome for one in told if isinstance(one, CallFinished)}
    check_log(disk)


@pytest.mark.security(34)
@pytest.mark.trio
async def test_whoever_calls_too_often_is_refused_before_a_decision(
    autojump_clock: MockClock,
) -> None:
    server, disk, policy = desk(), MemoryDisk(), Answers(Decision(allow=True))
    rate = RateOptions(per_s=0.5, burst=3)
    async with open_client(server, disk, policy=policy, rate=rate) as client:

        async def call(who: Principal) -> Any:
            return await client.invoke_tool("desk", "echo", principal=who)

        for _ in range(3):
            assert (await call(ALICE)).text == "done"
        asked = len(policy.asked)
        with pytest.raises(Overloaded) as caught:
            await call(ALICE)
        assert (caught.value.delivery, caught.value.reason) == ("not_sent", "rate_caller")
        assert len(policy.asked) == asked
        assert len(audited(disk, "intent")) == 3
        assert audited(disk, "denied") == []
        for other in (BOB, ROBOT):
            assert (await call(other)).text == "done"
        assert caught.value.retry_after_s == pytest.approx(2, abs=0.001)
        await trio.sleep(caught.value.retry_after_s)
        assert (await call(ALICE)).text == "done"
        with pytest.raises(Overloaded):
            await call(ALICE)
    check_log(disk)


@pytest.mark.parametrize("wrong", [10, "10/s", {"per_s": 10}])
def test_a_rate_that_is_none_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RateOptions"):
        GatewayClient(audit=AuditLog(tmp_path), rate=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_a_number_that_is_no_limit_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="concurrent_max"):
        GatewayClient(audit=AuditLog(tmp_path), concurrent_max=wrong)
