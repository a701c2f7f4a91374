"""What policy hides in a result, it hides in an error: a server's words are its answer, too."""

from __future__ import annotations

from collections.abc import Sequence

from sark_trio.errors import GatewayError, ProcessExited, RemoteError
from sark_trio.governance.obligations import Obligation, RedactResult

__all__ = ["redact_error"]

_WITHHELD = "the error's words are withheld: they could not be redacted as the policy demands"


def redact_error(error: GatewayError, obligations: Sequence[Obligation]) -> None:
    """Redact *error*, and the failure that it stands for, in place."""
    for obligation in obligations:
        if isinstance(obligation, RedactResult):
            _redact(error, obligation)
            if isinstance(error.__cause__, GatewayError):
                _redact(error.__cause__, obligation)


def _redact(error: GatewayError, obligation: RedactResult) -> None:
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
