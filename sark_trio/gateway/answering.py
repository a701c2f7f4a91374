"""One JSON-RPC answer over HTTP: plain JSON if nothing comes before it, else an event stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import anyio
from attrs import define, field, frozen

from sark_trio.gateway.asgi import Reply, Request, Send
from sark_trio.gateway.streaming import HEADERS, PING, PING_S
from sark_trio.gateway.visitor import Put, Tell

__all__ = ["Answering", "Before", "Work"]

#: Messages that wait for a slow reader.
EVENTS_MAX: Final = 64


@final
@frozen
class Before:
    """What can be said before the answer: at once, if there is room, or when there is."""

    tell: Tell
    put: Put


#: Makes the answer: its HTTP status, where that can still be said, and its bytes. ``None`` to
#: end the stream without one.
Work = Callable[[Before | None], Awaitable[tuple[int, bytes] | None]]


@final
@define(eq=False, kw_only=True)
class Answering:
    """How one request is answered.

    :param cancels_when_gone: a caller that closes the connection gives up the request
        (2026-07-28, "Cancellation"); of legacy revisions it says nothing.
    :param begins_at_once: the stream is there before anything is said on it.
    :param scope: cancels the work: then there is no answer.
    """

    request: Request
    send: Send
    cancels_when_gone: bool
    begins_at_once: bool = False
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    _gone: bool = field(default=False, init=False)

    async def run(self, work: Work) -> None:
        """Do *work*, telling meanwhile, and send the answer."""
        events_in, events = anyio.create_memory_object_stream[bytes](EVENTS_MAX)
        answer: list[tuple[int, bytes]] = []

        def tell(data: bytes) -> bool:
            try:
                events_in.send_nowait(data)
            except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return False
            return True

        async def put(data: bytes) -> None:
            with suppress(anyio.BrokenResourceError):
                await events_in.send(data)

        streams = self.request.accepts("text/event-stream")

        async def do() -> None:
            with events_in, self.scope:
                made = await work(Before(tell, put) if streams else None)
                if made is not None:
                    answer.append(made)

        with events:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(do)
                if self.cancels_when_gone:
                    tasks.start_soon(self._watch)
                begun = await self._tell_all(events.receive, PING_S if streams else float("inf"))
                tasks.cancel_scope.cancel()
        if not self._gone:
            await self._end(answer[0] if answer else None, begun=begun)

    async def _watch(self) -> None:
        await self.request.gone()
        self._gone = True
        self.scope.cancel()

    async def _tell_all(self, receive: Callable[[], Awaitable[bytes]], ping_s: float) -> bool:
        """Pass events on until the work is done: whether the stream was begun."""
        begun = self.begins_at_once
        if begun:
            await self._begin()
        while True:
            event = PING
            with anyio.move_on_after(ping_s):
                try:
                    event = _event(await receive())
                except anyio.EndOfStream:
                    return begun
            if not begun:
                await self._begin()
                begun = True
            if not self._gone:
                await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def _begin(self) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})

    async def _end(self, answer: tuple[int, bytes] | None, *, begun: bool) -> None:
        if answer is not None and not begun:
            status, body = answer
            await Reply(status=status, body=body).send(self.send)
            return
        if not begun:
            # Cancelled by the caller, who waits for nothing: a stream with nothing in it.
            await self._begin()
        data = b"" if answer is None else _event(answer[1])
        await self.send({"type": "http.response.body", "body": data})


def _event(data: bytes) -> bytes:
    # JSON in UTF-8 as our encoder writes it has no line breaks.
    return b"event: message\ndata: " + data + b"\n\n"
