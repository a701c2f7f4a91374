"""Event streams on every event loop: what is handed out, also if cancelled, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sark_trio.errors import (
    ClientClosed,
    Denied,
    GatewayError,
    HTTPStatusError,
    InvalidArguments,
    MessageTooLarge,
    Overloaded,
    ProtocolError,
    ServerDisconnected,
    UsageError,
)
from sark_trio.machines.reconnect import Phase, ReconnectOptions
from sark_trio.machines.slots import PoolOptions
from sark_trio.net.connection import Request
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.url import Origin
from sark_trio.transports._events_feed import Feed, Source
from sark_trio.transports.events import EventStreams, EventStreamStatistics, ServerEvent
from tests.support.event_servers import (
    BASE,
    MemoryNetwork,
    answering,
    block,
    data_of,
    memory_streams,
    open_streams,
    refusing,
    saying,
    take,
)
from tests.support.http_servers import (
    SSE_HEAD,
    Peer,
    chunk,
    no_leaked_descriptors,
    response,
    serve,
)

pytestmark = pytest.mark.anyio

#: Reconnect at once: what these tests are about is not when.
SOON = "retry: 0\n\n"


# What is handed out.


async def test_an_event_is_what_the_server_said() -> None:
    said = saying("retry: 2500\n\n" + block('{"tool_name": "q"}', kind="tool_invoked", id="7"))
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        event = await anext(events)
    assert event == ServerEvent("tool_invoked", '{"tool_name": "q"}', "7", 2500)
    assert event.json() == {"tool_name": "q"}


async def test_what_was_not_said_is_absent() -> None:
    async with memory_streams(saying(block("hello"))) as (streams, _), streams.stream() as events:
        event = await anext(events)
    assert event == ServerEvent("message", "hello", None, None)
    with pytest.raises(ProtocolError, match="'message'"):
        event.json()


async def test_the_request_is_that_of_an_event_stream() -> None:
    async with (
        memory_streams(saying(), url=f"{BASE}/base/", api_key="k") as (streams, network),
        streams.stream("/api/v1/events?since=1", user_token="t", last_event_id="41"),
    ):
        pass
    (request,) = network.requests
    assert (request.method, request.target) == ("GET", "/base/api/v1/events?since=1")
    assert request.headers == {
        "host": "gateway.test",
        "accept": "text/event-stream",
        "cache-control": "no-cache",
        "x-api-key": "k",
        "authorization": "Bearer t",
        "last-event-id": "41",
    }


async def test_without_credentials_none_are_sent() -> None:
    async with memory_streams(saying()) as (streams, network), streams.stream():
        pass
    assert set(network.requests[0].headers) == {"host", "accept", "cache-control"}


async def test_types_are_filtered_here_and_their_ids_count() -> None:
    said = [block(str(n), kind="ab"[n % 2], id=str(n)) for n in range(6)]
    scripts = saying(SOON, *said[:4], then="end"), saying(*said[4:])
    async with memory_streams(*scripts) as (streams, network):
        async with streams.stream(event_types={"a"}) as events:
            assert data_of(await take(events, 3)) == ["0", "2", "4"]
            while events.statistics().filtered < 3:
                await anyio.lowlevel.checkpoint()
            # Where it goes on from is after all that came, wanted or not.
            assert events.last_event_id == "5"
        assert network.resumed_from == [None, "3"]


async def test_no_type_is_nothing() -> None:
    said = saying(SOON, block("a", id="1"), then="end"), answering("204 No Content")
    async with memory_streams(*said) as (streams, _), streams.stream(event_types=[]) as events:
        with pytest.raises(HTTPStatusError):
            await anext(events)
        assert events.statistics().filtered == 1


async def test_untyped_events_are_messages() -> None:
    said = saying(block("a", kind="x"), block("b"))
    async with (
        memory_streams(said) as (streams, _),
        streams.stream(event_types=["message"]) as events,
    ):
        assert data_of(await take(events, 1)) == ["b"]


async def test_events_of_a_type_may_say_nothing_more() -> None:
    said = saying(block("", kind="ping"), block(""), block("a"))
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        found = await take(events, 2)
    assert [(event.event_type, event.data) for event in found] == [("ping", ""), ("message", "a")]


async def test_a_block_with_an_id_alone_moves_the_position() -> None:
    first = saying(SOON + block("a", id="1") + block(id="2"), then="end")
    async with memory_streams(first, saying(block("b", id="3"))) as (streams, network):
        async with streams.stream() as events:
            assert data_of(await take(events, 2)) == ["a", "b"]
        assert network.resumed_from == [None, "2"]


async def test_a_stream_that_ends_is_over_where_it_is_not_to_be_reconnected() -> None:
    async with memory_streams(saying(block("a"), block("b"), then="end")) as (streams, network):
        async with streams.stream(reconnects_max=0) as events:
            assert [event.data async for event in events] == ["a", "b"]
            assert events.state == "closed"
            assert [event async for event in events] == []
        assert len(network.times) == 1


@pytest.mark.row(21)
@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_pieces_of_a_response_make_no_difference(cut: int) -> None:
    whole = b"id: 1\r\ndata: \xc3\xa4\r\n\r\nid: 2\rdata: b\r\rdata: c\n\n"
    said = saying(*[whole[n : n + cut] for n in range(0, len(whole), cut)])
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        found = await take(events, 3)
    assert [(event.event_id, event.data) for event in found] == [("1", "ä"), ("2", "b"), ("2", "c")]


# A reader of its own pace.


async def test_no_more_is_read_than_the_reader_takes() -> None:
    sent = 0

    async def eager(peer: Peer) -> None:
        nonlocal sent
        await peer.receive()
        await peer.send(SSE_HEAD)
        while True:
            await peer.send(chunk(block("x" * 1000, id=str(sent)).encode()))
            sent += 1

    async with memory_streams(eager) as (streams, _), streams.stream() as events:
        await anyio.wait_all_tasks_blocked()
        # One that is read, and what the network holds.
        assert sent <= 6
        assert events.statistics().waiting == 1
        await take(events, 100)
        await anyio.wait_all_tasks_blocked()
        assert 100 < sent <= 106


async def test_events_that_nobody_wants_do_not_wait_for_a_reader() -> None:
    said = [block(str(n), kind="noise", id=str(n)) for n in range(50)]
    async with (
        memory_streams(saying(*said)) as (streams, _),
        streams.stream(event_types=["news"]) as events,
    ):
        await anyio.wait_all_tasks_blocked()
        assert events.statistics().filtered == 50
        assert events.last_event_id == "49"


async def test_only_one_task_waits_for_events() -> None:
    async with (
        memory_streams(saying()) as (streams, _),
        streams.stream() as events,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anext, events)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(UsageError, match="two tasks"):
            await anext(events)
        group.cancel_scope.cancel()


async def steps(number: int) -> None:
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


async def cancelled_after(number: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run *work*, cancelled after so many steps of the scheduler."""
    async with anyio.create_task_group() as group:

        async def cancel() -> None:
            await steps(number)
            group.cancel_scope.cancel()

        group.start_soon(cancel)
        await work()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("first", range(6))
