"""One JSON-RPC answer over HTTP: plain JSON if nothing comes before it, else an event stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio import Progress
from sark_trio.gateway.asgi import Reply, Request, Send
from sark_trio.gateway.streaming import HEADERS
from sark_trio.mcp.codec import encode_notification
from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.progress import PROGRESS

__all__ = ["Answering", "Teller", "Work"]

#: Proxies close streams that are silent for a minute or half of one.
PING_S: Final = 15.0
#: Notifications that wait for a slow reader. Progress is superseded by later progress, so that
#: what does not fit is left out.
EVENTS_MAX: Final = 64
_PING: Final = b": ping\n\n"

#: Makes the answer: its HTTP status, where that can still be said, and its bytes.
Work = Callable[[Callable[[Progress], None] | None], Awaitable[tuple[int, bytes]]]


@final
@define(eq=False)
class Teller:
    """Tells progress under the token that the caller chose, and only if it moved forward."""

    _token: RequestId
    _tell: Callable[[bytes], None]
    _last: float = field(default=float("-inf"), init=False)

    def __call__(self, progress: Progress) -> None:
        """Tell *progress*."""
        # A second attempt at a call begins anew; the caller has seen more already.
        if progress.progress <= self._last:
            return
        self._last = progress.progress
        params: dict[str, Any] = {"progressToken": self._token, "progress": progress.progress}
        if progress.total is not None:
            params["total"] = progress.total
        if progress.message is not None:
            params["message"] = progress.message
        self._tell(encode_notification(PROGRESS, params))


@final
@define(eq=False, kw_only=True)
class Answering:
    """How one request is answered.

    :param token: the caller wants progress under it.
    :param cancels_when_gone: a caller that closes the connection gives up the request
        (2026-07-28, "Cancellation"); of legacy revisions it says nothing.
    :param scope: cancels the work: then there is no answer.
    """

    request: Request
    send: Send
    token: RequestId | None
    cancels_when_gone: bool
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    _gone: bool = field(default=False, init=False)

    async def run(self, work: Work) -> None:
        """Do *work*, telling meanwhile, and send the answer."""
        events_in, events = anyio.create_memory_object_stream[bytes](EVENTS_MAX)
        answer: list[tuple[int, bytes]] = []

        def tell(data: bytes) -> None:
            try:
                events_in.send_nowait(data)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                return

        streams = self.request.accepts("text/event-stream")
        teller = Teller(self.token, tell) if streams and self.token is not None else None

        async def do() -> None:
            with events_in, self.scope:
                answer.append(await work(teller))

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
        begun = False
        while True:
            event = _PING
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
