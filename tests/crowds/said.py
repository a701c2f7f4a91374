"""Faults that are in a call: its arguments are what the server does with it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from attrs import define, field

from sark_trio.errors import (
    CallTimeout,
    GatewayError,
    HTTPStatusError,
    MessageTooLarge,
    OutcomeUnknown,
    ProcessExited,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
    TransportError,
)
from tests.crowds.fault import LEGACY_AND_MODERN, Fault, World
from tests.support.faulty import do, posted, raw
from tests.support.http_servers import (
    SSE_END,
    SSE_HEAD,
    Peer,
    Received,
    Script,
    chunk,
    response,
)
from tests.support.websocket_servers import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame

__all__ = ["BROKEN", "SAID", "progress", "stdio_ends", "watched"]

#: What a call may end with whose connection or process ended before the answer came.
BROKEN: tuple[type[GatewayError], ...] = (OutcomeUnknown, ServerDisconnected, ProcessExited)
#: Where a call has no connection of its own, one that breaks takes all along.
SHARED = ("sse", "websocket", "stdio")
STREAMED = ("events", "legacy", "sse", "websocket", "stdio")

Says = Callable[[int, str], dict[str, Any]]


def _each(*says: Any, how: Callable[..., dict[str, Any]], **options: Any) -> Says:
    """One after the other, by the number of the call."""

    def said(number: int, wire: str) -> dict[str, Any]:
        return how(says[number // 20 % len(says)], n=number, **options)

    return said


def _http(*answers: bytes, then: str = "go on") -> Says:
    """These very bytes are the answer to the request; over HTTP+SSE, to what was posted."""

    def said(number: int, wire: str) -> dict[str, Any]:
        data = answers[number // 20 % len(answers)]
        return posted(data, n=number) if wire == "sse" else raw(data, then=then, n=number)

    return said


def _once_where_shared(says: Says) -> Says:
    """A connection of all breaks once; others for each call."""

    def said(number: int, wire: str) -> dict[str, Any]:
        return do(n=number) if wire in SHARED and number else says(number, wire)

    return said


def _end(end: str) -> Says:
    return lambda number, wire: do(end=end, n=number)


def result(value: bytes, ident: bytes = b"@ID") -> bytes:
    return b'{"jsonrpc":"2.0","id":' + ident + b',"result":' + value + b"}"


def _text(text: bytes) -> bytes:
    return b'{"resultType":"complete","content":[{"type":"text","text":"%s"}]}' % text


def _whole(text: str, ident: bytes = b"@ID") -> bytes:
    """An answer with its text, as a whole response; the id is not known yet, hence no length."""
    body = result(_text(text.encode()), ident)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    return head + body


NO_UTF8 = (b'{"jsonrpc":"2.0",\xff"method":"x"}', b'{"jsonrpc":"2.0"\xe2\x98,"method":"x"}')
NO_JSON = (
    b"Server listening",
    b'{"jsonrpc":"2.0","id":1,"resu',
    result(b'{"x":NaN}', b"90001"),
    result(b"[" * 10_000 + b"]" * 10_000, b"90001"),
    result(b'{"x":' + b"9" * 10_000 + b"}", b"90001"),
    result(b'{"x":"\\ud800"}', b"90001"),
)
NO_RPC = (
    b'[{"jsonrpc":"2.0","id":90001,"result":{}}]',
    b'{"id":90001,"result":{}}',
    b'{"jsonrpc":"2.0","id":90001,"result":{},"error":{"code":1,"message":""}}',
    b'{"jsonrpc":"2.0","id":90001}',
    result(b"{}", b"null"),
    result(b"{}", b"1.0"),
    result(b"{}", b"true"),
)
STOLEN = tuple(result(_text(b"stolen"), ident) for ident in (b"90001", b"-1", b'"@ID"', b"0"))

#: Row 11: two parsers could read them in two ways.
MALFORMED = (
    b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 102_400 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 3\r\n\r\nabc",
)
#: Nobody reads the body of an answer to what is posted over HTTP+SSE.
MALFORMED_BODIES = (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",)
NO_ANSWERS = (
    response(b"<html>", content_type="text/html"),
    response(status="202 Accepted", content_type=""),
    response(status="204 No Content", content_type=""),
    response(status="302 Found", content_type="", location="http://169.254.169.254/"),
)
REFUSALS = tuple(
    response(b"no", f"{status} No", "text/plain") for status in (400, 401, 403, 405, 406, 409, 415)
)
BUSY = tuple(
    response(b"", status, Retry_After=after)
    for status in ("429 Too Many Requests", "503 Service Unavailable")
    for after in ("0", "-1", "soon", "1000000000000")
)
BOMBS = (
    response(gzip.compress(bytes(8 << 20)), content_encoding="gzip"),
    response(b"{}", content_encoding="zstd-of-tomorrow"),
)
_ANSWER = b"data: " + result(_text(b"half")) + b"\n\n"
CUT_EVENTS = tuple(
    SSE_HEAD + chunk(piece) + SSE_END
    for piece in (b"data: {", b"data: \xe2\x98", b"\xef\xbb", b"\r")
)
#: Row 44, of RFC 6455: a reserved bit and opcode, 1 GiB announced, text that is none, and so on.
#: Each in pieces that are small enough to be asked for.
FRAMES: tuple[tuple[bytes | tuple[bytes, int], ...], ...] = (
    (b"\xf1\x00",),
    (b"\x83\x00",),
    (b"\x81\x7f" + (1 << 30).to_bytes(8, "big"),),
    (frame(TEXT, b"\xff\xfe"),),
    (frame(CONTINUATION, b"of nothing"),),
    (frame(TEXT, b"{", fin=False), (frame(CONTINUATION, b" " * 65_536, fin=False), 80)),
    (frame(PING, b"x" * 126),),
    (frame(CLOSE, (1011).to_bytes(2, "big")),),
    (frame(CLOSE, (1009).to_bytes(2, "big") + b"too big"),),
    (frame(CLOSE, b"\x03"),),
    (frame(BINARY, b"{}"),),
)


def progress(times: int, token: bytes = b"@TOKEN") -> tuple[bytes, int]:
    said = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'
    return said + token + b',"progress":@N}}', times


CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
ASKED = b'{"jsonrpc":"2.0","id":"s-@N","method":"sampling/createMessage","params":{}}'


# -- what stands before a server on its connections -----------------------------------------------


@define(eq=False)
class _Watched(Peer):
    """A connection of which *watch* takes some requests for itself: it says which."""

    watch: Callable[[Peer, Received], Any] = field(kw_only=True)

    async def receive(self) -> Received:
        while True:
            received = await Peer.receive(self)
            self.server.requests.clear()
            if not await self.watch(self, received):
                return received


def watched(watch: Callable[[World, Peer, Received], Any]) -> Callable[[World], Any]:
    """*watch* sees each request before the server does."""

    def of(world: World) -> Callable[[Script], Script]:
        def wrap(script: Script) -> Script:
            async def before(peer: Peer) -> None:
                async def see(peer: Peer, received: Received) -> bool:
                    return bool(await watch(world, peer, received))

                await script(
                    _Watched(peer.number, peer.server, peer.stream, peer.buffer, watch=see)
                )

            return before

        return wrap

    return of


async def _lost_session(world: World, peer: Peer, received: Received) -> bool:
    """Row 18: after a hundred calls nobody knows the session that they were of."""
    if received.rpc == "initialize":
        world.facts["sessions"] = world.facts.get("sessions", 0) + 1
    if received.rpc != "tools/call" or world.facts["sessions"] > 1:
        return False
    world.facts["calls"] = world.facts.get("calls", 0) + 1
    if world.facts["calls"] <= 100:
        return False
    await peer.send(response(b"", "404 Not Found"))
    return True


def _one_new_session(world: World) -> None:
    assert world.facts["sessions"] == 2
    assert world.facts["calls"] > 100


async def _goes_on(world: World, peer: Peer, received: Received) -> bool:
    """Rows 23 and 24: a GET is answered with what came last, once more, and the answer."""
    found = re.fullmatch(r"(\d+):(\d+):\d", received.headers.get("last-event-id", ""))
    if received.method != "GET" or found is None:
        return False
    ident, number = found.groups()
    token = world.facts["tokens"][int(number)]
    again = b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}'
    told = again % json.dumps({"progressToken": token, "progress": 2}).encode()
    answer = result(_text(number.encode()), ident.encode())
    name = f"{ident}:{number}".encode()
    events = b"id: %b:2\ndata: %b\n\nid: %b:3\ndata: %b\n\n" % (name, told, name, answer)
    await peer.send(SSE_HEAD + chunk(events) + SSE_END)
    return True


async def _tokens(world: World, peer: Peer, received: Received) -> bool:
    if received.rpc == "tools/call":
        params = received.json["params"]
        number = params["arguments"]["number"]
        world.facts.setdefault("tokens", {})[number] = params.get("_meta", {}).get("progressToken")
        if number >= 0 and number % 20 == 0:
            await _begins(world, peer, received, number)
            return True
    return await _goes_on(world, peer, received)


RETRIES = ("0", "100", "-1", "1e3", "")


async def _begins(world: World, peer: Peer, received: Received, number: int) -> None:
    world.arrived[number] = world.arrived.get(number, 0) + 1
    token = json.dumps(world.facts["tokens"][number]).encode()
    told = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,'
    said = (told % token) + b'"progress":%d}}'
    name = b"%d:%d" % (received.id, number)
    retry = RETRIES[number // 20 % len(RETRIES)].encode()
    events = b"retry: %b\n" % retry
    events += b"".join(b"id: %b:%d\ndata: %b\n\n" % (name, n, said % n) for n in (1, 2))
    await peer.send(SSE_HEAD + chunk(events) + SSE_END)


def _heard_once_in_order(world: World) -> None:
    assert len(world.heard) == 50
    assert all(heard == [1, 2] for heard in world.heard.values())


EARLY_BYTES = 1 << 20


@define(eq=False)
class _Hasty(Peer):
    """Refuses large requests when it has seen how they begin."""

    world: World = field(kw_only=True)

    async def receive(self) -> Received:
        while (end := self.buffer.find(b'"number":')) < 0 and (
            (head := self.buffer.find(b"\r\n\r\n")) < 0
            or (size := _length(self.buffer[:head])) <= EARLY_BYTES
        ):
            if head >= 0 and len(self.buffer) >= head + 4 + size:
                break
            self.buffer += await self.stream.receive()
        head = self.buffer.find(b"\r\n\r\n")
        if end < 0 or _length(self.buffer[:head]) <= EARLY_BYTES:
            return await Peer.receive(self)
        number = int(re.match(rb'"number":(-?\d+)', self.buffer[end:])[1])  # type: ignore[index]
        self.world.arrived[number] = self.world.arrived.get(number, 0) + 1
        await self.send(response(b"", "413 Content Too Large", connection="close"))
        await self.wait_closed()
        raise anyio.EndOfStream


def _length(head: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return 0 if found is None else int(found[1])


def _hasty(world: World) -> Callable[[Script], Script]:
    def wrap(script: Script) -> Script:
        async def before(peer: Peer) -> None:
            await script(_Hasty(peer.number, peer.server, peer.stream, peer.buffer, world=world))

        return before

    return wrap


# -- the faults -----------------------------------------------------------------------------------


def stdio_ends(name: str, end: str, **options: Any) -> Fault:
    """One call ends the process, or what leads to it, and all others with it."""
    return Fault(
        name=name,
        wires=("stdio",),
        says=_end(end),
        meets="one",
        errors=BROKEN,
        spoils=("stdio",),
        **options,
    )


def _raiser(_: Any) -> None:
    raise RuntimeError("a bug of the listener's")


def _one_list_at_once(world: World) -> None:
    assert world.sick.lists_at_once <= 1


def _junk(name: str, junk: Sequence[bytes], wires: Sequence[str] = STREAMED) -> tuple[Fault, ...]:
    """Said before the answer where a stream carries both; else it is the answer."""
    streamed = Fault(name=name, wires=tuple(wires), says=_each(*junk, how=do))
    body = Fault(
        name=f"{name}, as a body",
        wires=("json",),
        says=_each(*junk, how=do),
        errors=(ProtocolError,),
    )
    return streamed, body


_GOES_ON = (
    Fault(
        name="told to come again, and told twice",
        wires=("legacy",),
        wrap=watched(_tokens),
        progress=lambda _: None,
        check=_heard_once_in_order,
    ),
)
#: By row.
SAID: dict[int, tuple[Fault, ...]] = {
    5: (
        Fault(
            name="reset",
            wires=(*LEGACY_AND_MODERN, "sse", "websocket", "memory"),
            says=_once_where_shared(_end("die")),
            errors=BROKEN,
            spoils=SHARED,
        ),
    ),
    6: (
        Fault(
            name="413 while it is written",
            wires=("json",),
            says=lambda number, wire: do(n=number) | {"pad": "x" * EARLY_BYTES},
            errors=(HTTPStatusError,),
            wrap=_hasty,
        ),
    ),
    7: (
        Fault(
            name="kept connections that ended",
            wires=LEGACY_AND_MODERN,
            says=_end("answer, close"),
            errors=BROKEN,
            spoils=LEGACY_AND_MODERN,
            may=True,
        ),
    ),
    8: (
        Fault(
            name="cut",
            wires=(*LEGACY_AND_MODERN, "sse", "websocket"),
            says=_once_where_shared(_end("cut")),
            errors=(*BROKEN, ProtocolError),
            spoils=SHARED,
        ),
        stdio_ends("cut in a line", "cut"),
    ),
    9: (
        Fault(
            name="a byte at a time",
            wires=LEGACY_AND_MODERN,
            says=lambda number, wire: raw(
                b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b" ", then="trickle", n=number
            ),
            errors=(GatewayError,),
            timeout_s=0.5,
        ),
    ),
    11: (
        Fault(
            name="malformed",
            wires=LEGACY_AND_MODERN,
            says=_http(*MALFORMED, *MALFORMED_BODIES, then="close"),
            errors=(ProtocolError, OutcomeUnknown),
        ),
        Fault(
            name="malformed",
            wires=("sse",),
            says=_http(*MALFORMED),
            errors=(ProtocolError, OutcomeUnknown),
        ),
    ),
    12: (
        Fault(
            name="bytes after the answer",
            wires=LEGACY_AND_MODERN,
            says=lambda number, wire: (
                do(n=number)
                | raw(SSE_HEAD + chunk(_answer_of(number)) + SSE_END + b"HTTP/1.1 2", n=number)
            ),
        ),
    ),
    13: (
        Fault(
            name="bombs",
            wires=LEGACY_AND_MODERN,
            says=_http(*BOMBS),
            errors=(MessageTooLarge, ProtocolError),
        ),
    ),
    14: (
        Fault(
            name="no answer",
            wires=LEGACY_AND_MODERN,
            says=_http(*NO_ANSWERS),
            errors=(ProtocolError,),
        ),
        Fault(
            name="redirected", wires=("sse",), says=_http(NO_ANSWERS[-1]), errors=(ProtocolError,)
        ),
    ),
    15: (
        Fault(
            name="refused",
            wires=(*LEGACY_AND_MODERN, "sse"),
            says=_http(*REFUSALS),
            errors=(HTTPStatusError,),
        ),
        Fault(
            name="an error of JSON-RPC",
            wires=("events", "sse", "websocket", "stdio"),
            says=lambda number, wire: do(
                b'{"jsonrpc":"2.0","id":@ID,"error":{"code":-32000,"message":"no"}}',
                end="hang" if wire in SHARED else "answer",
                n=number,
            ),
            errors=(RemoteError,),
        ),
    ),
    16: (
        Fault(
            name="busy",
            wires=(*LEGACY_AND_MODERN, "sse"),
            says=_http(*BUSY),
            errors=(HTTPStatusError,),
            refuses=True,
        ),
    ),
    18: (
        Fault(
            name="a lost session",
            wires=("legacy",),
            wrap=watched(_lost_session),
            check=_one_new_session,
        ),
    ),
    20: (
        Fault(
            name="no answer in the stream",
            wires=("events", "legacy"),
            says=_http(
                SSE_HEAD + SSE_END, SSE_HEAD + chunk(b"id: 1\nretry: 0\ndata:\n\n") + SSE_END
            ),
            errors=BROKEN,
        ),
    ),
    21: (
        Fault(
            name="half an event",
            wires=("events", "legacy"),
            says=_http(*CUT_EVENTS),
            errors=BROKEN,
        ),
    ),
    22: (
        Fault(
            name="an event without end",
            wires=("events", "legacy"),
            says=lambda number, wire: (
                raw(SSE_HEAD + chunk(b"data: "), (chunk(b"x" * 65_536), 80), n=number)
                if number % 100 == 0
                else do(n=number)
            ),
            errors=(MessageTooLarge, OutcomeUnknown),
        ),
        Fault(
            name="an event without end",
            wires=("sse",),
            says=lambda number, wire: raw(chunk(b"data: "), (chunk(b"x" * 65_536), 80), n=number),
            meets="one",
            errors=(MessageTooLarge, *BROKEN, ProtocolError),
            spoils=("sse",),
        ),
    ),
    23: _GOES_ON,
    24: _GOES_ON,
    26: (
        *_junk("no UTF-8", NO_UTF8, ("events", "legacy", "sse", "stdio")),
        Fault(
            name="no UTF-8, which ends the connection",
            wires=("websocket",),
            says=_each(*NO_UTF8, how=do),
            meets="one",
            errors=(*BROKEN, ProtocolError),
            spoils=("websocket",),
        ),
    ),
    27: _junk("no JSON", NO_JSON),
    28: _junk("no JSON-RPC", NO_RPC),
    29: _junk("somebody else's id", STOLEN),
    30: (
        Fault(
            name="two answers",
            wires=STREAMED,
            says=lambda number, wire: do(
                result(_text(b"first")), result(_text(b"second")), n=number
            ),
            text=lambda _: "first",
        ),
    ),
    31: (
        Fault(
            name="questions and strange answers",
            wires=STREAMED,
            says=lambda number, wire: do((ASKED, 5), result(b"{}", b'"notification"'), n=number),
        ),
    ),
    32: (
        Fault(
            name="floods of progress",
            wires=(*STREAMED, "memory"),
            says=lambda number, wire: (
                do(progress(20, b'"strange"'), progress(100), n=number)
                if wire != "memory"
                else do(progress(20, b'"strange"'), n=number)
            ),
            progress=lambda _: None,
        ),
    ),
    33: (
        Fault(
            name="a storm of changes",
            wires=STREAMED,
            says=lambda number, wire: do((CHANGED, 50), n=number),
            check=_one_list_at_once,
        ),
    ),
    40: (
        stdio_ends("stdout closed", "close stdout"),
        stdio_ends("stdin closed", "close stdin", timeout_s=2.0),
    ),
    41: (
        Fault(
            name="noise",
            wires=("stdio",),
            says=lambda number, wire: do((b"noise", 10_000), end="hang", n=number),
            meets="one",
            errors=(*BROKEN, ProtocolError),
            spoils=("stdio",),
        ),
        Fault(
            name="a line without end",
            wires=("stdio",),
            says=lambda number, wire: raw((b"x" * 65_536, 160), b"\n", n=number),
            meets="one",
            errors=(*BROKEN, ProtocolError, CallTimeout),
            spoils=("stdio",),
            timeout_s=2.0,
        ),
    ),
    42: (Fault(name="a flood on stderr", wires=("stdio",), says=_end("stderr")),),
    44: (
        Fault(
            name="frames that break every rule",
            wires=("websocket",),
            says=lambda number, wire: (
                raw(*FRAMES[number // 80 % len(FRAMES)], n=number)
                if number % 80 == 0
                else do(n=number)
            ),
            errors=(*BROKEN, ProtocolError, TransportError),
            spoils=("websocket",),
        ),
    ),
    61: (
        Fault(
            name="a listener that raises",
            wires=(*STREAMED, "memory"),
            says=lambda number, wire: (
                do(progress(3, b"@TOKEN"), n=number) if wire != "memory" else do(n=number)
            ),
            progress=_raiser,
        ),
    ),
}


def _answer_of(number: int) -> bytes:
    return b"data: " + result(_text(b"%d" % number)) + b"\n\n"
