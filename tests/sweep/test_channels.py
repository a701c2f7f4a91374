"""WebSockets, the old event streams and what is heard on streams, cancelled at every step.

As in :mod:`tests.sweep.test_transports`, servers run in the same event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from sark_trio.errors import ClientClosed
from sark_trio.mcp.changes import LISTEN
from sark_trio.testing import Victim
from sark_trio.transports.base import Outgoing, Transport
from sark_trio.transports.http import HttpTransport
from sark_trio.transports.sse import SseTransport
from sark_trio.transports.websocket import WebSocketTransport
from tests.support import event_servers, http_servers, sse_servers, websocket_servers
from tests.support.sweeping import sweep
from tests.sweep.test_transports import Backend, running

pytestmark = pytest.mark.row(54)

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}}


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def ping(**more: Any) -> Outgoing:
    return Outgoing(method="tools/call", params={"name": "echo", "arguments": {}}, **more)


@asynccontextmanager
async def websocket(era: str) -> AsyncIterator[Transport]:
    scripts = {"modern": websocket_servers.modern_socket, "legacy": websocket_servers.legacy_socket}
    async with (
        http_servers.serve(scripts[era]()) as server,
        running(WebSocketTransport(websocket_servers.url_of(server.url))) as transport,
    ):
        yield transport


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_websocket_from_the_opening_handshake_to_the_farewell(backend: Backend, era: str) -> None:
    async def scenario(victim: Victim) -> None:
        async with websocket(era) as transport:
            with victim:
                await transport.connect()
                await transport.request(ping())
                await transport.aclose()

    assert sweep(scenario, backend=backend).cancelled > 20


def test_websocket_a_connection_that_nobody_waits_for_serves_the_next(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with websocket("modern") as transport:
            with victim:
                await transport.request(ping())
            await transport.request(ping())
            assert transport.statistics().restarts == 0

    assert sweep(scenario, backend=backend).cancelled > 20


def test_websocket_a_call_beside_another(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with websocket("legacy") as transport:
            await transport.connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.request, ping())
                with victim:
                    await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 3


def test_websocket_its_owner_is_cancelled(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        script = websocket_servers.modern_socket()
        async with http_servers.serve(script) as server:
            with victim:
                transport = WebSocketTransport(websocket_servers.url_of(server.url))
                async with anyio.create_task_group() as tasks:
                    await tasks.start(transport.run)
                    with suppress(ClientClosed):  # told by the other task, which went first
                        await transport.request(ping())
                    tasks.cancel_scope.cancel()

    assert sweep(scenario, backend=backend).cancelled > 20


@asynccontextmanager
async def old() -> AsyncIterator[Transport]:
    async with (
        http_servers.serve(sse_servers.OldServer().script) as server,
        running(SseTransport(server.url)) as transport,
    ):
        yield transport


def test_sse_from_the_first_connection_to_the_last_byte(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with old() as transport:
            with victim:
                await transport.connect()
                await transport.request(ping())
                await transport.notify("notifications/roots/list_changed", {})
                await transport.aclose()

    assert sweep(scenario, backend=backend).cancelled > 20


def test_sse_a_stream_that_nobody_waits_for_serves_the_next(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with old() as transport:
            with victim:
                await transport.request(ping())
            await transport.request(ping())
            assert transport.statistics().restarts == 0

    assert sweep(scenario, backend=backend).cancelled > 20


def test_sse_a_call_beside_another(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with old() as transport:
            await transport.connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.request, ping())
                with victim:
                    await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 5


def test_sse_its_owner_is_cancelled(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with http_servers.serve(sse_servers.OldServer().script) as server:
            with victim:
                transport = SseTransport(server.url)
                async with anyio.create_task_group() as tasks:
                    await tasks.start(transport.run)
                    with suppress(ClientClosed):  # told by the other task, which went first
                        await transport.request(ping())
                    tasks.cancel_scope.cancel()

    assert sweep(scenario, backend=backend).cancelled > 20


def test_events_from_the_first_connection_over_a_lost_one_to_the_end(backend: Backend) -> None:
    scripts = (
        event_servers.saying("retry: 100\n\n", event_servers.block("a", id="1"), then="cut"),
        event_servers.saying(event_servers.block("b", id="2") + event_servers.block("c", id="3")),
    )

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(*scripts) as server,
            event_servers.open_streams(server.url) as streams,
        ):
            with victim:
                async with streams.stream() as events:
                    await event_servers.take(events, 3)
            assert streams.statistics().active_streams == 0
            pool = streams.pool.statistics()
            assert (pool.streams, pool.leased, pool.waiting) == (0, 0, 0)

    assert sweep(scenario, backend=backend, every=3).cancelled > 5


def test_events_a_reader_that_is_cancelled_has_missed_nothing(backend: Backend) -> None:
    blocks = [event_servers.block(str(number), id=str(number)) for number in range(4)]
    script = event_servers.saying(blocks[0] + blocks[1], blocks[2], blocks[3])

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(script) as server,
            event_servers.open_streams(server.url) as streams,
            streams.stream() as events,
        ):
            got: list[str] = []

            async def read() -> None:
                while len(got) < 4:
                    got.append((await anext(events)).data)

            with victim:
                await read()
            await read()
            assert got == ["0", "1", "2", "3"]

    assert sweep(scenario, backend=backend).cancelled > 3


def test_http_a_modern_stream_of_changes(backend: Backend) -> None:
    async def handler(peer: http_servers.Peer, received: http_servers.Received) -> None:
        if received.rpc != LISTEN:
            await peer.send(http_servers.result(received))
            return
        await peer.send(http_servers.SSE_HEAD + http_servers.event(CHANGED))
        await peer.wait_closed()

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(http_servers.modern(handler)) as server,
            running(HttpTransport(server.url)) as transport,
        ):
            heard = anyio.Event()
            listen = Outgoing(method=LISTEN, on_notification=lambda _: heard.set())
            with victim:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(transport.listen, listen)
                    await heard.wait()
                    tasks.cancel_scope.cancel()
            await transport.request(ping())
            pool = transport.statistics().details["pool"]
            assert (pool["streams"], pool["waiting"]) == (0, 0)

    assert sweep(scenario, backend=backend).cancelled > 10


def test_http_the_stream_of_a_session(backend: Backend) -> None:
    async def handler(peer: http_servers.Peer, received: http_servers.Received) -> None:
        if received.method != "GET":
            await peer.send(http_servers.result(received))
            return
        await peer.send(http_servers.SSE_HEAD + http_servers.event(CHANGED))
        await peer.wait_closed()

    async def scenario(victim: Victim) -> None:
        heard = anyio.Event()
        async with http_servers.serve(http_servers.streaming(handler)) as server:
            transport = HttpTransport(server.url, on_event=lambda _: heard.set())
            async with running(transport):
                with victim:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(transport.listen, Outgoing(method=LISTEN))
                        await heard.wait()
                        tasks.cancel_scope.cancel()
                await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 20


def test_http_an_answer_that_is_resumed(backend: Backend) -> None:
    asked: list[http_servers.Received] = []

    async def handler(peer: http_servers.Peer, received: http_servers.Received) -> None:
        await peer.send(http_servers.SSE_HEAD)
        if received.method == "POST":
            asked.append(received)
            await peer.send(http_servers.chunk(b"id: e1\nretry: 100\ndata: \n\n"))
        else:
            answer = {"jsonrpc": "2.0", "id": asked[-1].id, "result": {"content": []}}
            await peer.send(http_servers.event(answer, event_id="e2"))
        await peer.send(http_servers.SSE_END)

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(http_servers.streaming(handler)) as server,
            running(HttpTransport(server.url)) as transport,
        ):
            await transport.connect()
            with victim:
                await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend, every=2).cancelled > 5
