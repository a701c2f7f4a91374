"""The list of tools: one fetch for all who ask, kept while it may be, never for ever."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from sark_trio.client.servers import Memory
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    ConnectError,
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
    UnknownTool,
)
from sark_trio.mcp.paging import PAGES_MAX
from sark_trio.transports.memory import Incoming
from tests.support.client import Desk, answer, desk, hang, open_client, tool

pytestmark = pytest.mark.trio


async def test_a_list_is_kept_for_five_minutes_if_the_server_does_not_say(
    autojump_clock: MockClock,
) -> None:
    server = desk()
    async with open_client(server) as client:
        for after_s, lists in ((0, 1), (299, 1), (1, 2), (200, 2)):
            await trio.sleep(after_s)
            assert len(await client.list_tools("desk")) == 1
            assert server.lists == lists


@pytest.mark.security(33)
@pytest.mark.parametrize(
    ("ttl_ms", "kept_s"), [(1000, 1.0), (0, 0.0), (-5, 0.0), ("60000", 0.0), (10**15, 86_400.0)]
)
async def test_a_list_is_kept_for_as_long_as_the_server_says(
    autojump_clock: MockClock, ttl_ms: Any, kept_s: float
) -> None:
    server = desk(listing={"ttlMs": ttl_ms})
    async with open_client(server) as client:
        await client.list_tools("desk")
        if kept_s:
            await trio.sleep(kept_s - 0.5)
            await client.list_tools("desk")
            assert server.lists == 1
        await trio.sleep(0.5)
        await client.list_tools("desk")
        assert server.lists == 2


async def test_a_call_needs_a_definition_not_the_newest_list(autojump_clock: MockClock) -> None:
    server = desk(listing={"ttlMs": 0})
    async with open_client(server) as client:
        for _ in range(5):
            await client.invoke_tool("desk", "echo")
            await trio.sleep(10)
        assert server.lists == 1


async def test_many_askers_share_one_fetch(autojump_clock: MockClock) -> None:
    server = desk()
    async with open_client(server) as client, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(client.invoke_tool, "desk", "echo")
    assert server.lists == 1
    assert len(server.arrived) == 100


async def test_a_cancelled_asker_costs_the_others_nothing(autojump_clock: MockClock) -> None:
    async def slow(incoming: Incoming) -> Any:
        incoming.receive()
        await trio.sleep(5)
        return {"tools": [tool()]}

    server = desk(list_script=[slow])
    async with open_client(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.invoke_tool, "desk", "echo")
        with trio.move_on_after(1) as scope:
            await client.invoke_tool("desk", "echo")
        assert scope.cancelled_caught
    assert (server.lists, len(server.arrived)) == (1, 1)


async def test_a_fetch_that_nobody_waits_for_is_given_up(autojump_clock: MockClock) -> None:
    gave_up = trio.Event()

    async def endless(incoming: Incoming) -> Any:
        incoming.receive()
        try:
            await trio.sleep_forever()
        finally:
            gave_up.set()

    server = desk(list_script=[endless])
    async with open_client(server) as client:
        with trio.move_on_after(1):
            await client.invoke_tool("desk", "echo")
        await trio.testing.wait_all_tasks_blocked()
        assert gave_up.is_set()
        assert client.statistics().servers["desk"].breaker.neutral == 1
        await client.invoke_tool("desk", "echo")
    assert server.lists == 2


async def test_a_fetch_ends_and_does_not_poison_the_next(autojump_clock: MockClock) -> None:
    server = desk(list_script=[hang])
    async with open_client(server) as client:
        began = trio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await client.list_tools("desk")
        assert trio.current_time() - began == pytest.approx(30)
        assert client.statistics().servers["desk"].breaker.failures == 1
        assert caught.value.server == "desk"
        assert len(await client.list_tools("desk")) == 1


async def test_who_joins_a_fetch_late_has_time_of_their_own(autojump_clock: MockClock) -> None:
    server = desk(list_script=[hang])
    async with open_client(server) as client, trio.open_nursery() as tasks:

        async def early() -> None:
            with pytest.raises(CallTimeout, match="no list of tools within 30 s"):
                await client.list_tools("desk")
            assert trio.current_time() - began == pytest.approx(30)

        began = trio.current_time()
        tasks.start_soon(early)
        await trio.sleep(29)
        assert len(await client.list_tools("desk")) == 1
        assert trio.current_time() - began == pytest.approx(30)
        assert server.lists == 2


async def test_a_failed_fetch_fails_all_who_wait_and_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    failure = RemoteError("broken", code=-32603)  # an answer: asking again would not mend it
    server = desk(list_script=[failure])
    found: list[GatewayError] = []
    async with open_client(server) as client:

        async def ask() -> None:
            with pytest.raises(RemoteError) as caught:
                await client.invoke_tool("desk", "echo")
            found.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert server.lists == 1
        assert len({id(each) for each in found}) == 3
        assert all(each.__cause__ is failure for each in found)
        assert all(each.delivery == "not_sent" for each in found)
        await client.invoke_tool("desk", "echo")
    assert server.lists == 2


async def test_a_list_that_was_not_answered_is_asked_for_again(autojump_clock: MockClock) -> None:
    server = desk(list_script=[ConnectError("refused"), ServerDisconnected("gone")])
    async with open_client(server) as client:
        began = trio.current_time()
        await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began == 3  # the schedule's 1 s and 2 s
    assert server.lists == 3


@pytest.mark.row(33)
async def test_a_storm_of_changes_is_one_fetch_at_a_time(autojump_clock: MockClock) -> None:
    under_way = most = 0

    async def slowly(incoming: Incoming) -> Any:
        nonlocal under_way, most
        incoming.receive()
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(0.1)
        under_way -= 1
        incoming.announce("notifications/tools/list_changed")
        return {"tools": server.tools}

    server = desk(list_script=[slowly] * 50)
    async with open_client(server) as client, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(client.list_tools, "desk")
            if number % 10 == 0:
                await trio.sleep(0.05)
    assert most == 1
    assert server.lists <= 7


@pytest.mark.security(25)
async def test_a_list_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    async def page(incoming: Incoming) -> Any:
        incoming.receive()
        listed = [tool(f"t{server.lists}-{n}", description="x" * 4000) for n in range(1000)]
        return {"tools": listed, "nextCursor": str(server.lists)}

    server = desk(list_script=[page] * 100)
    async with open_client(server) as client:
        with pytest.raises(MessageTooLarge, match="list of tools"):
            await client.list_tools("desk")
    assert server.lists <= 5


async def test_an_embedded_servers_own_failure_is_its_answer(autojump_clock: MockClock) -> None:
    server = desk(KeyError("oops"), list_script=[KeyError("oops")])
    async with open_client(server) as client:
        for ask in (client.list_tools("desk"), client.invoke_tool("desk", "echo")):
            with pytest.raises(RemoteError, match="the server failed: KeyError"):
                await ask
        assert (await client.invoke_tool("desk", "echo")).text == "done"


async def test_a_change_of_the_tools_is_heeded(autojump_clock: MockClock) -> None:
    async def change(incoming: Incoming) -> Any:
        incoming.receive()
        server.tools = [tool("renamed")]
        incoming.announce("notifications/tools/list_changed")
        return answer()

    server = desk(change)
    async with open_client(server) as client:
        await client.invoke_tool("desk", "echo")
        with pytest.raises(UnknownTool):
            await client.invoke_tool("desk", "echo")
        assert (await client.invoke_tool("desk", "renamed")).text == "done"
    assert server.lists == 2


async def test_a_list_that_changed_while_it_was_fetched_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    async def late(incoming: Incoming) -> Any:
        incoming.receive()
        incoming.announce("notifications/tools/list_changed")
        await trio.sleep(1)
        return {"tools": [tool("old")]}

    server = desk(list_script=[late])
    async with open_client(server) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.list_tools, "desk")
        await trio.testing.wait_all_tasks_blocked()
        # Whoever asks after the change gets a fetch of his own, though one is under way.
        assert [one.tool_name for one in await client.list_tools("desk")] == ["echo"]
        await trio.sleep(2)
        assert [one.tool_name for one in await client.list_tools("desk")] == ["echo"]
    assert server.lists == 2


async def test_an_unknown_name_is_looked_for_anew_but_not_all_the_time(
    autojump_clock: MockClock,
) -> None:
    server = desk()
    async with open_client(server) as client:
        await client.invoke_tool("desk", "echo")
        for _ in range(10):
            with pytest.raises(UnknownTool):
                await client.invoke_tool("desk", "late")
        assert server.lists == 1
        await trio.sleep(2)
        server.tools = [tool(), tool("late")]
        await client.invoke_tool("desk", "late")
    assert server.lists == 2


# -- pages ----------------------------------------------------------------------------------------


def paged(*cursors: str | None) -> Desk:
    """A server of as many pages of one tool, each naming the next by the given cursor."""
    asked: list[str | None] = []

    def page(number: int, cursor: str | None) -> Any:
        async def give(incoming: Incoming) -> Any:
            asked.append(incoming.receive().get("cursor"))
            more = {} if cursor is None else {"nextCursor": cursor}
            return {"tools": [tool(f"tool-{number}")], **more}

        return give

    server = desk(list_script=[page(number, cursor) for number, cursor in enumerate(cursors)])
    server.journal = asked  # type: ignore[assignment]
    return server


@pytest.mark.fault(29)
async def test_all_pages_are_one_list(autojump_clock: MockClock) -> None:
    server = paged("a", "b", "", None)
    async with open_client(server) as client:
        found = await client.list_tools("desk")
    assert [one.tool_name for one in found] == [f"tool-{n}" for n in range(server.lists)]
    assert list(server.journal)[:3] == [None, "a", "b"]


@pytest.mark.fault(29)
@pytest.mark.parametrize("cursors", [("a", "a"), ("a", "b", "a")])
async def test_a_list_that_runs_in_a_circle_is_an_error(
    autojump_clock: MockClock, cursors: tuple[str, ...]
) -> None:
    async with open_client(paged(*cursors)) as client:
        with pytest.raises(ProtocolError, match="repeats a cursor"):
            await client.list_tools("desk")


@pytest.mark.fault(29)
async def test_a_list_without_end_is_an_error(autojump_clock: MockClock) -> None:
    server = paged(*(f"c{number}" for number in range(PAGES_MAX + 5)))
    async with open_client(server) as client:
        with pytest.raises(ProtocolError, match="does not end"):
            await client.list_tools("desk")
    assert server.lists == PAGES_MAX


async def test_more_than_a_thousand_tools_are_no_trouble(autojump_clock: MockClock) -> None:
    server = desk(tools=[tool(f"tool-{number}") for number in range(2_500)])
    async with open_client(server) as client:
        assert len(await client.list_tools("desk")) == 2_500


@pytest.mark.row(62)
async def test_a_bad_tool_costs_itself_and_says_why_when_it_is_called(
    autojump_clock: MockClock,
) -> None:
    server = desk(tools=[tool(), {"name": "odd", "inputSchema": []}])
    async with open_client(server) as client:
        assert [one.tool_name for one in await client.list_tools()] == ["echo"]
        with pytest.raises(UnknownTool, match="was rejected"):
            await client.invoke_tool("desk", "odd")


@pytest.mark.parametrize(
    "page", [{}, {"tools": None}, {"tools": {}}, {"tools": [], "nextCursor": 5}]
)
async def test_a_page_that_is_none_is_an_error_and_not_kept(
    autojump_clock: MockClock, page: dict[str, Any]
) -> None:
    server = desk(list_script=[page])
    async with open_client(server) as client:
        with pytest.raises(ProtocolError):
            await client.invoke_tool("desk", "echo")
        assert client.statistics().servers["desk"].state == "running"
        await client.invoke_tool("desk", "echo")


async def test_after_a_disconnection_every_call_says_so_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_client(desk()) as client:
        await client.disconnect("desk")
        for _ in range(2):
            began = trio.current_time()
            with pytest.raises(ClientClosed, match="not connected"):
                await client.invoke_tool("desk", "echo")
            assert trio.current_time() == began


async def test_one_silent_server_costs_its_own_tools_and_is_named(
    autojump_clock: MockClock,
) -> None:
    async with open_client(desk(list_script=[hang]), timeout_s=4.0) as client:
        await client.add_server("well", Memory(desk()))
        found = await client.list_tools()
        assert trio.current_time() == pytest.approx(4.0)
    assert [one.server_name for one in found] == ["well"]
    assert isinstance(found.failures["desk"], CallTimeout)
    assert found[0].tool_name == "echo"
    assert found[:1] == found.tools


async def test_asking_one_server_has_a_deadline_too(autojump_clock: MockClock) -> None:
    async with open_client(desk(list_script=[hang]), timeout_s=4.0) as client:
        with pytest.raises(CallTimeout):
            await client.list_tools("desk")
        assert anyio.current_time() <= 30.0
