"""Streamable HTTP against scripted servers on real sockets: the era of sessions."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest

from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    HTTPStatusError,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    SessionExpired,
)
from sark_trio.net.options import Timeouts
from sark_trio.transports.base import Outgoing
from tests.support.http_servers import (
    SSE_HEAD,
    Peer,
    Received,
    error,
    event,
    legacy,
    modern,
    open_transport,
    response,
    result,
    serve,
    sse,
)

pytestmark = pytest.mark.anyio


def call(name: str = "echo", reasons: list[str] | None = None) -> Outgoing:
    async def may_resend(reason: str) -> bool:
        if reasons is None:
            return False
        reasons.append(reason)
        return True

    return Outgoing(method="tools/call", params={"name": name}, may_resend=may_resend)


class Sessions:
    """Session ids that the server knows, and a handler that refuses all others."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.known = ""

    def new(self) -> str:
        self.known = f"session-{next(self.numbers)}"
        return self.known

    async def handle(self, peer: Peer, received: Received) -> None:
        if received.headers["mcp-session-id"] != self.known:
            await peer.send(error(received, -32600, "404 Not Found"))
        else:
            await peer.send(result(received))


async def test_the_handshake_falls_back_and_the_session_is_kept_and_ended() -> None:
    async with (
        serve(legacy()) as server,
        open_transport(server.url) as transport,
    ):
        assert await transport.request(call()) == {"content": []}
        assert transport.agreed is not None
        assert not transport.agreed.modern
    discover, initialize, announced, called, ended = server.requests
    assert discover.rpc == "server/discover"
    assert initialize.json["params"]["protocolVersion"] == "2025-11-25"
    assert "mcp-session-id" not in initialize.headers
    assert "mcp-protocol-version" not in initialize.headers
    assert announced.rpc == "notifications/initialized"
    for received in (announced, called, ended):
        assert received.headers["mcp-session-id"] == "session-1"
        assert received.headers["mcp-protocol-version"] == "2025-11-25"
    assert "_meta" not in called.json["params"]
    assert ended.method == "DELETE"


async def test_a_server_without_sessions_gets_no_session_header_and_no_delete() -> None:
    async with (
        serve(legacy(session=lambda: None)) as server,
        open_transport(server.url) as transport,
    ):
        await transport.request(call())
    assert all("mcp-session-id" not in received.headers for received in server.requests)
    assert all(received.method == "POST" for received in server.requests)


async def test_a_session_id_that_no_header_can_hold_is_refused() -> None:
    async with (
        serve(legacy(session=lambda: "two words")) as server,
        open_transport(server.url) as transport,
    ):
        with pytest.raises(ProtocolError):
            await transport.request(call())


@pytest.mark.row(18)
async def test_one_lost_session_is_renewed_once_for_all_calls() -> None:
    """Laws, section 0 and row 18: the reference client never does."""
    sessions = Sessions()
    async with (
        serve(legacy(sessions.handle, session=sessions.new)) as server,
        open_transport(server.url) as transport,
    ):
        await transport.request(call())
        sessions.known = "another process's"
        reasons: list[str] = []
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(transport.request, call(reasons=reasons))
        assert reasons == ["session_renewed"] * 8
        assert server.calls.count("initialize") == 2
        assert server.calls.count("notifications/initialized") == 2
        assert server.calls.count("tools/call") == 1 + 2 * 8
        assert transport.statistics().restarts == 1
        called = [each for each in server.requests if each.rpc == "tools/call"]
        renewed = [each for each in called if each.headers["mcp-session-id"] == "session-2"]
        assert len(renewed) == 8
        assert len({each.id for each in called}) == len(called)


@pytest.mark.row(18)
async def test_a_call_that_may_not_be_repeated_says_so_and_the_next_one_works() -> None:
    sessions = Sessions()
    async with (
        serve(legacy(sessions.handle, session=sessions.new)) as server,
        open_transport(server.url) as transport,
    ):
        await transport.request(call())
        sessions.known = "gone"
        with pytest.raises(SessionExpired) as caught:
            await transport.request(call())
        assert caught.value.delivery == "answered"
        assert await transport.request(call()) == {"content": []}
        assert server.calls.count("initialize") == 2


@pytest.mark.row(18)
async def test_a_session_that_is_lost_again_and_again_is_given_up() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", "404 Not Found", "text/plain"))

    sessions = Sessions()
    async with (
        serve(legacy(handle, session=sessions.new)) as server,
        open_transport(server.url) as transport,
    ):
        with pytest.raises(SessionExpired):
            await transport.request(call(reasons=[]))
        assert server.calls.count("tools/call") == 2
        assert server.calls.count("initialize") == 2


async def test_a_404_without_a_session_is_only_a_404() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", "404 Not Found", "text/plain"))

    async with (
        serve(legacy(handle, session=lambda: None)) as server,
        open_transport(server.url) as transport,
    ):
        with pytest.raises(HTTPStatusError) as caught:
            await transport.request(call(reasons=[]))
        assert type(caught.value) is HTTPStatusError
        assert server.calls.count("initialize") == 1


