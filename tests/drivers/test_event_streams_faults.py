"""What the original's client of event streams did, and this one does not: faults 32 to 38."""

from __future__ import annotations

import anyio
import pytest

from sark_trio.errors import HTTPStatusError, Overloaded, ProtocolError, ServerDisconnected
from tests.support.event_servers import (
    answering,
    block,
    data_of,
    memory_streams,
    saying,
    take,
)

pytestmark = pytest.mark.anyio

SOON = "retry: 0\n\n"


@pytest.mark.fault(32)
async def test_keep_alives_are_no_events() -> None:
    said = saying(": ping\n\n", "\n\n\n", block(kind="tool_invoked"), ":\n\n", block("a"))
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        assert (await anext(events)).data == "a"
        assert events.statistics().events_received == 1


@pytest.mark.row(21)
@pytest.mark.fault(33)
async def test_fields_are_read_as_the_standard_says() -> None:
    said = saying(
        "\ufeffdata:   two spaces are left\n\n",
        "data:\ndata: after an empty line\n\n",
        "data\ndata\n\n",
        "data:no space\ndata : no field\n\n",
    )
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        assert data_of(await take(events, 4)) == [
            "  two spaces are left",
            "\nafter an empty line",
            "\n",
            "no space",
        ]


@pytest.mark.row(21)
@pytest.mark.fault(34)
async def test_an_event_that_was_cut_off_comes_again() -> None:
    first = saying(SOON + block("a", id="1") + "id: 2\ndata: b", then="cut")
    async with memory_streams(first, saying(block("b", id="2"))) as (streams, network):
        async with streams.stream() as events:
            assert data_of(await take(events, 2)) == ["a", "b"]
        assert network.resumed_from == [None, "1"]


@pytest.mark.fault(34)
async def test_an_event_that_was_not_taken_is_not_skipped() -> None:
    said = saying(block("a", id="1") + block("b", id="2") + block("c", id="3"))
    async with memory_streams(said) as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
            last_event_id = events.last_event_id
        async with streams.stream(last_event_id=last_event_id):
            pass
        assert network.resumed_from == [None, "1"]


@pytest.mark.fault(34)
async def test_each_stream_goes_on_from_its_own_event() -> None:
    ends = [saying(SOON, block(name, id=name), then="end") for name in "ab"]
    async with memory_streams(*ends, saying(block("more"))) as (streams, network):
        async with streams.stream("/a") as first, streams.stream("/b") as second:
            for events in (first, second):
                await take(events, 2)
        resumed = {each.target: each.headers.get("last-event-id") for each in network.requests[2:]}
        assert resumed == {"/a": "a", "/b": "b"}


@pytest.mark.row(21)
@pytest.mark.fault(35)
async def test_only_the_standards_line_ends_end_lines() -> None:
    odd = "a\u2028b\u2029c\x0bd\x0ce\x85f\x1cg"
    async with memory_streams(saying(block(odd))) as (streams, _), streams.stream() as events:
        assert (await anext(events)).data == odd


@pytest.mark.fault(36)
async def test_an_end_is_the_end_where_reconnections_are_off() -> None:
    async with memory_streams(saying(block("a"), then="end")) as (streams, network):
        async with streams.stream(reconnects_max=0) as events:
            assert data_of([event async for event in events]) == ["a"]
        assert len(network.times) == 1


@pytest.mark.row(20)
@pytest.mark.fault(36)
async def test_a_gateway_that_accepts_and_closes_is_given_up() -> None:
    async with memory_streams(saying(SOON, then="end")) as (streams, network):
        async with streams.stream(reconnects_max=2) as events:
            with pytest.raises(ServerDisconnected):
                await anext(events)
        assert len(network.times) == 3


@pytest.mark.fault(36)
async def test_no_content_means_do_not_come_back() -> None:
    scripts = saying(SOON, block("a"), then="end"), answering("204 No Content")
    async with memory_streams(*scripts) as (streams, network), streams.stream() as events:
        assert (await anext(events)).data == "a"
        with pytest.raises(HTTPStatusError) as caught:
            await anext(events)
        assert caught.value.status == 204
        assert len(network.times) == 2


@pytest.mark.fault(37)
async def test_two_streams_of_one_endpoint_are_two() -> None:
    async with memory_streams(saying(), streams_max=2) as (streams, _), streams.stream("/e"):
        async with streams.stream("/e"):
            assert streams.statistics().active_streams == 2
            with pytest.raises(Overloaded):
                await streams.stream("/other").__aenter__()
        # The one that ended makes room for one, and not for two.
        assert streams.statistics().active_streams == 1
        async with streams.stream("/e"):
            with pytest.raises(Overloaded):
                await streams.stream("/e").__aenter__()


@pytest.mark.fault(38)
async def test_a_page_is_not_read_as_events() -> None:
    async with memory_streams(answering("200 OK", "text/html")) as (streams, _):
        with pytest.raises(ProtocolError, match="text/html"):
            await streams.stream().__aenter__()


@pytest.mark.fault(38)
async def test_leaving_the_loop_closes_the_connection_then_and_there() -> None:
    async with memory_streams(saying(block("a"), block("b"))) as (streams, network):
        async with streams.stream() as events:
            async for _ in events:
                break
        assert streams.pool.statistics().streams == 0
        await anyio.wait_all_tasks_blocked()
        assert network.open == set()
