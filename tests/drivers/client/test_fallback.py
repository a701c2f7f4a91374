"""A server behind a URL may have Streamable HTTP or the HTTP+SSE of before: which, is found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio.client.modes import TransportMode
from sark_trio.client.servers import Http
from sark_trio.client.wires import wire_of
from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    ConnectError,
    GatewayError,
    HTTPStatusError,
    ServerDisconnected,
)
from sark_trio.transports.base import Transport
from tests.support.http_servers import (
    DISCOVERY,
    Peer,
    Script,
    error,
    legacy,
    modern,
    no_leaked_descriptors,
    response,
    result,
    serve,
)
from tests.support.sse_servers import OldServer
from tests.support.websocket_servers import call, running

pytestmark = pytest.mark.anyio


def transport_to(url: str, mode: TransportMode = TransportMode.AUTO, **options: Any) -> Transport:
    return wire_of(Http(url, **options), on_event=lambda _: None, mode=mode)


@asynccontextmanager
async def wired(url: str, **options: Any) -> AsyncIterator[Transport]:
    async with running(transport_to(url, **options)) as transport:
        yield transport


async def error_of(waiting: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await waiting
    return caught.value


def refusing(status: str, old: OldServer | None = None, body: bytes = b"") -> Script:
    """Refuses every POST to the URL itself; *old* answers everything else, if there is one."""

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.method == "POST" and received.target == "/mcp":
                await peer.send(response(body, status))
            elif old is None:
                await peer.send(response(b"", "405 Method Not Allowed"))
            elif received.method == "GET":
                await old.open_stream(peer, received)
                return
            else:
                await old.take(peer, received)

    return script


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"])
async def test_a_server_that_refuses_as_old_ones_do_is_tried_as_one(status: str) -> None:
    old = OldServer()
    async with serve(refusing(status, old)) as server, wired(server.url) as transport:
        assert transport.kind == "http"
        assert (await transport.connect()).version == "2024-11-05"
        assert transport.kind == "sse"
        assert await transport.request(call()) == {"content": []}
        assert transport.agreed is not None
        assert transport.statistics().requests == 1
    assert len(old.talks) == 1
    posts = [each.rpc for each in server.requests if each.target == "/mcp" and each.rpc]
    assert posts == ["server/discover", "initialize"]


@pytest.mark.parametrize("script", [modern(), legacy()], ids=["modern", "legacy"])
async def test_a_server_of_the_newer_transport_never_gets_a_get(script: Script) -> None:
    async with serve(script) as server, wired(server.url) as transport:
        await transport.request(call())
        assert transport.kind == "http"
    assert "GET" not in {received.method for received in server.requests}


async def test_what_was_found_is_kept_over_reconnections() -> None:
    async def handle(talk: Any, message: Any) -> None:
        if talk.number == 1:
            await talk.stream.reset()
        else:
            await talk.result(message)

    old = OldServer(handle)
    script = refusing("405 Method Not Allowed", old)
    async with serve(script) as server, wired(server.url) as transport:
        failure = await error_of(transport.request(call()))
        assert isinstance(failure, ServerDisconnected)
        assert failure.delivery == "unknown"
        assert await transport.request(call()) == {"content": []}
    posts = [each.rpc for each in server.requests if each.target == "/mcp" and each.rpc]
    assert posts == ["server/discover", "initialize"]
    assert len(old.talks) == 2


async def test_a_server_that_was_upgraded_is_found_out() -> None:
    old = OldServer()
    upgraded = False

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if upgraded and received.rpc == "server/discover":
                await peer.send(result(received, DISCOVERY))
            elif upgraded and received.method == "POST":
                await peer.send(result(received))
            elif received.method == "GET" and not upgraded:
                await old.open_stream(peer, received)
                return
            elif upgraded or received.target == "/mcp":
                await peer.send(response(b"", "405 Method Not Allowed"))
            else:
                await old.take(peer, received)

    async with serve(script) as server, wired(server.url) as transport:
        await transport.request(call())
        assert transport.kind == "sse"
        upgraded = True
        await old.talks[0].stream.reset()
        await transport.wait_lost()
        assert await transport.request(call()) == {"content": []}
        assert transport.kind == "http"
        assert transport.agreed is not None
        assert transport.agreed.modern


async def test_where_there_is_neither_the_first_refusal_is_told() -> None:
    async with serve(refusing("404 Not Found")) as server, wired(server.url) as transport:
        failure = await error_of(transport.request(call()))
        assert isinstance(failure, HTTPStatusError)
        assert failure.status == 404
        assert isinstance(failure.__cause__, HTTPStatusError)
        assert transport.kind == "http"
    assert [each.method for each in server.requests] == ["POST", "POST", "GET"]


async def test_an_old_server_that_wants_credentials_says_so() -> None:
    async def script(peer: Peer) -> None:
        while True:
            post = (await peer.receive()).method == "POST"
            status = "405 Method Not Allowed" if post else "401 Unauthorized"
            await peer.send(response(b"", status))

    async with serve(script) as server, wired(server.url) as transport:
        assert isinstance(await error_of(transport.connect()), AuthenticationRequired)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "503 Service Unavailable"])
async def test_other_refusals_are_no_reason_to_try(status: str) -> None:
    async with serve(refusing(status)) as server, wired(server.url) as transport:
        failure = await error_of(transport.connect())
    assert isinstance(failure, HTTPStatusError)
    assert "GET" not in {received.method for received in server.requests}


async def test_a_modern_error_under_400_is_no_reason_to_try() -> None:
    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            members = {"data": {"supported": ["2099-01-01"]}}
            await peer.send(error(received, -32022, "400 Bad Request", **members))

    async with serve(script) as server, wired(server.url) as transport:
        assert isinstance(await error_of(transport.connect()), HTTPStatusError)
    assert "GET" not in {received.method for received in server.requests}


async def test_2024_11_05_goes_to_the_old_transport_at_once() -> None:
    old = OldServer()
    async with (
        serve(old.script) as server,
        wired(server.url, protocol_version="2024-11-05") as transport,
    ):
        assert transport.kind == "sse"
        await transport.request(call())
    assert server.requests[0].method == "GET"


async def test_another_version_never_does() -> None:
    old = OldServer()
    script = refusing("405 Method Not Allowed", old)
    async with (
        serve(script) as server,
        wired(server.url, protocol_version="2025-11-25") as transport,
    ):
        assert isinstance(await error_of(transport.connect()), HTTPStatusError)
    assert old.talks == []


async def test_a_client_of_event_streams_only_goes_there_at_once() -> None:
    old = OldServer()
    async with (
        serve(old.script) as server,
        running(transport_to(server.url, TransportMode.SSE_ONLY)) as transport,
    ):
        await transport.request(call())
    assert server.requests[0].method == "GET"


async def test_many_who_connect_at_once_share_both_tries() -> None:
    old = OldServer()
    answers: list[Any] = []
    script = refusing("405 Method Not Allowed", old)
    async with serve(script) as server, wired(server.url) as transport:

        async def one() -> None:
            answers.append(await transport.request(call()))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
    assert len(answers) == 20
    assert len(old.talks) == 1


async def test_nobody_listens() -> None:
    async with serve() as server:
        url = server.url
    async with wired(url) as transport:
        assert isinstance(await error_of(transport.connect()), ConnectError)


async def test_it_closes_whatever_it_made() -> None:
    reached = anyio.Event()

    async def handle(_talk: Any, _message: Any) -> None:
        reached.set()

    old = OldServer(handle)
    failures: list[GatewayError] = []
    async with serve(refusing("405 Method Not Allowed", old)) as server:
        with no_leaked_descriptors():
            transport = transport_to(server.url)
            assert isinstance(await error_of(transport.connect()), ClientClosed)
            async with running(transport), anyio.create_task_group() as tasks:

                async def one() -> None:
                    failures.append(await error_of(transport.request(call())))

                tasks.start_soon(one)
                await reached.wait()
                await transport.aclose()
                await transport.aclose()
            assert isinstance(await error_of(transport.request(call())), ClientClosed)
    (failure,) = failures
    assert isinstance(failure, ClientClosed)
    assert failure.delivery == "unknown"


async def test_cancelled_it_leaves_nothing() -> None:
    old = OldServer()
    with no_leaked_descriptors():
        async with serve(refusing("405 Method Not Allowed", old)) as server:
            async with anyio.create_task_group() as tasks:
                transport = transport_to(server.url)
                await tasks.start(transport.run)
                await transport.request(call())
                tasks.cancel_scope.cancel()
            while server.open:
                server.closed = anyio.Event()
                await server.closed.wait()
