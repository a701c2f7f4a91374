"""A person's word on one call, where the policy allows it only with one.

An approval is for the bytes that were shown, under the policy that asked for it, and for this
call: it is kept nowhere, so there is nothing that another call could use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from typing import Any, final

from attrs import field, frozen

from sark_trio.errors import Denied
from sark_trio.governance.obligations import RequireApproval
from sark_trio.governance.pipeline import Verdict
from sark_trio.governance.principal import Principal

__all__ = ["ApprovalRequest", "Approver", "approval_of"]


@final
@frozen(kw_only=True)
class ApprovalRequest:
    """A call that waits for somebody's word.

    :param method: what is asked of the server, such as ``tools/call``.
    :param tool: the tool, prompt or resource.
    :param arguments: exactly what will be sent, in a copy.
    :param digest: ``sha256:`` and the digest of their canonical JSON (RFC 8785).
    :param principal: who calls.
    :param message: the policy's words for whoever decides.
    :param policy_revision: what the policy was when it asked for this.
    :param request_id: under this id the call is in the audit log.
    """

    server: str
    method: str
    tool: str | None
    arguments: Mapping[str, Any] = field(repr=False)
    digest: str
    principal: Principal
    message: str = ""
    decision_id: str | None = None
    policy_revision: str | None = None
    request_id: str


#: Answers with who approved it, for the record; ``None`` is a no.
Approver = Callable[[ApprovalRequest], Awaitable[str | None]]


async def approval_of(
    verdict: Verdict,
    wanted: RequireApproval,
    approver: Approver | None,
    *,
    method: str,
    request_id: str,
) -> str:
    """Who approved the call that *verdict* is about.

    :raises Denied: nobody did; ``reason`` is ``approval_missing`` (there is nobody to ask),
        ``approval_failed`` (asking failed) or ``approval_refused``.
    """
    query = verdict.query
    what = query.action if query.tool is None else f"tool {query.tool!r}"
    if approver is None:
        raise Denied(
            f"{what} needs somebody's approval, and this client has nobody to ask",
            reason="approval_missing",
        )
    request = ApprovalRequest(
        server=query.server or "",
        method=method,
        tool=query.tool,
        arguments=deepcopy(verdict.arguments),  # theirs to change: what is sent stays
        digest=verdict.digest,
        principal=query.principal,
        message=wanted.message,
        decision_id=verdict.decision_id,
        policy_revision=verdict.revision,
        request_id=request_id,
    )
    try:
        who: object = await approver(request)
    except Exception as exc:
        raise Denied(
            f"{what} needs somebody's approval, and asking failed", reason="approval_failed"
        ) from exc
    if not isinstance(who, str) or not who:
        raise Denied(f"{what} was not approved", reason="approval_refused")
    return who
