"""Streamable HTTP against scripted servers on real sockets: the stateless era."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    Denied,
    Forbidden,
    HTTPStatusError,
    InvalidArguments,
    MessageTooLarge,
    ProtocolError,
    RateLimited,
    ReadTimeout,
    RemoteError,
    ServerDisconnected,
)
from sark_trio.machines.pool import PoolOptions
from sark_trio.mcp.messages import Notification
from sark_trio.net.options import Timeouts
from sark_trio.transports.base import Outgoing
from sark_trio.transports.http import HttpTransport
from tests.support.http_servers import (
    SSE_HEAD,
    Peer,
    Received,
    error,
    event,
    modern,
    no_leaked_descriptors,
    open_transport,
    response,
    result,
    serve,
    sse,
)

pytestmark = pytest.mark.anyio

CALL = Outgoing(method="tools/call", params={"name": "echo", "arguments": {"x": 1}})


def answering(data: bytes) -> Any:
    """A handler that sends the same bytes to every call."""

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(data)

    return handle


async def yes(_reason: str) -> bool:
    return True


async def test_a_call_carries_the_metadata_of_its_revision_and_returns_the_result() -> None:
    async with serve(modern()) as server, open_transport(server.url) as transport:
        found = await transport.request(CALL)
        assert found == {"content": []}
        assert transport.agreed is not None
        assert transport.agreed.modern
        assert transport.agreed.server_info["name"] == "scripted"
    discover, call = server.requests
    assert discover.headers["mcp-method"] == "server/discover"
    assert call.headers["mcp-protocol-version"] == "2026-07-28"
    assert call.headers["mcp-method"] == "tools/call"
    assert call.headers["mcp-name"] == "echo"
    assert call.headers["accept"] == "application/json, text/event-stream"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["host"] == f"127.0.0.1:{server.port}"
    meta = call.json["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "sark_trio"
    assert discover.id != call.id
    assert server.connections == 1  # kept alive between the two


async def test_many_callers_share_one_handshake_and_the_pool_bounds_them() -> None:
    options = PoolOptions(per_origin=4)
    async with serve(modern()) as server, open_transport(server.url, pool=options) as transport:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(transport.request, CALL)
        assert server.calls.count("server/discover") == 1
        assert server.calls.count("tools/call") == 40
        assert server.connections <= 4
        assert len({received.id for received in server.requests}) == 41
        assert transport.statistics().requests == 40


async def test_cancelling_who_began_the_handshake_leaves_it_to_the_others() -> None:
    release = anyio.Event()

    async def slow(peer: Peer) -> None:
        received = await peer.receive()
        await release.wait()
        await peer.send(result(received, {"supportedVersions": ["2026-07-28"]}))
        await modern()(peer)

    async with serve(slow) as server, open_transport(server.url) as transport:
        answers: list[Any] = []

        async def second() -> None:
            answers.append(await transport.connect())

        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as group:
                group.start_soon(transport.connect)
                await anyio.wait_all_tasks_blocked()
                first.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            release.set()
        assert answers[0].modern
        assert server.calls == ["server/discover"]


async def test_notifications_before_the_answer_are_handed_on_in_order() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        progress = {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": received.id, "progress": 1},
        }
        stray = {**progress, "params": {"progressToken": "other", "progress": 1}}
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}
        answer = {"jsonrpc": "2.0", "id": received.id, "result": {"ok": True}}
        await peer.send(sse(progress, stray, log, answer))

    got: list[Notification] = []
    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, on_notification=got.append)
        assert await transport.request(call) == {"ok": True}
        assert [each.method for each in got] == ["notifications/progress", "notifications/message"]
        assert transport.statistics().unmatched == 1  # the stray progress
        await transport.request(call)
        assert server.connections == 1  # the stream was read to its end: kept alive


@pytest.mark.row(61)
async def test_a_listener_that_raises_costs_nothing() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
        await peer.send(sse(note, {"jsonrpc": "2.0", "id": received.id, "result": {}}))

    def listener(_: Notification) -> None:
        raise RuntimeError("a bug of the listener's")

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, on_notification=listener)
        assert await transport.request(call) == {}
        assert transport.statistics().details["callback_errors"] == 1


@pytest.mark.security(23)
@pytest.mark.row(28, 29)
async def test_an_answer_with_another_id_on_a_stream_is_never_delivered() -> None:
    """Laws, section 0: the reference client takes it for the answer."""

    async def handle(peer: Peer, received: Received) -> None:
        wrong = [received.id + 1, str(received.id), float(received.id)]
        strays = [{"jsonrpc": "2.0", "id": id_, "result": {"stolen": True}} for id_ in wrong]
        await peer.send(sse(*strays, {"jsonrpc": "2.0", "id": received.id, "result": {"mine": 1}}))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        assert await transport.request(CALL) == {"mine": 1}
        stats = transport.statistics()
        assert (stats.unmatched, stats.garbage) == (2, 1)  # 3.0 is no id at all


@pytest.mark.security(23)
@pytest.mark.row(29)
async def test_an_answer_with_another_id_as_json_is_a_protocol_error() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        message = {"jsonrpc": "2.0", "id": received.id + 7, "result": {"stolen": True}}
        await peer.send(response(json.dumps(message).encode()))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        with pytest.raises(ProtocolError):
            await transport.request(CALL)
        assert transport.statistics().unmatched == 1


@pytest.mark.row(31)
async def test_a_request_of_the_servers_is_ignored_in_the_stateless_era() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        ask = {"jsonrpc": "2.0", "id": 99, "method": "sampling/createMessage", "params": {}}
        await peer.send(sse(ask, {"jsonrpc": "2.0", "id": received.id, "result": {}}))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        await transport.request(CALL)
        await transport.request(CALL)
        assert server.calls == ["server/discover", "tools/call", "tools/call"]
        assert transport.statistics().details["server_requests"] == 2


@pytest.mark.row(20)
async def test_an_event_stream_that_ends_without_the_answer_leaves_the_outcome_unknown() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(sse({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        with pytest.raises(ServerDisconnected) as caught:
            await transport.request(CALL)
        assert caught.value.delivery == "unknown"
        assert server.calls.count("tools/call") == 1


@pytest.mark.row(27)
async def test_garbage_and_foreign_event_types_cost_only_themselves() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        answer = {"jsonrpc": "2.0", "id": received.id, "result": {"ok": 1}}
        bad = [event("{nonsense"), event({"jsonrpc": "2.0"}), event("[]"), event(answer, kind="x")]
        await peer.send(SSE_HEAD + b"".join(bad) + event(answer) + b"0\r\n\r\n")

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        assert await transport.request(CALL) == {"ok": 1}
        assert transport.statistics().garbage == 4


@pytest.mark.row(28)
async def test_a_broken_answer_on_a_stream_fails_its_call_at_once() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        both = {"jsonrpc": "2.0", "id": received.id, "result": {}, "error": {}}
        await peer.send(SSE_HEAD + event(both))
        await peer.wait_closed()

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        with pytest.raises(ProtocolError):
            await transport.request(CALL)


@pytest.mark.row(26, 27, 28)
@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "body",
    [
        b"<html>It works!</html>",
        b"",
        b'{"jsonrpc":"2.0","id":2,"result":{',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","id":2,"result":{"x":NaN}}',
        b"[" * 100_000,
        b'[{"jsonrpc":"2.0","id":2,"result":{}}]',
        b'{"jsonrpc":"2.0","id":2,"result":{"x":' + b"9" * 100_000 + b"}}}",
        b'{"jsonrpc":"2.0","method":"ping","id":2}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
    ],
    ids=["html", "empty", "cut", "utf8", "nan", "deep", "batch", "digits", "request", "id-true"],
)
async def test_a_200_that_is_no_answer_is_one_protocol_error_and_is_sent_once(body: bytes) -> None:
    """Fault 31: a ValueError, and a second POST."""
    scripts = modern(answering(response(body)))
    async with serve(scripts) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, replay_safe=True, may_resend=yes)
        with pytest.raises(ProtocolError) as caught:
            await transport.request(call)
        assert type(caught.value) is ProtocolError
        assert server.calls.count("tools/call") == 1
        with pytest.raises(ProtocolError):
            await transport.request(call)  # the transport has survived it


@pytest.mark.row(8)
async def test_a_truncated_body_fails_its_call_and_no_other() -> None:
    """Laws, section 0: in the reference client it ends the session."""
    waiting = anyio.Event()

    async def handle(peer: Peer, received: Received) -> None:
        if received.json["params"]["name"] == "cut":
            whole = result(received)
            await peer.send(whole[:-5])
            await peer.stream.aclose()
        else:
            await waiting.wait()
            await peer.send(result(received))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        answers: list[Any] = []

        async def sibling() -> None:
            answers.append(await transport.request(CALL))

        async with anyio.create_task_group() as group:
            group.start_soon(sibling)
            await anyio.wait_all_tasks_blocked()
            cut = Outgoing(method="tools/call", params={"name": "cut"})
            with pytest.raises(ServerDisconnected) as caught:
                await transport.request(cut)
            assert caught.value.delivery == "unknown"
            waiting.set()
        assert answers == [{"content": []}]


async def test_a_body_of_256_mebibytes_is_not_read() -> None:
    sent = 0

    async def handle(peer: Peer, received: Received) -> None:
        nonlocal sent
        size = 256 * 1024 * 1024
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
        )
        await peer.send(head.encode())
        piece = b" " * 65536
        while sent < size:
            await peer.send(piece)
            sent += len(piece)

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        with pytest.raises(MessageTooLarge) as caught:
            await transport.request(CALL)
        assert caught.value.limit_bytes == 4 * 1024 * 1024
        await server.closed.wait()
        assert sent < 32 * 1024 * 1024  # what socket buffers hold


@pytest.mark.security(17)
@pytest.mark.row(22)
@pytest.mark.parametrize("framing", ["chunked", "events"])
async def test_a_message_without_end_is_cut_off_at_the_limit(framing: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        kind = b"application/json" if framing == "chunked" else b"text/event-stream"
        await peer.send(SSE_HEAD.replace(b"text/event-stream", kind))
        while True:
            data = b"data: " + b"x" * 4090 if framing == "events" else b"x" * 4096
            await peer.send(b"%x\r\n%b\r\n" % (len(data), data))

    async with (
        serve(modern(handle)) as server,
        open_transport(server.url, message_bytes_max=100_000) as transport,
    ):
        with pytest.raises(MessageTooLarge) as caught:
            await transport.request(CALL)
        assert caught.value.limit_bytes == 100_000


@pytest.mark.row(14)
@pytest.mark.parametrize(
    "answer",
    [
        response(b"hello", content_type="text/html"),
        response(b"{}", content_type=""),
        response(status="202 Accepted", content_type=""),
        response(status="204 No Content", content_type=""),
        response(status="301 Moved", location="/elsewhere"),
        response(status="302 Found", location="/elsewhere"),
        response(status="303 See Other", location="/elsewhere"),
        response(status="307 Temporary Redirect"),
        response(status="307 Temporary Redirect", location="http://127.0.0.2/mcp"),
        response(status="308 Permanent Redirect", location="https://evil.example/"),
        response(status="307 Temporary Redirect", location="http://u@127.0.0.1/"),
        response(status="307 Temporary Redirect", location="javascript:alert(1)"),
    ],
    ids=lambda answer: answer.split(b"\r\n")[0].decode()[9:12] if isinstance(answer, bytes) else "",
)
async def test_a_request_is_answered_with_200_and_json_or_events_and_nothing_else(
    answer: bytes,
) -> None:
    scripts = modern(answering(answer))
    async with serve(scripts) as server, open_transport(server.url) as transport:
        with pytest.raises(ProtocolError):
            await transport.request(CALL)
        assert server.calls.count("tools/call") == 1


@pytest.mark.security(6)
@pytest.mark.row(14)
@pytest.mark.fault(27)
@pytest.mark.parametrize(
    "status", ["302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
async def test_credentials_and_arguments_never_follow_a_redirect_to_another_origin(
    status: str,
) -> None:
    """Fault 27: the key was sent along, and a 302 made a GET whose body became the result."""

    async def auth() -> Any:
        return [("Authorization", "Bearer secret")]

    async def elsewhere(peer: Peer) -> None:
        await peer.send(result(await peer.receive(), {"stolen": True}))

    async with serve(elsewhere) as other:
        moved = response(status=status, location=other.url)
        options = {"auth": auth, "headers": [("X-API-Key", "secret")]}
        async with (
            serve(modern(answering(moved))) as server,
            open_transport(server.url, **options) as transport,
        ):
            with pytest.raises(ProtocolError):
                await transport.request(CALL)
            assert server.calls.count("tools/call") == 1
        assert other.connections == 0


@pytest.mark.row(14)
async def test_a_redirect_within_the_origin_is_followed_with_method_and_body() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        if received.target == "/mcp":
            moved = response(status="307 Temporary Redirect", location="/mcp/", content_type="")
            await peer.send(moved)
        else:
            await peer.send(result(received))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        await transport.request(CALL)
        targets = [each.target for each in server.requests if each.rpc == "tools/call"]
        assert targets == ["/mcp", "/mcp/"]


async def test_a_redirected_handshake_moves_the_endpoint_for_good() -> None:
    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.target == "/mcp":
                status = "308 Permanent Redirect"
                await peer.send(response(status=status, location="/mcp/", content_type=""))
            else:
                found = {"supportedVersions": ["2026-07-28"]}
                await peer.send(result(received, found))

    async with serve(script) as server, open_transport(server.url) as transport:
        await transport.request(CALL)
        await transport.request(CALL)
        assert [each.target for each in server.requests] == ["/mcp", "/mcp/", "/mcp/", "/mcp/"]


@pytest.mark.row(14)
async def test_a_redirect_loop_ends_after_three() -> None:
    loop = response(status="307 Temporary Redirect", location="/mcp", content_type="")
    async with serve(modern(answering(loop))) as server, open_transport(server.url) as transport:
        with pytest.raises(ProtocolError, match="3 times"):
            await transport.request(CALL)
        assert server.calls.count("tools/call") == 4


@pytest.mark.row(15)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, HTTPStatusError),
        (401, AuthenticationRequired),
        (403, Forbidden),
        (404, HTTPStatusError),
        (405, HTTPStatusError),
        (413, HTTPStatusError),
        (429, RateLimited),
        (500, HTTPStatusError),
        (502, HTTPStatusError),
        (503, HTTPStatusError),
    ],
)
async def test_an_error_status_is_typed_and_answered_and_sent_once(
    status: int, kind: type[HTTPStatusError]
) -> None:
    answer = response(b"<h1>no</h1>", f"{status} No", "text/html")
    async with serve(modern(answering(answer))) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, replay_safe=True, may_resend=yes)
        with pytest.raises(HTTPStatusError) as caught:
            await transport.request(call)
        assert type(caught.value) is kind
        assert caught.value.status == status
        assert caught.value.delivery == "answered"
        assert server.calls.count("tools/call") == 1


@pytest.mark.row(16)
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0", 0.0), ("-1", None), ("x", None)])
async def test_retry_after_is_read_and_garbage_in_it_is_not(
    header: str, seconds: float | None
) -> None:
    answer = response(b"", "429 Too Many Requests", Retry_After=header)
    async with serve(modern(answering(answer))) as server, open_transport(server.url) as transport:
        with pytest.raises(RateLimited) as caught:
            await transport.request(CALL)
        assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found"])
async def test_a_json_rpc_error_is_a_remote_error_whatever_its_status(status: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(error(received, -32601, status, data={"why": 1}))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        with pytest.raises(RemoteError) as caught:
            await transport.request(CALL)
        assert (caught.value.code, caught.value.data) == (-32601, {"why": 1})
        assert caught.value.delivery == "answered"


async def test_cancelling_a_call_closes_its_connection_and_no_other() -> None:
    started, closed = anyio.Event(), anyio.Event()

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD)
        started.set()
        await peer.wait_closed()
        closed.set()

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        await transport.connect()
        async with anyio.create_task_group() as group:
            group.start_soon(transport.request, CALL)
            await started.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(5):
            await closed.wait()
        assert server.calls == ["server/discover", "tools/call"]  # no notifications/cancelled


@pytest.mark.row(61)
async def test_credentials_are_asked_for_each_request_and_their_failure_sends_nothing() -> None:
    tokens = iter(["one", "two"])

    async def auth() -> Any:
        return [("Authorization", f"Bearer {next(tokens)}")]

    async with serve(modern()) as server, open_transport(server.url, auth=auth) as transport:
        await transport.request(CALL)
        seen = [received.headers["authorization"] for received in server.requests]
        assert seen == ["Bearer one", "Bearer two"]
        with pytest.raises(Denied) as caught:
            await transport.request(CALL)
        assert caught.value.delivery == "not_sent"
        assert len(server.requests) == 2


@pytest.mark.security(22)
async def test_mirrored_parameters_are_headers_and_nothing_else_is() -> None:
    async with serve(modern()) as server, open_transport(server.url) as transport:
        mirrored = (("Mcp-Param-Region", "us-west1"), ("Mcp-Param-Who", "\u00e4\r\nX: y"))
        call = Outgoing(method="tools/call", params=CALL.params, headers=mirrored)
        await transport.request(call)
        headers = server.requests[-1].headers
        assert headers["mcp-param-region"] == "us-west1"
        assert headers["mcp-param-who"].startswith("=?base64?")
        forged = Outgoing(method="x", headers=(("Authorization", "mine"),))
        with pytest.raises(InvalidArguments):
            await transport.request(forged)
        assert len(server.requests) == 2


@pytest.mark.row(31)
async def test_a_notification_wants_202_and_a_response_to_it_is_counted() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        match received.rpc:
            case "notifications/a":
                await peer.send(response(status="202 Accepted", content_type=""))
            case "notifications/b":
                await peer.send(result(received))
            case "notifications/c":
                await peer.send(response(b"", "400 Bad Request"))
            case _:
                await peer.send(response(status="302 Found", content_type=""))

    async with serve(modern(handle)) as server, open_transport(server.url) as transport:
        await transport.notify("notifications/a", {})
        assert transport.statistics().unmatched == 0
        await transport.notify("notifications/b", {})
        assert transport.statistics().unmatched == 1
        with pytest.raises(HTTPStatusError):
            await transport.notify("notifications/c", {})
        with pytest.raises(ProtocolError):
            await transport.notify("notifications/d", {})


async def test_a_version_that_is_no_longer_supported_is_agreed_anew() -> None:
    upgraded = False

    async def handle(peer: Peer, received: Received) -> None:
        data = {"supported": ["2025-11-25"], "requested": "2026-07-28"}
        await peer.send(error(received, -32022, "400 Bad Request", data=data))

    async def script(peer: Peer) -> None:
        nonlocal upgraded
        received = await peer.receive()
        await peer.send(result(received, {"supportedVersions": ["2026-07-28"]}))
        await handle(peer, await peer.receive())
        while True:  # from here on it is a server of the session era
            received = await peer.receive()
            if received.rpc == "server/discover":
                await handle(peer, received)
            elif received.rpc == "initialize":
                about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
                await peer.send(result(received, about))
            elif received.id is None:
                await peer.send(response(status="202 Accepted", content_type=""))
            else:
                await peer.send(result(received))

    reasons: list[str] = []

    async def ask(reason: str) -> bool:
        reasons.append(reason)
        return True

    async with serve(script) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, may_resend=ask)
        assert await transport.request(call) == {"content": []}
        assert reasons == ["version_changed"]
        assert transport.agreed is not None
        assert transport.agreed.version == "2025-11-25"


@pytest.mark.row(10)
async def test_a_silent_server_is_a_read_timeout_and_the_connection_is_gone() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.wait_closed()

    limits = Timeouts(read_s=0.05)
    async with (
        serve(modern(handle)) as server,
        open_transport(server.url, timeouts=limits) as transport,
    ):
        with pytest.raises(ReadTimeout) as caught:
            await transport.request(CALL)
        assert caught.value.delivery == "unknown"
        await server.closed.wait()
        assert server.calls.count("tools/call") == 1  # never replayed after a timeout


@pytest.mark.security(33)
@pytest.mark.row(9, 22)
async def test_bytes_that_trickle_do_not_extend_an_exchange_for_ever() -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD)
        while True:
            await peer.send(b"3\r\n:\r\n\r\n")
            await checkpoint()

    limits = Timeouts(read_s=0.1, exchange_s=0.3)
    async with (
        serve(modern(handle)) as server,
        open_transport(server.url, timeouts=limits) as transport,
    ):
        with (
            anyio.fail_after(5),
            pytest.raises(ReadTimeout, match=r"within 0\.3 s"),
        ):
            await transport.request(CALL)


async def test_a_closed_transport_says_so_and_leaves_nothing() -> None:
    with no_leaked_descriptors():
        async with serve(modern()) as server:
            transport = HttpTransport(server.url)
            with pytest.raises(ClientClosed):
                await transport.request(CALL)
            async with open_transport(server.url) as running:
                await running.request(CALL)
                await running.aclose()
                await running.aclose()
                with pytest.raises(ClientClosed):
                    await running.request(CALL)
                with pytest.raises(ClientClosed):
                    await running.connect()
            await transport.aclose()


async def test_what_is_under_way_when_the_host_is_cancelled_ends_with_one_error() -> None:
    started = anyio.Event()
    errors: list[BaseException] = []

    async def handle(peer: Peer, received: Received) -> None:
        started.set()
        await peer.wait_closed()

    with no_leaked_descriptors():
        async with serve(modern(handle)) as server:
            transport = HttpTransport(server.url)

            async def call() -> None:
                try:
                    await transport.request(CALL)
                except ClientClosed as exc:
                    errors.append(exc)

            async with (
                anyio.create_task_group() as callers,
                anyio.create_task_group() as host,
            ):
                await host.start(transport.run)
                callers.start_soon(call)
                await started.wait()
                host.cancel_scope.cancel()
            assert [error.delivery for error in errors] == ["unknown"]  # type: ignore[attr-defined]


def test_options_are_checked_at_once() -> None:
    for bad in ({"headers": [("Host", "x")]}, {"headers": [("A", "b\r\nc")]}):
        with pytest.raises(ValueError, match="header"):
            HttpTransport("http://127.0.0.1/mcp", **bad)
    with pytest.raises(ValueError, match="message_bytes_max"):
        HttpTransport("http://127.0.0.1/mcp", message_bytes_max=0)
    with pytest.raises(ValueError, match="http"):
        HttpTransport("ftp://127.0.0.1/")
    secret = HttpTransport("http://127.0.0.1/mcp?token=hidden", headers=[("X-Key", "hidden")])
    assert "hidden" not in repr(secret)


def closing_after(count: int) -> Any:
    """A server whose first connection dies, unnoticed, on its request number *count*."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await modern()(peer)
        for number in range(count):
            received = await peer.receive()
            if number < count - 1:
                await peer.send(result(received, {"supportedVersions": ["2026-07-28"]}))

    return script


