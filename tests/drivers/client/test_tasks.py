"""Calls that become tasks: followed to their end within the deadline, or ended with it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import Elicitation, Handlers, TaskCancelled
from sark_trio.errors import CallTimeout, ConnectError, Denied, ProtocolError, RemoteError
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, check_log, hang, open_client

FORM = {
    "method": "elicitation/create",
    "params": {
        "message": "who?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
TASK = {"taskId": "t1", "pollIntervalMs": 2_000, "ttlMs": 60_000}


class Worker:
    """A server that answers a call with a task, and goes through its states."""

    def __init__(self, *states: Mapping[str, Any]) -> None:
        self.states = list(states)
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.times: list[float] = []
        self.offered: Any = None

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        params = incoming.receive()
        if incoming.method == "tools/list":
            return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        self.seen.append((incoming.method, params))
        self.times.append(trio.current_time())
        if incoming.method == "tools/call":
            self.offered = incoming.capabilities
            return {"resultType": "task", **TASK, "status": "working"}
        if incoming.method == "tasks/get":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return {**TASK, **state}
        return {}

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.seen]


async def ada(_: Elicitation) -> Mapping[str, Any]:
    return {"name": "Ada"}


OFFERED = Handlers(tasks=True, elicit=ada)


@pytest.mark.trio
async def test_a_task_is_followed_as_often_as_the_server_suggests(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    asking = {"status": "input_required", "inputRequests": {"who": FORM}}
    worker = Worker(
        {"status": "working"}, asking, asking, {"status": "completed", "result": answer("Ada")}
    )
    async with open_client(worker, disk, handlers=OFFERED) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "Ada"
    assert worker.offered["extensions"] == {"io.modelcontextprotocol/tasks": {}}
    assert worker.methods == [
        "tools/call",
        "tasks/get",
        "tasks/get",
        "tasks/update",
        "tasks/get",
        "tasks/get",
    ]
    gets = [time for time, name in zip(worker.times, worker.methods, strict=True) if "get" in name]
    assert [round(b - a) for a, b in itertools.pairwise(gets)] == [2, 2, 2]
    update = dict(worker.seen)["tasks/update"]
    assert update["inputResponses"] == {"who": {"action": "accept", "content": {"name": "Ada"}}}
    check_log(disk)
    assert audited(disk, "outcome")[0]["outcome"] == "ok"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ({"status": "failed", "error": {"code": -7, "message": "broke"}}, RemoteError, "broke"),
        ({"status": "cancelled"}, TaskCancelled, "cancelled"),
        ({"status": "completed"}, ProtocolError, "without its result"),
        ({"status": "gone"}, ProtocolError, "malformed"),
    ],
)
async def test_other_ends_have_their_errors(
    autojump_clock: MockClock, state: dict[str, Any], kind: type[Exception], words: str
) -> None:
    disk = MemoryDisk()
    async with open_client(Worker(state), disk, handlers=OFFERED) as client:
        with pytest.raises(kind, match=words):
            await client.invoke_tool("desk", "echo")
    check_log(disk)


@pytest.mark.trio
async def test_a_task_that_takes_too_long_is_ended_with_its_call(
    autojump_clock: MockClock,
) -> None:
    worker, disk = Worker({"status": "working"}), MemoryDisk()
    async with open_client(worker, disk, handlers=OFFERED) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=7)
        assert caught.value.delivery == "unknown"
    assert worker.seen[-1] == ("tasks/cancel", {"taskId": "t1"})
    check_log(disk)


@pytest.mark.trio
async def test_a_task_that_was_not_offered_is_no_answer(autojump_clock: MockClock) -> None:
    async with open_client(Worker({"status": "working"})) as client:
        with pytest.raises(ProtocolError, match="did not offer"):
            await client.invoke_tool("desk", "echo")


@pytest.mark.trio
async def test_tasks_that_are_kept_are_looked_after(autojump_clock: MockClock) -> None:
    disk, worker = MemoryDisk(), Worker({"status": "working"})
    async with open_client(worker, disk) as client:
        assert (await client.get_task("desk", "t1")).status == "working"
        await client.update_task("desk", "t1", {"who": {"action": "cancel"}})
        await client.cancel_task("desk", "t1")
    assert worker.methods == ["tasks/get", "tasks/update", "tasks/cancel"]
    assert [r["method"] for r in audited(disk, "intent")] == worker.methods
    check_log(disk)


class Unwell(Worker):
    """It takes the call, and then does as told with what is asked about its task."""

    def __init__(self, step: Callable[[Incoming], Awaitable[Mapping[str, Any]]]) -> None:
        super().__init__({"status": "working"})
        self.step = step

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        if incoming.method.startswith("tasks/"):
            return await self.step(incoming)
        return await super().__call__(incoming)


@pytest.mark.trio
async def test_a_call_that_became_a_task_was_sent_whatever_becomes_of_the_asking(
    autojump_clock: MockClock,
) -> None:
    async def refuse(_: Incoming) -> Mapping[str, Any]:
        raise ConnectError("no")

    disk = MemoryDisk()
    async with open_client(Unwell(refuse), disk, handlers=OFFERED) as client:
        with pytest.raises(ConnectError) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.delivery == "unknown"
    assert [(one["outcome"], one["delivery"]) for one in audited(disk, "outcome")] == [
        ("unknown", "unknown")
    ]


@pytest.mark.trio
@pytest.mark.parametrize(("timeout_s", "failures"), [(5, 0), (None, 1)])
async def test_only_the_configured_time_counts_against_a_server_that_has_a_task(
    autojump_clock: MockClock, timeout_s: float | None, failures: int
) -> None:
    """Or any caller could open everybody's breaker."""
    async with open_client(Unwell(hang), handlers=OFFERED, server_timeout_s=20) as client:
        with pytest.raises(CallTimeout):
            await client.invoke_tool("desk", "echo", timeout_s=timeout_s)
        counted = client.statistics().servers["desk"].breaker
        assert (counted.failures > 0) == (failures > 0)


@pytest.mark.trio
@pytest.mark.security(37)
async def test_a_blocked_tool_is_asked_no_more_about_its_task_which_is_ended(
    autojump_clock: MockClock,
) -> None:
    worker, disk = Worker({"status": "working"}), MemoryDisk()
    async with open_client(worker, disk, handlers=OFFERED) as client, trio.open_nursery() as tasks:

        async def call() -> None:
            with pytest.raises(Denied) as caught:
                await client.invoke_tool("desk", "echo")
            assert (caught.value.reason, caught.value.delivery) == ("blocked", "unknown")

        tasks.start_soon(call)
        await trio.sleep(3)
        client.block("desk", "echo", reason="r")
    assert worker.methods == ["tools/call", "tasks/get", "tasks/cancel"]
    assert audited(disk, "outcome")[0]["outcome"] == "denied"
    check_log(disk)
