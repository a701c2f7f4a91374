"""The ten subjects of event streams, each through a client and over a real socket.

Streaming, filtering by type, automatic reconnection, connection state, tracking of the last event
id, health and statistics, concurrent streams, error handling, graceful shutdown, authentication.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sark_trio import AuditLog, GatewayClient, GatewayError
from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    ConfigError,
    Forbidden,
    HTTPStatusError,
    InvalidArguments,
    MessageTooLarge,
    Overloaded,
    ProtocolError,
    ServerDisconnected,
    TransportNotAvailableError,
)
from sark_trio.machines.retry import RetryConfig
from tests.support.audit_disk import MemoryDisk
from tests.support.client import desk, open_client
from tests.support.event_servers import answering, block, data_of, saying, take
from tests.support.gateway import serving
from tests.support.http_servers import (
    SSE_HEAD,
    Peer,
    RawServer,
    Script,
    chunk,
    response,
    serve,
)

pytestmark = pytest.mark.anyio

#: What the original's documentation names, in one stream.
SAID = [
    block(json.dumps({"tool_name": "query", "user_id": "ann"}), kind="tool_invoked", id="e1"),
    block(json.dumps({"server_name": "db", "status": "healthy"}), kind="server_health", id="e2"),
    block(json.dumps({"tool_name": "query", "duration": 0.25}), kind="tool_completed", id="e3"),
    block(json.dumps({"severity": "high", "user_id": "eve"}), kind="security_event", id="e4"),
]
#: The shortest delay that a gateway can ask for; without it a test would wait for a second.
SOON = "retry: 0\n\n"
QUICK = RetryConfig(initial_delay_s=0.001, max_delay_s=0.002)


@asynccontextmanager
async def gateway(
    *scripts: Script, **options: Any
) -> AsyncIterator[tuple[GatewayClient, RawServer]]:
    """A client of a scripted gateway; afterwards no connection is left."""
    async with serve(*scripts) as server:
        url = f"http://127.0.0.1:{server.port}"
        log = AuditLog("log", files=MemoryDisk())
        async with GatewayClient(**{"gateway_url": url, "audit": log, **options}) as client:
            yield client, server
        # The server learns of a closed connection when it next looks.
        await until(lambda: server.open == 0)


async def until(check: Callable[[], bool]) -> None:
    """Wait for *check*, which some other task makes true."""
    with anyio.fail_after(30):
        while not check():
            await anyio.lowlevel.checkpoint()


# Streaming.


async def test_streaming_hands_out_events_in_order_and_as_they_were_said() -> None:
    async with gateway(saying(*SAID)) as (client, server), client.stream_events() as events:
        found = await take(events, 4)
    assert [event.event_id for event in found] == ["e1", "e2", "e3", "e4"]
    assert found[0].event_type == "tool_invoked"
    assert found[2].json() == {"tool_name": "query", "duration": 0.25}
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/api/v1/events")
    assert request.headers["accept"] == "text/event-stream"


async def test_streaming_of_an_endpoint_by_path_or_by_url() -> None:
    async with gateway(saying(block("a"))) as (client, server):
        for endpoint in ("/api/v1/audit/stream", f"http://127.0.0.1:{server.port}/api/v1/stream"):
            async with client.stream_events(endpoint) as events:
                assert (await anext(events)).data == "a"
    assert [each.target for each in server.requests] == ["/api/v1/audit/stream", "/api/v1/stream"]


async def test_streaming_goes_at_the_readers_pace() -> None:
    said = [block("x" * 10_000, id=str(n)) for n in range(500)]
    async with gateway(saying(*said)) as (client, _), client.stream_events() as events:
        for n in range(500):
            assert (await anext(events)).event_id == str(n)
            # Never more than one read of it is here: 64 KiB, and the event that it completes.
            assert events.statistics().waiting <= 7


async def test_streaming_of_our_own_gateways_events() -> None:
    tools = {"tool_invoked", "tool_completed"}
    log = AuditLog("log", files=MemoryDisk())
    async with (
        open_client(desk()) as behind,
        serving(behind) as served,
        GatewayClient(gateway_url=served.url, audit=log) as client,
    ):
        async with client.stream_events(event_types=tools) as events:
            await behind.invoke_tool("desk", "echo", {})
            begun, done = await take(events, 2)
        assert (begun.event_type, done.event_type) == ("tool_invoked", "tool_completed")
        assert begun.json()["tool_name"] == "echo"
        assert begun.json()["request_id"] == done.json()["request_id"]
        # What happens while nobody listens is told to whoever comes back.
        await behind.invoke_tool("desk", "echo", {})
        endpoint, last = "/api/v1/servers/desk/stream", events.last_event_id
        async with client.stream_events(endpoint, tools, last_event_id=last) as events:
            event = await anext(events)
        assert event.event_type == "tool_invoked"
        assert event.json()["request_id"] != begun.json()["request_id"]


# Filtering by type.


async def test_filtering_by_type_hands_out_nothing_else() -> None:
    async with (
        gateway(saying(*SAID)) as (client, _),
        client.stream_events(event_types={"tool_invoked", "security_event"}) as events,
    ):
        found = await take(events, 2)
        assert [event.event_type for event in found] == ["tool_invoked", "security_event"]
        assert events.statistics().filtered == 2


async def test_filtering_by_type_does_not_change_where_a_stream_goes_on() -> None:
    scripts = saying(SOON, *SAID, then="end"), saying(block("a", kind="tool_invoked"))
    async with (
        gateway(*scripts) as (client, server),
        client.stream_events(event_types={"tool_invoked"}) as events,
    ):
        await take(events, 2)
    assert [each.headers.get("last-event-id") for each in server.requests] == [None, "e4"]


# Automatic reconnection.


@pytest.mark.parametrize("then", ["end", "cut"])
async def test_automatic_reconnection_loses_nothing_and_repeats_nothing(then: str) -> None:
    scripts = (
        saying(SOON, *SAID[:2], then=then),
        saying(*SAID[:3], then=then),  # a gateway that replays more than it was asked for
        saying(*SAID[3:]),
    )
    async with gateway(*scripts) as (client, server), client.stream_events() as events:
        assert [each.event_id for each in await take(events, 4)] == ["e1", "e2", "e3", "e4"]
        assert events.statistics().reconnections == 2
        assert events.statistics().duplicates == 2
    assert server.connections == 3


async def test_automatic_reconnection_survives_a_gateway_that_is_down_for_a_while() -> None:
    async def down(peer: Peer) -> None:
        await peer.reset()

    scripts = saying(SAID[0], then="cut"), down, answering("503 Service Unavailable")
    async with (
        gateway(*scripts, saying(SAID[1])) as (client, server),
        client.stream_events(retry=QUICK) as events,
    ):
        assert [each.event_id for each in await take(events, 2)] == ["e1", "e2"]
    assert server.connections == 4


async def test_automatic_reconnection_can_be_turned_off() -> None:
    async with (
        gateway(saying(*SAID, then="end")) as (client, server),
        client.stream_events(reconnects_max=0) as events,
    ):
        assert len([event async for event in events]) == 4
        assert server.connections == 1


# Connection state.


async def test_connection_state_is_told_from_beginning_to_end() -> None:
    ready = anyio.Event()

    async def slow(peer: Peer) -> None:
        await peer.receive()
        await ready.wait()
        await peer.send(SSE_HEAD + chunk(SOON.encode() + SAID[0].encode()))
        await ready.wait()

    async def down(peer: Peer) -> None:
        await peer.wait_closed()

    async with gateway(slow, down) as (client, _):
        events = client.stream_events()
        assert events.state == "disconnected"
        async with anyio.create_task_group() as group:
            group.start_soon(events.__aenter__)
            await until(lambda: events.state == "connecting")
            ready.set()
            await until(lambda: events.state == "connected")
            await anext(events)
            await until(lambda: events.state == "reconnecting")
            await until(lambda: events.state == "connecting")
            await events.aclose()
        assert events.state == "closed"


# Tracking of the last event id.


async def test_last_event_id_tracking_is_of_what_the_reader_has() -> None:
    async with gateway(saying("".join(SAID))) as (client, _), client.stream_events() as events:
        assert events.last_event_id is None
        for expected in ("e1", "e2", "e3", "e4"):
            assert (await anext(events)).event_id == expected
            assert events.last_event_id == expected


async def test_last_event_id_tracking_lets_another_stream_go_on() -> None:
    async with gateway(saying(*SAID[:2]), saying(*SAID[2:])) as (client, server):
        async with client.stream_events() as events:
            await take(events, 2)
        async with client.stream_events(last_event_id=events.last_event_id) as events:
            assert [each.event_id for each in await take(events, 2)] == ["e3", "e4"]
    assert [each.headers.get("last-event-id") for each in server.requests] == [None, "e2"]


# Health and statistics.


async def test_health_statistics_count_what_happened() -> None:
    scripts = saying(SOON, *SAID[:2], then="cut"), saying(*SAID[2:])
    async with gateway(*scripts) as (client, _):
        before = client.event_statistics()
        assert before is not None
        assert (before.state, before.active_streams, before.max_streams) == ("disconnected", 0, 20)
        async with client.stream_events() as events:
            await take(events, 4)
            during = client.event_statistics()
            assert during is not None
            assert (during.state, during.active_streams) == ("connected", 1)
            assert during.streams == (events.statistics(),)
        after = client.event_statistics()
    assert after is not None
    assert (after.state, after.active_streams, after.streams) == ("disconnected", 0, ())
    assert (after.events_received, after.connections_made) == (4, 2)
    assert (after.reconnections, after.errors, after.last_event_id) == (1, 1, "e4")


async def test_health_statistics_are_absent_without_a_gateway() -> None:
    async with GatewayClient(audit=AuditLog("log", files=MemoryDisk())) as client:
        assert client.event_statistics() is None


# Concurrent streams.


async def numbered(peer: Peer) -> None:
    """A hundred events that say which endpoint they are of."""
    received = await peer.receive()
    said = [block(f"{received.target} {n}", id=str(n)) for n in range(100)]
    await peer.send(SSE_HEAD + b"".join(chunk(each.encode()) for each in said))
    await peer.wait_closed()


async def test_concurrent_streams_each_have_their_own_events() -> None:
    found: dict[str, list[str]] = {}

    async def read(client: GatewayClient, endpoint: str) -> None:
        async with client.stream_events(endpoint) as events:
            found[endpoint] = data_of(await take(events, 100))

    async with gateway(numbered) as (client, server):
        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(read, client, f"/s{n}")
        assert server.connections <= 20
    assert found == {f"/s{n}": [f"/s{n} {k}" for k in range(100)] for n in range(20)}


async def test_concurrent_streams_beyond_the_limit_are_refused_and_harm_nobody() -> None:
    async with gateway(numbered) as (client, _):
        open_ = [await client.stream_events("/s").__aenter__() for _ in range(20)]
        with pytest.raises(Overloaded) as caught:
            await client.stream_events("/s").__aenter__()
        assert (caught.value.reason, caught.value.delivery) == ("streams_full", "not_sent")
        for events in open_:
            assert (await anext(events)).data == "/s 0"
        await open_[0].aclose()
        async with client.stream_events("/s") as events:
            assert (await anext(events)).data == "/s 0"


# Error handling.


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answering("204 No Content"), HTTPStatusError),
        (answering("400 Bad Request"), HTTPStatusError),
        (answering("401 Unauthorized"), AuthenticationRequired),
        (answering("403 Forbidden"), Forbidden),
        (answering("404 Not Found"), HTTPStatusError),
        (answering("200 OK", "application/json"), ProtocolError),
        (saying(b"data: " + b"x" * 2**20), MessageTooLarge),
    ],
)
async def test_error_handling_is_one_typed_error(script: Script, error: type[GatewayError]) -> None:
    async with gateway(script) as (client, server):
        with pytest.raises(GatewayError) as caught:
            async with client.stream_events() as events:
                await anext(events)
        assert type(caught.value) is error
        assert server.connections == 1


async def test_error_handling_gives_up_after_six_connections_without_an_event() -> None:
    async with gateway(saying(then="end")) as (client, server):
        async with client.stream_events(retry=QUICK) as events:
            with pytest.raises(ServerDisconnected) as caught:
                await anext(events)
        assert caught.value.attempts == 6
        assert server.connections == 6


async def test_error_handling_of_one_stream_leaves_the_others_alone() -> None:
    async with (
        gateway(saying(block("a"), block("b")), answering("400 Bad Request")) as (client, _),
        client.stream_events() as events,
    ):
        assert (await anext(events)).data == "a"
        with pytest.raises(HTTPStatusError):
            await client.stream_events().__aenter__()
        assert (await anext(events)).data == "b"


async def test_error_handling_of_wrong_use_names_the_remedy() -> None:
    async with GatewayClient(audit=AuditLog("log", files=MemoryDisk())) as client:
        with pytest.raises(ConfigError, match="gateway_url"):
            client.stream_events()
    with pytest.raises(ClientClosed):
        client.stream_events()
    async with gateway(saying(), transport_mode="stdio_only") as (client, server):
        with pytest.raises(TransportNotAvailableError, match="stream_events"):
            client.stream_events()
        assert server.connections == 0


# Graceful shutdown.


async def test_graceful_shutdown_of_the_client_ends_every_loop() -> None:
    ends: list[str] = []

    async def read(client: GatewayClient, started: anyio.Event) -> None:
        async with client.stream_events() as events:
            async for event in events:
                ends.append(event.data)
                started.set()
        ends.append("end")

    async with anyio.create_task_group() as readers, gateway(saying(block("a"))) as (client, _):
        for _ in range(3):
            started = anyio.Event()
            readers.start_soon(read, client, started)
            await started.wait()
        with anyio.fail_after(30):
            await client.close()
        with pytest.raises(ClientClosed):
            client.stream_events()
    assert sorted(ends) == ["a", "a", "a", "end", "end", "end"]


async def test_graceful_shutdown_of_a_stream_from_another_task() -> None:
    async with gateway(saying(block("a"))) as (client, server):
        events = await client.stream_events().__aenter__()
        async with anyio.create_task_group() as group:
            assert (await anext(events)).data == "a"

            async def read() -> None:
                assert [event async for event in events] == []

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await events.aclose()
        assert events.state == "closed"
        await until(lambda: server.open == 0)


async def test_graceful_shutdown_after_leaving_a_loop_half_way() -> None:
    async with gateway(saying(*SAID)) as (client, server):
        async with client.stream_events() as events:
            async for event in events:
                if event.event_id == "e2":
                    break
        await until(lambda: server.open == 0)
        assert events.last_event_id == "e2"


# Authentication.


def guarded(**expected: str) -> Script:
    """Events for whoever has these headers, 401 for everybody else."""

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if all(received.headers.get(k.replace("_", "-")) == v for k, v in expected.items()):
                await peer.send(SSE_HEAD + chunk(block("welcome").encode()))
                await peer.wait_closed()
                return
            await peer.send(response(status="401 Unauthorized"))

    return script


async def test_authentication_by_api_key() -> None:
    async with (
        gateway(guarded(x_api_key="k3y"), api_key="k3y") as (client, server),
        client.stream_events() as events,
    ):
        assert (await anext(events)).data == "welcome"
    assert "authorization" not in server.requests[0].headers


async def test_authentication_by_bearer_token_of_this_stream_alone() -> None:
    async with gateway(guarded(authorization="Bearer t0ken")) as (client, server):
        async with client.stream_events(user_token="t0ken") as events:
            assert (await anext(events)).data == "welcome"
        with pytest.raises(AuthenticationRequired):
            await client.stream_events().__aenter__()
    assert "authorization" not in server.requests[1].headers


async def test_authentication_that_expired_is_renewed() -> None:
    tokens = iter(["expired", "t0ken"])

    async def token() -> str:
        return next(tokens)

    async with (
        gateway(guarded(authorization="Bearer t0ken")) as (client, _),
        client.stream_events(user_token=token) as events,
    ):
        assert (await anext(events)).data == "welcome"


async def test_authentication_goes_to_the_gateways_origin_and_nowhere_else() -> None:
    async def away(peer: Peer) -> None:
        await peer.receive()
        await peer.send(response(status="307 Temporary Redirect", Location=elsewhere))

    async with serve(saying()) as other:
        elsewhere = f"http://127.0.0.1:{other.port}/api/v1/events"
        async with gateway(away, api_key="k3y") as (client, _):
            with pytest.raises(ProtocolError, match="redirect not followed"):
                await client.stream_events(user_token="t0ken").__aenter__()
            with pytest.raises(InvalidArguments, match="is not the gateway"):
                client.stream_events(elsewhere, user_token="t0ken")
        assert other.connections == 0
