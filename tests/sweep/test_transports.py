"""The transports on real sockets and real processes, cancelled at every step of the scheduler.

The servers of the HTTP scenarios run in the same event loop, so that their steps count too.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest
import trustme

from sark_trio import TLSOptions
from sark_trio.testing import Victim
from sark_trio.transports.base import Outgoing, Transport
from sark_trio.transports.http import HttpTransport
from tests.support import http_servers, stdio
from tests.support.sweeping import sweep

Backend = Literal["trio", "asyncio"]

pytestmark = pytest.mark.row(54)

#: Of connections: all of them are gone when a transport is closed.
POOL_STATES = ("connecting", "idle", "granted", "leased", "closing", "waiting", "streams")


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def running(transport: Transport) -> AsyncIterator[Transport]:
    """A transport that is closed at the end, and then holds nothing."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(transport.run)
        yield transport
        await transport.aclose()
        details = transport.statistics().details
        for counts in (details, details.get("pool", {})):
            assert not any(counts.get(key) for key in ("pending", *POOL_STATES))


def ping() -> Outgoing:
    return Outgoing(method="tools/call", params={"name": "echo", "arguments": {}})


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_http_from_the_first_connection_to_the_last_byte(backend: Backend, era: str) -> None:
    script = getattr(http_servers, era)()

    async def scenario(victim: Victim) -> None:
        async with http_servers.serve(script) as server:
            async with running(HttpTransport(server.url)) as transport:
                with victim:
                    await transport.connect()
                    await transport.request(ping())
                    await transport.aclose()
                if not victim.was_cancelled:
                    return
            async with running(HttpTransport(server.url)) as transport:
                await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 20


def test_http_a_second_request_on_a_connection(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(http_servers.modern()) as server,
            running(HttpTransport(server.url)) as transport,
        ):
            await transport.request(ping())
            with victim:
                await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 3


def test_http_an_answer_that_is_an_event_stream(backend: Backend) -> None:
    async def answer(peer: http_servers.Peer, received: http_servers.Received) -> None:
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
        final = {"jsonrpc": "2.0", "id": received.id, "result": {"resultType": "complete"}}
        await peer.send(http_servers.SSE_HEAD)
        for message in (progress, progress, final):
            await peer.send(http_servers.event(message))
            await anyio.lowlevel.checkpoint()
        await peer.send(http_servers.SSE_END)

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(http_servers.modern(answer)) as server,
            running(HttpTransport(server.url)) as transport,
        ):
            with victim:
                await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 10


def test_http_a_tls_handshake(backend: Backend, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    options = TLSOptions(ca_data=authority.cert_pem.bytes().decode())

    async def scenario(victim: Victim) -> None:
        async with (
            http_servers.serve(http_servers.modern(), tls=context) as server,
            running(HttpTransport(server.url, tls=options)) as transport,
        ):
            with victim:
                await transport.request(ping())
            await transport.request(ping())

    assert sweep(scenario, backend=backend).cancelled > 20


def test_stdio_from_the_start_of_the_process_to_its_end(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with running(stdio.make()) as transport:
            with victim:
                await transport.connect()
                await transport.request(stdio.tool("echo"))
                await transport.aclose()

    assert sweep(scenario, backend=backend).cancelled > 3


def test_stdio_a_call_beside_another(backend: Backend) -> None:
    async def scenario(victim: Victim) -> None:
        async with running(stdio.make()) as transport:
            await transport.connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.request, stdio.tool("echo"))
                with victim:
                    await transport.request(stdio.tool("echo"))
            await transport.request(stdio.tool("echo"))

    assert sweep(scenario, backend=backend).cancelled > 2
