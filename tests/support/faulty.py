"""One server that breaks its word in the same ways on every transport.

What it does with a call is in the call's arguments (:func:`do`): what it says before it answers,
byte by byte, and whether it answers, keeps silent, or dies. So one test is a cell of the fault
matrix on each transport, with real sockets and real processes.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field

from sark_trio import AllowAll, AuditLog, BreakerOptions, GatewayClient, RetryConfig
from sark_trio.client.servers import Http, Memory, Registry, Server, Stdio, WebSocket
from sark_trio.errors import ServerDisconnected
from sark_trio.governance.audit_verify import verify
from sark_trio.testing import held, no_leaks
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.audit_harness import open_log
from tests.support.client import ALICE, check_log
from tests.support.http_servers import (
    SSE_END,
    SSE_HEAD,
    Peer,
    RawServer,
    Received,
    Script,
    chunk,
    legacy,
    modern,
    response,
    result,
    serve,
)
from tests.support.registry import server_record, tool_record
from tests.support.sse_servers import OldServer, Talk
from tests.support.websocket_servers import TEXT, Socket, frame, legacy_socket, url_of

__all__ = [
    "AT_ONCE",
    "EVERYWHERE",
    "HUNG_S",
    "NETWORKED",
    "NEVER",
    "STREAMED",
    "WIRES",
    "Faulty",
    "cell",
    "client_of",
    "described",
    "do",
    "faulty",
    "free_port",
    "is_idle",
    "posted",
    "raw",
]

#: On which a server may say something before it answers.
STREAMED = ("events", "legacy", "sse", "websocket", "stdio")
WIRES = ("json", *STREAMED)
#: Behind a URL.
NETWORKED = ("json", "events", "legacy", "sse", "websocket", "registry")
EVERYWHERE = (*WIRES, "registry", "memory")
#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 60.0
#: Of the scheduler, for whoever tidies up: a server may have to be told that a call is over, and
#: be busy with thousands of messages until then. Seconds, for what is never given back.
TURNS_MAX = 100_000
#: Seconds between two bytes of a server that trickles.
TRICKLE_S = 0.02
#: Nobody waits between attempts, and no breaker hides what a call would meet.
AT_ONCE = RetryConfig(initial_delay_s=0.001, max_delay_s=0.002)
NEVER = BreakerOptions(failures=10_000)

_TOOLS = {
    "resultType": "complete",
    "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
    "ttlMs": 60_000,
    "cacheScope": "private",
}


def do(*say: bytes | tuple[bytes, int], end: str = "answer", n: int = 7) -> dict[str, Any]:
    """Arguments that make the server say so, each so many times, and end so.

    ``@ID`` stands for the call's id, ``@TOKEN`` for its progress token, ``@N`` for the count,
    and ``@HELD`` for the id of the last call that was not answered.

    :param end: ``answer``, ``hang``, ``die``, ``cut``: die in the middle of the answer; or
        ``die first`` and ``cut first``: at the first call ever only; ``held``: hang, until the
        server was told to :meth:`Faulty.free` them; ``answer, close``: end the connection
        unannounced.
    """
    return {"say": _pairs(say), "end": end, "n": n}


def raw(*pieces: bytes | tuple[bytes, int], then: str = "go on", n: int = 7) -> dict[str, Any]:
    """Arguments that make the server write these very bytes instead of an answer.

    :param then: ``go on``, ``close``, or ``trickle``: the last piece again and again.
    """
    return {"raw": _pairs(pieces), "end": f"raw, {then}", "n": n}


def posted(answer: bytes, n: int = 7) -> dict[str, Any]:
    """Arguments that make a server of HTTP+SSE answer so to what is posted, and do nothing."""
    return {"posted": answer.decode("latin-1"), "n": n}


def _pairs(pieces: Iterable[bytes | tuple[bytes, int]]) -> list[list[Any]]:
    pairs = [each if isinstance(each, tuple) else (each, 1) for each in pieces]
    return [[data.decode("latin-1"), times] for data, times in pairs]


@define(eq=False)
class Faulty:
    """The server, as the client is told of it, and what it did."""

    kind: str
    server: Server
    log: Path | None = None
    listening: RawServer = field(factory=RawServer)
    calls: int = 0
    lists: int = 0
    #: Lists that were asked for at once, at most.
    lists_at_once: int = 0
    #: What it says about its tools.
    listing: Mapping[str, Any] = field(factory=lambda: _TOOLS)
    freed: bool = False

    @property
    def effects(self) -> int:
        """Calls that arrived."""
        return self.calls if self.log is None else len(self.log.read_bytes())

    def free(self) -> None:
        """From now on, answer calls that would have been held."""
        self.freed = True
        if self.log is not None:
            self.log.with_name("calls-freed").touch()

    @property
    def numbers(self) -> list[int]:
        """The ``number`` of each call that arrived at a process."""
        assert self.log is not None
        return [int(line) for line in self.log.with_name("numbers").read_text().split()]


@define(eq=False)
class _Line:
    """How one transport says something to a client."""

    say: Callable[[bytes], Awaitable[None]]
    answer: Callable[[Any], Awaitable[None]]
    die: Callable[[], Awaitable[None]]
    #: Half an answer, and the end.
    cut: Callable[[], Awaitable[None]]
    #: What keeping silent takes: on a shared connection, nothing.
    hang: Callable[[], Awaitable[None]]
    #: Bytes as they are.
    raw: Callable[[bytes], Awaitable[None]]
    #: The end of the connection.
    close: Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """On to the next message."""


@define(eq=False)
class _Desk:
    """Does what a message asks, on whatever line it came."""

    known: Faulty = field(init=False)
    #: Told the arguments of each call that arrives.
    on_call: Callable[[Mapping[str, Any]], None] | None = None
    held: Any = None
    listing: int = 0

    async def take(self, message: Any, line: _Line) -> None:
        if message["method"] == "tools/list":
            await self._list(line)
            return
        if message["method"] != "tools/call":
            await line.answer({"resultType": "complete"})
            return
        self.known.calls += 1
        arguments = message["params"]["arguments"]
        if self.on_call is not None:
            self.on_call(arguments)
        token = message["params"].get("_meta", {}).get("progressToken")
        names = {b"@ID": message["id"], b"@TOKEN": token, b"@HELD": self.held}
        for text, times in arguments.get("say", ()):
            data = text.encode("latin-1")
            for name, value in names.items():
                data = data.replace(name, json.dumps(value).encode())
            for number in range(times):
                await line.say(data.replace(b"@N", b"%d" % (number + 1)))
        end = arguments.get("end", "answer")
        if end.endswith(" first"):
            end = end.split()[0] if self.known.calls == 1 else "answer"
        if end == "held":
            end = "answer" if self.known.freed else "hang"
        if end.startswith("raw"):
            await self._write(arguments["raw"], end, message["id"], line)
        elif end == "die":
            await line.die()
        elif end == "cut":
            await line.cut()
        elif end == "hang":
            self.held = message["id"]
            await line.hang()
        else:
            content = [{"type": "text", "text": str(arguments.get("n", ""))}]
            await line.answer({"resultType": "complete", "content": content})
            if end == "answer, close":
                await line.close()

    async def _write(self, pieces: Any, end: str, ident: Any, line: _Line) -> None:
        # At once: on a shared connection nothing else gets in between.
        written = b""
        for text, times in pieces:
            data = text.encode("latin-1").replace(b"@ID", json.dumps(ident).encode())
            written += data * times
        await line.raw(written)
        while end == "raw, trickle":
            with anyio.move_on_after(TRICKLE_S):  # for the server to wait is the fault itself
                await anyio.sleep_forever()
            await line.raw(data)
        if end == "raw, close":
            await line.close()

    async def _list(self, line: _Line) -> None:
        self.known.lists += 1
        self.listing += 1
        self.known.lists_at_once = max(self.known.lists_at_once, self.listing)
        await anyio.lowlevel.checkpoint()
        await line.answer(self.known.listing)
        self.listing -= 1


def _http(desk: _Desk, *, events: bool) -> Callable[[Peer, Received], Awaitable[None]]:
    async def handle(peer: Peer, received: Received) -> None:
        if received.method == "GET":
            await peer.send(response(status="405 Method Not Allowed", content_type=""))
            return
        if not received.rpc:  # an answer to a question of ours
            await peer.send(response(status="202 Accepted", content_type=""))
            return
        begun = False

        async def say(data: bytes) -> None:
            nonlocal begun
            if not events:
                await peer.send(response(data))
            else:
                head = b"" if begun else SSE_HEAD
                await peer.send(head + chunk(b"data: " + data + b"\n\n"))
            begun = True

        async def answer(value: Any) -> None:
            if not begun:
                await peer.send(result(received, value))
            elif events:
                message = {"jsonrpc": "2.0", "id": received.id, "result": value}
                await peer.send(chunk(b"data: " + json.dumps(message).encode() + b"\n\n"))
                await peer.send(SSE_END)

        async def die() -> None:
            await peer.reset()
            raise anyio.EndOfStream

        async def close() -> None:
            await peer.stream.aclose()
            raise anyio.EndOfStream

        async def cut() -> None:
            half = result(received, {"content": []})[:-9]
            await peer.send(SSE_HEAD + b"40\r\ndata: {" if events else half)
            await close()

        line = _Line(say, answer, die, cut, peer.wait_closed, peer.send, close)
        await desk.take(received.json, line)

    return handle


def _socket(desk: _Desk) -> Callable[[Socket, Any], Awaitable[None]]:
    async def handle(socket: Socket, message: Any) -> None:
        socket.messages.clear()  # as on a stream, below

        async def say(data: bytes) -> None:
            await socket.peer.send(frame(TEXT, data))

        async def answer(value: Any) -> None:
            await socket.result(message, value)

        async def die() -> None:
            await socket.peer.reset()
            raise anyio.EndOfStream

        async def close() -> None:
            await socket.peer.stream.aclose()
            raise anyio.EndOfStream

        async def cut() -> None:
            await socket.peer.send(frame(TEXT, b"{" * 100)[:-50])
            await close()

        line = _Line(say, answer, die, cut, _nothing, socket.peer.send, close)
        await desk.take(message, line)

    return handle


def _stream(desk: _Desk) -> Callable[[Talk, Any], Awaitable[None]]:
    async def handle(talk: Talk, message: Any) -> None:
        # Nobody reads them here, and a server of a long run cannot keep them all.
        talk.messages.clear()
        talk.posts.clear()
        if "method" not in message:
            return

        async def say(data: bytes) -> None:
            async with talk.writing:
                await talk.stream.send(chunk(b"event: message\ndata: " + data + b"\n\n"))

        async def answer(value: Any) -> None:
            await talk.result(message, value)

        async def die() -> None:
            await talk.stream.reset()

        async def raw_(data: bytes) -> None:
            async with talk.writing:
                await talk.stream.send(data)

        async def cut() -> None:
            await raw_(b"40\r\ndata: {")
            await talk.stream.stream.aclose()

        close = talk.stream.stream.aclose
        await desk.take(message, _Line(say, answer, die, cut, _nothing, raw_, close))

    return handle


def _answer_to_post(desk: _Desk) -> Callable[[Any], bytes | None]:
    def refuse(message: Any) -> bytes | None:
        arguments = message.get("params", {}).get("arguments", {})
        if "posted" not in arguments:
            return None
        if desk.on_call is not None:
            desk.on_call(arguments)
        return str(arguments["posted"]).encode("latin-1")

    return refuse


def _registry(desk: _Desk) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.target.startswith("/api/v1/servers"):
                await peer.send(response(json.dumps(server_record(1)).encode()))
            elif received.target.startswith("/api/v1/tools"):
                tools = {"tools": [tool_record("server-1", "echo")]}
                await peer.send(response(json.dumps(tools).encode()))
            else:
                await _invoked(peer, received)

    async def _invoked(peer: Peer, received: Received) -> None:
        async def say(data: bytes) -> None:
            await peer.send(response(data))

        async def answer(value: Any) -> None:
            said = {"status": "success", "result": {"content": value["content"]}}
            await peer.send(response(json.dumps(said).encode()))

        async def die() -> None:
            await peer.reset()
            raise anyio.EndOfStream

        async def close() -> None:
            await peer.stream.aclose()
            raise anyio.EndOfStream

        async def cut() -> None:
            await peer.send(response(b'{"status":"success"}')[:-5])
            await close()

        params = {"arguments": received.json["parameters"]}
        message = {"method": "tools/call", "id": None, "params": params}
        line = _Line(say, answer, die, cut, peer.wait_closed, peer.send, close)
        await desk.take(message, line)

    return script


def _embedded(desk: _Desk) -> Callable[[Incoming], Awaitable[Mapping[str, Any]]]:
    async def serve_(incoming: Incoming) -> Mapping[str, Any]:
        answers: list[Mapping[str, Any]] = []

        async def say(data: bytes) -> None:
            message = json.loads(data)
            incoming.notify(message["method"], message["params"])

        async def answer(value: Any) -> None:
            answers.append(value)

        async def die() -> None:
            raise ServerDisconnected("gone", delivery="unknown")

        message = {"method": incoming.method, "id": None, "params": incoming.receive()}
        line = _Line(say, answer, die, die, anyio.sleep_forever, say, die)
        await desk.take(message, line)
        return answers[0]

    return serve_


def described(kind: str, url: str, **options: Any) -> Server:
    """The server on that transport at *url*, as a client is told of it."""
    if kind == "websocket":
        return WebSocket(url_of(url), **options)
    if kind == "registry":
        return Registry(url.removesuffix("/mcp"), "server-1", **options)
    if kind == "sse":
        return Http(url, protocol_version="2024-11-05", **options)
    return Http(url, **options)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _script(kind: str, desk: _Desk, endpoint: Callable[[int], str]) -> Script:
    if kind == "websocket":
        return legacy_socket(_socket(desk))
    if kind == "sse":
        return OldServer(_stream(desk), endpoint=endpoint, refuse=_answer_to_post(desk)).script
    if kind == "registry":
        return _registry(desk)
    era = legacy if kind == "legacy" else modern
    return era(_http(desk, events=kind != "json"))


@asynccontextmanager
async def faulty(
    kind: str,
    *,
    shows: ssl.SSLContext | None = None,
    port: int = 0,
    on_call: Callable[[Mapping[str, Any]], None] | None = None,
    wrap: Callable[[Script], Script] = lambda script: script,
    endpoint: Callable[[int], str] = lambda number: f"/messages?session={number}",
    **options: Any,
) -> AsyncIterator[Faulty]:
    """That server on the transport *kind*; *options* are those of the server's description.

    :param shows: the certificate that it proves itself with.
    :param on_call: told the arguments of each call that arrives; a process cannot, but writes
        down their ``number`` where they have one.
    :param wrap: stands before the server on each connection.
    :param endpoint: of HTTP+SSE: where the n-th stream says that messages are posted.
    """
    if kind == "stdio":
        with tempfile.TemporaryDirectory(prefix="sark-faulty-") as folder:
            log = Path(folder) / "calls"
            log.touch()
            script = Path(__file__).parent / "stdio_servers" / "faulty.py"
            command = (sys.executable, "-S", "-I", str(script), str(log), f"{folder}/numbers")
            yield Faulty(kind, Stdio(command, **options), log)
        return
    desk = _Desk(on_call)
    if kind == "memory":
        desk.known = Faulty(kind, Memory(_embedded(desk), **options))
        yield desk.known
        return
    script = wrap(_script(kind, desk, endpoint))
    async with serve(script, tls=shows, port=port) as listening:
        server = described(kind, listening.url, **options)
        desk.known = Faulty(kind, server, listening=listening)
        yield desk.known


def _half() -> float:
    return 0.5


@asynccontextmanager
async def client_of(
    server: Server,
    disk: MemoryDisk,
    *,
    heals: bool = True,
    log_fails: bool = False,
    **options: Any,
) -> AsyncIterator[GatewayClient]:
    """A client of *server* as ``desk``, that must be as good as new when the block ends.

    Afterwards it lends nothing, and the next call succeeds, unless *heals* is false.

    :param log_fails: for good, so that what it had begun to write stays in doubt.
    """
    client = GatewayClient(
        servers={"desk": server},
        audit=AuditLog("log", files=disk),
        principal=ALICE,
        **{"policy": AllowAll(), "breaker": NEVER, "retry": AT_ONCE, "jitter": _half, **options},
    )
    async with client:
        yield client
        await is_idle(client, log_fails=log_fails)
        if heals:
            assert (await client.invoke_tool("desk", "echo", {"n": 41})).text == "41"
            await is_idle(client)


@asynccontextmanager
async def cell(
    kind: str,
    *,
    server: Mapping[str, Any] | None = None,
    shows: ssl.SSLContext | None = None,
    disk: MemoryDisk | None = None,
    log_fails: bool = False,
    **options: Any,
) -> AsyncIterator[tuple[Faulty, GatewayClient]]:
    """One cell of the matrix: the server on that transport, and a client of it.

    When the block ends the client is as good as new (:func:`client_of`), nothing is left of
    either, and each intent of the log has one outcome.

    :param log_fails: for good: it is opened anew at the end, which finds what is in doubt.
    """
    kept = disk or MemoryDisk()
    with anyio.fail_after(HUNG_S):
        async with (
            no_leaks(),
            faulty(kind, shows=shows, **(server or {})) as known,
            client_of(known.server, kept, log_fails=log_fails, **options) as client,
        ):
            yield known, client
    if not log_fails:
        check_log(kept)
        return
    async with open_log(files=kept) as log:
        assert log.statistics().open_intents == 0
    files = sorted(kept.contents)
    report = verify((name, [bytes(kept.contents[name])]) for name in files)
    assert (report.fault, report.in_doubt) == (None, ())


async def is_idle(client: GatewayClient, *, log_fails: bool = False) -> None:
    """Nothing is lent, after a few turns of whoever tidies up."""
    for _ in range(TURNS_MAX):
        found = held(client)
        if log_fails:
            found.pop("open audit intents", None)
        if not found:
            return
        await anyio.lowlevel.checkpoint()
    assert found == {}
