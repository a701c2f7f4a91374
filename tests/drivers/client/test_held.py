"""Calls that wait for somebody to come again: found, forgotten, given up, and never another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import anyio
import pytest
import trio.testing
from attrs import define

from sark_trio.client import held
from sark_trio.client.held import HeldCalls
from sark_trio.client.relay import Relay
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, Overloaded, RemoteError
from tests.support.client import desk, open_client

pytestmark = pytest.mark.trio

ABOUT = ("desk", "alice", "tools/call")


@define
class Tasks:
    """As much of an upstream as there is to it: tasks of its own."""

    group: anyio.abc.TaskGroup
    name: str = "desk"

    def spawn(self, work: Callable[[], Any]) -> None:
        self.group.start_soon(work)


async def asking(relay: Relay) -> dict[str, Any]:
    """A call in which the server asks two things at once, then one more."""
    assert relay.ask is not None
    answers: list[Mapping[str, Any]] = []

    async def ask(what: str) -> None:
        assert relay.ask is not None
        answers.append(await relay.ask("elicitation/create", {"message": what}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "one")
        tasks.start_soon(ask, "two")
    return {"answers": len(answers), "last": await relay.ask("roots/list", {})}


def relay(state: str | None = None, **answers: Any) -> Relay:
    more = {} if state is None else {"requestState": state, "inputResponses": answers}
    return Relay(takes_questions=True, answers=more)


def upstream(group: anyio.abc.TaskGroup) -> Upstream:
    return cast("Upstream", Tasks(group))


async def test_each_round_asks_what_is_not_answered(autojump_clock: trio.testing.MockClock) -> None:
    calls = HeldCalls()
    async with anyio.create_task_group() as tasks:
        first = await calls.make(upstream(tasks), ABOUT, relay(), asking)
        state, keys = first["requestState"], sorted(first["inputRequests"])
        assert first["resultType"] == "input_required"
        assert len(calls) == 1
        again = first
        while len(again["inputRequests"]) < 2:  # both may not have asked yet
            again = await calls.make(upstream(tasks), ABOUT, relay(state), asking)
        keys = sorted(again["inputRequests"])
        some = await calls.make(
            upstream(tasks), ABOUT, relay(state, **{keys[0]: {}, "x": {}}), asking
        )
        assert list(some["inputRequests"]) == keys[1:]
        malformed = relay(state, **{keys[1]: 7})
        assert await calls.make(upstream(tasks), ABOUT, malformed, asking) == some
        more = await calls.make(upstream(tasks), ABOUT, relay(state, **{keys[1]: {}}), asking)
        ((last, request),) = more["inputRequests"].items()
        assert request == {"method": "roots/list", "params": {}}
        done = await calls.make(
            upstream(tasks), ABOUT, relay(state, **{last: {"roots": []}}), asking
        )
        assert done == {"answers": 2, "last": {"roots": []}}
    assert len(calls) == 0


async def test_a_state_is_good_for_its_own_call_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    calls = HeldCalls()
    async with anyio.create_task_group() as tasks:
        state = (await calls.make(upstream(tasks), ABOUT, relay(), asking))["requestState"]
        for about, wrong in ((("desk", "bob", "tools/call"), state), (ABOUT, "invented")):
            with pytest.raises(RemoteError) as caught:
                await calls.make(upstream(tasks), about, relay(wrong), asking)
            assert caught.value.code == -32602
        assert len(calls) == 1
        tasks.cancel_scope.cancel()
    assert len(calls) == 0


async def test_an_end_that_nobody_fetches_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def late(relay: Relay) -> dict[str, Any]:
        assert relay.ask is not None
        with anyio.move_on_after(10):
            await relay.ask("roots/list", {})
        return {"late": True}

    calls, began = HeldCalls(), anyio.current_time()
    async with anyio.create_task_group() as tasks:
        state = (await calls.make(upstream(tasks), ABOUT, relay(), late))["requestState"]
        await anyio.sleep(20)
        assert len(calls) == 1
        assert await calls.make(upstream(tasks), ABOUT, relay(state), late) == {"late": True}
    assert len(calls) == 0
    async with anyio.create_task_group() as tasks:
        began = anyio.current_time()
        await calls.make(upstream(tasks), ABOUT, relay(), late)
    assert len(calls) == 0
    assert anyio.current_time() - began == pytest.approx(10 + held.KEPT_S)


async def test_whoever_goes_away_gives_up_the_call(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def endless(_: Relay) -> dict[str, Any]:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")
        raise AssertionError

    calls = HeldCalls()
    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(1):
            await calls.make(upstream(tasks), ABOUT, relay(), endless)
    assert (ended, len(calls)) == (["cancelled"], 0)


async def test_a_failure_is_raised_where_it_is_waited_for(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Relay) -> dict[str, Any]:
        raise RemoteError("no", code=7)

    calls = HeldCalls()
    async with anyio.create_task_group() as tasks:
        with pytest.raises(RemoteError, match="no"):
            await calls.make(upstream(tasks), ABOUT, relay(), fails)
    waiting: list[BaseException] = []

    async def wait(tasks: anyio.abc.TaskGroup) -> None:
        try:
            await calls.make(upstream(tasks), ABOUT, relay(), asking_for_ever)
        except ClientClosed as exc:
            waiting.append(exc)

    async def asking_for_ever(_: Relay) -> dict[str, Any]:
        return await anyio.sleep_forever()

    async with anyio.create_task_group() as outer, anyio.create_task_group() as tasks:
        outer.start_soon(wait, tasks)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert len(waiting) == 1
    monkeypatch.setattr(held, "HELD_MAX", 0)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(Overloaded):
            await calls.make(upstream(tasks), ABOUT, relay(), asking)


@pytest.mark.parametrize("ends", [{"ok": True}, RemoteError("no", code=-7)])
async def test_who_comes_twice_is_answered_twice(
    autojump_clock: trio.testing.MockClock, ends: dict[str, Any] | RemoteError
) -> None:
    """As when something in between sends a request again."""
    go = anyio.Event()

    async def slow(relay: Relay) -> dict[str, Any]:
        assert relay.ask is not None
        await relay.ask("roots/list", {})
        await go.wait()
        if isinstance(ends, RemoteError):
            raise ends
        return ends

    calls = HeldCalls()
    found: list[dict[str, Any] | RemoteError] = []
    async with anyio.create_task_group() as tasks:
        state = (await calls.make(upstream(tasks), ABOUT, relay(), slow))["requestState"]

        async def come() -> None:
            again = relay(state, **{"request-1": {"roots": []}})
            try:
                found.append(await calls.make(upstream(tasks), ABOUT, again, slow))
            except RemoteError as exc:
                found.append(exc)

        tasks.start_soon(come)
        tasks.start_soon(come)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert len(found) == 2
    if isinstance(ends, RemoteError):
        assert found[0] is not found[1], "a traceback and notes are of one task"
        assert {type(one) for one in found} == {RemoteError}
    else:
        assert found == [ends, ends]


async def test_an_end_that_nobody_fetches_does_not_keep_a_server_from_being_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    calls = HeldCalls()
    async with open_client(desk()) as client:
        server = client._engine.upstream("desk")
        await client.connect("desk")

        async def late(relay: Relay) -> dict[str, Any]:
            assert relay.ask is not None
            with anyio.move_on_after(5):
                await relay.ask("roots/list", {})
            return {}

        await calls.make(server, ABOUT, relay(), late)
        await anyio.sleep(6)
        assert len(calls) == 1, "it has ended, and waits to be fetched"
        began = anyio.current_time()
        await client.disconnect("desk")
        assert anyio.current_time() - began < 1
    assert len(calls) == 0
