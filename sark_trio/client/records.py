"""What the audit log is told of one call: who, what, why, how far it got, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import anyio
from attrs import define, field

from sark_trio.errors import AuditUnavailable, Delivery, Denied, GatewayError, Refused
from sark_trio.governance.audit_chain import Fault
from sark_trio.governance.audit_record import AuditedCall, Outcome, OutcomeKind
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.principal import Principal
from sark_trio.stores.audit import AuditLog

__all__ = ["Records", "audited_call"]

#: How a call without a result ended, by how far it got.
_OUTCOMES: Mapping[Delivery, OutcomeKind] = {
    "answered": "error",
    "not_sent": "not_sent",
    "unknown": "unknown",
}


@final
@define(eq=False, kw_only=True)
class Records:
    """The records of one call. Only the intent is waited for; no other method can fail."""

    log: AuditLog
    request_id: str
    server: str
    tool: str | None
    principal: Principal
    began: float
    method: str = "tools/call"
    #: Further short facts, such as who approved it.
    labels: Mapping[str, str] = field(factory=dict)

    async def intent(self, verdict: Verdict) -> None:
        """The call is about to be made; returns when that is durable.

        :raises AuditUnavailable: it could not be made durable: do not make the call.
        """
        await self.log.intent(self._call(verdict))

    def refusal(self, error: Refused, verdict: Verdict | None) -> None:
        """The call was refused before anything was sent: this is its only record.

        It holds the policy's own words, which no error message does: whoever keeps the policy
        reads them, and no model.
        """
        words = None if verdict is None else verdict.fault or verdict.reason
        reason = f"{error.reason}: {words}" if words else error.reason
        self.log.denied_nowait(self._call(verdict), reason)

    def served(self, verdict: Verdict | None) -> None:
        """The call was answered from the cache: this is its only record.

        :raises AuditUnavailable: it cannot be recorded: do not answer.
        """
        if isinstance(self.log.served_nowait(self._call(verdict), "cache"), Fault):
            raise AuditUnavailable("the answer from the cache cannot be recorded")

    def attempt(self, number: int, reason: str) -> None:
        """A sending after the first; the intent stands for that one."""
        self.log.attempt_nowait(self.request_id, number, reason)

    def result(self, *, is_error: bool, delivery: Delivery, attempts: int, redactions: int) -> None:
        """It is done: the server answered, or a notification is on its way."""
        self._outcome("error" if is_error else "ok", delivery, attempts, redactions=redactions)

    def failure(self, error: GatewayError, attempts: int) -> None:
        """The call ended with *error*."""
        kind = "denied" if isinstance(error, Denied) else _OUTCOMES[error.delivery]
        self._outcome(kind, error.delivery, attempts, error)

    def cut_off(self, delivery: Delivery, attempts: int, *, by_us: bool) -> None:
        """The call was cancelled: by its deadline or the client's end, or by its caller."""
        self._outcome(_OUTCOMES[delivery] if by_us else "cancelled", delivery, attempts)

    def named(self, error: GatewayError, attempts: int, verdict: Verdict | None) -> GatewayError:
        """*error* with what only this call knows."""
        error.server = error.server or self.server
        error.request_id = self.request_id
        error.attempts = error.attempts or attempts
        if error.decision_id is None and verdict is not None:
            error.decision_id = verdict.decision_id
        return error

    def _outcome(
        self,
        kind: OutcomeKind,
        delivery: Delivery,
        attempts: int,
        error: GatewayError | None = None,
        redactions: int = 0,
    ) -> None:
        self.log.outcome_nowait(
            Outcome(
                request_id=self.request_id,
                outcome=kind,
                delivery=delivery,
                duration_s=anyio.current_time() - self.began,
                attempts=attempts,
                error_type=None if error is None else type(error).__name__,
                error=None if error is None else error.message,
                redactions=redactions,
            )
        )

    def _call(self, verdict: Verdict | None) -> AuditedCall:
        return audited_call(
            self.log,
            verdict,
            request_id=self.request_id,
            server=self.server,
            tool=self.tool,
            method=self.method,
            principal=self.principal,
            labels=self.labels,
        )


def audited_call(
    log: AuditLog, verdict: Verdict | None, *, principal: Principal, **what: Any
) -> AuditedCall:
    """A call as *log* is told of it, and what was decided about it, if anything was.

    :param what: the other members of :class:`AuditedCall`.
    """
    facts: dict[str, Any] = {}
    if verdict is not None:
        facts = {
            "decision_id": verdict.decision_id,
            "policy_revision": verdict.revision,
            # Keyed: whoever reads the log could guess a PIN from a plain hash (laws, 2.7).
            "args_digest": log.reference(verdict.digest) if verdict.digest else None,
            # Of a denied call: what was asked for, without what is secret in any case.
            "args": verdict.arguments if verdict.allow else verdict.query.arguments,
            "erased": verdict.removed,
            "redactions": len(verdict.redacted),
        }
    return AuditedCall(principal_id=principal.id, principal_kind=principal.kind, **what, **facts)
