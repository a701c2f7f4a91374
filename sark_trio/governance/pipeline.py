"""May this call happen, and with which bytes: fail-closed, one place. Grey.

:meth:`Governor.decide` checks the arguments, filters them, asks the policy about *what is left*,
narrows to what the policy lets pass, and returns a :class:`Verdict` over exactly the arguments to
send. Whatever goes wrong on the way is a no:

=================================== ====================================================
blocked by the operator             denied, and no policy is asked
no policy configured                :class:`~sark_trio.errors.PolicyUnavailable`
policy says no                      denied
policy raises, times out, is absurd :class:`~sark_trio.errors.PolicyUnavailable`
policy changes what it is shown     :class:`~sark_trio.errors.PolicyUnavailable`
policy's arguments are no subset    :class:`~sark_trio.errors.PolicyUnavailable`, ``widened``
arguments that can not be sent      :class:`~sark_trio.errors.InvalidArguments`, raised
cancellation                        passes through, nothing is kept
=================================== ====================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

from attrs import define, evolve, field, frozen

from sark_trio import errors, jsontext
from sark_trio.governance.blocks import Block, Blocks
from sark_trio.governance.decision import DELEGATION_TTL_S, SENSITIVITY_TTL_S, Decision, no_decision
from sark_trio.governance.decision_cache import DecisionCache
from sark_trio.governance.filters import (
    ParameterFilter,
    ToolFacts,
    Widened,
    restrict,
)
from sark_trio.governance.hygiene import check_arguments
from sark_trio.governance.obligations import Obligation, strip_parameters
from sark_trio.governance.query import Query, Question
from sark_trio.governance.rego import Rego, RegoEngine

__all__ = [
    "AllowAll",
    "Governor",
    "InProcess",
    "Policy",
    "PolicyEngine",
    "Retiring",
    "Verdict",
]


class PolicyEngine(Protocol):
    """Whatever answers questions: OPA, Rego in process, or an application's own."""

    @property
    def revision(self) -> str | None:
        """What the policy is now, as far as known. A new value empties the decision cache."""

    async def decide(self, question: Question) -> Decision:
        """The answer. Any exception is taken as a no."""


@runtime_checkable
class Retiring(Protocol):
    """An engine that holds something, such as processes, for as long as it is the policy."""

    def retire(self) -> None:
        """Let go of it as soon as what is being asked has been answered."""


@final
@frozen
class AllowAll:
    """No policy at all: every call of everybody is allowed. For tests and closed toys."""

    revision: str = field(default="allow-all", init=False)

    async def decide(self, question: Question) -> Decision:  # noqa: ARG002 (a policy's signature)
        """Yes."""
        return Decision(allow=True, reason="AllowAll", revision=self.revision)


@final
@frozen
class _NoPolicy:
    revision: str | None = field(default=None, init=False)

    async def decide(self, question: Question) -> Decision:  # noqa: ARG002 (a policy's signature)
        return no_decision("no policy is configured", reason="no_policy")


@final
@frozen
class InProcess:
    """A loaded Rego policy as a :class:`PolicyEngine`."""

    engine: RegoEngine

    @property
    def revision(self) -> str:
        """SHA-256 of the policy's sources and data."""
        return self.engine.revision

    async def decide(self, question: Question) -> Decision:
        """The engine's answer, within this call: microseconds, and no checkpoint."""
        return self.engine.evaluate(question.encoded)


Policy = PolicyEngine | RegoEngine | Rego | None


def _engine(policy: Policy) -> PolicyEngine:
    if policy is None:
        return _NoPolicy()
    if isinstance(policy, Rego):
        policy = policy.load()
    return InProcess(policy) if isinstance(policy, RegoEngine) else policy


def _digest(encoded: bytes) -> str:
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