@pytest.mark.row(7)
async def test_a_stale_connection_is_replaced_once_and_only_for_a_call_that_may_be_repeated() -> (
    None
):
    """Row 7: the server closes a kept connection when the next request is on its way."""
    reasons: list[str] = []

    async def ask(reason: str) -> bool:
        reasons.append(reason)
        return True

    async with serve(closing_after(2)) as server, open_transport(server.url) as transport:
        safe = Outgoing(method="tools/call", params=CALL.params, replay_safe=True, may_resend=ask)
        assert await transport.request(safe) == {"content": []}
        assert reasons == ["stale_connection"]
        calls = [received for received in server.requests if received.rpc == "tools/call"]
        assert len({received.id for received in calls}) == 2  # never the same id twice
        assert server.connections == 2


@pytest.mark.row(7)
@pytest.mark.parametrize(("safe", "answer"), [(False, True), (True, False), (True, None)])
async def test_a_call_that_may_not_be_repeated_is_not(safe: bool, answer: bool | None) -> None:
    async def ask(_reason: str) -> bool:
        return bool(answer)

    async with serve(closing_after(2)) as server, open_transport(server.url) as transport:
        unsafe = Outgoing(
            method="tools/call",
            params=CALL.params,
            replay_safe=safe,
            may_resend=None if answer is None else ask,
        )
        with pytest.raises(ServerDisconnected) as caught:
            await transport.request(unsafe)
        assert caught.value.delivery == "unknown"
        assert server.calls.count("tools/call") == 1


