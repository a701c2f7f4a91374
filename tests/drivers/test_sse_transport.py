"""The HTTP+SSE transport of 2024-11-05 against scripted servers on real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from attrs import define, evolve, field

from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    ConnectError,
    GatewayError,
    HTTPStatusError,
    InvalidArguments,
    MessageTooLarge,
    ProtocolError,
    RateLimited,
    ReadTimeout,
    RemoteError,
    ServerDisconnected,
    SessionExpired,
)
from sark_trio.machines.slots import PoolOptions
from sark_trio.mcp.messages import Notification
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import AnyIOBackend
from sark_trio.transports import sse_talk
from sark_trio.transports.sse import SseTransport
from tests.support.http_servers import (
    SSE_END,
    SSE_HEAD,
    Peer,
    Received,
    chunk,
    event,
    no_leaked_descriptors,
    response,
    serve,
)
from tests.support.sse_servers import OldServer, Talk, answer
from tests.support.websocket_servers import call, running

pytestmark = pytest.mark.anyio


async def error_of(waiting: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await waiting
    return caught.value


async def test_a_call_goes_by_post_and_its_answer_comes_on_the_stream() -> None:
    old = OldServer()
    async with (
        serve(old.script) as server,
        running(SseTransport(server.url, headers=[("Authorization", "Bearer t")])) as transport,
    ):
        agreed = await transport.connect()
        assert (agreed.version, agreed.modern) == ("2024-11-05", False)
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().requests == 1
    (talk,) = old.talks
    assert talk.get.headers["accept"] == "text/event-stream"
    assert talk.get.headers["authorization"] == "Bearer t"
    sent = [each["method"] for each in talk.messages]
    assert sent == ["initialize", "notifications/initialized", "tools/call"]
    assert talk.messages[0]["params"]["protocolVersion"] == "2024-11-05"
    for post in talk.posts:
        assert post.target == "/messages?session=1"
        assert post.headers["content-type"] == "application/json"
        assert post.headers["authorization"] == "Bearer t"
        assert "mcp-protocol-version" not in post.headers


async def test_progress_errors_and_events_without_a_call() -> None:
    async def handle(talk: Talk, message: Any) -> None:
        if message["params"]["name"] == "fail":
            error = {"code": -32000, "message": "no"}
            await talk.send({"jsonrpc": "2.0", "id": message["id"], "error": error})
            return
        token = message["params"]["_meta"]["progressToken"]
        progress = {"progressToken": token, "progress": 1}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
        await talk.send(note)
        await talk.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await talk.result(message)

    notes: list[Notification] = []
    events: list[str] = []
    old = OldServer(handle)
    async with serve(old.script) as server:
        transport = SseTransport(server.url, on_event=lambda note: events.append(note.method))
        async with running(transport):
            await transport.request(call(on_notification=notes.append))
            failure = await error_of(transport.request(call("fail")))
    assert isinstance(failure, RemoteError)
    assert [note.params["progress"] for note in notes] == [1]
    assert events == ["notifications/tools/list_changed"]


async def test_a_ping_of_the_servers_is_answered_by_post() -> None:
    async def handle(talk: Talk, message: Any) -> None:
        if message.get("method") == "tools/call":
            await talk.send({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
        elif message == {"jsonrpc": "2.0", "id": "s1", "result": {}}:
            await talk.result(talk.messages[2])

    old = OldServer(handle)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        assert await transport.request(call()) == {"content": []}


async def test_no_call_overtakes_the_end_of_the_handshake() -> None:
    announced, taken = anyio.Event(), anyio.Event()

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.method == "GET":
                await old.open_stream(peer, received)
                return
            if received.json["method"] == "notifications/initialized":
                announced.set()
                await taken.wait()
            await old.take(peer, received)

    old = OldServer()
    async with (
        serve(script) as server,
        running(SseTransport(server.url)) as transport,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(transport.request, call())
        await announced.wait()
        await anyio.wait_all_tasks_blocked()
        assert server.calls[-1] == "notifications/initialized"
        taken.set()
    assert server.calls[-1] == "tools/call"


async def test_an_answer_that_overtakes_the_answer_to_its_post_is_one() -> None:
    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if received.method == "GET":
            await old.open_stream(peer, received)
            return
        while True:
            message = received.json
            if message["method"] == "tools/call":
                await old.talks[-1].result(message, {"early": True})
                await peer.wait_closed()
                return
            await old.take(peer, received)
            received = await peer.receive()

    old = OldServer()
    async with serve(script) as server, running(SseTransport(server.url)) as transport:
        assert await transport.request(call()) == {"early": True}


async def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    waiting: list[Any] = []

    async def handle(talk: Talk, message: Any) -> None:
        waiting.append(message)
        if len(waiting) == 100:
            for each in reversed(waiting):
                await talk.result(each, {"n": each["params"]["arguments"]["n"]})

    answers: dict[int, Any] = {}
    old = OldServer(handle)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:

        async def one(number: int) -> None:
            answers[number] = await transport.request(call(arguments={"n": number}))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)
    assert answers == {number: {"n": number} for number in range(100)}
    assert len(old.talks) == 1


@pytest.mark.row(29)
async def test_a_caller_who_gives_up_is_told_of_and_the_rest_goes_on() -> None:
    began, told = anyio.Event(), anyio.Event()

    async def handle(talk: Talk, message: Any) -> None:
        if message["params"]["name"] == "slow":
            began.set()
        else:
            await talk.result(talk.messages[2])  # too late
            await talk.result(message)

    def refuse(message: Any) -> None:
        if message.get("method") == "notifications/cancelled":
            told.set()

    old = OldServer(handle, refuse=refuse)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.request, call("slow"))
            await began.wait()
            tasks.cancel_scope.cancel()
        await told.wait()
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().unmatched == 1
    slow, cancelled = old.talks[0].messages[2:4]
    assert cancelled["params"]["requestId"] == slow["id"]


async def test_a_caller_who_gives_up_before_a_connection_came_free_sent_nothing() -> None:
    hold = anyio.Event()
    posted: list[str] = []

    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if received.method == "GET":
            await old.open_stream(peer, received)
            return
        while True:
            name = received.json.get("params", {}).get("name", "")
            posted.append(name)
            if name == "held":
                await hold.wait()  # and with it all the connections that there may be
            await old.take(peer, received)
            received = await peer.receive()

    old = OldServer()
    limits = PoolOptions(total=2, per_origin=2, idle_max=2, streams_max=1)
    sent: list[int] = []
    async with (
        serve(script) as server,
        running(SseTransport(server.url, pool=limits)) as transport,
    ):
        await transport.connect()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.request, call("held"))
            while "held" not in posted:
                await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as given_up:
                given_up.start_soon(transport.request, call("late", on_sent=lambda: sent.append(1)))
                await anyio.wait_all_tasks_blocked()
                given_up.cancel_scope.cancel()
            hold.set()
        assert await transport.request(call()) == {"content": []}
    assert sent == []
    assert "late" not in posted
    assert not any("cancelled" in str(each.get("method")) for each in old.talks[0].messages)


# The endpoint event.

EVIL = {
    "another host": "http://evil.example/messages",
    "another port": "http://127.0.0.1:1/messages",
    "another scheme": "https://127.0.0.1:{port}/messages",
    "no scheme": "//evil.example/messages",
    "javascript": "javascript:alert(1)",
    "credentials": "http://user@127.0.0.1:{port}/messages",
    "a control character": "/messages\tx",
    "a backslash": "\\\\evil.example\\messages",
    "not ASCII": "/m\u00e9ssages",
}


@pytest.mark.row(25)
@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
async def test_25_an_endpoint_elsewhere_is_refused_and_nothing_is_sent_there(text: str) -> None:
    async with serve() as decoy:
        old = OldServer()
        async with serve(old.script) as server:
            old.endpoint = lambda _: text.replace("{port}", str(server.port))
            async with running(SseTransport(server.url)) as transport:
                failure = await error_of(transport.request(call()))
        assert isinstance(failure, ProtocolError)
        assert failure.delivery == "not_sent"
        assert "endpoint" in failure.message
        assert [received.method for received in server.requests] == ["GET"]
        assert decoy.connections == 0


@pytest.mark.row(25)
@pytest.mark.parametrize("kind", [None, "message", "ping"])
async def test_25_whatever_comes_before_the_endpoint_is_refused(kind: str | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        early = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        await peer.send(SSE_HEAD + event(early, kind=kind))
        await peer.send(event("/messages", kind="endpoint"))
        await peer.wait_closed()

    events: list[Any] = []
    async with (
        serve(script) as server,
        running(SseTransport(server.url, on_event=events.append)) as transport,
    ):
        failure = await error_of(transport.connect())
    assert isinstance(failure, ProtocolError)
    assert "endpoint" in failure.message
    assert events == []


@pytest.mark.row(25)
async def test_25_a_second_endpoint_ends_the_stream() -> None:
    async def handle(talk: Talk, _: Any) -> None:
        await talk.stream.send(event("/elsewhere", kind="endpoint"))

    old = OldServer(handle)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        failure = await error_of(transport.request(call()))
        assert isinstance(failure, ProtocolError)
        assert failure.delivery == "unknown"
        old.handler = answer
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().restarts == 1
    assert all(received.target != "/elsewhere" for received in server.requests)


@pytest.mark.row(25)
async def test_25_an_endpoint_that_does_not_come_is_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(SSE_HEAD)
        await peer.wait_closed()

    monkeypatch.setattr(sse_talk, "ENDPOINT_S", 0.05)
    with no_leaked_descriptors():
        async with serve(script) as server, running(SseTransport(server.url)) as transport:
            failure = await error_of(transport.connect())
    assert isinstance(failure, ReadTimeout)
    assert failure.delivery == "not_sent"


async def test_an_absolute_endpoint_of_the_same_origin_is_fine() -> None:
    old = OldServer()
    async with serve(old.script) as server:
        old.endpoint = lambda _: f"{server.url}/deep/messages?a=b"
        async with running(SseTransport(server.url)) as transport:
            await transport.request(call())
    assert {post.target for post in old.talks[0].posts} == {"/mcp/deep/messages?a=b"}


@pytest.mark.security(6)
@pytest.mark.row(14)
async def test_redirects_within_the_origin_are_followed_and_no_others() -> None:
    old = OldServer()

    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if received.target == "/mcp":
            place = "/a/sse" if not server.requests[1:] else "http://evil.example/"
            await peer.send(response(b"", "307 Temporary Redirect", Location=place))
            received = await peer.receive()
        if received.method == "GET":
            await old.open_stream(peer, received)
        else:
            await old.take(peer, received)
            await old.script(peer)

    old.endpoint = lambda _: "messages"  # relative to where the stream is
    async with serve(script) as server:
        async with running(SseTransport(server.url)) as transport:
            await transport.request(call())
        assert {post.target for post in old.talks[0].posts} == {"/a/messages"}
        async with running(SseTransport(server.url)) as transport:
            failure = await error_of(transport.connect())
    assert isinstance(failure, ProtocolError)
    assert "redirect not followed" in failure.message


# Failures.


async def _reset(talk: Talk) -> None:
    await talk.stream.reset()


async def _end(talk: Talk) -> None:
    await talk.stream.send(SSE_END)


async def _break_off(talk: Talk) -> None:
    await talk.stream.send(b"zz\r\n")


async def _flood(talk: Talk) -> None:
    await talk.stream.send(chunk(b"data: " + b"x" * 5_000_000 + b"\n\n"))


ENDINGS: dict[str, tuple[Callable[[Talk], Awaitable[None]], type[GatewayError]]] = {
    "reset": (_reset, ServerDisconnected),
    "end": (_end, ServerDisconnected),
    "no HTTP any more": (_break_off, ProtocolError),
    "a huge event": (_flood, MessageTooLarge),
}


@pytest.mark.row(19, 20)
@pytest.mark.parametrize(("ending", "kind"), ENDINGS.values(), ids=ENDINGS)
async def test_when_the_stream_dies_calls_fail_and_the_next_one_connects(
    ending: Callable[[Talk], Awaitable[None]], kind: type[GatewayError]
) -> None:
    async def handle(talk: Talk, message: Any) -> None:
        if talk.number == 1:
            await ending(talk)
        else:
            await talk.result(message)

    sent: list[int] = []
    old = OldServer(handle)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        failure = await error_of(transport.request(call(on_sent=lambda: sent.append(1))))
        assert type(failure) is kind
        assert failure.delivery == "unknown"
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().restarts == 1
    assert sent == [1]
    assert [talk.posts[-1].target for talk in old.talks] == [
        "/messages?session=1",
        "/messages?session=2",
    ]


@pytest.mark.row(15)
@pytest.mark.parametrize(
    ("status", "kind", "more"),
    [
        ("400 Bad Request", HTTPStatusError, {}),
        ("401 Unauthorized", AuthenticationRequired, {}),
        ("429 Too Many Requests", RateLimited, {"Retry_After": "3"}),
        ("302 Found", ProtocolError, {"Location": "/"}),
    ],
)
async def test_a_refused_post_fails_its_call_and_no_other(
    status: str, kind: type[GatewayError], more: dict[str, str]
) -> None:
    def refuse(message: Any) -> bytes | None:
        refused = message.get("params", {}).get("name") == "refused"
        return response(b"", status, **more) if refused else None

    old = OldServer(refuse=refuse)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        failure = await error_of(transport.request(call("refused")))
        assert isinstance(failure, kind)
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().restarts == 0


async def test_a_server_that_forgot_the_session_gets_a_new_one_at_the_next_call() -> None:
    def refuse(message: Any) -> bytes | None:
        gone = len(old.talks) == 1 and message["method"] == "tools/call"
        return response(b"no session", "404 Not Found") if gone else None

    old = OldServer(refuse=refuse)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        failure = await error_of(transport.request(call()))
        assert isinstance(failure, SessionExpired)
        assert (failure.status, failure.delivery) == (404, "answered")
        assert await transport.request(call()) == {"content": []}
    assert len(old.talks) == 2


@pytest.mark.row(18)
@pytest.mark.parametrize("lost", [1, 2])
async def test_18_a_call_that_a_forgotten_session_refused_is_repeated_once(lost: int) -> None:
    asked: list[str] = []

    async def allowed(reason: str) -> bool:
        asked.append(reason)
        return True

    def refuse(message: Any) -> bytes | None:
        gone = len(old.talks) <= lost and message["method"] == "tools/call"
        return response(b"no session", "410 Gone") if gone else None

    old = OldServer(refuse=refuse)
    outgoing = evolve(call(), may_resend=allowed)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        if lost == 1:
            assert await transport.request(outgoing) == {"content": []}
        else:
            failure = await error_of(transport.request(outgoing))
            assert isinstance(failure, SessionExpired)
            assert failure.status == 410
    assert asked == ["session_renewed"]
    assert len(old.talks) == 2


STRANGERS = {
    "another type": event({"a": 1}, kind="heartbeat"),
    "no JSON": event("hello", kind="message"),
    "a stranger's id": event({"jsonrpc": "2.0", "id": 99, "result": {}}),
    "bad UTF-8": chunk(b'data: {"x":"\xff"}\n\n'),
}


@pytest.mark.row(26)
@pytest.mark.parametrize("data", STRANGERS.values(), ids=STRANGERS)
async def test_26_an_event_that_is_no_message_costs_only_itself(data: bytes) -> None:
    async def handle(talk: Talk, message: Any) -> None:
        await talk.stream.send(data)
        await talk.stream.send(chunk(b"data:\n\n: comment\n\n"))
        await talk.result(message)

    old = OldServer(handle)
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        assert await transport.request(call()) == {"content": []}
        statistics = transport.statistics()
        assert statistics.garbage + statistics.unmatched == 1
        assert statistics.restarts == 0


@pytest.mark.row(14)
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (response(b"{}", "401 Unauthorized"), AuthenticationRequired),
        (response(b"{}", "404 Not Found"), HTTPStatusError),
        (response(b"<html>", content_type="text/html"), ProtocolError),
        (response(b"", "204 No Content", content_type=""), ProtocolError),
        (SSE_HEAD + SSE_END, ServerDisconnected),
    ],
)
async def test_what_is_no_event_stream_gives_one_typed_error(
    data: bytes, kind: type[GatewayError]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(data)
        await peer.wait_closed()

    with no_leaked_descriptors():
        async with serve(script) as server, running(SseTransport(server.url)) as transport:
            failure = await error_of(transport.request(call()))
    assert isinstance(failure, kind)
    assert failure.delivery in {"not_sent", "answered"}


async def test_a_server_of_another_version_is_not_spoken_with() -> None:
    old = OldServer(version="1999-01-01")
    async with serve(old.script) as server, running(SseTransport(server.url)) as transport:
        failure = await error_of(transport.connect())
    assert isinstance(failure, ProtocolError)
    assert "2024-11-05" in failure.message


async def test_too_large_a_request_is_not_sent() -> None:
    old = OldServer()
    async with (
        serve(old.script) as server,
        running(SseTransport(server.url, message_bytes_max=10_000)) as transport,
    ):
        failure = await error_of(transport.request(call(arguments={"text": "x" * 10_000})))
        assert isinstance(failure, InvalidArguments)
        assert await transport.request(call()) == {"content": []}


@pytest.mark.row(2)
async def test_nobody_listens() -> None:
    async with serve() as server:
        url = server.url
    async with running(SseTransport(url)) as transport:
        failure = await error_of(transport.connect())
    assert isinstance(failure, ConnectError)
    assert failure.delivery == "not_sent"


async def test_a_post_that_nobody_answers_fails_in_time() -> None:
    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if received.method == "GET":
            await old.open_stream(peer, received)
            return
        while received.json["method"] != "tools/call":
            await old.take(peer, received)
            received = await peer.receive()
        await peer.wait_closed()

    old = OldServer()
    timeouts = Timeouts(read_s=0.05)
    async with (
        serve(script) as server,
        running(SseTransport(server.url, timeouts=timeouts)) as transport,
    ):
        failure = await error_of(transport.request(call()))
    assert isinstance(failure, ReadTimeout)
    assert failure.delivery == "unknown"


STAGES = ["head", "endpoint", "introducing", "calling"]


def _stuck(stage: str, reached: anyio.Event) -> Callable[[Peer], Awaitable[None]]:
    async def handle(_talk: Talk, _message: Any) -> None:
        reached.set()

    old = OldServer(handle)

    async def script(peer: Peer) -> None:
        received = await peer.receive()
        if received.method == "GET" and stage in {"head", "endpoint"}:
            if stage == "endpoint":
                await peer.send(SSE_HEAD)
            reached.set()
            await peer.wait_closed()
        elif received.method == "GET":
            await old.open_stream(peer, received)
        elif stage == "introducing":
            reached.set()
            await peer.wait_closed()
        else:
            await old.take(peer, received)
            await old.script(peer)

    return script


@pytest.mark.parametrize("stage", STAGES)
async def test_cancelled_at_any_stage_it_leaves_no_socket(stage: str) -> None:
    reached = anyio.Event()
    with no_leaked_descriptors():
        async with serve(_stuck(stage, reached)) as server:
            async with anyio.create_task_group() as tasks:
                transport = SseTransport(server.url)
                await tasks.start(transport.run)
                tasks.start_soon(transport.request, call())
                await reached.wait()
                tasks.cancel_scope.cancel()
            while server.open:
                server.closed = anyio.Event()
                await server.closed.wait()


@pytest.mark.parametrize("stage", STAGES)
async def test_closed_at_any_stage_it_tells_everybody(stage: str) -> None:
    reached = anyio.Event()
    failures: list[GatewayError] = []
    async with serve(_stuck(stage, reached)) as server:
        transport = SseTransport(server.url)
        with no_leaked_descriptors():
            async with running(transport), anyio.create_task_group() as tasks:

                async def one() -> None:
                    failures.append(await error_of(transport.request(call())))

                tasks.start_soon(one)
                await reached.wait()
                await transport.aclose()
    (failure,) = failures
    assert isinstance(failure, ClientClosed)
    assert failure.delivery == ("unknown" if stage == "calling" else "not_sent")


async def test_no_secret_is_shown() -> None:
    transport = SseTransport("https://h.example/sse?key=s3cret", headers=[("X", "s3cret")])
    assert "https://h.example" in repr(transport)
    assert "s3cret" not in repr(transport)
    assert json.dumps(transport.statistics().details)


async def test_addresses_that_somebody_else_resolves_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="default backend"):
        SseTransport(
            "https://h.example/sse", backend=AnyIOBackend(), address_check=lambda _address: None
        )


@pytest.mark.row(19)
@pytest.mark.law("R7")
async def test_what_was_said_not_to_be_sent_is_not_sent_afterwards() -> None:
    """R7: the stream breaks in the very turn in which posts come by their connections.

    Their callers are told that nothing was sent, and may call again: from then on nothing is.
    """
    executed: list[int] = []

    @define(eq=False)
    class Ends(OldServer):
        """Accepts posts in one go, and ends the stream at that moment."""

        waiting: int = 0
        full: anyio.Event = field(factory=anyio.Event)

        async def take(self, peer: Peer, received: Received) -> None:
            message = received.json
            if message.get("method") != "tools/call":
                await super().take(peer, received)
                return
            executed.append(message["params"]["arguments"]["n"])
            self.waiting += 1
            if self.waiting == limits.per_origin - 1:
                self.full.set()
            await self.full.wait()
            await peer.send(response(status="202 Accepted", content_type=""))
            self.waiting -= 1
            if not self.waiting:
                raw = self.talks[-1].stream.stream.extra(anyio.abc.SocketAttribute.raw_socket)
                with suppress(OSError):  # that of a post that came too late
                    raw.shutdown(socket.SHUT_RDWR)

    async def one(transport: SseTransport, n: int) -> None:
        error = await error_of(transport.request(call(arguments={"n": n})))
        said[n] = str(error.delivery)

    limits = PoolOptions(total=8, per_origin=8, idle_max=8, streams_max=1)
    for _ in range(10):  # which of the tasks that are ready goes first is the loop's choice
        executed.clear()
        said: dict[int, str] = {}
        old = Ends()
        async with serve(old.script) as server:
            async with running(SseTransport(server.url, pool=limits)) as transport:
                await transport.connect()
                async with anyio.create_task_group() as tasks:
                    for n in range(40):
                        tasks.start_soon(one, transport, n)
            while server.open:  # whatever went out has arrived when its connection is closed
                await anyio.wait_all_tasks_blocked()
        assert sorted(said) == list(range(40))
        assert not {n for n, delivery in said.items() if delivery == "not_sent"} & set(executed)


class _NoStore:
    """Whoever should get the credentials, and cannot even begin."""

    busy = False

    async def run(self, *, task_status: Any) -> None:
        raise OSError("no store")


async def test_a_transport_that_could_not_begin_is_a_closed_one() -> None:
    transport = SseTransport("http://127.0.0.1:1/sse", auth=_NoStore())  # type: ignore[arg-type]
    with pytest.raises(BaseExceptionGroup) as caught:
        await transport.run()
    assert caught.group_contains(OSError, match="no store")
    assert isinstance(await error_of(transport.request(call())), ClientClosed)
    await transport.aclose()
