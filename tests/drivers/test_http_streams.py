"""Streams of the session era over real sockets: resumed answers, what servers ask and announce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from sark_trio.errors import ClientClosed, HTTPStatusError, RemoteError, ServerDisconnected
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.messages import Notification, Request
from sark_trio.transports.base import Outgoing
from tests.support.http_servers import (
    SSE_END,
    SSE_HEAD,
    Peer,
    Received,
    chunk,
    event,
    legacy,
    modern,
    open_transport,
    response,
    result,
    serve,
    sse,
    streaming,
)

pytestmark = pytest.mark.anyio
#: Longer than anything here takes on a loaded machine.
HUNG_S = 20.0


def call(**more: Any) -> Outgoing:
    return Outgoing(method="tools/call", params={"name": "echo"}, **more)


def answer_to(received: Received, value: Any = "late") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": received.id, "result": {"content": [], "said": value}}


def asked(request_id: Any, method: str = "sampling/createMessage") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {"x": 1}}


def told(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


PRIMING = chunk(b"id: e1\nretry: 100\ndata: \n\n")


@pytest.mark.row(20)
async def test_an_answer_that_was_cut_off_is_resumed_where_it_broke() -> None:
    asking: list[Received] = []
    heard: list[str] = []

    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            asking.append(received)
            await peer.send(SSE_HEAD + PRIMING + event(told("notifications/x"), event_id="e2"))
            await peer.send(SSE_END)
            return
        assert received.headers["last-event-id"] == "e2"
        assert received.headers["mcp-session-id"] == "session-1"
        assert received.headers["accept"] == "text/event-stream"
        await peer.send(SSE_HEAD + event(told("notifications/y"), event_id="e3"))
        await peer.send(event(answer_to(asking[0]), event_id="e4") + SSE_END)

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_event=lambda n: heard.append(n.method)) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            assert (await transport.request(call()))["said"] == "late"
    assert heard == ["notifications/x", "notifications/y"]


@pytest.mark.row(20)
async def test_without_an_id_there_is_nothing_to_resume() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(sse(told("notifications/x")))

    async with serve(streaming(handler)) as server, open_transport(server.url) as transport:
        with pytest.raises(ServerDisconnected, match="without the answer"):
            await transport.request(call())
    assert "GET" not in [received.method for received in server.requests]


@pytest.mark.row(20)
async def test_a_server_that_does_not_resume_has_lost_the_answer() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            await peer.send(SSE_HEAD + PRIMING + SSE_END)
        else:
            await peer.send(response(status="405 Method Not Allowed"))

    async with serve(streaming(handler)) as server, open_transport(server.url) as transport:
        with anyio.fail_after(HUNG_S), pytest.raises(ServerDisconnected) as caught:
            await transport.request(call())
    assert caught.value.delivery == "unknown"
    assert isinstance(caught.value.__cause__, HTTPStatusError)
    assert caught.value.__cause__.status == 405


async def test_a_caller_who_gives_up_while_it_is_resumed_says_so() -> None:
    gone = anyio.Event()

    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            await peer.send(SSE_HEAD + PRIMING + SSE_END)
        else:
            await peer.send(SSE_HEAD)
            resumed.set()
            await peer.wait_closed()
            gone.set()

    resumed = anyio.Event()
    async with serve(streaming(handler)) as server, open_transport(server.url) as transport:
        with anyio.fail_after(HUNG_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.request, call())
                await resumed.wait()
                tasks.cancel_scope.cancel()
            await gone.wait()
    assert "notifications/cancelled" in server.calls


async def test_what_a_server_asks_with_a_call_is_answered_by_the_call() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        if received.rpc != "tools/call":
            replies.append(received.json)
            await peer.send(response(status="202 Accepted", content_type=""))
            done.set()
            return
        await peer.send(SSE_HEAD + event(asked("q1")) + event(asked(2, "roots/list")))
        with anyio.fail_after(HUNG_S):
            while len(replies) < 2:
                await done.wait()
                await anyio.lowlevel.checkpoint()
        await peer.send(event(answer_to(received)) + SSE_END)

    async def ask(request: Request) -> Mapping[str, Any]:
        if request.method == "roots/list":
            raise RemoteError("no roots", code=-32601)
        return {"model": "m", "got": request.params}

    replies: list[Any] = []
    done = anyio.Event()
    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            await transport.request(call(on_request=ask))
    by_id = {reply["id"]: reply for reply in replies}
    assert by_id["q1"]["result"] == {"model": "m", "got": {"x": 1}}
    assert by_id[2]["error"] == {"code": -32601, "message": "no roots"}


async def test_what_was_asked_with_a_call_ends_with_it() -> None:
    ended = anyio.Event()

    async def ask(_: Request) -> Mapping[str, Any]:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD + event(asked(1)) + event(answer_to(received)) + SSE_END)

    async with serve(legacy(handler)) as server, open_transport(server.url) as transport:
        with anyio.fail_after(HUNG_S):
            await transport.request(call(on_request=ask))
            await ended.wait()
    assert not [r for r in server.requests if {"result", "error"} & r.json.keys()]


async def test_a_server_may_take_its_question_back() -> None:
    ended = anyio.Event()
    asking = anyio.Event()

    async def ask(_: Request) -> Mapping[str, Any]:
        asking.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD + event(asked(1)))
        await asking.wait()
        await peer.send(event(told("notifications/cancelled", requestId=1)))
        await ended.wait()
        await peer.send(event(answer_to(received)) + SSE_END)

    async with serve(legacy(handler)) as server, open_transport(server.url) as transport:
        with anyio.fail_after(HUNG_S):
            await transport.request(call(on_request=ask))


async def test_the_stream_of_a_session_brings_changes_and_questions() -> None:
    heard: list[Notification] = []
    replied = anyio.Event()
    opened = anyio.Event()

    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            await peer.send(SSE_HEAD + event(told("notifications/tools/list_changed")))
            await peer.send(event(asked(9)))
            await peer.wait_closed()
        else:
            await peer.send(response(status="202 Accepted", content_type=""))
            replied.set()

    async def ask(request: Request) -> Mapping[str, Any]:
        return {"to": request.id}

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_event=heard.append, on_request=ask) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            async with anyio.create_task_group() as tasks:
                listen = Outgoing(method=LISTEN, on_sent=opened.set)
                tasks.start_soon(transport.listen, listen)
                await opened.wait()
                await replied.wait()
                tasks.cancel_scope.cancel()
    assert [notification.method for notification in heard] == ["notifications/tools/list_changed"]
    (reply,) = [r.json for r in server.requests if "result" in r.json]
    assert reply["result"] == {"to": 9}


@pytest.mark.parametrize(("calls", "whose"), [(1, "call"), (2, "client")])
async def test_what_comes_on_no_calls_stream_is_for_the_only_call_if_there_is_one_only(
    calls: int, whose: str
) -> None:
    under_way: list[Received] = []
    all_there, answered = anyio.Event(), anyio.Event()

    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            await peer.send(SSE_HEAD)
            await all_there.wait()
            await peer.send(event(asked(9)))
            await peer.wait_closed()
        elif received.rpc != "tools/call":
            await peer.send(response(status="202 Accepted", content_type=""))
            answered.set()
        else:
            under_way.append(received)
            if len(under_way) == calls:
                all_there.set()
            await answered.wait()
            await peer.send(result(received))

    async def of_client(_: Request) -> Mapping[str, Any]:
        return {"from": "client"}

    async def of_call(_: Request) -> Mapping[str, Any]:
        return {"from": "call"}

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_request=of_client) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(calls):
                    tasks.start_soon(transport.request, call(on_request=of_call))
    (reply,) = [one.json for one in server.requests if "result" in one.json]
    assert reply["result"] == {"from": whose}


async def test_a_server_without_a_stream_says_so() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            await peer.send(response(status="405 Method Not Allowed"))
        else:
            await peer.send(result(received))

    async def ask(_: Request) -> Mapping[str, Any]:
        return {}

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_request=ask) as transport,
    ):
        with anyio.fail_after(HUNG_S):
            await transport.request(call())
            await transport.request(call())
            assert [r.method for r in server.requests].count("GET") == 1
            with pytest.raises(HTTPStatusError) as caught:
                await transport.listen(Outgoing(method=LISTEN))
    assert caught.value.status == 405


async def test_since_2026_changes_come_as_the_answer_to_a_request() -> None:
    heard: list[str] = []

    async def handler(peer: Peer, received: Received) -> None:
        assert received.json["params"]["notifications"] == {"toolsListChanged": True}
        about = {"io.modelcontextprotocol/subscriptionId": received.id}
        ack = told("notifications/subscriptions/acknowledged", _meta=about, notifications={})
        change = told("notifications/tools/list_changed", _meta=about)
        await peer.send(
            SSE_HEAD + event(ack) + event(change) + event(answer_to(received)) + SSE_END
        )

    async with serve(modern(handler)) as server, open_transport(server.url) as transport:
        with anyio.fail_after(HUNG_S):
            await transport.listen(
                Outgoing(
                    method=LISTEN,
                    params={"notifications": {"toolsListChanged": True}},
                    on_notification=lambda n: heard.append(n.method),
                )
            )
    assert heard == [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    ]


async def test_capabilities_and_log_level_are_those_of_the_request() -> None:
    async def handler(peer: Peer, received: Received) -> None:
        await peer.send(result(received))

    async with (
        serve(modern(handler)) as server,
        open_transport(server.url, capabilities={"roots": {}}) as transport,
    ):
        await transport.request(call())
        await transport.request(call(capabilities={"sampling": {}}, log_level="error"))
    first, second = (r.json["params"]["_meta"] for r in server.requests[1:])
    key = "io.modelcontextprotocol/clientCapabilities"
    assert (first[key], second[key]) == ({"roots": {}}, {"sampling": {}})
    assert "io.modelcontextprotocol/logLevel" not in first
    assert second["io.modelcontextprotocol/logLevel"] == "error"


async def test_a_transport_that_is_closed_before_an_answer_is_resumed_says_so() -> None:
    told_of = anyio.Event()

    async def handler(peer: Peer, received: Received) -> None:
        assert received.method == "POST"
        waiting = chunk(b"id: e1\nretry: 300\ndata: \n\n")
        await peer.send(SSE_HEAD + waiting + event(told("notifications/x"), event_id="e2"))
        await peer.send(SSE_END)

    async with (
        serve(streaming(handler)) as server,
        open_transport(server.url, on_event=lambda _: told_of.set()) as transport,
        anyio.create_task_group() as tasks,
    ):

        async def ask() -> None:
            with anyio.fail_after(HUNG_S), pytest.raises(ClientClosed) as caught:
                await transport.request(call())
            assert caught.value.delivery == "unknown"

        tasks.start_soon(ask)
        await told_of.wait()
        await anyio.wait_all_tasks_blocked()
        await transport.aclose()
