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
from sark_trio.client.approving import Approver, approval_of
from sark_trio.client.attempts import Attempts
from sark_trio.client.cached import Cache
from sark_trio.client.dialogue import Dialogue
from sark_trio.client.redaction import redact_error, redact_result
from sark_trio.client.relay import Unfinished
from sark_trio.client.visits import Visits
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    Denied,
    GatewayError,
    Refused,
    ToolChanged,
)
from sark_trio.governance.obligations import approval_wanted
from sark_trio.governance.pipeline import Governor, Verdict
from sark_trio.mcp.results import ToolResult
from sark_trio.net.clock import lasting_time
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
    #: Who is asked where the policy wants a person's word.
    approver: Approver | None = None
    #: The right to put the answer into the cache, where it is wanted there.
    _ticket: Ticket | None = field(default=None, init=False)
    #: Whether the cache was looked into.
    _looked: bool = field(default=False, init=False)

    async def steps(self) -> T:
        """Resolve, decide, have approved, record, attempt, oblige, record.

        :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
        """
        self._refuse_if_sick()
        try:
            await self._resolve()
        except ToolChanged as exc:
            self.records.refusal(exc, None)
            raise
        self.phase = "policy"
        await self._decide()
        if self._decision.obligations:
            await self._approve_first()
        found = self._look()
        if isinstance(found, Answer):
            return self._served(found.value)
        self._ticket = found
        try:
            return await self._make()
        finally:
            if self._ticket is not None:
                self._ticket.drop()

    async def _make(self) -> T:
        """Record, attempt, oblige, record: what was decided is done."""
        try:
            outgoing = self._outgoing()
        except Denied as denial:
            self.records.refusal(denial, self.verdict)
            raise
        self.phase = "audit"
        await self.records.intent(self._decision)
        send = self._tell if self.asked.is_notification else self._attempts
        try:
            raw = await send(outgoing)
            result, redactions = self._oblige(raw)
        except GatewayError as exc:
            if exc.delivery == "not_sent":
                exc.delivery = self.delivery  # what stopped it now is not all that became of it
            redact_error(exc, self._decision.obligations)
            self.records.failure(exc, self.attempts)
            raise
        except BaseException:
            self.records.cut_off(self.delivery, self.attempts, by_us=self.scope.cancel_called)
            raise
        failed = isinstance(result, ToolResult) and result.is_error
        self.records.result(
            is_error=failed,
            delivery=self.asked.delivery,
            attempts=self.attempts,
            redactions=redactions,
        )
        if not failed:
            self._keep(raw)
        return result

    # -- resolve and decide -------------------------------------------------------------------

    def _refuse_if_sick(self) -> None:
        """Spare policy and server the calls that operator or breaker would refuse anyway."""
        refusal: Refused | None = self._blocked()
        if refusal is None and not self.asked.is_notification:  # which says nothing about it
            refusal = self.upstream.refusal(anyio.current_time())
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
        self._dialogue = Dialogue(
            server=upstream.name, handlers=whose, send=self._aside, visits=Visits(upstream.ears)
        )
        await self._replan()

    async def _replan(self) -> None:
        try:
            self._plan = await self.asked.plan(self.upstream)
        except GatewayError as exc:
            exc.delivery = self.delivery  # whatever became of the list, it was not the call
            raise

    async def _decide(self) -> None:
        self.verdict = verdict = await self._ask_policy()
        if not verdict.allow:
            denial = verdict.denial()
            self.records.refusal(denial, verdict)
            raise denial

    async def _decide_again(self, *, even_if_valid: bool = False) -> None:
        """Before a further attempt: the decision that then holds, on the same bytes."""
        before = self._decision
        if lasting_time() < before.valid_until and not even_if_valid:
            return
        self.phase = "policy"
        again = await self._ask_policy()
        if again.allow and again.digest == before.digest:
            self.verdict = again
            await self._approve()
            return
        denial = again.denial()
        if again.allow:
            denial = Denied(
                f"the decision about {self.asked.what} changed while it was being retried",
                reason="decision_changed",
            )
        raise denial

    async def _approve_first(self) -> None:
        """Before anything is done. Whoever is asked and never answers is in the record, too."""
        try:
            await self._approve()
        except Denied as denial:
            self.records.refusal(denial, self.verdict)
            raise
        except BaseException:
            gone = Denied("nobody waits for the approval any more", reason="approval_missing")
            self.records.refusal(gone, self.verdict)
            raise

    async def _approve(self) -> None:
        """Have a person's word, where the policy wants one: for these bytes, under this policy."""
        decision = self._decision
        wanted = approval_wanted(decision.obligations)
        if wanted is None or self.approved == (decision.digest, decision.revision):
            return
        self.phase = "approval"
        ids = {"method": self.asked.method, "request_id": self.records.request_id}
        who = await approval_of(decision, wanted, self.approver, **ids)
        self.approved = decision.digest, decision.revision
        self.records.labels = {"approved_by": who}
        # People take their time. If the policy is another one by then, this comes back here.
        await self._decide_again(even_if_valid=True)

    async def _ask_policy(self) -> Verdict:
        now = anyio.current_time()
        verdict = await self.governor.decide(lasting_time(), self._plan.query, self._plan.facts)
        if self.signals is not None:
            self.signals.decided(verdict, anyio.current_time() - now)
        return verdict

    # -- answered before ----------------------------------------------------------------------

    def _look(self) -> Answer | Ticket | None:
        """An earlier answer, where the operator lets a read-only tool be answered for."""
        if self.cache is None or self._plan.kept_s is None or self._resumes or self._looked:
            return None
        try:
            params, _ = self._plan.compose(self._decision.arguments)
        except Denied:
            return None  # where it would be sent it is said, and recorded
        self._looked = self.upstream.agreed is not None
        return self.cache.look(self.upstream, self.asked.method, params, self.asked.principal)

    def _on_sent(self) -> None:
        super()._on_sent()
        found = self._look()  # where it could not be done before there was a connection
        if isinstance(found, Ticket):
            self._ticket = found

    def _keep(self, raw: dict[str, Any]) -> None:
        """Put the answer into the cache, if it is wanted there and anybody may have it."""
        kept_s = self._plan.kept_s
        # What somebody was asked for is their answer, and nobody else's.
        theirs = self._unfinished is not None or self._dialogue.held
        if self._ticket is None or kept_s is None or theirs:
            return
        ttl_s = kept_s(raw)
        if ttl_s is not None:
            self._ticket.keep(raw, ttl_s)

    @property
    def _resumes(self) -> bool:
        """Whether it brings answers to a question: theirs is a result of their own."""
        return self.asked.relay is not None and bool(self.asked.relay.answers)

    def _served(self, raw: dict[str, Any]) -> T:
        """An earlier answer, as policy lets it be seen now; recorded as one."""
        try:
            result, _ = self._oblige(raw)
        except Denied as denial:
            self.records.refusal(denial, self.verdict)
            raise
        self.records.served(self.verdict)
        return result

    # -- attempt ------------------------------------------------------------------------------

    def _outgoing(self) -> Outgoing:
        asked, dialogue = self.asked, self._dialogue
        params, headers = self._plan.compose(self._decision.arguments)
        if asked.relay is not None:
            params.update(asked.relay.answers)
        trace = self._trace()
        if trace is not None:
            own = params.get("_meta", {})
            params["_meta"] = {**own, **trace} if isinstance(own, Mapping) else own
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

    def _oblige(self, raw: dict[str, Any]) -> tuple[T, int]:
        """The result as the policy lets it be seen, and how much of it was redacted."""
        shown, redactions = redact_result(raw, self._decision.obligations, self.asked.what)
        return self._read(shown), redactions

    def _read(self, shown: dict[str, Any]) -> T:
        if self._unfinished is not None:
            # Whoever has this call made knows that it may not be finished.
            return cast("T", Unfinished.of(self._unfinished, shown))
        return self._plan.parse(shown)

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
