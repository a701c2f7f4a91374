"""Event streams of the gateway over HTTP: Server-Sent Events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import anyio

from sark_trio import jsontext
from sark_trio.gateway.asgi import Request, Send
from sark_trio.gateway.lapse import Ends

__all__ = ["HEADERS", "PING", "PING_S", "Source", "frame", "stream"]

#: Proxies close streams that are silent for a minute or half of one.
PING_S: Final = 15.0
#: How long a reader shall wait before it comes back.
RETRY_MS: Final = 3_000
HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
#: Not to be mistaken for an event: lines that begin with a colon are none.
PING: Final = b": ping\n\n"


class Source(Protocol):
    """Where a stream's events come from."""

    async def wait(self) -> None:
        """Return when there may be something to :meth:`take`. Cancelling it loses nothing."""

    async def take(self) -> tuple[bytes, bool]:
        """What there is, as framed events, and whether it was the last."""


def frame(name: str, data: bytes | Mapping[str, Any], event_id: str | None = None) -> bytes:
    """One event. *data* is JSON without line breaks, or is made so."""
    body = data if isinstance(data, bytes) else jsontext.encode(data)
    named = b"" if event_id is None else f"id: {event_id}\n".encode()
    return b"%sevent: %s\ndata: %s\n\n" % (named, name.encode(), body)


async def stream(request: Request, send: Send, source: Source, ends: Ends) -> None:
    """Send what *source* has until it ends, the reader goes, or *ends* does, and say why."""
    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
    await _piece(send, b"retry: %d\n\n" % RETRY_MS)
    gone, closed = False, b""

    async def leave() -> None:
        nonlocal gone
        await request.gone()
        gone = True
        tasks.cancel_scope.cancel()

    async def end() -> None:
        nonlocal closed
        closed = frame("stream_closed", {"reason": await ends.wait() or "closing"})
        tasks.cancel_scope.cancel()

    last = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        tasks.start_soon(end)
        while not last:
            chunk = PING
            with anyio.move_on_after(PING_S):
                await source.wait()
                chunk = b""
            if not chunk:
                chunk, last = await source.take()
            if chunk:
                await _piece(send, chunk)
        tasks.cancel_scope.cancel()
    if not gone:
        await send({"type": "http.response.body", "body": closed})


async def _piece(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