@final
@frozen(kw_only=True)
class Verdict:
    """What was decided about one call; the value that is recorded, sent and obeyed.

    :param arguments: exactly what to send, in a copy of its own; empty where denied.
    :param digest: ``sha256:`` and the digest of the canonical *arguments* (RFC 8785).
    :param reason: the policy's words, for the record; never for the model.
    :param fault: why there was no decision; ``None`` where there was one.
    :param block: what the operator has switched off; then no policy was asked.
    :param valid_until: on the clock of ``now``; an attempt after it asks again.
    :param ttl_s: seconds for which whoever makes the call elsewhere may keep the allow.
    :param removed: RFC 6901 paths of arguments that were taken away.
    :param redacted: RFC 6901 paths of arguments that were masked.
    """

    allow: bool
    query: Query = field(repr=False)
    arguments: dict[str, Any] = field(factory=dict, repr=False)
    digest: str = ""
    obligations: tuple[Obligation, ...] = ()
    reason: str = ""
    fault: str | None = None
    block: Block | None = None
    decision_id: str | None = None
    revision: str | None = None
    valid_until: float = float("-inf")
    ttl_s: float = 0.0
    cached: bool = False
    removed: tuple[str, ...] = field(default=(), repr=False)
    redacted: tuple[str, ...] = field(default=(), repr=False)

    def denial(self) -> errors.Denied:
        """The error of a verdict that is not an allow.

        Its message leaves the policy's reason out: messages reach models, and a reason tells
        how to get around the rule. Where there was no decision, the reason is one word of ours.
        """
        if self.block is not None:
            return self.block.denial()
        what = self.query.action if self.query.tool is None else f"tool {self.query.tool!r}"
        who = self.query.principal.id
        fields: dict[str, Any] = {"server": self.query.server, "decision_id": self.decision_id}
        if self.fault is not None:
            return errors.PolicyUnavailable(
                f"policy could not decide on {what} for {who!r} ({self.reason}), so it is denied",
                reason=self.reason,
                **fields,
            )
        return errors.Denied(f"policy denies {what} to {who!r}", **fields)


