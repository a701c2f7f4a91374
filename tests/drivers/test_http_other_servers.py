"""Streamable HTTP with servers that do not do as they should, as some out there do not."""

from __future__ import annotations

import itertools
import json
from typing import Any

import anyio
import pytest

from sark_trio.errors import HTTPStatusError, RemoteError
from sark_trio.mcp.changes import LISTEN
from sark_trio.transports.base import Outgoing
from tests.support.http_servers import (
    DISCOVERY,
    SSE_END,
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
    streaming,
)

pytestmark = pytest.mark.anyio
#: Longer than anything here takes on a loaded machine.
HUNG_S = 20.0
NO_SESSION = "Bad Request: No valid session ID provided"


async def yes(_reason: str) -> bool:
    return True


def call(**more: Any) -> Outgoing:
    return Outgoing(method="tools/call", params={"name": "echo"}, may_resend=yes, **more)


def refused(received: Received, code: int, message: str) -> bytes:
    failure = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return response(json.dumps(failure).encode(), "400 Bad Request")


# -- sessions -------------------------------------------------------------------------------------


async def test_a_session_that_is_denied_with_400_is_made_anew() -> None:
    numbers = itertools.count(1)
    known = ["none"]

    def new() -> str:
        known[0] = f"session-{next(numbers)}"
        return known[0]

    async def handler(peer: Peer, received: Received) -> None:
        if received.headers["mcp-session-id"] != known[0]:
            await peer.send(refused(received, -32000, NO_SESSION))
        else:
            await peer.send(result(received))

    script = legacy(handler, session=new)
    async with serve(script) as server, open_transport(server.url) as transport:
        await transport.request(call())
        known[0] = "another server's"
        assert await transport.request(call()) == {"content": []}
    assert server.calls.count("initialize") == 2
    assert server.calls.count("tools/call") == 3


@pytest.mark.parametrize(
    ("code", "message"), [(-32000, "Bad Request: no"), (-32602, "no session id in the arguments")]
)
async def test_another_error_under_400_is_about_the_request(code: int, message: str) -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(refused(received, code, message))

    async with serve(legacy(handler)) as server, open_transport(server.url) as transport:
        with pytest.raises(RemoteError, match="no"):
            await transport.request(call())
    assert (server.calls.count("initialize"), server.calls.count("tools/call")) == (1, 1)


async def test_a_server_that_makes_no_sessions_any_more_is_asked_what_it_is() -> None:
    upgraded = False
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}

    def answer(received: Received) -> bytes:
        if received.rpc == "server/discover":
            known = result(received, DISCOVERY)
            return known if upgraded else error(received, -32601, "400 Bad Request")
        if upgraded and "mcp-method" not in received.headers:
            return response(status="404 Not Found")
        if received.rpc == "initialize":
            return result(received, about, Mcp_Session_Id="one")
        return response(status="202 Accepted") if received.id is None else result(received)

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(answer(await peer.receive()))

    async with serve(script) as server, open_transport(server.url) as transport:
        assert not (await transport.connect()).modern
        await transport.request(call())
        upgraded = True
        with pytest.raises(HTTPStatusError, match="initialize"):
            await transport.request(call())
        assert await transport.request(call()) == {"content": []}
        assert (await transport.connect()).modern


async def test_a_stream_whose_session_is_denied_with_400_goes_on_in_a_new_one() -> None:
    sessions = itertools.count(1)
    opened: list[str] = []

    async def handler(peer: Peer, received: Received) -> None:
        assert received.method == "GET"
        named = received.headers["mcp-session-id"]
        if named in opened:
            await peer.send(response(b"Invalid or missing session ID", "400 Bad Request"))
            return
        opened.append(named)
        change = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        await peer.send(SSE_HEAD + event(change) + (SSE_END if len(opened) == 1 else b""))
        if len(opened) == 2:
            await peer.wait_closed()

    heard = 0
    both = anyio.Event()

    def listener(_notification: Any) -> None:
        nonlocal heard
        heard += 1
        if heard == 2:
            both.set()

    script = streaming(handler, session=lambda: f"session-{next(sessions)}")
    async with (
        serve(script) as server,
        open_transport(server.url, on_event=listener) as transport,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(transport.listen, Outgoing(method=LISTEN))
        with anyio.fail_after(HUNG_S):
            await both.wait()
        tasks.cancel_scope.cancel()
    assert opened == ["session-1", "session-2"]


async def test_a_server_that_has_no_stream_and_says_so_with_400_keeps_its_session() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", "400 Bad Request"))

    async with serve(streaming(handler)) as server, open_transport(server.url) as transport:
        with pytest.raises(HTTPStatusError, match="400"):
            await transport.listen(Outgoing(method=LISTEN))
    assert server.calls.count("initialize") == 1


# -- eras -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found"])
async def test_doubt_about_the_era_is_cleared_and_the_error_told(status: str) -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", status))

    async with serve(modern(handler)) as server, open_transport(server.url) as transport:
        with pytest.raises(HTTPStatusError, match=status[:3]):
            await transport.request(call())
    # Not sent again: the server is what it was.
    assert server.calls == ["server/discover", "tools/call", "server/discover"]


async def test_many_who_doubt_at_once_ask_once() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(error(received, -32600, "400 Bad Request"))

    failures: list[RemoteError] = []

    async with serve(modern(handler)) as server, open_transport(server.url) as transport:
        await transport.connect()

        async def one() -> None:
            with pytest.raises(RemoteError) as caught:
                await transport.request(call())
            failures.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
    assert len(failures) == 5
    assert server.calls.count("tools/call") == 5
    # Whoever heard of it later than another had asked may ask again.
    assert 2 <= server.calls.count("server/discover") <= 6


# -- progress -------------------------------------------------------------------------------------


async def test_progress_on_the_servers_own_stream_reaches_its_call() -> None:
    heard: list[Any] = []
    streams: list[Peer] = []

    def progress(token: Any, step: int) -> bytes:
        params = {"progressToken": token, "progress": step}
        return event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            streams.append(peer)
            await peer.send(SSE_HEAD)
            await peer.wait_closed()
            return
        token = received.json["params"]["_meta"]["progressToken"]
        # As mcp-go does it; before it, what belongs to no call here.
        await streams[0].send(progress("another", 7) + progress(token, 1))
        await told_once.wait()
        answer = {"jsonrpc": "2.0", "id": received.id, "result": {"content": []}}
        await peer.send(SSE_HEAD + progress(token, 2) + event(answer) + SSE_END)

    told_once = anyio.Event()

    def listener(notification: Any) -> None:
        heard.append(notification.params["progress"])
        told_once.set()

    async def nothing(_request: Any) -> dict[str, Any]:
        raise AssertionError("nobody asks")

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_request=nothing) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            await transport.request(call(on_notification=listener))
        assert transport.statistics().unmatched == 1
    assert heard == [1, 2]
