"""How long tasks are kept, in virtual time, and for what they may be wished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import Principal
from sark_trio.errors import CallTimeout, ClientClosed, Overloaded
from sark_trio.gateway import tasks as tasks_module
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import RpcRefused
from sark_trio.gateway.visitor import Visitor
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, desk, hang, open_client, outcomes

ANN, BOB = Principal(id="ann"), Principal(id="bob")


def host(principal: Principal | None = ANN, **more: Any) -> Visitor:
    return Visitor(principal=principal, modern=False, tasks=True, **more)


async def begin(
    methods: Methods, wish: Any = None, visitor: Visitor | None = None
) -> Mapping[str, Any]:
    params = {"name": "desk__echo", "task": {} if wish is None else wish}
    task: Mapping[str, Any] = (await methods.call_tool(params, visitor or host()))["task"]
    return task


async def ask(methods: Methods, what: str, task: Mapping[str, Any]) -> dict[str, Any]:
    return await methods.tasks.answer(f"tasks/{what}", {"taskId": task["taskId"]}, host())


@pytest.mark.trio
async def test_a_task_is_kept_for_its_time_and_no_longer(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        methods = Methods(client)
        task = await begin(methods, {"ttl": 2_500})
        assert (task["status"], task["ttl"]) == ("working", 2_500)
        assert task["createdAt"].endswith("Z")
        assert (await ask(methods, "result", task))["content"][0]["text"] == "done"
        await trio.sleep(2.4)
        assert (await ask(methods, "get", task))["status"] == "completed"
        await trio.sleep(0.2)
        with pytest.raises(RpcRefused, match="no such task"):
            await ask(methods, "get", task)
        assert len(methods.tasks) == 0


@pytest.mark.parametrize(
    ("wished_ms", "kept_ms"),
    [(None, 600_000), (0, 1_000), (-5, 1_000), (1.5e3, 1_500), (10**400, 3_600_000)],
    ids=["none", "nothing", "less", "fraction", "far too much"],
)
@pytest.mark.trio
async def test_times_are_bounded(wished_ms: Any, kept_ms: int) -> None:
    async with open_client(desk()) as client:
        assert (await begin(Methods(client), {"ttl": wished_ms}))["ttl"] == kept_ms


@pytest.mark.parametrize("wish", [7, "x", [], {"ttl": "1"}, {"ttl": True}, {"ttl": []}], ids=repr)
@pytest.mark.trio
async def test_what_is_no_wish_is_refused_and_calls_nothing(wish: Any) -> None:
    server = desk()
    async with open_client(server) as client:
        methods = Methods(client)
        with pytest.raises(RpcRefused) as caught:
            await begin(methods, wish)
        assert (caught.value.code, len(methods.tasks), server.arrived) == (-32602, 0, [])


@pytest.mark.security(33)
@pytest.mark.trio
async def test_a_call_has_its_tasks_time_and_five_minutes_at_most(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    async with open_client(desk(hang, hang), disk, timeout_s=1) as client:
        methods = Methods(client)
        for ttl, lasts in ((40_000, 40), (3_000_000, 300)):
            began = trio.current_time()
            task = await begin(methods, {"ttl": ttl})
            with pytest.raises(CallTimeout):
                await ask(methods, "result", task)
            assert trio.current_time() - began == pytest.approx(lasts, abs=0.1)
        shown = await ask(methods, "get", task)
        assert (shown["status"], shown["statusMessage"]) == ("failed", "no answer in time")
    assert outcomes(disk) == [("unknown", "unknown")] * 2


@pytest.mark.security(25)
@pytest.mark.trio
async def test_one_caller_has_so_many_and_all_together_have_so_many(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "OWNED_MAX", 2)
    monkeypatch.setattr(tasks_module, "TASKS_MAX", 3)
    async with open_client(desk()) as client:
        methods = Methods(client)
        for _ in range(2):
            await begin(methods)
        with pytest.raises(Overloaded):
            await begin(methods)
        await begin(methods, visitor=host(BOB))
        with pytest.raises(Overloaded):
            await begin(methods, visitor=host(BOB))
        await trio.sleep(tasks_module.TTL_S + 1)
        assert len(methods.tasks) == 0
        assert not methods.tasks._owned
        await begin(methods)


@pytest.mark.trio
async def test_what_waits_ends_with_the_client_and_is_recorded(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    ended: list[str] = []

    async def wait(methods: Methods, task: Mapping[str, Any]) -> None:
        with pytest.raises(ClientClosed):
            await ask(methods, "result", task)
        ended.append("told")

    async with trio.open_nursery() as nursery:
        async with open_client(desk(answer(), hang), disk, grace_s=2) as client:
            methods = Methods(client)
            first = await begin(methods)
            await ask(methods, "result", first)  # and is kept
            second = await begin(methods)
            nursery.start_soon(wait, methods, second)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began <= 2.1
    assert ended == ["told"]
    assert len(methods.tasks) == 0
    assert outcomes(disk) == [("ok", "answered"), ("unknown", "unknown")]


@pytest.mark.trio
async def test_a_task_that_cannot_begin_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        methods = Methods(client)
        await client.disconnect("desk")
        with pytest.raises(ClientClosed):
            await begin(methods)
        assert len(methods.tasks) == 0


@pytest.mark.trio
async def test_a_mistake_of_ours_costs_one_task(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object) -> dict[str, Any]:
        raise ValueError("secret of the operator")

    async with open_client(desk()) as client:
        methods = Methods(client)
        task = (await methods.tasks.begin("desk", {}, host(), broken))["task"]
        with pytest.raises(RpcRefused, match="the gateway failed"):
            await ask(methods, "result", task)
        assert (await ask(methods, "get", task))["statusMessage"] == "the gateway failed"
        await ask(methods, "result", await begin(methods))
    assert "secret of the operator" in caplog.text
