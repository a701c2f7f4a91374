"""What one call and its server say to each other besides request and result.

Questions that a server answers with instead of a result, tasks that a call becomes, requests of
a legacy server's: whatever of it needs a person or a model is handed to the handlers, in the
call's own task, within its deadline, and ended with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio.client.handlers import Handlers
from sark_trio.client.relay import Relay
from sark_trio.client.visits import Visits
from sark_trio.errors import GatewayError, ProtocolError, RemoteError
from sark_trio.mcp.asking import ELICIT
from sark_trio.mcp.faults import (
    METHOD_NOT_FOUND,
    HandlerFailed,
    TaskCancelled,
    UrlElicitationRequired,
    remote_error,
)
from sark_trio.mcp.messages import Agreed, InputRequired, Request
from sark_trio.mcp.rounds import Again, Ask, End, Rounds
from sark_trio.mcp.tasks import Answer, Ended, Fetch, Poll, Polling, Task, parse_task

__all__ = ["Dialogue"]

#: For telling a server that nobody wants its task any more.
FAREWELL_S: Final = 1.0
_TOO_MUCH: Final[Mapping[str, str]] = {
    "rounds": "asks again and again",
    "requests": "asks for too much at once",
    "method": "asks for input where it may not",
}


@final
@define(eq=False, kw_only=True)
class Dialogue:
    """The words beside one call.

    :param server: the server's name.
    :param send: makes one safe request about a task, retried.
    :param visits: of pages that a person must see before the call is made.
    """

    server: str
    handlers: Handlers | Relay
    send: Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
    visits: Visits
    #: Requests of the server's that are with a handler now, or were.
    asked: int = field(default=0, init=False)
    _rounds: Rounds | None = field(default=None, init=False)

    @property
    def held(self) -> bool:
        """Whether anything was said beside request and result."""
        return self._rounds is not None or self.asked > 0 or self.visits.count > 0

    def capabilities(self) -> dict[str, Any]:
        """What is offered for this call."""
        return self.handlers.capabilities(modern=True)

    async def reply(self, request: Request) -> dict[str, Any]:
        """The answer to a request of a legacy server's that came with the call."""
        self.asked += 1
        return await self.handlers.answer(self.server, request.method, request.params)

    async def next_params(
        self, method: str, params: Mapping[str, Any], question: InputRequired
    ) -> Mapping[str, Any]:
        """The parameters to send the request with again, once *question* is answered.

        :param params: as the request was sent first.
        :raises HandlerFailed: a handler failed or declined.
        :raises ProtocolError: the server asks for what it may not ask for, or without end.
        """
        self._rounds = rounds = self._rounds or Rounds(method, params)
        step = rounds.on_question(question)
        if isinstance(step, Ask):
            step = rounds.on_answers(await self._answers(step.requests))
        if isinstance(step, End):
            raise ProtocolError(
                f"{self.server}: the server {_TOO_MUCH[step.reason]}", delivery="answered"
            )
        assert isinstance(step, Again), step
        await anyio.sleep(step.delay_s)
        return step.params

    async def visit(self, refusal: UrlElicitationRequired, deadline: float) -> bool:
        """Whether a person went to the pages that *refusal* names, so that it is worth a new try.

        :raises HandlerFailed: the handler failed.
        """
        offered = self.handlers.capabilities(modern=False).get("elicitation", {})
        pages = self.visits.of(refusal) if "url" in offered else None
        if pages is None:
            return False
        with self.visits.expect(pages) as done:
            asked = {key: {"method": ELICIT, "params": page} for key, page in pages.items()}
            answers = await self._answers(asked)
            if any(answer.get("action") != "accept" for answer in answers.values()):
                return False
            # To accept is to go there, not to have been there.
            await self.visits.wait(done, deadline)
        return True

    async def follow(self, task: Task, agreed: Agreed | None) -> dict[str, Any]:
        """The result of the call that became *task*.

        :raises RemoteError: the error that it became instead.
        :raises TaskCancelled: the server ended it.
        :raises HandlerFailed, ProtocolError: as :meth:`next_params`.
        """
        modern = agreed is None or agreed.modern
        if modern and not self.handlers.tasks:
            text = f"{self.server}: a task, which this client did not offer to follow"
            raise ProtocolError(text, delivery="answered")
        polling = Polling(task, modern=modern)
        try:
            return await self._poll(polling)
        except BaseException:
            if not polling.task.ended:
                await self._abandon(task.task_id)
            raise

    async def _poll(self, polling: Polling) -> dict[str, Any]:
        about = {"taskId": polling.task.task_id}
        while True:
            step = polling.next()
            match step:
                case Poll(seconds=seconds):
                    await anyio.sleep(seconds)
                    polling.on_task(parse_task(await self.send("tasks/get", about)))
                case Answer(requests=requests):
                    answers = await self._answers(requests)
                    await self.send("tasks/update", {**about, "inputResponses": answers})
                    polling.on_answered()
                case Fetch():
                    return await self.send("tasks/result", about)
                case Ended(asked_too_much=True):
                    text = f"{self.server}: the server's task {_TOO_MUCH['rounds']}"
                    raise ProtocolError(text, delivery="answered")
                case Ended(task=task):
                    return self._result(task)

    def _result(self, task: Task) -> dict[str, Any]:
        if task.status == "cancelled":
            text = f"{self.server}: the server cancelled the task"
            raise TaskCancelled(text, delivery="answered", server=self.server)
        if task.status == "failed":
            error = task.error or {}
            code, message = error.get("code"), error.get("message")
            raise remote_error(
                code if type(code) is int else 0,
                message if type(message) is str else "the task failed",
                error.get("data"),
            )
        if task.result is None:
            raise ProtocolError(f"{self.server}: a task without its result", delivery="answered")
        return dict(task.result)

    async def _abandon(self, task_id: str) -> None:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + FAREWELL_S):
            try:
                await self.send("tasks/cancel", {"taskId": task_id})
            except GatewayError:
                return  # a courtesy: what ended the call is what matters

    async def _answers(
        self, requests: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Mapping[str, Any]]:
        """The answers to all *requests*, which are asked side by side."""
        answers: dict[str, Mapping[str, Any]] = {}
        failures: list[GatewayError] = []

        async def ask(key: str, request: Mapping[str, Any]) -> None:
            try:
                answers[key] = await self._ask(request)
            except GatewayError as exc:
                failures.append(exc)
                asking.cancel_scope.cancel()

        async with anyio.create_task_group() as asking:
            for key, request in requests.items():
                asking.start_soon(ask, key, request)
        if failures:
            raise failures[0]
        return answers

    async def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request.get("params", {})
        try:
            return await self.handlers.answer(self.server, method, params)
        except RemoteError as exc:
            if exc.code == METHOD_NOT_FOUND:
                text = f"{self.server}: the server asks for {method!a:.80}, which was not offered"
                raise ProtocolError(text, delivery="answered") from exc
            # There is nobody to tell: the server is not waiting (2026-07-28, "Roots").
            text = f"{self.server}: {method} was not answered: {exc.message}"
            raise HandlerFailed(text, server=self.server) from exc