async def test_a_reader_that_is_cancelled_loses_nothing(first: int) -> None:
    """Whoever is cancelled while it waits for an event has not taken it."""
    said = [block(str(n), id=str(n)) for n in range(30)]
    scripts = saying(SOON, *said[:10], "".join(said[10:17]), then="cut"), saying(*said[17:])
    got: list[str] = []
    async with memory_streams(*scripts) as (streams, network), streams.stream() as events:

        async def read() -> None:
            while len(got) < 30:
                got.append((await anext(events)).data)

        after = count(first)
        while len(got) < 30:
            await cancelled_after(next(after) % 13, read)
            assert events.last_event_id == (got[-1] if got else None)
        assert got == [str(n) for n in range(30)]
        assert network.resumed_from == [None, "16"]


@pytest.mark.parametrize("after", range(45))
async def test_whenever_its_owner_is_cancelled_nothing_is_left(after: int) -> None:
    """Dialling, asking, reading, handing over, reconnecting: no socket, no task, no slot stays."""
    scripts = (
        refusing,
        saying(SOON, block("a", id="1"), block("b", id="2") + block("c", id="3"), then="end"),
        saying(block("d", id="4"), then="cut"),
        saying(block("e", id="5")),
    )
    with no_leaked_descriptors():
        async with serve(*scripts) as server, open_streams(server.url) as streams:

            async def work() -> None:
                async with streams.stream() as events:
                    await take(events, 5)

            await cancelled_after(after, work)
            assert streams.statistics().active_streams == 0
            assert streams.pool.statistics().streams == 0
            assert streams.pool.statistics().leased == 0


