"""What simulated servers on the network share: connections, HTTP, and one voice for a wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import httpcore
import trio
from attrs import define, field, frozen

from tests.simulation.network import Chaos, Wire

__all__ = ["Listener", "Request", "Voice", "chunk", "receive", "reply", "stream_head"]

_STATUS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found"}
_REFUSALS = (500, 502, 503, 429, 401)


@frozen
class Request:
    """One HTTP request, with the names of headers in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@define(eq=False)
class Listener:
    """Whoever serves connections."""

    #: The fault that a request is not heard.
    dropped: ClassVar[str] = "dropped requests"

    chaos: Chaos
    down: bool = field(default=False, init=False)
    wires: list[Wire] = field(factory=list, init=False)

    async def accept(self, wire: Wire) -> None:
        """Serve one connection."""
        if self.down:
            wire.reset()
            wire.close()
            return
        self.wires.append(wire)
        try:
            while await self.exchange(wire):
                pass
        except* (httpcore.NetworkError, ValueError):
            pass
        finally:
            self.wires.remove(wire)
            wire.close()

    async def restart(self) -> None:
        """Die, and come back without any memory."""
        self.down = True
        self.forget()
        for wire in list(self.wires):
            wire.reset()
        await trio.sleep(self.chaos.seconds("restarts", 0, 3))
        self.down = False

    def forget(self) -> None:
        """Know nothing any more of anybody who was here."""

    async def exchange(self, wire: Wire) -> bool:
        """Take one request, or fail at it; whether another one may follow."""
        request = await receive(wire)
        if request is None or self.chaos.strikes(self.dropped):
            return False
        if self.chaos.strikes("errors before work"):
            return await self.refuse(wire)
        return await self.serve(wire, request)

    async def serve(self, wire: Wire, request: Request) -> bool:
        """Serve *request*; whether another one may follow."""
        raise NotImplementedError

    async def refuse(self, wire: Wire) -> bool:
        """Answer with an error instead of looking at what was asked."""
        status = _REFUSALS[self.chaos.size("errors before work", len(_REFUSALS)) - 1]
        more = b"retry-after: 1\r\n" if status in {429, 503} else b""
        await reply(wire, status, b"no", more=more, kind=b"text/plain")
        return True


@define(eq=False)
class Voice:
    """Says one thing after the other on a wire, and never two at once."""

    wire: Wire
    _waiting: list[bytes] = field(factory=list)
    _news: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def say(self, data: bytes) -> None:
        """Say *data* next."""
        self._waiting.append(data)
        self._news.unpark_all()

    async def run(self) -> None:
        """Go on until cancelled, or until nobody can hear it any more."""
        while True:
            while not self._waiting:
                await self._news.park()
            data = b"".join(self._waiting)
            self._waiting.clear()
            await self.wire.write(data)


def chunk(data: bytes) -> bytes:
    """*data* as a piece of a body that has no length of its own."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_head(more: bytes = b"") -> bytes:
    """The head of an event stream, which goes on in chunks."""
    kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    return b"HTTP/1.1 200 OK\r\n" + kind + more + b"\r\n"


async def reply(
    wire: Wire, status: int, body: bytes, *, more: bytes = b"", kind: bytes = b"application/json"
) -> None:
    """Answer a request in full."""
    reason = _STATUS.get(status, "Odd").encode()
    head = b"HTTP/1.1 %d %s\r\ncontent-length: %d\r\n" % (status, reason, len(body))
    if body:
        head += b"content-type: %s\r\n" % kind
    await wire.write(head + more + b"\r\n" + body)


async def receive(wire: Wire) -> Request | None:
    """One request; ``None`` at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await wire.read(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        piece = await wire.read(65_536)
        if not piece:
            return None
        body += piece
    method, target, _ = lines[0].split()
    return Request(method, target, headers, body)
