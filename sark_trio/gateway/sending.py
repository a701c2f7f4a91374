"""``send`` of one request: what every response carries, and for how long it may be waited."""

from __future__ import annotations

from typing import Final, final

import anyio
from attrs import define, field

from sark_trio.gateway.asgi import Message, Send

__all__ = ["Sending"]

#: For one piece of an answer, the largest included, over a slow line.
SEND_S: Final = 60.0


@final
@define(eq=False)
class Sending:
    """``send``, and what has been sent.

    :param request_scope: cancelled when the caller does not take what is sent.
    """

    _send: Send
    _request_scope: anyio.CancelScope
    #: Added to every response.
    headers: tuple[tuple[str, str], ...] = field(default=(), init=False)
    status: int | None = field(default=None, init=False)
    _stalled: bool = field(default=False, init=False)

    async def __call__(self, message: Message) -> None:
        """Send *message*, unless the caller has not taken what came before."""
        if self._stalled:
            return  # a piece is missing; what would follow it is no answer
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = [(name.encode("ascii"), value.encode("ascii")) for name, value in self.headers]
            message = {**message, "headers": [*message["headers"], *more]}
        # Not to be cut in the middle: a server that is cancelled while it writes, or closes,
        # leaves the connection in a state that nobody knows.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SEND_S) as sending:
            await self._send(message)
        if sending.cancelled_caught:
            self._stalled = True
            self._request_scope.cancel()