@pytest.mark.parametrize("wanted", [None, ()])
async def test_a_flood_can_be_closed(wanted: tuple[str, ...] | None) -> None:
    """There is always more to read, so that reading never waits."""

    async def flood(peer: Peer) -> None:
        await peer.receive()
        await peer.send(SSE_HEAD)
        while True:
            await peer.send(chunk(block("x" * 10_000).encode() * 100))

    async with serve(flood) as server, open_streams(server.url) as streams:
        events = await streams.stream(event_types=wanted).__aenter__()
        for _ in range(200):
            await (anyio.lowlevel.checkpoint() if wanted == () else anext(events))
        await events.aclose()
        assert streams.statistics().active_streams == 0
        assert streams.pool.statistics().leased == 0


async def test_closing_from_another_task_ends_the_loop() -> None:
    async with memory_streams(saying(block("a") + block("b"))) as (streams, network):
        events = await streams.stream().__aenter__()
        got = [(await anext(events)).data]

        async def read() -> None:
            got.extend([event.data async for event in events])
            got.append("end")

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(events.aclose)
            await events.aclose()
        assert got == ["a", "b", "end"]
        assert events.state == "closed"
        await anyio.wait_all_tasks_blocked()
        assert network.open == set()


async def test_what_was_not_taken_when_it_was_closed_is_dropped() -> None:
    async with memory_streams(saying(block("a", id="1") + block("b", id="2"))) as (streams, _):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
        assert [event async for event in events] == []
        assert events.last_event_id == "1"


async def test_closed_before_it_was_entered_it_never_connects() -> None:
    async with memory_streams(saying()) as (streams, network):
        events = streams.stream()
        assert events.state == "disconnected"
        await events.aclose()
        async with events:
            assert [event async for event in events] == []
        assert network.times == []


async def test_a_stream_is_entered_once() -> None:
    async with memory_streams(saying()) as (streams, _):
        async with streams.stream() as events:
            with pytest.raises(UsageError, match="once"):
                await events.__aenter__()
        assert repr(events) == f"<EventStream closed {BASE}/api/v1/events>"


async def test_breaking_off_and_going_on() -> None:
    async with (
        memory_streams(saying(*[block(str(n)) for n in range(4)])) as (streams, _),
        streams.stream() as events,
    ):
        async for event in events:
            if event.data == "1":
                break
        assert (await anext(events)).data == "2"


# What is refused.


