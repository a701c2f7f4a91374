"""One governed call, from top to bottom. Read :meth:`Call.steps` first.

The order is the promise (architecture, section 4; laws, 2.0): nothing is decided about bytes
other than those that are sent, nothing is sent before its intent is durable, and every way out
writes how it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast, final

import anyio
from attrs import define, field

from sark_trio.client.answers import Answer, Ticket
from sark_trio.client.attempts import Attempts
from sark_trio.client.cached import Cache
from sark_trio.client.dialogue import Dialogue
from sark_trio.client.redaction import redact_error, redact_result
from sark_trio.client.relay import Unfinished
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    Delivery,
    Denied,
    GatewayError,
    ToolChanged,
)
from sark_trio.governance.pipeline import Governor, Verdict
from sark_trio.mcp.results import ToolResult
from sark_trio.telemetry.hooks import trace_context
from sark_trio.transports.base import Outgoing

__all__ = ["TIMEOUT_MAX_S", "Call"]

T = TypeVar("T")

#: Whatever a caller, a configuration or a server's progress says: no call lives longer.
TIMEOUT_MAX_S = 300.0


@final
@define(eq=False, kw_only=True)
class Call(Attempts[T]):
    """One call on its way.

    :param scope: its deadline. Whoever opens it also calls :meth:`cut_off` when it fired.
    :param configured_timeout_s: the deadline it would have if the caller had not named one.
    """

    governor: Governor
    #: Answers to calls whose tools may be answered for.
    cache: Cache | None = None
    verdict: Verdict | None = field(default=None, init=False)
    #: The answer as it came, if there is one that is a result.
    _raw: dict[str, Any] = field(factory=dict, init=False)

    async def steps(self) -> T:
        """Resolve, decide, record, attempt, oblige, record.

        :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
        """
        self._refuse_if_sick()
        try:
            await self._resolve()
        except ToolChanged as exc:
            self.records.refusal(exc, None)
            raise
        self.phase = "policy"
        verdict = await self._decide()
        found = self._look(verdict)
        if isinstance(found, Answer):
            return self._served(found.value, verdict)
        if found is None:
            return await self._make(verdict)
        with found as ticket:
            result = await self._make(verdict)
            kept_s = self._plan.kept_s
            ttl_s = None if kept_s is None else kept_s(self._raw)
            # What somebody was asked for is their answer, and nobody else's.
            unfinished = self._unfinished is not None
            if not (_failed(result) or unfinished or self._dialogue.held) and ttl_s is not None:
                ticket.keep(self._raw, ttl_s)
        return result

    async def _make(self, verdict: Verdict) -> T:
        """Record, attempt, oblige, record: what was decided is done."""
        try:
            outgoing = self._outgoing(verdict)
        except Denied as denial:
            self.records.refusal(denial, verdict)
            raise
        self.phase = "audit"
        await self.records.intent(verdict)
        try:
            self._raw, verdict = await self._attempts(outgoing, verdict)
            result, redactions = self._oblige(self._raw, verdict)
        except GatewayError as exc:
            redact_error(exc, verdict.obligations)
            self.records.failure(exc, self.attempts)
            raise
        except BaseException:
            self.records.cut_off(self.delivery, self.attempts, by_us=self.scope.cancel_called)
            raise
        self.records.result(is_error=_failed(result), attempts=self.attempts, redactions=redactions)
        return result

    # -- resolve and decide -------------------------------------------------------------------

    def _refuse_if_sick(self) -> None:
        """Spare policy and server the calls that operator or breaker would refuse anyway."""
        refusal = self._blocked() or self.upstream.refusal(anyio.current_time())
        if refusal is not None:
            self.records.refusal(refusal, None)
            raise refusal

    def _blocked(self) -> Denied | None:
        """The refusal of a call that the operator has switched off, at whatever step."""
        names = self.upstream.name, self.asked.tool, self.asked.principal.id
        block = self.governor.blocks.covering(*names)
        return None if block is None else block.denial()

    async def _resolve(self) -> None:
        upstream, own = self.upstream, self.asked.handlers
        handlers = upstream.handlers if own is None else own.over(upstream.handlers)
        whose = self.asked.relay or handlers
        self._dialogue = Dialogue(server=upstream.name, handlers=whose, send=self._aside)
        try:
            self._plan = await self.asked.plan(upstream)
        except GatewayError as exc:
            exc.delivery = "not_sent"  # whatever became of the list: the call itself never left
            raise

    async def _decide(self) -> Verdict:
        now = anyio.current_time()
        self.verdict = verdict = await self.governor.decide(now, self._plan.query, self._plan.facts)
        if self.signals is not None:
            self.signals.decided(verdict, anyio.current_time() - now)
        if not verdict.allow:
            denial = verdict.denial()
            self.records.refusal(denial, verdict)
            raise denial
        return verdict

    async def _decide_again(self, verdict: Verdict) -> Verdict:
        """Before a further attempt: the decision that now holds, on the same bytes."""
        now = anyio.current_time()
        if now < verdict.valid_until:
            return verdict
        self.phase = "policy"
        again = await self.governor.decide(now, self._plan.query, self._plan.facts)
        if self.signals is not None:
            self.signals.decided(again, anyio.current_time() - now)
        if again.allow and again.digest == verdict.digest:
            self.verdict = again
            return again
        denial = again.denial()
        if again.allow:
            denial = Denied(
                f"the decision about {self.asked.what} changed while it was being retried",
                reason="decision_changed",
            )
        denial.delivery = self.delivery  # of the attempts before
        raise denial

    # -- answered before ----------------------------------------------------------------------

    def _look(self, verdict: Verdict) -> Answer | Ticket | None:
        """An earlier answer, where the operator lets a read-only tool be answered for."""
        if self.cache is None or self._plan.kept_s is None or self._resumes:
            return None
        try:
            params, _ = self._plan.compose(verdict.arguments)
        except Denied:
            return None  # where it would be sent it is said, and recorded
        return self.cache.look(self.upstream, self.asked.method, params, self.asked.principal)

    @property
    def _resumes(self) -> bool:
        """Whether it brings answers to a question: theirs is a result of their own."""
        return self.asked.relay is not None and bool(self.asked.relay.answers)

    def _served(self, raw: dict[str, Any], verdict: Verdict) -> T:
        """An earlier answer, as policy lets it be seen now; recorded as one."""
        try:
            result, _ = self._oblige(raw, verdict)
        except Denied as denial:
            self.records.refusal(denial, verdict)
            raise
        self.records.served(verdict)
        return result

    # -- attempt ------------------------------------------------------------------------------

    def _outgoing(self, verdict: Verdict) -> Outgoing:
        asked, dialogue = self.asked, self._dialogue
        params, headers = self._plan.compose(verdict.arguments)
        if asked.relay is not None:
            params.update(asked.relay.answers)
        trace = self._trace()
        if trace is not None:
            params["_meta"] = trace
        return Outgoing(
            method=asked.method,
            params=params,
            headers=headers,
            on_notification=asked.hear if asked.listens else None,
            on_request=dialogue.reply if dialogue.handlers else None,
            capabilities=dialogue.capabilities() if dialogue.handlers else None,
            log_level=asked.log_level,
            on_sent=self._on_sent,
            timed_out=self.timed_out,
            replay_safe=self._plan.safety.replay_safe,
            may_resend=self._may_resend,
            trace=trace,
        )

    def _trace(self) -> Mapping[str, str] | None:
        if self.signals is not None:
            return self.signals.trace()
        parent = self.asked.traceparent
        return None if parent is None else trace_context({"traceparent": parent})

    # -- oblige, and say how it ended ---------------------------------------------------------

    def _oblige(self, raw: dict[str, Any], verdict: Verdict) -> tuple[T, int]:
        """The result as the policy lets it be seen, and how much of it was redacted."""
        shown, redactions = redact_result(raw, verdict.obligations, self.asked.what)
        return self._read(shown), redactions

    def _read(self, shown: dict[str, Any]) -> T:
        if self._unfinished is not None:
            # Whoever has this call made knows that it may not be finished.
            return cast("T", Unfinished.of(self._unfinished, shown))
        return self._plan.parse(shown)

    @property
    def delivery(self) -> Delivery:
        """How far the request has got, as long as there is no answer."""
        return "unknown" if self.sent else "not_sent"

    def named(self, error: GatewayError) -> GatewayError:
        """*error* with what only this call knows."""
        return self.records.named(error, self.attempts, self.verdict)

    def cut_off(self, *, closing: bool) -> GatewayError:
        """The error of a call that our own scope ended: its deadline, or the client's end."""
        what, delivery = f"{self.upstream.name}: {self.asked.what}", self.delivery
        if closing:
            return self.named(ClientClosed(f"{what}: the client was closed", delivery=delivery))
        waited_s = self.scope.deadline - self.records.began
        return self.named(
            CallTimeout(
                f"{what}: no answer within {waited_s:g} s (waited for: {self.phase})",
                phase=self.phase,
                delivery=delivery,
            )
        )


def _failed(result: object) -> bool:
    return isinstance(result, ToolResult) and result.is_error