async def test_cancelling_a_call_tells_the_server_which_one() -> None:
    started = anyio.Event()

    async def handle(peer: Peer, received: Received) -> None:
        started.set()
        await peer.wait_closed()

    async with (
        serve(legacy(handle)) as server,
        open_transport(server.url) as transport,
    ):
        await transport.connect()
        async with anyio.create_task_group() as group:
            group.start_soon(transport.request, call())
            await started.wait()
            group.cancel_scope.cancel()
        called = next(each for each in server.requests if each.rpc == "tools/call")
        told = server.requests[-1]
        assert told.rpc == "notifications/cancelled"
        assert told.json["params"]["requestId"] == called.id
        assert told.headers["mcp-session-id"] == "session-1"


async def test_a_server_that_does_not_listen_delays_a_cancelled_caller_by_a_second_at_most() -> (
    None
):
    started = anyio.Event()

    async def handle(peer: Peer, received: Received) -> None:
        started.set()
        await peer.wait_closed()

    async def deaf(peer: Peer) -> None:
        await peer.receive()
        await peer.wait_closed()

    async with (
        serve(legacy(handle), deaf) as server,
        open_transport(server.url) as transport,
    ):
        await transport.connect()
        begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(transport.request, call())
            await started.wait()
            group.cancel_scope.cancel()
        assert 0.9 < anyio.current_time() - begun < 2.0


async def test_a_timeout_of_ours_is_told_as_a_cancellation_and_initialize_never_is() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.wait_closed()

    async def mute(peer: Peer) -> None:
        received = await peer.receive()
        await peer.send(error(received, -32601, "400 Bad Request"))
        await peer.receive()
        await peer.wait_closed()

    limits = Timeouts(read_s=0.05)
    async with (
        serve(legacy(handle)) as server,
        open_transport(server.url, timeouts=limits) as transport,
    ):
        with pytest.raises(ReadTimeout):
            await transport.request(call())
        assert server.calls[-1] == "notifications/cancelled"
    async with serve(mute) as server:
        async with open_transport(server.url, timeouts=limits) as transport:
            with pytest.raises(ReadTimeout):
                await transport.request(call())
        assert server.calls == ["server/discover", "initialize"]


async def test_requests_of_the_servers_are_answered_over_the_wire() -> None:
    answered = anyio.Event()

    async def handle(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/call":
            ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
            ask = {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}}
            await peer.send(SSE_HEAD + event(ping) + event(ask))
            await answered.wait()
            await peer.send(event({"jsonrpc": "2.0", "id": received.id, "result": {}}))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.send(response(status="202 Accepted", content_type=""))
            if sum(not each.rpc and each.method == "POST" for each in server.requests) == 2:
                answered.set()

    async with (
        serve(legacy(handle)) as server,
        open_transport(server.url) as transport,
    ):
        with anyio.fail_after(5):
            assert await transport.request(call()) == {}
        replies = {each.id: each.json for each in server.requests if not each.rpc and each.body}
        assert replies["p"] == {"jsonrpc": "2.0", "id": "p", "result": {}}
        assert replies[7]["error"]["code"] == -32601


@pytest.mark.row(20)
async def test_a_stream_that_breaks_leaves_the_outcome_unknown() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(sse())

    async with (
        serve(legacy(handle)) as server,
        open_transport(server.url) as transport,
    ):
        with pytest.raises(ServerDisconnected) as caught:
            await transport.request(call(reasons=[]))
        assert caught.value.delivery == "unknown"


async def test_a_handshake_that_fails_fails_all_who_wait_and_not_the_next() -> None:
    answers = itertools.chain([401], itertools.repeat(200))

    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if next(answers) == 401:
            await peer.send(response(b"", "401 Unauthorized", WWW_Authenticate="Bearer"))
        else:
            await peer.send(result(received, {"supportedVersions": ["2026-07-28"]}))
            await modern()(peer)

    failures: list[Any] = []

    async def connect(transport: Any) -> None:
        try:
            await transport.connect()
        except AuthenticationRequired as exc:
            failures.append(exc)

    async with serve(script) as server, open_transport(server.url) as transport:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(connect, transport)
        assert len(failures) == 5
        assert server.calls == ["server/discover"]
        assert (await transport.connect()).modern


async def test_a_peer_that_is_no_mcp_server_is_a_protocol_error() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send(response(b"<h1>404</h1>", "404 Not Found", "text/html"))

    async with serve(script) as server, open_transport(server.url) as transport:
        with pytest.raises(HTTPStatusError):
            await transport.connect()
        assert transport.try_sse


async def test_closing_while_connecting_fails_who_waits() -> None:
    asked = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        asked.set()
        await peer.wait_closed()

    errors: list[Any] = []

    async def connect(transport: Any) -> None:
        try:
            await transport.connect()
        except ClientClosed as exc:
            errors.append(exc)

    limits = Timeouts(read_s=20)
    async with (
        serve(script) as server,
        anyio.create_task_group() as group,
        open_transport(server.url, timeouts=limits) as transport,
    ):
        group.start_soon(connect, transport)
        await asked.wait()
        with anyio.fail_after(6.5):
            await transport.aclose()
    assert len(errors) == 1
