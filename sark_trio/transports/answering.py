"""Answering what a server asks: a task for each request, so many at a time, none for ever.

Until 2025-11-25 servers send requests of their own: for input of a person, for a model's words,
for the roots. Whoever answers them is handed in; what is answered to a request that nobody
takes, that fails, or that is one too many, is decided here. A request that came with a call is
given up with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast, final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio.errors import GatewayError, InvalidArguments, RemoteError
from sark_trio.mcp.codec import encode_error, encode_result
from sark_trio.mcp.faults import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND
from sark_trio.mcp.messages import Request, RequestId

__all__ = ["Answering", "Asker", "Send"]

#: Answers a request: its ``result`` member. :class:`~sark_trio.errors.RemoteError` is the error
#: to answer with instead.
Asker = Callable[[Request], Awaitable[Mapping[str, Any]]]
#: Puts one message on the wire.
Send = Callable[[bytes], Awaitable[None]]

#: Requests of one server that are being answered. Each may hold a person's attention.
ANSWERS_MAX: Final = 16
#: Longest time for one answer; one that came with a call ends with that, mostly earlier.
ANSWER_S_MAX: Final = 300.0
#: An answer larger than what we would take ourselves is no answer.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


@final
@define(eq=False, repr=False)
class Answering:
    """The requests of one server that are being answered.

    :param tasks: where they are answered.
    :param ask: answers those that came with no call; ``None`` refuses them.
    """

    _tasks: TaskGroup
    _ask: Asker | None = None
    _open: dict[RequestId, anyio.CancelScope] = field(factory=dict, init=False)
    _refusing: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Answering {len(self._open)} requests>"

    def take(
        self,
        request: Request,
        send: Send,
        ask: Asker | None = None,
        open_for: set[anyio.CancelScope] | None = None,
    ) -> None:
        """Begin to answer *request*.

        :param ask: answers it; ``None``: whoever answers what came with no call.
        :param open_for: holds the answer's scope while it is being found, for whoever may cancel
            it: the call that it came with.
        """
        scope, owner = anyio.CancelScope(), set() if open_for is None else open_for
        ask = ask or self._ask
        problem = self._problem(request)
        if problem is not None:
            if self._refusing < ANSWERS_MAX:  # beyond it they are not even refused
                self._refusing += 1
                self._tasks.start_soon(self._refuse, request, send, problem)
            return
        self._open[request.id] = scope
        owner.add(scope)
        self._tasks.start_soon(partial(self._answer, request, send, ask, scope, owner))

    def withdraw(self, request_id: object) -> None:
        """The server wants no answer any more (``notifications/cancelled``)."""
        known = type(request_id) in {int, str}  # True is no 1
        scope = self._open.get(cast("RequestId", request_id)) if known else None
        if scope is not None:
            scope.cancel()

    async def _refuse(self, request: Request, send: Send, problem: str) -> None:
        try:
            await _sent(send, encode_error(request.id, INVALID_REQUEST, problem))
        finally:
            self._refusing -= 1

    def _problem(self, request: Request) -> str | None:
        if request.id in self._open:
            return "a request of this id is being answered"
        if len(self._open) >= ANSWERS_MAX:
            return f"this client answers {ANSWERS_MAX} requests at a time"
        return None

    async def _answer(
        self,
        request: Request,
        send: Send,
        ask: Asker | None,
        scope: anyio.CancelScope,
        owner: set[anyio.CancelScope],
    ) -> None:
        scope.deadline = anyio.current_time() + ANSWER_S_MAX
        body: bytes | None = None
        try:
            with scope:
                body = await _body(request, ask)
            if scope.cancelled_caught and anyio.current_time() >= scope.deadline:
                body = encode_error(request.id, INTERNAL_ERROR, "nobody answered in time")
            if body is not None:
                # No more in the scope: half an answer is worse than a late one.
                await _sent(send, body)
        finally:
            owner.discard(scope)
            self._open.pop(request.id, None)


async def _sent(send: Send, body: bytes) -> None:
    with suppress(GatewayError):  # whom it was for is gone
        await send(body)


async def _body(request: Request, ask: Asker | None) -> bytes:
    """The answer to *request*, whatever becomes of it."""
    if request.method == "ping":
        return encode_result(request.id, {})
    if ask is None:
        return _error(request, METHOD_NOT_FOUND, "this client offers no such method")
    try:
        body = encode_result(request.id, await ask(request))
    except RemoteError as exc:
        return _error(request, exc.code, exc.message, exc.data)
    except Exception:  # noqa: BLE001 - a handler's fault is answered; its words may be secret
        return _error(request, INTERNAL_ERROR, "the client could not answer this")
    if len(body) > ANSWER_BYTES_MAX:
        return _error(request, INTERNAL_ERROR, "the client's answer is too large")
    return body


def _error(request: Request, code: int, message: str, data: Any = None) -> bytes:
    try:
        return encode_error(request.id, code, message, data)
    except InvalidArguments:
        return encode_error(request.id, INTERNAL_ERROR, "the client could not answer this")
