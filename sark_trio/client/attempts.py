"""The attempts of one call: how it is sent, sent again, and sent on in rounds.

Half of :class:`~sark_trio.client.call.Call`, which decides before and records after. What is
sent a second time is sent for one of four reasons, each of them in the record: ``retry`` (an
attempt failed that is safe to repeat), ``input`` (the server wanted something first), ``headers``
(the server's tool wants other headers now), or the transport's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import anyio
from attrs import define, evolve, field

from sark_trio.client.dialogue import Dialogue
from sark_trio.client.plans import Asked, Plan
from sark_trio.client.records import Records
from sark_trio.client.relay import Unfinished
from sark_trio.client.signals import Signals
from sark_trio.client.upstream import Upstream
from sark_trio.errors import Delivery, Denied, GatewayError, ProtocolError
from sark_trio.governance.pipeline import Verdict
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import GiveUp, RetryMachine, classify, surface
from sark_trio.mcp.faults import HeaderMismatch, UrlElicitationRequired
from sark_trio.mcp.messages import InputRequired
from sark_trio.mcp.tasks import Task
from sark_trio.transports.base import Outgoing

__all__ = ["Attempts"]

T = TypeVar("T")


@define(eq=False, kw_only=True)
class Attempts(Generic[T]):
    """What a call does between the record of its intent and that of its end."""

    asked: Asked[T]
    upstream: Upstream
    records: Records
    scope: anyio.CancelScope
    configured_timeout_s: float
    jitter: Callable[[], float]
    #: What hooks are told; ``None`` where there are none.
    signals: Signals | None = None
    #: The decision that holds now; ``None`` as long as there is none.
    verdict: Verdict | None = field(default=None, init=False)
    #: What it waits for.
    phase: str = field(default="connect", init=False)
    #: Whether a byte of it may have reached the server.
    sent: bool = field(default=False, init=False)
    attempts: int = field(default=0, init=False)
    #: The digest and the policy's revision that somebody approved.
    approved: tuple[str, str | None] | None = field(default=None, init=False)
    _plan: Plan[T] = field(init=False)
    _dialogue: Dialogue = field(init=False)
    _retry: RetryMachine = field(init=False)
    #: Why the next attempt is made, for the record.
    _why: str = field(default="retry", init=False)
    _refitted: bool = field(default=False, init=False)
    #: What the server answered instead of a result, for whoever the call is made for.
    _unfinished: InputRequired | Task | None = field(default=None, init=False)

    @property
    def delivery(self) -> Delivery:
        """How far the request has got, as long as there is no answer."""
        return "unknown" if self.sent else "not_sent"

    @property
    def _decision(self) -> Verdict:
        """The decision that holds now, once the call was allowed."""
        assert self.verdict is not None
        return self.verdict

    @abstractmethod
    def _blocked(self) -> Denied | None: ...

    @abstractmethod
    async def _replan(self) -> None: ...

    @abstractmethod
    async def _decide_again(self, *, even_if_valid: bool = False) -> None: ...

    @abstractmethod
    def _outgoing(self) -> Outgoing: ...

    async def _tell(self, outgoing: Outgoing) -> dict[str, Any]:
        """Send a notification, once: nothing ever says that it arrived."""
        self.admitted()
        self._on_sent()  # as far as anybody will ever know
        await self.upstream.notify(outgoing.method, outgoing.params)
        return {}

    async def _attempts(self, outgoing: Outgoing) -> dict[str, Any]:
        """The result, for which the decision that then holds was made."""
        upstream, budget = self.upstream, self.upstream.budget
        deadline = Deadline(self.scope.deadline)
        safety = self._plan.safety
        self._retry = retry = RetryMachine(upstream.retry, safety=safety, deadline=deadline)
        budget.on_first(anyio.current_time())
        while True:
            if self.attempts > 0:
                await self._decide_again()
            self.phase = "permit"
            try:
                answer = await upstream.request(outgoing, self)
            except GatewayError as exc:
                now, failure = anyio.current_time(), classify(exc)
                if self.signals is not None:
                    self.signals.attempt_failed(exc)
            else:
                if isinstance(answer, dict):
                    return answer
                if self.signals is not None:
                    self.signals.questioned()
                if self._is_theirs():
                    self._unfinished = answer
                    return Unfinished.shown(answer)
                self.phase = "input"
                if isinstance(answer, Task):
                    return await self._dialogue.follow(answer, upstream.agreed)
                outgoing = await self._next_round(outgoing, answer)
                continue
            if await self._may_go_on(failure.error):
                if self.signals is not None:
                    self.signals.retried(0.0)
                if isinstance(failure.error, HeaderMismatch):
                    outgoing = await self._refit()
                continue
            step = retry.on_failure(now, failure, self.jitter(), budget)
            if isinstance(step, GiveUp):
                raise self._surfaced(step)
            if self.signals is not None:
                self.signals.retried(step.seconds)
            self.phase = "backoff"
            await anyio.sleep(step.seconds)

    def _is_theirs(self) -> bool:
        """Whether a question, or a task, is for whoever the call is made for to read."""
        relay, agreed = self.asked.relay, self.upstream.agreed
        return relay is not None and relay.takes_questions and agreed is not None and agreed.modern

    async def _next_round(self, outgoing: Outgoing, question: InputRequired) -> Outgoing:
        """The request again, with what the server asks for: an attempt of the same call."""
        if self.asked.as_is:
            text = f"{self.upstream.name}: {self.asked.what}: the server asks for input first"
            raise ProtocolError(text, delivery="answered")
        self._why = "input"
        params = await self._dialogue.next_params(outgoing.method, outgoing.params, question)
        return evolve(outgoing, params=params)

    async def _may_go_on(self, refusal: GatewayError) -> bool:
        """Whether what *refusal* wants can be had: the server has not looked at the call yet, so
        this is safe for every call.
        """
        if isinstance(refusal, HeaderMismatch):
            return not self._refitted
        relay = self.asked.relay
        theirs = self.asked.as_is or (relay is not None and not relay.takes_questions)
        if theirs or not isinstance(refusal, UrlElicitationRequired):
            return False
        self._why, self.phase = "input", "input"
        return await self._dialogue.visit(refusal, self.scope.deadline)

    async def _refit(self) -> Outgoing:
        """The request with the headers that the tool wants now (2026-07-28, "Client Behavior")."""
        self._refitted, self._why = True, "headers"
        self.upstream.catalogue.invalidate()
        await self._replan()
        await self._decide_again(even_if_valid=True)
        return self._outgoing()

    def _surfaced(self, step: GiveUp) -> GatewayError:
        error = surface(step)
        if self._dialogue.held:
            error.attempts = self.attempts  # which the machine counts by failures alone
        return error

    async def _aside(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A request about the task that the call has become.

        A block stops these, too, but for the one that ends the task.
        """
        if method != "tasks/cancel":
            self._check_on()
        return await self.upstream.read(method, params, self.scope.deadline, self.timed_out)

    def admitted(self) -> None:
        """The breaker let an attempt out; a refusal is none. (``Watcher``)"""
        self._check_on()
        self.attempts += 1
        self.phase = "connect"
        if self.signals is not None:
            self.signals.attempt(self.attempts)
        if self.attempts > 1:
            self.records.attempt(self.attempts, self._why)
            self._why = "retry"

    def _check_on(self) -> None:
        blocked = self._blocked()
        if blocked is not None:
            raise blocked

    def timed_out(self) -> bool:
        """Whether the configured deadline passed. (``Watcher``)

        One that the caller made shorter is the caller's own: it says nothing about the server,
        or any caller could open everybody's breaker.
        """
        asked = self.asked.timeout_s
        own = asked is None or asked >= self.configured_timeout_s
        # Nor does a person who takes their time.
        own = own and not self._dialogue.held and self.approved is None
        return own and self.scope.cancel_called and anyio.current_time() >= self.scope.deadline

    async def _may_resend(self, reason: str) -> bool:
        """Pay for, and record, a second sending within one attempt."""
        now, budget = anyio.current_time(), self.upstream.budget
        if self._blocked() is not None or not self._retry.on_replay(now, reason, budget):
            return False
        self.records.attempt(self.attempts, reason)
        if self.signals is not None:
            self.signals.resent(reason)
        return True

    def _on_sent(self) -> None:
        self.sent = True
        self.phase = "answer"
        if self.signals is not None:
            self.signals.sent = True