@pytest.mark.row(7)
async def test_a_replay_that_fails_is_not_replayed() -> None:
    async def dying(peer: Peer) -> None:
        received = await peer.receive()
        if received.rpc == "server/discover":
            await peer.send(result(received, {"supportedVersions": ["2026-07-28"]}))
            await peer.receive()

    async with serve(dying) as server, open_transport(server.url) as transport:
        call = Outgoing(method="tools/call", params=CALL.params, replay_safe=True, may_resend=yes)
        with pytest.raises(ServerDisconnected):
            await transport.request(call)
        assert server.calls.count("tools/call") == 2


async def test_a_first_connection_that_dies_is_not_stale() -> None:
    async def dying(peer: Peer) -> None:
        await peer.receive()

    async with serve(dying) as server, open_transport(server.url) as transport:
        with pytest.raises(ServerDisconnected):
            await transport.connect()
        assert len(server.requests) == 1


@pytest.mark.row(54)
async def test_cancelling_a_call_anywhere_leaves_the_transport_whole() -> None:
    """Row 54, as far as it is ours: cancelled after every number of steps, it works again."""
    async with (
        serve(modern()) as server,
        open_transport(server.url, pool=PoolOptions(per_origin=2)) as transport,
    ):
        await transport.connect()
        for steps in range(60):
            async with anyio.create_task_group() as group:
                group.start_soon(transport.request, CALL)
                group.start_soon(transport.request, CALL)
                group.start_soon(transport.request, CALL)
                for _ in range(steps):
                    await checkpoint()
                group.cancel_scope.cancel()
            with anyio.fail_after(5):
                assert await transport.request(CALL) == {"content": []}
        pool = transport.statistics().details["pool"]
        assert (pool["leased"], pool["granted"], pool["waiting"]) == (0, 0, 0)
        assert pool["idle"] + pool["connecting"] + pool["closing"] <= 2
