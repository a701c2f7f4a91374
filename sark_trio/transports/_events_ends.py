"""How connections of an event stream end, and which error says so."""

from __future__ import annotations

from typing import final

from attrs import frozen

from sark_trio.errors import (
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    TLSError,
    TransportError,
    status_error,
)
from sark_trio.machines.reconnect import End
from sark_trio.machines.sse import TooLarge
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import retry_after_s

__all__ = [
    "Lost",
    "broken",
    "ended",
    "not_opened",
    "not_opened_in",
    "refused",
    "silent",
    "too_large",
]


@final
@frozen
class Lost:
    """How a connection ended, or why there was none."""

    end: End
    error: GatewayError
    retry_after_s: float | None = None


def not_opened(error: GatewayError) -> Lost:
    """No connection, or no response."""
    # What we refused ourselves, and a peer whose words or certificate are wrong, stay as they are.
    passing = isinstance(error, TransportError) and not isinstance(error, TLSError)
    return Lost(End.FAILED if passing else End.REFUSED, error)


def not_opened_in(seconds: float, name: str) -> Lost:
    """No response in so many seconds."""
    return Lost(End.FAILED, ReadTimeout(f"{name}: no response within {seconds:g} s"))


def refused(end: End, head: ResponseHead, name: str) -> Lost:
    """A response that is no stream of events."""
    after_s = retry_after_s(head)
    if end is End.NOT_A_STREAM:
        kind = head.content_type[:80] or "none"
        text = f"{name}: no event stream, but HTTP {head.status}, content type {kind!a}"
        return Lost(end, ProtocolError(text, delivery="answered"))
    text = f"{name}: the server answered HTTP {head.status}"
    if end is End.NO_CONTENT:
        text += ": it has no events, and asks not to be asked again"
    return Lost(end, status_error(head.status, text, retry_after_s=after_s), after_s)


def broken(error: GatewayError) -> Lost:
    """The connection broke within the stream, or what came was no HTTP."""
    too_much = isinstance(error, MessageTooLarge)
    return Lost(End.TOO_LARGE if too_much else End.FAILED, error)


def too_large(what: TooLarge, name: str) -> Lost:
    """An event exceeded a limit."""
    text = f"{name}: an {what.what} of more than {what.limit_bytes} bytes in the event stream"
    return Lost(End.TOO_LARGE, MessageTooLarge(text, limit_bytes=what.limit_bytes))


def silent(seconds: float, name: str) -> Lost:
    """Not one byte for so many seconds."""
    text = f"{name}: not a byte of the event stream for {seconds:g} s"
    return Lost(End.IDLE, ReadTimeout(text, delivery="answered"))


def ended(name: str) -> Lost:
    """The server ended the response as one does."""
    text = f"{name}: the server ended the event stream"
    return Lost(End.EOF, ServerDisconnected(text, delivery="answered"))
