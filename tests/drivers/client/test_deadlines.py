"""One deadline a call, exact in virtual time; what it was spent on, and what the breaker hears."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, Decision, GatewayClient, RetryConfig, ToolRule
from sark_trio.client.servers import Memory
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    Denied,
    GatewayError,
    OutcomeUnknown,
    RateLimited,
    RemoteError,
    ServerDisconnected,
    UnknownServer,
    UsageError,
)
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, check_log, desk, hang, open_client, outcomes

pytestmark = pytest.mark.trio


def breaker(client: GatewayClient) -> Any:
    return client.statistics().servers["desk"].breaker


@pytest.mark.fault(5, 6, 45)
@pytest.mark.parametrize(
    ("client_s", "server_s", "rule_s", "asked_s", "effective_s"),
    [
        (30.0, None, None, None, 30.0),
        (7.0, None, None, None, 7.0),
        (30.0, 8.0, None, None, 8.0),
        (30.0, 8.0, 9.0, None, 9.0),
        (30.0, 8.0, 9.0, 2.5, 2.5),
        (30.0, None, None, 100.0, 100.0),
        (30.0, None, None, float("inf"), 300.0),
        (30.0, None, 1_000.0, None, 300.0),
    ],
)
async def test_the_nearest_word_on_the_deadline_counts_and_none_is_for_ever(
    autojump_clock: MockClock,
    client_s: float,
    server_s: float | None,
    rule_s: float | None,
    asked_s: float | None,
    effective_s: float,
) -> None:
    options: dict[str, Any] = {"timeout_s": client_s, "server_timeout_s": server_s}
    if rule_s is not None:
        options["server_tools"] = {"echo": ToolRule(timeout_s=rule_s)}
    async with open_client(desk(hang), **options) as client:
        began = trio.current_time()
        with pytest.raises(TimeoutError) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=asked_s)
        assert trio.current_time() - began == pytest.approx(effective_s, abs=1e-9)
    assert isinstance(caught.value, CallTimeout)
    assert f"{effective_s:g} s" in str(caught.value)


@pytest.mark.parametrize("timeout_s", [-1, float("nan")])
async def test_a_deadline_that_is_no_time_is_refused(
    autojump_clock: MockClock, timeout_s: float
) -> None:
    async with open_client(desk()) as client:
        with pytest.raises(UsageError, match="timeout_s"):
            await client.invoke_tool("desk", "echo", timeout_s=timeout_s)


@pytest.mark.row(55)
@pytest.mark.fault(13)
async def test_a_deadline_of_zero_has_passed_and_nothing_is_sent(
    autojump_clock: MockClock,
) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk) as client:
        await client.invoke_tool("desk", "echo")
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=0)
        assert caught.value.delivery == "not_sent"
        assert trio.current_time() < 1
    assert len(server.arrived) == 1
    check_log(disk)


@pytest.mark.fault(5)
async def test_all_attempts_and_waits_share_one_deadline(autojump_clock: MockClock) -> None:
    async def slow(incoming: Incoming) -> Any:
        incoming.receive()
        await trio.sleep(4)
        raise ServerDisconnected("gone", delivery="unknown")

    server, disk = desk(slow, slow, slow), MemoryDisk()
    async with open_client(server, disk, timeout_s=12.0) as client:
        began = trio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
        # 4 s, a wait of 1 s, 4 s, a wait of 2 s, and one second of the third attempt.
        assert trio.current_time() - began == pytest.approx(12.0)
    assert caught.value.attempts == 3
    assert caught.value.delivery == "unknown"
    check_log(disk)
    assert outcomes(disk) == [("unknown", "unknown")]
    assert [each["number"] for each in audited(disk, "attempt")] == [2, 3]


@pytest.mark.fault(5)
async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(
    autojump_clock: MockClock,
) -> None:
    gone = [ServerDisconnected("gone", delivery="unknown") for _ in range(3)]
    server, disk = desk(*gone), MemoryDisk()
    async with open_client(server, disk, timeout_s=2.5) as client:
        began = trio.current_time()
        with pytest.raises(ServerDisconnected) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
        assert trio.current_time() - began == pytest.approx(1.0)
    assert caught.value.attempts == 2
    assert any("deadline" in note for note in caught.value.__notes__)
    check_log(disk)


class Slow:
    """A policy that takes its time from the *n*-th question on."""

    revision = "slow"

    def __init__(self, first: int = 1) -> None:
        self.questions_left = first - 1

    async def decide(self, question: Any) -> Decision:
        if self.questions_left <= 0:
            await trio.sleep_forever()
        self.questions_left -= 1
        return Decision(allow=True, ttl_s=0)


async def test_the_deadline_covers_the_policy(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Slow()) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=3)
        assert breaker(client).admitted == 1  # the list of tools
    assert (caught.value.phase, caught.value.delivery) == ("policy", "not_sent")
    assert server.arrived == []
    assert audited(disk, "intent") == []


async def test_the_deadline_covers_connecting_and_the_list_of_tools(
    autojump_clock: MockClock,
) -> None:
    server, disk = desk(list_script=[hang]), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=3)
    assert (caught.value.phase, caught.value.delivery) == ("connect", "not_sent")


async def test_a_request_that_was_not_taken_is_told_apart_from_one_without_answer(
    autojump_clock: MockClock,
) -> None:
    async def deaf(incoming: Incoming) -> Any:
        await trio.sleep_forever()

    server, disk = desk(deaf, hang), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(CallTimeout) as deafness:
            await client.invoke_tool("desk", "echo")
        with pytest.raises(CallTimeout) as silence:
            await client.invoke_tool("desk", "echo")
    assert (deafness.value.phase, deafness.value.delivery) == ("connect", "not_sent")
    assert (silence.value.phase, silence.value.delivery) == ("answer", "unknown")
    check_log(disk)
    assert outcomes(disk) == [("not_sent", "not_sent"), ("unknown", "unknown")]


async def test_an_outer_deadline_is_the_callers_and_passes_through(
    autojump_clock: MockClock,
) -> None:
    server, disk = desk(hang), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(2):
                await client.invoke_tool("desk", "echo")
        votes = breaker(client)
        assert (votes.failures, votes.neutral, votes.outstanding) == (0, 1, 0)
        assert client.statistics().running_calls == 0
    check_log(disk)
    assert outcomes(disk) == [("cancelled", "unknown")]


# -- what the breaker hears -----------------------------------------------------------------------


async def test_the_configured_deadline_is_a_failure_and_opens(autojump_clock: MockClock) -> None:
    server = desk(*[hang] * 5)
    async with open_client(server) as client:
        for _ in range(5):
            with pytest.raises(CallTimeout):
                await client.invoke_tool("desk", "echo")
        with pytest.raises(CircuitOpen) as caught:
            await client.invoke_tool("desk", "echo")
    assert caught.value.retry_after_s == pytest.approx(30)
    assert caught.value.delivery == "not_sent"


@pytest.mark.fault(11)
async def test_no_caller_can_open_the_breaker_with_deadlines_or_cancellations_of_his_own(
    autojump_clock: MockClock,
) -> None:
    server = desk(*[hang] * 20)
    async with open_client(server) as client:
        for _ in range(10):
            with pytest.raises(CallTimeout):
                await client.invoke_tool("desk", "echo", timeout_s=29)
            with trio.move_on_after(29):
                await client.invoke_tool("desk", "echo")
        votes = breaker(client)
        assert (votes.failures, votes.neutral, votes.state) == (0, 20, "closed")


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("step", "vote"),
    [
        (RemoteError("no", code=-32000), "successes"),
        (answer(isError=True), "successes"),
        (RateLimited("later", status=429, retry_after_s=400), "neutral"),
        (ServerDisconnected("gone"), "failures"),
    ],
)
async def test_an_answer_is_health_and_a_disconnection_is_not(
    autojump_clock: MockClock, step: Any, vote: str
) -> None:
    async with open_client(desk(step)) as client:
        await client.list_tools("desk")
        before = getattr(breaker(client), vote)
        with suppress(GatewayError):
            await client.invoke_tool("desk", "echo", replay_safe=False)
        assert getattr(breaker(client), vote) == before + 1


@pytest.mark.fault(3)
async def test_five_failures_of_one_server_close_no_other(autojump_clock: MockClock) -> None:
    sick = desk(*[ServerDisconnected("gone") for _ in range(5)])
    async with open_client(sick) as client:
        await client.add_server("well", Memory(desk()))
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await client.invoke_tool("desk", "echo")
        with pytest.raises(CircuitOpen):
            await client.invoke_tool("desk", "echo")
        assert (await client.invoke_tool("well", "echo")).text == "done"
        await client.add_server("late", Memory(desk()))
        assert (await client.invoke_tool("late", "echo")).text == "done"
        health = {one.server_name: one.health_status for one in await client.list_servers()}
    assert health == {"desk": "unhealthy", "well": "healthy", "late": "healthy"}


@pytest.mark.row(17)
@pytest.mark.fault(7, 8)
async def test_after_the_wait_three_probes_are_let_out_and_two_close_the_breaker(
    autojump_clock: MockClock,
) -> None:
    gate = anyio.Event()

    async def held(incoming: Incoming) -> Any:
        incoming.receive()
        await gate.wait()
        return answer()

    server = desk(*[ServerDisconnected("gone") for _ in range(5)], *[held] * 3)
    ends: list[str] = []

    async with open_client(server, timeout_s=300.0) as client:

        async def call() -> None:
            try:
                ends.append((await client.invoke_tool("desk", "echo")).text)
            except CircuitOpen as exc:
                ends.append(exc.reason)

        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await client.invoke_tool("desk", "echo")
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert ends == ["probing"] * 7
            gate.set()
        assert ends[7:] == ["done"] * 3
        assert breaker(client).state == "closed"
        await client.invoke_tool("desk", "echo")


@pytest.mark.fault(8)
async def test_a_result_from_before_the_breaker_opened_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    async def late(incoming: Incoming) -> Any:
        incoming.receive()
        await trio.sleep(20)
        return answer("late")

    server = desk(late, *[ServerDisconnected("gone") for _ in range(5)])
    async with open_client(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.invoke_tool, "desk", "echo")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await client.invoke_tool("desk", "echo")
        opened = breaker(client)
        await trio.sleep(25)
        after = breaker(client)
        assert (after.state, after.open_until, after.late) == ("open", opened.open_until, 1)


async def test_the_breakers_refusal_is_recorded_and_costs_neither_policy_nor_server(
    autojump_clock: MockClock,
) -> None:
    server, disk = desk(ServerDisconnected("gone")), MemoryDisk()
    async with open_client(server, disk, breaker=BreakerOptions(failures=1)) as client:
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("desk", "echo")
        with pytest.raises(CircuitOpen) as caught:
            await client.invoke_tool("desk", "echo")
        assert not isinstance(caught.value, Denied)
    assert len(server.arrived) == 1
    (refused,) = audited(disk, "denied")
    assert refused["reason"] == "open"
    assert refused["request_id"] == caught.value.request_id
    check_log(disk)


async def test_a_retry_that_the_breaker_holds_back_surfaces_the_real_failure(
    autojump_clock: MockClock,
) -> None:
    server, disk = desk(ServerDisconnected("gone")), MemoryDisk()
    options: dict[str, Any] = {"breaker": BreakerOptions(failures=1), "retry": RetryConfig()}
    async with open_client(server, disk, **options) as client:
        with pytest.raises(ServerDisconnected) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
    assert caught.value.attempts == 1
    assert any("breaker" in note for note in caught.value.__notes__)
    check_log(disk)
    assert audited(disk, "attempt") == []


async def test_an_unknown_server_is_named_with_those_that_are(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        with pytest.raises(UnknownServer, match="configured: desk"):
            await client.invoke_tool("dseks", "echo")