@pytest.mark.row(22)
@pytest.mark.parametrize("size", [1024 * 1024 - 6, 1024 * 1024 + 1])
async def test_an_event_is_a_mebibyte_at_most(size: int) -> None:
    large = [b"x" * 60_000] * (size // 60_000) + [b"x" * (size % 60_000)]
    said = saying(block("a") + block("b"), b"data: ", *large, b"\n\n", block("c"))
    async with memory_streams(said) as (streams, network), streams.stream() as events:
        assert data_of(await take(events, 2)) == ["a", "b"]
        if size < 1024 * 1024:
            assert len((await anext(events)).data) == size
            assert (await anext(events)).data == "c"
            return
        with pytest.raises(MessageTooLarge) as caught:
            await anext(events)
        assert caught.value.limit_bytes == 1024 * 1024
        assert len(network.times) == 1


async def test_events_before_one_that_is_too_large_are_handed_out() -> None:
    said = saying(block("a") + block("b") + f"id: {'x' * 1025}\n\n")
    async with memory_streams(said) as (streams, _), streams.stream() as events:
        assert data_of(await take(events, 2)) == ["a", "b"]
        with pytest.raises(MessageTooLarge, match="an id of more than 1024 bytes"):
            await anext(events)


async def test_an_id_that_no_header_can_carry_is_told_when_it_matters() -> None:
    async with memory_streams(saying(SOON, block("a", id="ä"), then="end")) as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).event_id == "ä"
            with pytest.raises(ProtocolError, match="not visible ASCII"):
                await anext(events)
        assert len(network.requests) == 1


@pytest.mark.row(14)
@pytest.mark.parametrize(
    ("content_type", "shown"), [("text/html; charset=utf-8", "text/html"), ("", "none")]
)
async def test_what_is_no_event_stream_is_none(content_type: str, shown: str) -> None:
    async with memory_streams(answering("200 OK", content_type)) as (streams, network):
        with pytest.raises(ProtocolError, match=shown) as caught:
            await streams.stream().__aenter__()
        assert caught.value.delivery == "answered"
        assert len(network.times) == 1


@pytest.mark.row(11)
async def test_a_peer_that_speaks_no_http_is_not_asked_again() -> None:
    async def talkative(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"SSH-2.0-OpenSSH_9.9\r\n")

    async with memory_streams(talkative) as (streams, network):
        with pytest.raises(ProtocolError):
            await streams.stream().__aenter__()
        assert len(network.times) == 1


