"""The servers of the probes: raw sockets and processes that do one wrong thing each.

Most are the faulty server of the fault matrix (``tests/support/faulty.py``), which does what the
arguments of a call say; the others are here.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field

from tests.support import stdio_servers
from tests.support.faulty import faulty, free_port
from tests.support.http_servers import (
    SSE_HEAD,
    Handler,
    Peer,
    Received,
    Script,
    chunk,
    event,
    legacy,
    modern,
    response,
    result,
    serve,
)

__all__ = ["Desk", "behind", "endless", "forgetful", "nobody", "odd", "on", "plain", "redirecting"]

MIB = 1 << 20
#: How a server is told that a call is given up, until 2025-11-25.
NOTIFIED = "a notification"
#: Of what never ends, so much is sent: bounded, for the machine's sake.
FLOOD_BYTES = 256 * MIB
_TOOLS = {
    "resultType": "complete",
    "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
    "ttlMs": 60_000,
    "cacheScope": "private",
}


@define(eq=False)
class Desk:
    """One server, as a client is told of it, and what it saw."""

    target: dict[str, Any] = field(factory=dict)
    #: Numbers of the calls that arrived, in order.
    executed: list[Any] = field(factory=list)
    #: Seconds between the first sending of a call and the next one, where there was one.
    gap_s: float | None = None
    #: Whether the server was told that a call was given up, and how.
    told: list[str] = field(factory=list)
    #: Sessions that the server does not know any more.
    forgotten: set[str] = field(factory=set)
    heard: anyio.Event = field(factory=anyio.Event)
    #: Requests that came where none should, and those of them that carried a secret.
    strangers: int = 0
    secrets: int = 0
    #: A call that waits until another one has met its fault.
    struck: anyio.Event = field(factory=anyio.Event)

    def hear(self, how: str) -> None:
        if how not in self.told:
            self.told.append(how)
        self.heard.set()


Making = Callable[[], AbstractAsyncContextManager[Desk]]
Act = Callable[[Desk, Peer, Received], Awaitable[None]]


def text(number: Any) -> dict[str, Any]:
    """The result of a call."""
    content = [{"type": "text", "text": str(number)}]
    return {"resultType": "complete", "content": content}


def on(kind: str) -> Making:
    """The faulty server of the fault matrix."""

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        desk = Desk()

        def note(arguments: Any) -> None:
            desk.executed.append(arguments.get("n"))

        async with faulty(kind, on_call=note) as known:
            if kind == "stdio":
                desk.target = {"command": list(known.server.command)}  # type: ignore[attr-defined]
            else:
                desk.target = {"url": known.listening.url}
            yield desk

    return making


def behind(
    act: Act,
    *,
    era: str = "modern",
    sessions: Callable[[], str] | None = None,
    forgets: str = "",
) -> Making:
    """A server on HTTP that answers calls but those named ``fault``, which *act* sees to.

    A call named ``sibling`` is answered when the fault has struck. The session of the call named
    *forgets* is forgotten when that was answered.
    """

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        desk = Desk()

        async def handle(peer: Peer, received: Received) -> None:
            if received.method == "GET":
                await peer.send(response(status="405 Method Not Allowed", content_type=""))
            elif received.rpc == "tools/list":
                await peer.send(result(received, _TOOLS))
            elif received.rpc == "notifications/cancelled":
                desk.hear(NOTIFIED)
                await peer.send(response(status="202 Accepted", content_type=""))
            elif received.rpc != "tools/call":
                await peer.send(response(status="202 Accepted", content_type=""))
            else:
                await _call(desk, act, peer, received)
                if forgets and received.json["params"]["arguments"].get("n") == forgets:
                    desk.forgotten.add(received.headers["mcp-session-id"])

        async with serve(_script(era, handle, sessions)) as listening:
            desk.target = {"url": listening.url}
            yield desk

    return making


async def _call(desk: Desk, act: Act, peer: Peer, received: Received) -> None:
    number = received.json["params"]["arguments"].get("n")
    if received.headers.get("mcp-session-id", "-") in desk.forgotten:
        await peer.send(response(b"{}", "404 Not Found"))
        return
    desk.executed.append(number)
    if number == "fault":
        try:
            await act(desk, peer, received)
        finally:
            desk.struck.set()
        return
    if number == "sibling":
        await desk.struck.wait()
    await peer.send(result(received, text(number)))


def _script(era: str, handle: Handler, sessions: Callable[[], str] | None) -> Script:
    if era == "modern":
        return modern(handle)
    about = legacy(handle) if sessions is None else legacy(handle, session=sessions)

    async def script(peer: Peer) -> None:
        talking = _Talking(peer.number, peer.server, peer.stream, peer.buffer, handle=handle)
        await about(talking)

    return script


@define(eq=False)
class _Talking(Peer):
    """Hands on GET requests and the notification of a cancellation, which ``legacy`` answers."""

    handle: Handler = field(kw_only=True)

    async def receive(self) -> Received:
        while True:
            received = await Peer.receive(self)
            if received.method != "GET" and received.rpc != "notifications/cancelled":
                return received
            await self.handle(self, received)


async def plain(desk: Desk, peer: Peer, received: Received) -> None:
    """Nothing is wrong."""
    await peer.send(result(received, text("fault")))


# -- what is wrong --------------------------------------------------------------------------------


def raw(make: Callable[[Received], bytes], *, then: str = "") -> Act:
    """These bytes, and the end of the connection: ``close``, ``reset``, or neither."""

    async def act(desk: Desk, peer: Peer, received: Received) -> None:
        await peer.send(make(received))
        if then == "reset":
            await peer.reset()
        if then:
            await peer.stream.aclose()
            raise anyio.EndOfStream

    return act


async def hang(desk: Desk, peer: Peer, received: Received) -> None:
    """No answer; told is how the client says that it does not wait any more."""
    await peer.wait_closed()
    desk.hear("the connection was closed")
    raise anyio.EndOfStream


async def trickle(desk: Desk, peer: Peer, received: Received) -> None:
    """A stream that begins, and no answer on it."""
    await peer.send(SSE_HEAD + chunk(b": one moment\n\n"))
    await hang(desk, peer, received)


def endless(head: bytes, block: bytes, tail: bytes = b"") -> Act:
    """*head*, and *block* again and again, ``FLOOD_BYTES`` in all, then *tail*."""

    async def act(desk: Desk, peer: Peer, received: Received) -> None:
        await peer.send(head)
        try:
            for _ in range(FLOOD_BYTES // MIB):
                await peer.send(block)
        finally:
            desk.struck.set()
        await peer.send(tail)
        await peer.wait_closed()

    return act


@cache
def bomb() -> bytes:
    """A response of a few hundred KiB that unpacks to ``FLOOD_BYTES``."""
    return response(gzip.compress(b'"' + b"x" * FLOOD_BYTES + b'"', 6), content_encoding="gzip")


async def unavailable(desk: Desk, peer: Peer, received: Received) -> None:
    """503 and ``Retry-After: 1``, the first time."""
    now = anyio.current_time()
    if desk.executed.count("fault") == 1:
        desk.gap_s = -now
        about = {"Retry_After": "1"}
        await peer.send(response(b"{}", "503 Service Unavailable", **about))
        return
    desk.gap_s = None if desk.gap_s is None else round(now + desk.gap_s, 2)
    await peer.send(result(received, text("fault")))


async def read_and_reset(desk: Desk, peer: Peer, received: Received) -> None:
    """The call was executed; its answer never comes."""
    await peer.reset()
    raise anyio.EndOfStream


async def answer_and_close(desk: Desk, peer: Peer, received: Received) -> None:
    """The right answer, kept alive as it seems, and then the connection is reset."""
    await peer.send(result(received, text("fault")))
    await peer.reset()
    raise anyio.EndOfStream


def forgetful() -> Making:
    """A server of 2025-11-25 that has forgotten its sessions: 404, until there is a new one."""
    sessions: list[str] = []

    def session() -> str:
        sessions.append(f"session-{len(sessions) + 1}")
        return sessions[-1]

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        sessions.clear()
        async with behind(plain, era="legacy", sessions=session, forgets="warm")() as desk:
            yield desk

    return making


def redirecting() -> Making:
    """A server that sends calls to another origin, which notes who comes, and with what."""

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        elsewhere = ""

        async def act(desk: Desk, peer: Peer, received: Received) -> None:
            about = {"Location": elsewhere}
            await peer.send(response(b"", "307 Temporary Redirect", **about))

        async def note(peer: Peer) -> None:
            while True:
                received = await peer.receive()
                desk.strangers += 1
                desk.secrets += "authorization" in received.headers
                await peer.send(result(received, text("stolen")))

        async with behind(act)() as desk, serve(note) as other:
            elsewhere = other.url
            yield desk

    return making


def nobody() -> Making:
    """Nobody listens there."""

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        yield Desk({"url": f"http://127.0.0.1:{free_port()}/mcp"})

    return making


def odd(habit: str) -> Making:
    """The faulty server on stdio, with a habit of ``odd.py``."""

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        script = Path(__file__).with_name("odd.py")
        with tempfile.TemporaryDirectory(prefix="sark-probe-") as folder:
            log = Path(folder) / "calls"
            log.touch()
            yield Desk({"command": [sys.executable, "-S", "-I", str(script), habit, str(log)]})

    return making


def telling() -> Making:
    """A well-behaved server on stdio; its tool ``told`` answers what notifications came."""
    script = Path(stdio_servers.__file__).with_name("plain.py")

    @asynccontextmanager
    async def making() -> AsyncIterator[Desk]:
        yield Desk({"command": [sys.executable, "-S", "-I", str(script)]})

    return making


def half(received: Received) -> bytes:
    """A response in JSON that ends too early."""
    return result(received, text("fault"))[:-20]


def broken_event(received: Received) -> bytes:
    """A stream that ends in the middle of its event."""
    whole = event({"jsonrpc": "2.0", "id": received.id, "result": text("fault")})
    return SSE_HEAD + whole[: len(whole) // 2]


def no_utf8(received: Received) -> bytes:
    """An answer with a byte in it that is no UTF-8."""
    body = json.dumps({"jsonrpc": "2.0", "id": received.id, "result": text("@")}).encode()
    return response(body.replace(b"@", b"\xff"))


def deep(received: Received) -> bytes:
    """An answer of 100,000 nested lists."""
    head = b'{"jsonrpc":"2.0","id":%b,"result":' % json.dumps(received.id).encode()
    return response(head + b"[" * 100_000 + b"]" * 100_000 + b"}")