@final
@define(eq=False, kw_only=True)
class Governor:
    """Asks the policy, and lets nothing through that it did not say.

    :param policy: an engine, a :class:`Rego` of texts (one of files is loaded by whoever can
        read them), or ``None``, which denies everything. Only :class:`AllowAll` allows
        everything.
    :param filter: rules for the arguments of every tool.
    :param tool_filters: further rules by ``(server, tool)``, where a query that names none has
        ``""``; they too only take away.
    :raises errors.ConfigError: the Rego policy is wrong.
    """

    policy: PolicyEngine = field(default=None, converter=_engine)
    filter: ParameterFilter = field(factory=ParameterFilter)
    tool_filters: Mapping[tuple[str, str], ParameterFilter] = field(factory=dict)
    cache: DecisionCache = field(factory=DecisionCache)
    #: What is switched off: asked before any policy.
    blocks: Blocks = field(factory=Blocks)

    def replace_policy(self, policy: Policy) -> None:
        """Decide by *policy* from the next question on; what is being asked keeps the old one.

        :raises errors.ConfigError: the new policy is wrong; the old one stays.
        """
        self._become(_engine(policy))

    def close(self) -> None:
        """Decide no more: every further question is denied.

        The policy is let go of here and now. An engine may belong to the thread that made it,
        and must not wait for the garbage collector, which runs in any.
        """
        self._become(_NoPolicy())

    def _become(self, policy: PolicyEngine) -> None:
        before, self.policy = self.policy, policy
        self.cache.flush()
        if isinstance(before, Retiring) and before is not policy:
            before.retire()

    async def decide(self, now: float, query: Query, facts: ToolFacts | None = None) -> Verdict:
        """Decide on one call.

        :param now: monotonic seconds.
        :param facts: what the operator knows of the tool.
        :raises errors.InvalidArguments: the arguments can not be sent to anybody.
        """
        block = self.blocks.covering(query.server, query.tool, query.principal.id)
        if block is not None:
            reason = f"blocked: {block.reason}"
            return Verdict(allow=False, query=query, block=block, reason=reason)
        query, removed, redacted = self._candidate(query, facts)
        question = Question.of(query)
        decision, ends, cached = await self._ask(now, question)
        return _verdict(
            decision,
            question,
            valid_until=ends,
            cached=cached,
            removed=removed,
            redacted=redacted,
        )

    def _candidate(
        self, query: Query, facts: ToolFacts | None
    ) -> tuple[Query, tuple[str, ...], tuple[str, ...]]:
        try:
            check_arguments(query.arguments)
            filtered = self.filter.apply(query.arguments, facts)
            removed, redacted = filtered.removed, filtered.redacted
            own = self.tool_filters.get((query.server or "", query.tool or ""))
            if own is not None:
                filtered = own.apply(filtered.arguments, facts)
                removed, redacted = removed + filtered.removed, redacted + filtered.redacted
        except errors.InvalidArguments as exc:
            exc.server = query.server
            raise
        return evolve(query, arguments=filtered.arguments), removed, redacted

    async def _ask(self, now: float, question: Question) -> tuple[Decision, float, bool]:
        """The decision, when it ends, and whether it was kept from an earlier question."""
        engine, key = self.policy, question.key
        try:
            kept = self.cache.get(now, key, engine.revision)
            if kept is not None:
                return *kept, True
            epoch = self.cache.epoch
            decision: object = await engine.decide(question)
        except Exception as exc:  # noqa: BLE001 (an application's own policy may raise anything)
            decision = no_decision(f"the policy raised {type(exc).__name__}", reason="policy_error")
        if not isinstance(decision, Decision):
            decision = no_decision("the policy answered no Decision", reason="malformed")
        elif decision.allow and not question.is_intact():
            decision = no_decision("the policy changed the arguments", reason="malformed")
        if engine is not self.policy:
            return decision, now, False
        if not decision.allow:
            # Another task may have been allowed the same meanwhile; the later answer counts.
            self.cache.forget(key)
            return decision, now, False
        if epoch != self.cache.epoch:
            return decision, now, False
        ends = self.cache.put(
            now, key, decision, ttl_s=_ttl_s(question.query, decision), size=len(question.encoded)
        )
        return decision, ends, False


def _ttl_s(query: Query, decision: Decision) -> float:
    own = SENSITIVITY_TTL_S[None if query.tool is None else query.sensitivity]
    if query.delegation is not None:
        own = DELEGATION_TTL_S
    return own if decision.ttl_s is None else min(own, decision.ttl_s)


def _verdict(
    decision: Decision, question: Question, *, removed: tuple[str, ...], **known: Any
) -> Verdict:
    """What a decision comes to: exact arguments and their digest, or a no."""
    known |= {
        "query": question.query,
        "reason": decision.reason,
        "fault": decision.fault,
        "decision_id": decision.decision_id,
        "revision": decision.revision,
    }
    if not decision.allow:
        return Verdict(allow=False, removed=removed, **known)
    arguments, encoded = question.query.arguments, question.arguments
    if decision.arguments is not None or decision.obligations:
        try:
            wanted = arguments if decision.arguments is None else decision.arguments
            stripped = strip_parameters(restrict(arguments, dict(wanted)), decision.obligations)
        except Widened as exc:
            fault = f"the policy's parameters add or change {str(exc) or 'the root'}"
            known |= {"reason": "widened", "fault": fault}
            return Verdict(allow=False, removed=removed, **known)
        arguments = stripped.arguments
        encoded = jsontext.canonical(arguments)
        removed += stripped.removed
    return Verdict(
        allow=True,
        arguments=arguments,
        digest=_digest(encoded),
        ttl_s=max(_ttl_s(question.query, decision), 0.0),
        obligations=decision.obligations,
        removed=removed,
        **known,
    )
