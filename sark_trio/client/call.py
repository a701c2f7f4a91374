"""One governed tool call, from top to bottom. Read :meth:`Call.steps` first.

The order is the promise (architecture, section 4; laws, 2.0): nothing is decided about bytes
other than those that are sent, nothing is sent before its intent is durable, and every way out
writes how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import anyio
from attrs import define, field, frozen

from sark_trio.client.records import Records
from sark_trio.client.redaction import redact_error
from sark_trio.client.upstream import Upstream
from sark_trio.errors import CallTimeout, ClientClosed, Delivery, Denied, GatewayError
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.obligations import apply_obligations
from sark_trio.governance.pipeline import Governor, Verdict
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import GiveUp, RetryMachine, Safety, classify, safety_of, surface
from sark_trio.mcp.headers import param_headers
from sark_trio.mcp.messages import Notification
from sark_trio.mcp.progress import PROGRESS, Progress, parse_progress
from sark_trio.mcp.results import ToolResult, parse_tool_result
from sark_trio.mcp.tools import Tool
from sark_trio.transports.base import Outgoing

__all__ = ["TIMEOUT_MAX_S", "Call", "ToolCall", "facts_of", "query_of"]

#: Whatever a caller, a configuration or a server's progress says: no call lives longer.
TIMEOUT_MAX_S = 300.0


@final
@frozen(kw_only=True)
class ToolCall:
    """What an application asks for.

    :param timeout_s: deadline of the whole call, retries included; ``None``: the configured one.
    :param replay_safe: the caller's word that the call may be made twice; ``None`` leaves it to
        the operator's rule and, for a trusted server, to the tool's annotations.
    :param context: facts for the policy, such as the purpose of the call.
    """

    tool: str
    arguments: Mapping[str, Any] = field(repr=False)
    principal: Principal
    timeout_s: float | None = None
    replay_safe: bool | None = None
    on_progress: Callable[[Progress], None] | None = None
    context: Mapping[str, Any] = field(factory=dict)


@final
@define(eq=False, kw_only=True)
class Call:
    """One call on its way.

    :param scope: its deadline. Whoever opens it also calls :meth:`cut_off` when it fired.
    :param configured_timeout_s: the deadline it would have if the caller had not named one.
    """

    asked: ToolCall
    upstream: Upstream
    governor: Governor
    records: Records
    scope: anyio.CancelScope
    configured_timeout_s: float
    jitter: Callable[[], float]
    #: What it waits for.
    phase: str = field(default="connect", init=False)
    #: Whether a byte of it may have reached the server.
    sent: bool = field(default=False, init=False)
    attempts: int = field(default=0, init=False)
    verdict: Verdict | None = field(default=None, init=False)
    _tool: Tool = field(init=False)
    _query: Query = field(init=False)
    _facts: ToolFacts = field(init=False)
    _safety: Safety = field(init=False)
    _retry: RetryMachine = field(init=False)

    async def steps(self) -> ToolResult:
        """Resolve, decide, record, attempt, oblige, record.

        :raises GatewayError: exactly one; see :mod:`sark_trio.errors`.
        """
        self._refuse_if_sick()
        await self._resolve()
        self.phase = "policy"
        verdict = await self._decide()
        outgoing = self._outgoing(verdict)
        self.phase = "audit"
        await self.records.intent(verdict)
        try:
            raw, verdict = await self._attempts(outgoing, verdict)
            result, redactions = self._oblige(raw, verdict)
        except GatewayError as exc:
            redact_error(exc, verdict.obligations)
            self.records.failure(exc, self.attempts)
            raise
        except BaseException:
            self.records.cut_off(self.delivery, self.attempts, by_us=self.scope.cancel_called)
            raise
        self.records.result(is_error=result.is_error, attempts=self.attempts, redactions=redactions)
        return result

    # -- resolve and decide -------------------------------------------------------------------

    def _refuse_if_sick(self) -> None:
        """Spare policy and audit the calls that the breaker would refuse anyway."""
        refusal = self.upstream.refusal(anyio.current_time())
        if refusal is not None:
            self.records.refusal(refusal, None)
            raise refusal

    async def _resolve(self) -> None:
        upstream = self.upstream
        try:
            self._tool = tool = await upstream.catalogue.tool(self.asked.tool)
        except GatewayError as exc:
            exc.delivery = "not_sent"  # whatever became of the list: the call itself never left
            raise
        rule = upstream.server.rule(tool.name)
        self._query = query_of(upstream, self.asked)
        self._facts = facts_of(tool, rule.sensitive_params)
        # The operator's rule, else the caller's word, else a trusted server's annotations.
        own = rule.replay_safe
        self._safety = safety_of(
            read_only_hint=tool.annotations.read_only_hint,
            idempotent_hint=tool.annotations.idempotent_hint,
            trusted=upstream.server.trusted,
            override=self.asked.replay_safe if own is None else own,
        )

    async def _decide(self) -> Verdict:
        now = anyio.current_time()
        self.verdict = verdict = await self.governor.decide(now, self._query, self._facts)
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
        again = await self.governor.decide(now, self._query, self._facts)
        if again.allow and again.digest == verdict.digest:
            self.verdict = again
            return again
        denial = again.denial()
        if again.allow:
            denial = Denied(
                f"the decision about tool {self.asked.tool!r} changed while it was being retried",
                reason="decision_changed",
            )
        denial.delivery = self.delivery  # of the attempts before
        raise denial

    # -- attempt ------------------------------------------------------------------------------

    def _outgoing(self, verdict: Verdict) -> Outgoing:
        return Outgoing(
            method="tools/call",
            params={"name": self._tool.name, "arguments": verdict.arguments},
            headers=param_headers(self._tool.param_headers, verdict.arguments),
            on_notification=None if self.asked.on_progress is None else self._on_notification,
            on_sent=self._on_sent,
            replay_safe=self._safety.replay_safe,
            may_resend=self._may_resend,
        )

    async def _attempts(
        self, outgoing: Outgoing, verdict: Verdict
    ) -> tuple[dict[str, Any], Verdict]:
        """The result, and the decision that holds for it."""
        upstream, budget = self.upstream, self.upstream.budget
        deadline = Deadline(self.scope.deadline)
        self._retry = retry = RetryMachine(upstream.retry, safety=self._safety, deadline=deadline)
        budget.on_first(anyio.current_time())
        while True:
            if self.attempts > 0:
                verdict = await self._decide_again(verdict)
            self.phase = "permit"
            try:
                return await upstream.request(outgoing, self), verdict
            except GatewayError as exc:
                now, failure = anyio.current_time(), classify(exc)
            step = retry.on_failure(now, failure, self.jitter(), budget)
            if isinstance(step, GiveUp):
                raise surface(step)
            self.phase = "backoff"
            await anyio.sleep(step.seconds)

    def admitted(self) -> None:
        """The breaker let an attempt out; a refusal is none. (``Watcher``)"""
        self.attempts += 1
        self.phase = "connect"
        if self.attempts > 1:
            self.records.attempt(self.attempts, "retry")

    def timed_out(self) -> bool:
        """Whether the configured deadline passed. (``Watcher``)

        One that the caller made shorter is the caller's own: it says nothing about the server,
        or any caller could open everybody's breaker.
        """
        asked = self.asked.timeout_s
        own = asked is None or asked >= self.configured_timeout_s
        return own and self.scope.cancel_called and anyio.current_time() >= self.scope.deadline

    async def _may_resend(self, reason: str) -> bool:
        """Pay for, and record, a second sending within one attempt."""
        if not self._retry.on_replay(anyio.current_time(), reason, self.upstream.budget):
            return False
        self.records.attempt(self.attempts, reason)
        return True

    def _on_sent(self) -> None:
        self.sent = True
        self.phase = "answer"

    def _on_notification(self, notification: Notification) -> None:
        if notification.method == PROGRESS and self.asked.on_progress is not None:
            progress = parse_progress(notification.params)
            if progress is not None:
                self.asked.on_progress(progress)

    # -- oblige, and say how it ended ---------------------------------------------------------

    def _oblige(self, raw: dict[str, Any], verdict: Verdict) -> tuple[ToolResult, int]:
        """The result as the policy lets it be seen, and how much of it was redacted."""
        if not verdict.obligations:
            return parse_tool_result(raw), 0
        try:
            shown = apply_obligations(raw, verdict.obligations)
        except Exception as exc:
            # What could not be redacted is not shown: this fails closed, too.
            raise Denied(
                f"the result of tool {self.asked.tool!r} could not be redacted as the policy "
                "demands, so it is withheld",
                reason="redaction_failed",
                delivery="answered",
            ) from exc
        return parse_tool_result(shown.value), sum(count for _, count in shown.counts)

    @property
    def delivery(self) -> Delivery:
        """How far the request has got, as long as there is no answer."""
        return "unknown" if self.sent else "not_sent"

    def named(self, error: GatewayError) -> GatewayError:
        """*error* with what only this call knows."""
        error.server = error.server or self.upstream.name
        error.request_id = self.records.request_id
        error.attempts = error.attempts or self.attempts
        if error.decision_id is None and self.verdict is not None:
            error.decision_id = self.verdict.decision_id
        return error

    def cut_off(self, *, closing: bool) -> GatewayError:
        """The error of a call that our own scope ended: its deadline, or the client's end."""
        what, delivery = f"{self.upstream.name}: tool {self.asked.tool!r}", self.delivery
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


def query_of(upstream: Upstream, asked: ToolCall) -> Query:
    """The question to the policy that *asked* is."""
    server = upstream.server
    return Query(
        principal=asked.principal,
        server=upstream.name,
        tool=asked.tool,
        arguments=asked.arguments,
        sensitivity=server.rule(asked.tool).sensitivity or server.sensitivity,
        context=asked.context,
    )


def facts_of(tool: Tool, sensitive_params: tuple[str, ...]) -> ToolFacts:
    """What the filter needs to know of *tool*: the names it declares, if it declares them all."""
    schema = tool.input_schema
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    names = schema.get("properties")
    declared = frozenset(names) if closed and isinstance(names, dict) else None
    return ToolFacts(parameters=declared, sensitive_params=frozenset(sensitive_params))