def moved(*locations: str | None, status: str = "307 Temporary Redirect") -> Any:
    """A gateway that sends on to each location in turn, and then has events."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        hops = len(peer.server.requests) - 1
        if hops < len(locations):
            location = locations[hops]
            more = {} if location is None else {"Location": location}
            await peer.send(response(status=status, **more))
        else:
            await peer.send(SSE_HEAD + chunk(block("here").encode()))
            await peer.wait_closed()

    return script


@pytest.mark.row(14)
@pytest.mark.parametrize("status", ["301 Moved Permanently", "308 Permanent Redirect"])
async def test_redirects_within_the_origin_are_followed(status: str) -> None:
    script = moved("/a", f"{BASE}/b", status=status)
    async with memory_streams(script, api_key="k") as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).data == "here"
        assert [each.target for each in network.requests] == ["/api/v1/events", "/a", "/b"]
        assert {each.headers["x-api-key"] for each in network.requests} == {"k"}


@pytest.mark.security(6)
@pytest.mark.row(14)
@pytest.mark.parametrize(
    ("locations", "problem"),
    [
        (["https://gateway.test/"], "leads from"),
        (["http://elsewhere.test/"], "leads from"),
        ([None], "without a Location"),
        (["/a"] * 4, "more than 3"),
    ],
)
async def test_no_other_redirect_is(locations: list[str | None], problem: str) -> None:
    async with memory_streams(moved(*locations), api_key="k") as (streams, network):
        with pytest.raises(ProtocolError, match=problem):
            await streams.stream().__aenter__()
        assert {each.headers["host"] for each in network.requests} == {"gateway.test"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://elsewhere.test/api/v1/events",
        "https://gateway.test/api/v1/events",
        "http://gateway.test:8080/events",
        "events",
        "//elsewhere.test/events",
        "/a/../../admin",
        "/a/%2e%2E/admin",
        "/a#b",
        "/a b",
        "",
    ],
)
async def test_an_endpoint_is_the_gateways(endpoint: str) -> None:
    async with memory_streams(saying(), url=f"{BASE}/base") as (streams, network):
        if endpoint.startswith("//"):
            # A path, and nothing but a path: it names no host.
            async with streams.stream(endpoint):
                assert network.requests[0].target == f"/base{endpoint}"
            return
        with pytest.raises(InvalidArguments, match="endpoint"):
            streams.stream(endpoint)
        assert network.times == []


async def test_an_endpoint_may_be_a_whole_url() -> None:
    async with (
        memory_streams(saying(), url=f"{BASE}/base") as (streams, network),
        streams.stream("http://GATEWAY.test:80/other/events"),
    ):
        assert network.requests[0].target == "/other/events"


@pytest.mark.parametrize(
    "options",
    [
        {"event_types": "tool_invoked"},
        {"last_event_id": "ä"},
        {"last_event_id": ""},
        {"last_event_id": "a\r\nb"},
        {"reconnects_max": -1},
        {"idle_s": 0},
        {"idle_s": "60"},
    ],
)
async def test_an_argument_that_cannot_be_is_told_at_once(options: dict[str, Any]) -> None:
    async with memory_streams(saying()) as (streams, _):
        with pytest.raises(UsageError):
            streams.stream(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://gateway.test"},
        {"url": "http://gateway.test/?a=b"},
        {"api_key": "k\r\nX-Admin: 1"},
        {"api_key": ""},
        {"streams_max": 21},
        {"streams_max": 0},
    ],
)
async def test_an_option_that_cannot_be_is_told_at_once(options: dict[str, Any]) -> None:
    pool = ConnectionPool(backend=AnyIOBackend())
    with pytest.raises(ValueError, match=r"URL|api_key|streams_max"):
        EventStreams(**{"url": BASE, "pool": pool, "tasks": anyio.create_task_group, **options})


async def test_a_token_that_cannot_be_sent_is_not_sent() -> None:
    async with memory_streams(saying()) as (streams, network):
        with pytest.raises(InvalidArguments) as caught:
            await streams.stream(user_token="to\r\nken").__aenter__()
        assert "ken" not in str(caught.value).replace("token", "")
        assert network.requests == []


async def test_no_token_no_request() -> None:
    async def lost() -> str:
        raise LookupError("s3cret")

    async def denied() -> str:
        raise Denied("not for you", reason="consent")

    async with memory_streams(saying()) as (streams, network):
        with pytest.raises(Denied, match="LookupError") as caught:
            await streams.stream(user_token=lost).__aenter__()
        assert caught.value.reason == "no_credentials"
        assert "s3cret" not in str(caught.value)
        with pytest.raises(Denied, match="not for you"):
            await streams.stream(user_token=denied).__aenter__()
        assert network.requests == []


async def test_secrets_are_in_no_repr() -> None:
    async with (
        memory_streams(saying(), api_key="s3cret") as (streams, _),
        streams.stream("/e?key=s3cret", user_token="s3cret") as events,
    ):
        assert "s3cret" not in f"{streams!r} {events!r} {streams._wire!r}"


async def test_a_gateway_that_is_closed_takes_no_streams() -> None:
    def closed() -> Any:
        raise ClientClosed("the client is closed")

    async with memory_streams(saying(), tasks=closed) as (streams, network):
        with pytest.raises(ClientClosed):
            await streams.stream().__aenter__()
        assert network.times == []


# Many.


@pytest.mark.parametrize("back", [True, False])
async def test_a_connection_that_the_gateway_closed_meanwhile_is_replaced_at_once(
    back: bool,
) -> None:
    async def once(peer: Peer) -> None:
        await peer.receive()
        await peer.send(response(b"ok"))
        await peer.receive()  # and closes, though it was asked

    async with memory_streams(once, saying(block("a")) if back else refusing) as (streams, network):
        origin = Origin("http", "gateway.test", 80)
        with await streams.pool.lease(origin) as lease:
            await lease.connection.send(Request(b"GET", b"/", ((b"Host", b"x"),)))
            await lease.connection.read_body(10)
        events = streams.stream(reconnects_max=0)
        if back:
            async with events:
                assert (await anext(events)).data == "a"
        else:
            with pytest.raises(ServerDisconnected):
                await events.__aenter__()
        assert events.statistics().errors == (0 if back else 1)
        assert len(network.times) == 2
        assert streams.pool.statistics().leased == 0


async def test_streams_beyond_the_limit_are_refused() -> None:
    async with memory_streams(saying(), streams_max=2) as (streams, network):
        first = streams.stream()
        async with first, streams.stream():
            with pytest.raises(Overloaded) as caught:
                await streams.stream().__aenter__()
            assert (caught.value.reason, caught.value.delivery) == ("streams_full", "not_sent")
            await first.aclose()
            async with streams.stream():
                assert streams.statistics().active_streams == 2
        assert len(network.times) == 3


async def test_calls_keep_their_share_of_the_connections() -> None:
    limits = PoolOptions(total=3, per_origin=3)
    async with (
        memory_streams(saying(), limits=limits) as (streams, _),
        streams.stream(),
        streams.stream(),
    ):
        with pytest.raises(Overloaded, match="too many event streams"):
            await streams.stream().__aenter__()


async def test_statistics_are_of_all_streams_and_of_each() -> None:
    scripts = saying(SOON, block("a", id="1"), then="end"), saying(block("b", id="2"))
    async with memory_streams(*scripts) as (streams, _):
        assert streams.statistics().state is Phase.DISCONNECTED
        async with streams.stream() as events:
            await take(events, 2)
            everything = streams.statistics()
            assert everything.streams == (events.statistics(),)
            assert events.statistics() == EventStreamStatistics(
                state=Phase.CONNECTED,
                last_event_id="2",
                events_received=2,
                duplicates=0,
                filtered=0,
                waiting=0,
                connections_made=2,
                reconnections=1,
                errors=0,
            )
        async with streams.stream() as again:
            assert (await anext(again)).data == "b"
        everything = streams.statistics()
        assert (everything.state, everything.active_streams) == (Phase.DISCONNECTED, 0)
        assert everything.max_streams == 20
        assert (everything.events_received, everything.connections_made) == (3, 3)
        assert (everything.reconnections, everything.errors) == (1, 0)
        assert (everything.last_event_id, everything.streams) == ("2", ())
        assert repr(streams) == f"<EventStreams {BASE} 0/20>"


# The driver by itself, as a session of MCP's uses it.


@pytest.mark.row(18)
async def test_a_lost_session_is_renewed_and_begins_anew() -> None:
    renewed: list[str] = []
    scripts = (
        saying(SOON, block("a", id="1"), then="end"),
        answering("404 Not Found"),
        saying(block("b", id="1")),
    )
    async with anyio.create_task_group() as group:
        network = MemoryNetwork(scripts, group)
        async with open_streams(backend=network) as streams:

            async def renew() -> None:
                renewed.append("session")

            async def open_(last_event_id: str | None) -> Any:
                url = streams._wire.target("/mcp")
                return await streams._wire.open(url, None, last_event_id)

            feed = Feed(
                Source(name="mcp", open=open_, renew=renew), ReconnectOptions(sessions=True)
            )
            group.start_soon(feed.run)
            await feed.connected()
            found = [await feed.receive() for _ in range(2)]
            assert [event and event.text for event in found] == ["a", "b"]
            assert repr(feed) == "<Feed mcp connected waiting=0>"
            feed.close()
            assert await feed.receive() is None
        group.cancel_scope.cancel()
    assert renewed == ["session"]
    assert network.resumed_from == [None, "1", None]


async def test_a_lost_session_that_nobody_renews_is_the_end() -> None:
    async with memory_streams(answering("404 Not Found")) as (streams, _):
        source = Source(
            name="mcp", open=lambda _: streams._wire.open(streams._wire.base, None, None)
        )
        feed = Feed(source, ReconnectOptions(sessions=True))
        await feed.run()
        with pytest.raises(HTTPStatusError) as caught:
            await feed.connected()
        assert isinstance(caught.value, GatewayError)
        assert caught.value.status == 404
