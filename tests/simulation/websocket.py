"""Simulated servers on a WebSocket: their framing is written out here (RFC 6455, section 5)."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import ClassVar

import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.desk import Desk, Visit
from tests.simulation.network import Chaos, Wire
from tests.simulation.web import Listener, Request, Voice, reply

__all__ = ["WebSocketServer"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: With which a server may leave (RFC 6455, section 7.4.1).
_CODES = (1000, 1001, 1008, 1011)
#: What breaks the framing: a mask, a reserved bit, an opcode that is none, a length cut short.
_BREACHES = (b"\x81\x81\0\0\0\0x", b"\xc1\x01x", b"\x83\x01x", b"\x81\x7e\x00")


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """One frame of a server's: unmasked."""
    first, size = opcode | (0x80 if last else 0), len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    return bytes([first, 126]) + struct.pack("!H", size) + payload


@define(eq=False)
class _Frames:
    """Takes the frames of a client's off a wire."""

    wire: Wire
    _data: bytearray = field(factory=bytearray)

    async def next(self) -> tuple[int, bytes] | None:
        """Opcode and payload; ``None`` at the end."""
        head = await self._take(2)
        size = head[1] & 0x7F if head else 0
        if size == 126:
            (size,) = struct.unpack("!H", await self._take(2) or b"\0\0")
        mask = await self._take(4)
        payload = await self._take(size)
        if head is None or mask is None or payload is None:
            return None
        repeated = (mask * (size // 4 + 1))[:size]
        plain = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        return head[0] & 0x0F, plain.to_bytes(size, "big")

    async def _take(self, size: int) -> bytes | None:
        while len(self._data) < size:
            piece = await self.wire.read(65_536)
            if not piece:
                return None
            self._data += piece
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


@define(eq=False)
class WebSocketServer(Listener):
    """One MCP server."""

    dropped: ClassVar[str] = "dropped handshakes"

    desk: Desk = field(kw_only=True)

    async def serve(self, wire: Wire, request: Request) -> bool:
        """See :meth:`Listener.serve`."""
        if self.chaos.strikes("slow handshakes"):
            await trio.sleep(self.chaos.seconds("slow handshakes", 0, 20))
        if self.chaos.strikes("no WebSocket here"):
            await reply(wire, 200, b"<html>", kind=b"text/html")
            return False
        await wire.write(self._accepted(request))
        await self._converse(wire)
        return False

    def _accepted(self, request: Request) -> bytes:
        key = request.headers["sec-websocket-key"].encode()
        if self.chaos.strikes("another key"):
            key = b"x"
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        protocol = b"" if self.chaos.strikes("no subprotocol") else b"mcp"
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept,
            *([b"Sec-WebSocket-Protocol: " + protocol] if protocol else []),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def _converse(self, wire: Wire) -> None:
        voice, frames = Voice(wire), _Frames(wire)
        visit = Visit(self.desk, lambda said: voice.say(b"".join(_framed(said, self.chaos))))
        heeds_pings = not self.chaos.strikes("deaf to pings")
        visit.begin()
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(voice.run)
                while (found := await frames.next()) is not None:
                    opcode, payload = found
                    if opcode == TEXT:
                        tasks.start_soon(self.desk.answer, jsontext.decode(payload), visit)
                    elif opcode == PING and heeds_pings:
                        voice.say(frame(PONG, payload))
                    elif opcode == CLOSE:
                        break
                tasks.cancel_scope.cancel()
            if found is not None:
                await wire.write(frame(CLOSE, payload))
        finally:
            visit.end()


def _framed(message: bytes, chaos: Chaos) -> Iterator[bytes]:
    """*message* in frames, and whatever else a server likes to send before it."""
    if chaos.strikes("pings of servers"):
        yield frame(PING, b"?")
    if chaos.strikes("binary frames"):
        yield frame(BINARY, message)
    if chaos.strikes("broken frames"):
        yield _BREACHES[chaos.size("broken frames", len(_BREACHES)) - 1]
    if chaos.strikes("close frames"):
        code = _CODES[chaos.size("close frames", len(_CODES)) - 1]
        yield frame(CLOSE, struct.pack("!H", code) + b"bye\n")
    if not chaos.strikes("fragments"):
        yield frame(TEXT, message)
        return
    cut = chaos.size("fragments", len(message))
    yield frame(TEXT, message[:cut], last=False)
    yield frame(PING, b"in between")
    yield frame(CONTINUATION, message[cut:])
