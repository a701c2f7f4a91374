"""What both WebSocket libraries run on: one network stream of ours, bounded and counted.

The libraries frame and parse; they never open, time or close a connection. So whom to trust,
which addresses to connect to, time limits and ``delivery`` are the same on either event loop,
and the same as for HTTP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, final

import httpcore
from attrs import define, field, frozen

from sark_trio.errors import (
    Delivery,
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    ServerDisconnected,
    WriteTimeout,
    status_error,
)
from sark_trio.net.dial import close_stream
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import retry_after_s
from sark_trio.net.url import ServerURL

__all__ = [
    "ABNORMAL",
    "SUBPROTOCOL",
    "Body",
    "Channel",
    "HungUp",
    "Pipe",
    "Upgrade",
    "check_subprotocol",
    "error_for",
    "refusal",
]

#: What the SDKs that have this transport call it.
SUBPROTOCOL: Final = "mcp"
READ_BYTES: Final = 64 * 1024
#: In pieces, so that the time limit is one on silence and not on size.
_WRITE_BYTES: Final = 64 * 1024
#: Bytes that are no part of a message, between two messages of either side: headers of
#: fragments, pings, an HTTP head. Empty fragments cost a receiver memory and their sender two
#: bytes each.
_WASTE_BYTES_MAX: Final = 256 * 1024

#: RFC 6455, section 7.4.1: the end of a connection that nobody closed.
ABNORMAL: Final = 1006
#: ... and those that say that somebody broke the protocol.
_BREACHES: Final = {
    1002: "protocol error",
    1003: "unacceptable data",
    1007: "data that is no UTF-8",
    1008: "against the server's policy",
    1009: "message too big",
    1010: "missing extension",
}
#: No honest reason is longer: a close frame holds 123 bytes (RFC 6455, section 5.5).
_REASON_CHARS_MAX: Final = 123


@final
class HungUp(Exception):
    """The connection is over. ``code`` as RFC 6455, section 7.4, has it."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@final
@frozen(kw_only=True)
class Upgrade:
    """What is asked of the server in the opening handshake."""

    url: ServerURL
    headers: tuple[tuple[bytes, bytes], ...]
    message_bytes_max: int


class Channel(ABC):
    """An open WebSocket. One task sends messages, one receives, one pings."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send one text message (UTF-8).

        :raises HungUp: the connection is over.
        """

    @abstractmethod
    async def receive(self) -> bytes | None:
        """The next text message as UTF-8; ``None`` for one that is binary.

        :raises HungUp: the connection is over.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Ping, and wait for the pong.

        :raises HungUp: the connection is over.
        """

    @abstractmethod
    async def close(self, code: int) -> None:
        """Say goodbye and wait for the answer, however long that takes."""


#: Talks on the channel for as long as it likes.
Body = Callable[[Channel], Awaitable[None]]


@final
@define(eq=False)
class Pipe:
    """The stream under a WebSocket.

    :param write_timeout_s: longest time in which the peer takes no byte.
    """

    _stream: httpcore.AsyncNetworkStream
    _message_bytes_max: int
    _write_timeout_s: float
    #: Why it ended, where that was found here: makes the error of one call.
    verdict: Callable[[Delivery], GatewayError] | None = field(default=None, init=False)
    #: Called when nothing more will come.
    on_end: Callable[[], None] | None = field(default=None, init=False)
    #: Bytes that came since the last whole message, of either side.
    _unused: int = field(default=0, init=False)

    @property
    def bytes_written(self) -> int:
        """How many bytes the kernel took."""
        return int(self._stream.get_extra_info("bytes_written") or 0)

    async def read(self) -> bytes:
        """Some bytes; ``b""`` at the end, whatever kind of end it is."""
        data = b""
        try:
            data = await self._stream.read(READ_BYTES, timeout=None)
        except httpcore.NetworkError:
            pass
        finally:
            if not data:
                self._end()
        self._unused += len(data)
        if self._unused > self._message_bytes_max + _WASTE_BYTES_MAX:
            self.fail(self.too_large)
            return b""
        return data

    def too_large(self, delivery: Delivery) -> GatewayError:
        """The error of one call where the peer sent too much at once."""
        limit = self._message_bytes_max
        return MessageTooLarge(
            f"the server sent a message of more than {limit} bytes",
            limit_bytes=limit,
            delivery=delivery,
        )

    def on_message(self) -> None:
        """A message came, or goes: what came so far is not counted any more."""
        self._unused = 0

    async def write(self, data: bytes) -> bool:
        """Write all of *data*: whether it went out."""
        seconds = self._write_timeout_s
        try:
            for start in range(0, len(data), _WRITE_BYTES):
                piece = data[start : start + _WRITE_BYTES]
                await self._stream.write(piece, timeout=seconds)
        except httpcore.WriteTimeout:
            self.fail(
                lambda delivery: WriteTimeout(
                    f"the server took no bytes for {seconds:g} s", delivery=delivery
                )
            )
            return False
        except httpcore.NetworkError:
            self._end()
            return False
        return True

    async def close(self) -> None:
        """Close the socket: when this returns, cancelled or not, it is gone."""
        await close_stream(self._stream)

    def fail(self, verdict: Callable[[Delivery], GatewayError]) -> None:
        """The peer breaks a limit of ours: there is nothing more to read. The first one stands."""
        if self.verdict is None:
            self.verdict = verdict
        self._end()

    def _end(self) -> None:
        if self.on_end is not None:
            self.on_end()


def error_for(name: str, end: HungUp, delivery: Delivery) -> GatewayError:
    """The error of one call where the connection to *name* ended like that.

    The codes that blame a message come from either side: we sent what the server does not
    take, or it sent what nobody can. Asking again gets the same.
    """
    # A stranger's words: no newline or escape of theirs may dress up our message.
    said = f", saying {end.reason[:_REASON_CHARS_MAX]!a}" if end.reason else ""
    if end.code in _BREACHES:
        text = f"the WebSocket to {name} failed with code {end.code} ({_BREACHES[end.code]}){said}"
        return ProtocolError(text, delivery=delivery)
    how = "broke" if end.code == ABNORMAL else f"was closed with code {end.code}"
    return ServerDisconnected(f"the WebSocket to {name} {how}{said}", delivery=delivery)


def refusal(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> GatewayError:
    """The error for a server that answered the opening handshake with another *status*."""
    if 300 <= status < 400:
        return ProtocolError(f"the server answered HTTP {status}, which is not followed")
    if status < 400:
        return ProtocolError(f"the server does not speak WebSocket here: HTTP {status}")
    head = ResponseHead(status, tuple((name.lower(), value) for name, value in headers))
    message = f"the server answered HTTP {status}"
    return status_error(status, message, retry_after_s=retry_after_s(head))


def check_subprotocol(chosen: str | None) -> None:
    """*chosen* is ours (WHATWG WebSockets: a server that answers without one is refused).

    :raises ProtocolError: it is not.
    """
    if chosen != SUBPROTOCOL:
        raise ProtocolError(f"the server does not speak the WebSocket subprotocol {SUBPROTOCOL!r}")
