"""Decisions about calls that somebody else will make: the same policy, and the same record.

Whoever asks is told one word of why, and never the policy's own; those are in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.client.caller import Caller
from sark_trio.client.records import audited_call
from sark_trio.errors import CallTimeout, InvalidArguments
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.obligations import StripParameters
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.query import Query
from sark_trio.net.clock import lasting_time

__all__ = ["Authorization", "authorize"]

_ALLOWED: Final = "allowed"


@final
@frozen(kw_only=True)
class Authorization:
    """What was decided.

    :param reason: one word: ``allowed``, ``denied``, ``obligations`` (the policy wants what only
        whoever makes the call could do, and we could not see to it), or why there was no question
        to ask.
    :param parameters: what is to be sent, exactly, instead of what was asked about; ``None``
        where nothing is.
    :param audit_id: under this id the decision is in the audit log, durable.
    :param cache_ttl_s: seconds for which an allow may be kept by whoever asked; 0: not at all.
    """

    allow: bool
    reason: str
    parameters: Mapping[str, Any] | None = field(default=None, repr=False)
    audit_id: str
    cache_ttl_s: float = 0.0


async def authorize(
    caller: Caller,
    query: Query,
    *,
    facts: ToolFacts | None = None,
    objection: str | None = None,
    labels: Mapping[str, str],
) -> Authorization:
    """Decide on *query*, and record that.

    :param objection: why no policy is asked; then the answer is no.
    :param labels: facts for the record.
    :raises AuditUnavailable: the decision cannot be recorded: there is none.
    :raises CallTimeout: the policy did not answer in time.
    :raises ClientClosed: the client is closed, or was meanwhile.
    """
    audit_id = caller.new_id()
    with caller.bounded(caller.timeout_s, partial(_late, caller.timeout_s)):
        word, verdict = objection, None
        if word is None:
            word, verdict = await _ask(caller, query, facts)
        call = audited_call(
            caller.audit,
            verdict,
            request_id=audit_id,
            server=query.server or "",
            tool=query.tool,
            method=query.action,
            principal=query.principal,
            labels=labels,
        )
        if verdict is not None and word == _ALLOWED:
            await caller.audit.allowed(call, verdict.reason)
            return Authorization(
                allow=True,
                reason=word,
                parameters=verdict.arguments,
                audit_id=audit_id,
                cache_ttl_s=verdict.ttl_s,
            )
        said = "" if verdict is None else verdict.fault or verdict.reason
        await caller.audit.denied(call, f"{word}: {said}" if said else word)
        return Authorization(allow=False, reason=word, audit_id=audit_id)


def _late(timeout_s: float) -> CallTimeout:
    text = f"no decision within {timeout_s:g} s"
    return CallTimeout(text, phase="policy", delivery="not_sent")


async def _ask(caller: Caller, query: Query, facts: ToolFacts | None) -> tuple[str, Verdict | None]:
    """The policy's answer, and one word for it."""
    try:
        verdict = await caller.governor.decide(lasting_time(), query, facts)
    except InvalidArguments:
        return "invalid_arguments", None
    if not verdict.allow:
        return verdict.denial().reason, verdict
    # Parameters are stripped already. A result that we never see, nobody here redacts.
    met = all(isinstance(one, StripParameters) for one in verdict.obligations)
    return _ALLOWED if met else "obligations", verdict
