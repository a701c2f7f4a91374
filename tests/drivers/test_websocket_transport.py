"""The WebSocket transport against scripted servers on real sockets, with either library."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trustme

from sark_trio.errors import (
    AuthenticationRequired,
    ClientClosed,
    ConnectError,
    GatewayError,
    InvalidArguments,
    MessageTooLarge,
    ProtocolError,
    RateLimited,
    RemoteError,
    ServerDisconnected,
    TLSError,
    TransportNotAvailableError,
)
from sark_trio.mcp.messages import Notification
from sark_trio.net.options import Timeouts
from sark_trio.net.tls import TLSOptions
from sark_trio.transports.websocket import WebSocketTransport
from tests.support.http_servers import Peer, no_leaked_descriptors, response, serve
from tests.support.websocket_servers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Socket,
    accepted,
    call,
    frame,
    legacy_socket,
    modern_socket,
    running,
    url_of,
)

pytestmark = pytest.mark.anyio


def at(url: str, **options: Any) -> WebSocketTransport:
    return WebSocketTransport(url_of(url), **options)


async def error_of(waiting: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await waiting
    return caught.value


async def test_a_legacy_server_is_found_out_and_called() -> None:
    sockets: list[Socket] = []
    async with (
        serve(legacy_socket(sockets=sockets)) as server,
        running(at(server.url, headers=[("Authorization", "Bearer t0ken")])) as transport,
    ):
        assert (await transport.connect()).version == "2025-11-25"
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().requests == 1
    (socket,) = sockets
    assert [each.get("method") for each in socket.messages] == [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    headers = socket.request.headers
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["sec-websocket-protocol"] == "mcp"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert "origin" not in headers
    assert "sec-websocket-extensions" not in headers
    assert socket.closed == 1000


async def test_a_modern_server_is_called_without_a_handshake() -> None:
    seen: list[Any] = []

    async def handle(socket: Socket, message: Any) -> None:
        seen.append(message)
        await socket.result(message)

    async with serve(modern_socket(handle)) as server, running(at(server.url)) as transport:
        agreed = await transport.connect()
        assert agreed.modern
        await transport.request(call())
    assert seen[0]["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


async def test_progress_belongs_to_its_call_and_errors_are_answers() -> None:
    async def handle(socket: Socket, message: Any) -> None:
        if message["params"]["name"] == "fail":
            error = {"code": -32000, "message": "no", "data": 7}
            await socket.send({"jsonrpc": "2.0", "id": message["id"], "error": error})
            return
        token = message["params"]["_meta"]["progressToken"]
        for step in range(2):
            progress = {"progressToken": token, "progress": step}
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
            await socket.send(note)
        await socket.result(message)

    notes: list[Notification] = []
    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        await transport.request(call(on_notification=notes.append))
        failure = await error_of(transport.request(call("fail")))
    assert [note.params["progress"] for note in notes] == [0, 1]
    assert isinstance(failure, RemoteError)
    assert (failure.code, failure.data, failure.delivery) == (-32000, 7, "answered")


async def test_the_servers_own_words_are_heard_and_its_ping_is_answered() -> None:
    answered = anyio.Event()

    async def handle(socket: Socket, message: Any) -> None:
        await socket.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await socket.send({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
        assert (await socket.receive())["id"] == "s1"
        answered.set()
        await socket.result(message)

    events: list[str] = []
    transport = at("http://127.0.0.1:1", on_event=lambda note: events.append(note.method))
    async with serve(legacy_socket(handle)) as server:
        transport = at(server.url, on_event=lambda note: events.append(note.method))
        async with running(transport):
            await transport.request(call())
    assert events == ["notifications/tools/list_changed"]
    assert answered.is_set()


@pytest.mark.row(29)
async def test_a_caller_who_gives_up_is_told_of_and_the_rest_goes_on() -> None:
    began, told = anyio.Event(), anyio.Event()
    cancelled: list[Any] = []

    async def handle(socket: Socket, message: Any) -> None:
        if message["params"]["name"] != "slow":
            await socket.result(message)
            return
        began.set()
        cancelled.append((message["id"], await socket.receive()))
        told.set()
        await socket.result(message)  # too late

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.request, call("slow"))
            await began.wait()
            tasks.cancel_scope.cancel()
        await told.wait()
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().unmatched == 1
        assert transport.statistics().restarts == 0
    ((request_id, note),) = cancelled
    assert note["method"] == "notifications/cancelled"
    assert note["params"]["requestId"] == request_id


async def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    waiting: list[Any] = []

    async def handle(socket: Socket, message: Any) -> None:
        waiting.append(message)
        if len(waiting) == 100:
            for each in reversed(waiting):
                await socket.result(each, {"n": each["params"]["arguments"]["n"]})

    answers: dict[int, Any] = {}
    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:

        async def one(number: int) -> None:
            answers[number] = await transport.request(call(arguments={"n": number}))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)
        assert server.connections == 1
    assert answers == {number: {"n": number} for number in range(100)}


# How a connection ends.

Ending = Callable[[Socket], Awaitable[None]]


async def _reset(socket: Socket) -> None:
    await socket.peer.reset()


async def _hang_up(socket: Socket) -> None:
    await socket.peer.stream.aclose()


def _close(code: int, reason: str = "") -> Ending:
    async def close(socket: Socket) -> None:
        await socket.close(code, reason)
        await socket.peer.wait_closed()

    return close


def _send(data: bytes) -> Ending:
    async def send(socket: Socket) -> None:
        await socket.peer.send(data)
        await socket.peer.wait_closed()

    return send


ENDINGS: dict[str, tuple[Ending, type[GatewayError], str]] = {
    "reset": (_reset, ServerDisconnected, "broke"),
    "end of stream": (_hang_up, ServerDisconnected, "broke"),
    "1000": (_close(1000), ServerDisconnected, "code 1000"),
    "1001": (_close(1001, "going away"), ServerDisconnected, "'going away'"),
    "1011": (_close(1011, "oops"), ServerDisconnected, "code 1011"),
    "1012": (_close(1012), ServerDisconnected, "code 1012"),
    "4000": (_close(4000, "own\x1b[31m"), ServerDisconnected, r"'own\x1b[31m'"),
    "1002": (_close(1002), ProtocolError, "protocol error"),
    "1007": (_close(1007), ProtocolError, "no UTF-8"),
    "1008": (_close(1008, "no"), ProtocolError, "policy"),
    "1009": (_close(1009), ProtocolError, "too big"),
    "bad UTF-8": (_send(frame(TEXT, b'{"\xff"}')), ProtocolError, "code 1007"),
    "bad UTF-8 in pieces": (
        _send(frame(TEXT, b"\xe2\x98", fin=False) + frame(CONTINUATION, b"\xe2")),
        ProtocolError,
        "code 1007",
    ),
    "masked": (_send(b"\x81\x81\0\0\0\0x"), ProtocolError, "code 1002"),
    "reserved bits": (_send(b"\xf1\x01x"), ProtocolError, "code 1002"),
    "unknown opcode": (_send(b"\x83\x01x"), ProtocolError, "code 1002"),
    "long control frame": (_send(b"\x89\x7e\x00\x80" + b"x" * 128), ProtocolError, "code 1002"),
    "continues nothing": (_send(frame(CONTINUATION, b"x")), ProtocolError, "code 1002"),
    "a message in a message": (
        _send(frame(TEXT, b"{", fin=False) + frame(TEXT, b"{}")),
        ProtocolError,
        "code 1002",
    ),
}


@pytest.mark.row(44, 19)
@pytest.mark.parametrize(("ending", "kind", "words"), ENDINGS.values(), ids=ENDINGS)
async def test_44_however_it_ends_calls_fail_with_their_delivery_and_the_next_one_connects(
    ending: Ending, kind: type[GatewayError], words: str
) -> None:
    async def handle(socket: Socket, _: Any) -> None:
        await ending(socket)

    sent: list[int] = []
    async with (
        serve(legacy_socket(handle), legacy_socket()) as server,
        running(at(server.url)) as transport,
    ):
        failure = await error_of(transport.request(call(on_sent=lambda: sent.append(1))))
        assert type(failure) is kind
        assert words in failure.message
        assert "\x1b" not in failure.message
        assert failure.delivery == "unknown"
        assert await transport.request(call()) == {"content": []}
        assert transport.statistics().restarts == 1
        assert server.connections == 2
    assert sent == [1]


FRAMES = {
    "binary": frame(BINARY, b"\0\1"),
    "no JSON": frame(TEXT, b"hello"),
    "a batch": frame(TEXT, b"[]"),
    "NaN": frame(TEXT, b'{"jsonrpc":"2.0","id":1,"result":{"x":NaN}}'),
    "empty": frame(TEXT),
    "a stranger's id": frame(TEXT, b'{"jsonrpc":"2.0","id":999,"result":{}}'),
}


@pytest.mark.row(26, 27)
@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES)
async def test_26_27_a_frame_that_is_no_message_costs_only_itself(data: bytes) -> None:
    async def handle(socket: Socket, message: Any) -> None:
        await socket.peer.send(data)
        await socket.result(message)

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        assert await transport.request(call()) == {"content": []}
        statistics = transport.statistics()
        assert statistics.garbage + statistics.unmatched == 1
        assert statistics.restarts == 0


async def test_too_much_garbage_is_no_server_at_all() -> None:
    async def handle(socket: Socket, _: Any) -> None:
        await socket.peer.send(frame(BINARY, b"x") * 100)
        await socket.wait_closed()

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        failure = await error_of(transport.request(call()))
    assert isinstance(failure, ProtocolError)
    assert "no MCP" in failure.message


async def test_a_message_in_fragments_with_a_ping_between_them_is_one_message() -> None:
    pongs: list[bytes] = []

    async def handle(socket: Socket, message: Any) -> None:
        text = b'{"jsonrpc":"2.0","id":%d,"result":{"text":"\xe2\x98\x83"}}' % message["id"]
        for piece in (text[:-5], text[-5:-4]):  # in the middle of a character
            opcode = TEXT if piece == text[:-5] else CONTINUATION
            await socket.peer.send(frame(opcode, piece, fin=False))
            await socket.peer.send(frame(PING, b"are you there"))
        await socket.peer.send(frame(CONTINUATION, text[-4:]))
        for _ in range(2):
            opcode, payload = await socket.receive_frame()
            assert opcode == PONG
            pongs.append(payload)

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        assert await transport.request(call()) == {"text": "☃"}
    assert pongs == [b"are you there"] * 2


LARGE = 100_000
TOO_LARGE = {
    "one frame": frame(TEXT, b"x" * (LARGE + 1)),
    "fragments": frame(TEXT, b"x" * LARGE, fin=False) + frame(CONTINUATION, b"x"),
    "in bytes, not in characters": frame(TEXT, "☃".encode() * (LARGE // 2)),
    "a GiB announced": b"\x81\x7f" + (2**30).to_bytes(8, "big") + b"x" * LARGE * 2,
    "empty fragments": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 200_000,
}


@pytest.mark.row(44)
@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_44_what_is_too_large_ends_the_connection_and_not_us(data: bytes) -> None:
    async def handle(socket: Socket, _: Any) -> None:
        await socket.peer.send(data)
        await socket.wait_closed()

    async with (
        serve(legacy_socket(handle), legacy_socket()) as server,
        running(at(server.url, message_bytes_max=LARGE)) as transport,
    ):
        failure = await error_of(transport.request(call()))
        assert type(failure) is MessageTooLarge
        assert failure.limit_bytes == LARGE
        assert failure.delivery == "unknown"
        assert await transport.request(call()) == {"content": []}


async def test_a_message_of_exactly_the_limit_is_fine_and_ours_are_bounded_too() -> None:
    async def handle(socket: Socket, message: Any) -> None:
        text = '{"jsonrpc":"2.0","id":%d,"result":{"x":"%s"}}'
        bare = text % (message["id"], "")
        await socket.peer.send(
            frame(TEXT, (text % (message["id"], "x" * (LARGE - len(bare)))).encode())
        )

    async with (
        serve(legacy_socket(handle)) as server,
        running(at(server.url, message_bytes_max=LARGE)) as transport,
    ):
        assert len((await transport.request(call()))["x"]) > LARGE - 100
        too_long = call(arguments={"text": "x" * LARGE})
        failure = await error_of(transport.request(too_long))
        assert isinstance(failure, InvalidArguments)
        assert (failure.delivery, transport.statistics().restarts) == ("not_sent", 0)


async def test_a_large_request_arrives_whole() -> None:
    seen: list[int] = []

    async def handle(socket: Socket, message: Any) -> None:
        seen.append(len(message["params"]["arguments"]["text"]))
        await socket.result(message)

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        await transport.request(call(arguments={"text": "x" * 3_000_000}))
    assert seen == [3_000_000]


async def test_the_last_words_of_a_server_are_still_an_answer() -> None:
    async def handle(socket: Socket, message: Any) -> None:
        answer = b'{"jsonrpc":"2.0","id":%d,"result":{"last":true}}' % message["id"]
        await socket.peer.send(frame(TEXT, answer) + frame(CLOSE, b"\x03\xe9"))
        await socket.peer.wait_closed()

    async with serve(legacy_socket(handle)) as server, running(at(server.url)) as transport:
        assert await transport.request(call()) == {"last": True}


# Opening and closing.


def _refuse(data: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(data)
        await peer.wait_closed()

    return script


async def _hangs_up(peer: Peer) -> None:
    await peer.receive()


async def _no_subprotocol(peer: Peer) -> None:
    await accepted(peer, subprotocol=None)
    await peer.wait_closed()


async def _other_subprotocol(peer: Peer) -> None:
    await accepted(peer, subprotocol="chat")
    await peer.wait_closed()


async def _extension(peer: Peer) -> None:
    await accepted(peer, extra="Sec-WebSocket-Extensions: permessage-deflate")
    await peer.wait_closed()


WRONG_KEY = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAA\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
)
REFUSALS: dict[str, tuple[Any, type[GatewayError]]] = {
    "401": (_refuse(response(b"{}", "401 Unauthorized")), AuthenticationRequired),
    "503": (_refuse(response(b"", "503 Busy", Retry_After="7")), RateLimited),
    "302": (_refuse(response(b"", "302 Found", Location="/other")), ProtocolError),
    "200": (_refuse(response(b"<html>", content_type="text/html")), ProtocolError),
    "no HTTP": (_refuse(b"SSH-2.0-OpenSSH\r\n\r\n"), GatewayError),
    "wrong key": (_refuse(WRONG_KEY), GatewayError),
    "hangs up": (_hangs_up, ConnectError),
    "no subprotocol": (_no_subprotocol, ProtocolError),
    "another subprotocol": (_other_subprotocol, GatewayError),
    "an extension": (_extension, GatewayError),
}


@pytest.mark.parametrize(("script", "kind"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_will_not_open_gives_one_typed_error(
    script: Any, kind: type[GatewayError]
) -> None:
    with no_leaked_descriptors():
        async with serve(script) as server, running(at(server.url)) as transport:
            sent: list[int] = []
            failure = await error_of(transport.request(call(on_sent=lambda: sent.append(1))))
            assert isinstance(failure, kind)
            assert not isinstance(failure, TimeoutError)  # told at once
            assert failure.delivery in {"not_sent", "answered"}
            assert sent == []
            if isinstance(failure, RateLimited):
                assert failure.retry_after_s == 7


async def test_many_who_connect_share_one_try_and_its_failure() -> None:
    async with serve(_refuse(response(b"", "403 Forbidden"))) as server:
        failures: list[GatewayError] = []
        async with running(at(server.url)) as transport:

            async def one() -> None:
                failures.append(await error_of(transport.connect()))

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one)
            assert server.connections == 1
    assert len({id(failure) for failure in failures}) == 10


@pytest.mark.row(2)
async def test_nobody_listens() -> None:
    async with serve(legacy_socket()) as server:
        url = server.url
    async with running(at(url)) as transport:
        failure = await error_of(transport.connect())
    assert isinstance(failure, ConnectError)
    assert failure.delivery == "not_sent"


async def test_a_server_that_hangs_up_on_the_probe_is_initialized_on_a_new_connection() -> None:
    async def hangs_up(peer: Peer) -> None:
        socket = await accepted(peer)
        assert (await socket.receive())["method"] == "server/discover"

    sockets: list[Socket] = []
    async with (
        serve(hangs_up, legacy_socket(sockets=sockets)) as server,
        running(at(server.url)) as transport,
    ):
        assert (await transport.connect()).version == "2025-11-25"
        await transport.request(call())
    assert [each["method"] for each in sockets[0].messages][:1] == ["initialize"]


async def test_a_pinned_version_is_spoken_or_nothing() -> None:
    async with (
        serve(legacy_socket(version="2025-03-26")) as server,
        running(at(server.url, pinned_version="2025-06-18")) as transport,
    ):
        failure = await error_of(transport.connect())
    assert isinstance(failure, ProtocolError)
    assert "2025-06-18" in failure.message


@pytest.mark.row(3)
async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = TLSOptions(ca_data=authority.cert_pem.bytes().decode())
    pinned = TLSOptions(ca_data=trusting.ca_data, pins_sha256=("0" * 64,))
    with no_leaked_descriptors():
        async with serve(legacy_socket(), tls=context) as server:
            assert url_of(server.url).startswith("wss://")
            async with running(at(server.url, tls=trusting)) as transport:
                assert await transport.request(call()) == {"content": []}
            for options in (None, pinned):
                async with running(at(server.url, tls=options)) as transport:
                    assert isinstance(await error_of(transport.connect()), TLSError)


STAGES = ["dialing", "opening", "introducing", "calling"]


@pytest.mark.parametrize("stage", STAGES)
async def test_whoever_is_cancelled_while_connecting_leaves_no_socket(stage: str) -> None:
    reached = anyio.Event()

    async def script(peer: Peer) -> None:
        if stage == "dialing":
            reached.set()
        elif stage == "opening":
            await peer.receive()
            reached.set()
        else:
            socket = await accepted(peer)
            await socket.receive()
            reached.set()
        await peer.wait_closed()

    async def calling(socket: Socket, _: Any) -> None:
        reached.set()
        await socket.wait_closed()

    chosen = legacy_socket(calling) if stage == "calling" else script
    with no_leaked_descriptors():
        async with serve(chosen) as server:
            # The whole transport is cancelled, not closed.
            async with anyio.create_task_group() as tasks:
                transport = at(server.url)
                await tasks.start(transport.run)
                tasks.start_soon(transport.request, call())
                await reached.wait()
                tasks.cancel_scope.cancel()
            while server.open:
                server.closed = anyio.Event()
                await server.closed.wait()


@pytest.mark.parametrize("stage", STAGES)
async def test_closing_while_connecting_tells_everybody(stage: str) -> None:
    reached = anyio.Event()

    async def script(peer: Peer) -> None:
        if stage == "introducing":
            socket = await accepted(peer)
            await socket.receive()
            reached.set()
            await socket.wait_closed()
        reached.set()
        await peer.wait_closed()

    async def calling(socket: Socket, _: Any) -> None:
        reached.set()
        await socket.wait_closed()

    failures: list[GatewayError] = []
    async with serve(legacy_socket(calling) if stage == "calling" else script) as server:
        transport = at(server.url)
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
            assert isinstance(await error_of(transport.connect()), ClientClosed)


async def test_a_server_that_never_opens_is_given_up_in_time() -> None:
    async def silent(peer: Peer) -> None:
        await peer.wait_closed()

    with no_leaked_descriptors():
        async with (
            serve(silent) as server,
            running(at(server.url, timeouts=Timeouts(connect_s=0.05))) as transport,
        ):
            failure = await error_of(transport.connect())
    assert isinstance(failure, ConnectError)
    assert isinstance(failure, TimeoutError)
    assert failure.delivery == "not_sent"


async def test_a_server_that_does_not_read_is_given_up_in_time() -> None:
    async def handle(socket: Socket, _: Any) -> None:
        await anyio.Event().wait()

    async def stuck(peer: Peer) -> None:
        socket = await accepted(peer)
        discover = await socket.receive()
        await socket.result(
            discover, {"resultType": "complete", "supportedVersions": ["2026-07-28"]}
        )
        await anyio.Event().wait()

    async with (
        serve(stuck) as server,
        running(at(server.url, timeouts=Timeouts(write_s=0.05))) as transport,
    ):
        await transport.connect()
        failures: list[GatewayError] = []

        async def one() -> None:
            big = call(arguments={"text": "x" * 4_000_000})
            failures.append(await error_of(transport.request(big)))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
    kinds = {type(failure).__name__ for failure in failures}
    assert kinds == {"WriteTimeout"}
    assert {failure.delivery for failure in failures} == {"unknown", "not_sent"}


@pytest.mark.row(44)
async def test_44_a_server_that_answers_no_ping_is_dead() -> None:
    async def deaf(peer: Peer) -> None:
        socket = await accepted(peer)
        found = {"resultType": "complete", "supportedVersions": ["2026-07-28"]}
        await socket.result(await socket.receive(), found)
        while (await socket.receive_frame())[0] != CLOSE:
            pass

    async with (
        serve(deaf, legacy_socket()) as server,
        running(at(server.url, ping_interval_s=0.05, pong_timeout_s=0.05)) as transport,
    ):
        failure = await error_of(transport.request(call()))
        assert isinstance(failure, ServerDisconnected)
        assert "ping" in failure.message
        assert failure.delivery == "unknown"


@pytest.mark.row(44)
async def test_44_a_server_that_answers_pings_may_be_silent_otherwise() -> None:
    sockets: list[Socket] = []

    async def handle(socket: Socket, message: Any) -> None:
        while socket.pings < 3:
            opcode, payload = await socket.receive_frame()
            assert opcode == PING
            socket.pings += 1
            await socket.peer.send(frame(PONG, payload))
        await socket.result(message)

    async with (
        serve(legacy_socket(handle, sockets=sockets)) as server,
        running(at(server.url, ping_interval_s=0.01)) as transport,
    ):
        assert await transport.request(call()) == {"content": []}
    assert sockets[0].pings >= 3


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://h.example", {}),
        ("ws://user@h.example", {}),
        ("ws://h.example/#x", {}),
        ("ws://h.example", {"headers": [("Sec-WebSocket-Protocol", "x")]}),
        ("ws://h.example", {"headers": [("Host", "x")]}),
        ("ws://h.example", {"headers": [("X", "a\r\nb")]}),
        ("ws://h.example", {"message_bytes_max": 0}),
        ("ws://h.example", {"start_timeout_s": float("inf")}),
        ("ws://h.example", {"pinned_version": "1999-01-01"}),
    ],
)
async def test_options_that_cannot_be_right_are_refused(url: str, options: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        WebSocketTransport(url, **options)


async def test_without_its_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trio_websocket", None)
    monkeypatch.setitem(sys.modules, "websockets", None)
    async with serve(legacy_socket()) as server, running(at(server.url)) as transport:
        failure = await error_of(transport.request(call()))
    assert isinstance(failure, TransportNotAvailableError)
    assert "sark_trio[websocket]" in failure.message
    assert server.connections == 0


async def test_no_secret_is_shown() -> None:
    transport = WebSocketTransport("wss://h.example/a?key=s3cret", headers=[("X", "s3cret")])
    assert "wss://h.example" in repr(transport)
    assert "s3cret" not in repr(transport)


async def test_a_server_that_speaks_before_it_listens_is_heard_meanwhile() -> None:
    """More than any buffer holds goes either way: who waits for a turn to write still reads."""
    much = "x" * 2**20
    note = {"jsonrpc": "2.0", "method": "notifications/x", "params": {"much": much}}
    heard: list[Notification] = []

    async def script(peer: Peer) -> None:
        socket = await accepted(peer)
        await socket.result(
            await socket.receive(),
            {
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
            },
        )
        for _ in range(24):
            await socket.send(note)
        await socket.result(await socket.receive())
        await socket.wait_closed()

    async with (
        serve(script) as server,
        running(at(server.url, message_bytes_max=2**25, on_event=heard.append)) as transport,
    ):
        assert await transport.request(call(arguments={"much": much * 24})) == {"content": []}
    assert len(heard) == 24
