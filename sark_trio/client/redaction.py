"""What policy hides, in a result and in an error: a server's words are its answer, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sark_trio.errors import Denied, GatewayError, ProcessExited, RemoteError
from sark_trio.governance.obligations import (
    Obligation,
    RedactResult,
    StripControls,
    apply_obligations,
)

__all__ = ["redact_error", "redact_result"]

_WITHHELD = "the error's words are withheld: they could not be redacted as the policy demands"


def redact_result(
    raw: dict[str, Any], obligations: tuple[Obligation, ...], what: str
) -> tuple[dict[str, Any], int]:
    """*raw* as the policy lets it be seen, and how many values of it were redacted.

    :param what: what it is the result of, for the error.
    :raises Denied: it could not be redacted, so it is not shown: this fails closed, too.
    """
    if not obligations:
        return raw, 0
    try:
        shown = apply_obligations(raw, obligations)
    except Exception as exc:
        raise Denied(
            f"the result of {what} could not be redacted as the policy demands, so it is withheld",
            reason="redaction_failed",
            delivery="answered",
        ) from exc
    return shown.value, sum(count for _, count in shown.counts)


def redact_error(error: GatewayError, obligations: Sequence[Obligation]) -> None:
    """Redact *error*, and the failure that it stands for, in place."""
    for obligation in sorted(obligations, key=lambda one: not isinstance(one, StripControls)):
        if isinstance(obligation, RedactResult | StripControls):
            _redact(error, obligation)
            if isinstance(error.__cause__, GatewayError):
                _redact(error.__cause__, obligation)


def _redact(error: GatewayError, obligation: RedactResult | StripControls) -> None:
    redactor = obligation.redactor
    try:
        error.args = (redactor.text(error.message).value,)
        if isinstance(error, RemoteError):
            error.data = redactor.value(error.data).value
        if isinstance(error, ProcessExited):
            error.stderr_tail = redactor.text(error.stderr_tail).value
    except Exception:  # noqa: BLE001 - what cannot be redacted is not shown
        error.args = (_WITHHELD,)
        if isinstance(error, RemoteError):
            error.data = None
        if isinstance(error, ProcessExited):
            error.stderr_tail = ""
