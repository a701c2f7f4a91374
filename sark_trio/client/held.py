"""Calls of legacy servers' that wait for answers of modern clients.

A server of 2025-11-25 and before asks in the middle of a call, and the call stays open. A client
of 2026-07-28 is asked by an answer instead, and comes again ("Multi Round-Trip Requests"). In
between the call waits here, for no longer than its own deadline; the ``requestState`` that the
client is given is nothing but the name that it waits under.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import anyio
from attrs import define, evolve, field

from sark_trio.client.relay import Relay
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ClientClosed, GatewayError, Overloaded
from sark_trio.mcp.faults import INTERNAL_ERROR, INVALID_PARAMS, remote_error
from sark_trio.mcp.progress import LogMessage, Progress

__all__ = ["HeldCalls", "Making"]

#: Calls that wait at once; each holds a task and a request of its server's.
HELD_MAX: Final = 1_000
#: For a client to fetch the end of a call that ended while nobody waited for it.
KEPT_S: Final = 60.0

_RESPONSES: Final = "inputResponses"
_STATE: Final = "requestState"
#: Makes the call for that relay.
Making = Callable[[Relay], Awaitable[dict[str, Any]]]


@final
@define(eq=False)
class _Question:
    method: str
    params: Mapping[str, Any]
    answered: anyio.Event = field(factory=anyio.Event, init=False)
    answer: Mapping[str, Any] | None = field(default=None, init=False)

    @property
    def asked(self) -> dict[str, Any]:
        return {"method": self.method, "params": dict(self.params)}


@final
@define(eq=False)
class _HeldCall:
    """One call: made in its server's tasks, waited for in those of whoever asks.

    :param about: what must be the same when they come again: who asks whom for what.
    """

    about: tuple[object, ...]
    _make: Making
    _relay: Relay
    scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _questions: dict[str, _Question] = field(factory=dict, init=False)
    _asked: int = field(default=0, init=False)
    _result: dict[str, Any] | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)
    _news: anyio.Event = field(factory=anyio.Event, init=False)
    _taken: anyio.Event = field(factory=anyio.Event, init=False)

    async def run(self) -> None:
        """Make the call, and keep its end until somebody takes it."""
        self._error = ClientClosed("the call was given up", delivery="unknown")
        try:
            with self.scope:
                self._result = await self._make(self._as_seen())
                self._error = None
        except Exception as exc:  # noqa: BLE001 - raised where somebody waits for it
            self._error = exc
        finally:
            self._ended = True
            self._news.set()
        with anyio.move_on_after(KEPT_S):
            await self._taken.wait()

    async def wait(self) -> tuple[bool, dict[str, Any]]:
        """Whether the call has ended, and its result; or else the questions that are open.

        Whoever is cancelled here gives up the call.
        """
        try:
            while not self._ended and not self._questions:
                if self._news.is_set():  # else somebody waits for it, who came twice
                    self._news = anyio.Event()
                await self._news.wait()
        except BaseException:
            self.scope.cancel()
            self._taken.set()
            raise
        if not self._ended:
            requests = {key: one.asked for key, one in self._questions.items()}
            return False, {"resultType": "input_required", "inputRequests": requests}
        self._taken.set()
        if self._error is not None:
            raise self._error.twin() if isinstance(self._error, GatewayError) else self._error
        assert self._result is not None
        return True, self._result

    def take(self, relay: Relay) -> None:
        """What *relay* answers goes on; what it does not will be asked again."""
        self._relay, given = relay, relay.answers.get(_RESPONSES)
        answers = given if isinstance(given, Mapping) else {}
        for key in self._questions.keys() & answers.keys():
            if isinstance(answers[key], Mapping):
                question = self._questions.pop(key)
                question.answer = answers[key]
                question.answered.set()

    def _as_seen(self) -> Relay:
        """Whoever asks now, as the call sees them all along."""
        return evolve(self._relay, ask=self._ask, on_progress=self._progress, on_log=self._log)

    def _progress(self, progress: Progress) -> None:
        if self._relay.on_progress is not None:
            self._relay.on_progress(progress)

    def _log(self, message: LogMessage) -> None:
        if self._relay.on_log is not None:
            self._relay.on_log(message)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self._asked += 1
        key, question = f"request-{self._asked}", _Question(method, params)
        self._questions[key] = question
        self._news.set()
        try:
            await question.answered.wait()
        finally:
            self._questions.pop(key, None)
        if question.answer is None:
            raise remote_error(INTERNAL_ERROR, "there is no answer", delivery="answered")
        return question.answer


@final
@define(eq=False)
class HeldCalls:
    """All calls that wait."""

    _by_state: dict[str, _HeldCall] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._by_state)

    async def make(
        self, upstream: Upstream, about: tuple[object, ...], relay: Relay, make: Making
    ) -> dict[str, Any]:
        """The result of the call, or the question that comes first.

        :param about: who asks for what: the same in every round.
        :raises Overloaded: too many calls wait.
        :raises RemoteError: *relay* brings answers to no question of this call's.
        """
        state = relay.answers.get(_STATE)
        if state is None:
            state, held = self._begin(upstream, _HeldCall(about, make, relay))
        else:
            held = self._found(state, about)
        held.take(relay)
        ended, result = await held.wait()
        return result if ended else {**result, _STATE: state}

    def _begin(self, upstream: Upstream, held: _HeldCall) -> tuple[str, _HeldCall]:
        if len(self._by_state) >= HELD_MAX:
            raise Overloaded(f"{upstream.name}: {HELD_MAX} calls wait for answers")
        state = secrets.token_urlsafe(24)

        async def run() -> None:
            try:
                await held.run()
            finally:
                self._by_state.pop(state, None)

        self._by_state[state] = held
        try:
            upstream.spawn(run)
        except GatewayError:
            del self._by_state[state]
            raise
        return state, held

    def _found(self, state: object, about: tuple[object, ...]) -> _HeldCall:
        held = self._by_state.get(state) if isinstance(state, str) else None
        if held is None or held.about != about:
            text = "'requestState' belongs to no question of this call"
            raise remote_error(INVALID_PARAMS, text, delivery="answered")
        return held
