"""What a caller is told when a call fails: a status, a few words of ours, and never the rest.

Messages of :class:`~sark_trio.errors.GatewayError` are written for operators: they name servers,
tools and commands that this caller may not know of. None of them leaves; the table of this file
says what does.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, final

from attrs import evolve, frozen

from sark_trio.errors import (
    AuditUnavailable,
    CallTimeout,
    CircuitOpen,
    ClientClosed,
    Denied,
    GatewayError,
    HTTPStatusError,
    InvalidArguments,
    OutcomeUnknown,
    Overloaded,
    PolicyUnavailable,
    ProtocolError,
    RateLimited,
    RemoteError,
    ServerDown,
    ToolChanged,
    TransportError,
    UnknownServer,
    UnknownTool,
)
from sark_trio.mcp.faults import HandlerFailed

__all__ = ["Fault", "Refused", "fault_of"]

#: As much of an upstream's own words as is passed on.
QUOTE_CHARS_MAX: Final = 500
#: What is full empties in the time of a call or two.
OVERLOADED_S: Final = 1.0
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


@final
@frozen(kw_only=True)
class Fault:
    """One failure, fit to be shown.

    :param status: of HTTP.
    :param kind: one word for programs.
    :param message: for people.
    :param reason: one word more where we refused.
    :param upstream_code: the JSON-RPC error code of the upstream, where it answered with one.
    """

    status: int
    kind: str
    message: str
    reason: str | None = None
    retry_after_s: float | None = None
    delivery: str | None = None
    #: Of the call, in the audit log.
    request_id: str | None = None
    upstream_code: int | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The members that are known, without the message."""
        members = {
            "type": self.kind,
            "reason": self.reason,
            "retry_after_s": self.retry_after_s,
            "delivery": self.delivery,
            "request_id": self.request_id,
            "upstream_code": self.upstream_code,
        }
        return {name: value for name, value in members.items() if value is not None}

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """``Retry-After``, where it is known (RFC 9110, section 10.2.3: whole seconds)."""
        if self.retry_after_s is None:
            return ()
        return (("retry-after", str(max(1, math.ceil(self.retry_after_s)))),)


class Refused(Exception):
    """A request that is refused in this room, before the client hears of it."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        reason: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.fault = Fault(status=status, kind=kind, message=message, reason=reason)
        self.headers = headers


#: The first type that fits.
_FAULTS: Final[tuple[tuple[type[GatewayError], Fault], ...]] = (
    (PolicyUnavailable, Fault(status=403, kind="denied", message="policy could not decide")),
    (Denied, Fault(status=403, kind="denied", message="policy denies this")),
    (ToolChanged, Fault(status=403, kind="denied", message="the tool waits for approval")),
    (CircuitOpen, Fault(status=503, kind="circuit_open", message="the server is not well")),
    (ServerDown, Fault(status=503, kind="server_down", message="the server is not well")),
    (
        Overloaded,
        Fault(
            status=503,
            kind="overloaded",
            message="too much is going on",
            retry_after_s=OVERLOADED_S,
        ),
    ),
    (
        AuditUnavailable,
        Fault(status=503, kind="audit_unavailable", message="the call cannot be recorded"),
    ),
    (ClientClosed, Fault(status=503, kind="closing", message="the gateway is closing")),
    (UnknownServer, Fault(status=404, kind="unknown_server", message="no such server")),
    (UnknownTool, Fault(status=404, kind="unknown_tool", message="no such tool")),
    (
        InvalidArguments,
        Fault(status=400, kind="invalid_arguments", message="the arguments cannot be sent"),
    ),
    (CallTimeout, Fault(status=504, kind="timeout", message="no answer in time")),
    (
        OutcomeUnknown,
        Fault(status=502, kind="outcome_unknown", message="the call may have happened"),
    ),
    (RateLimited, Fault(status=503, kind="upstream_busy", message="the server is busy")),
    (HTTPStatusError, Fault(status=502, kind="upstream_error", message="the server refused")),
    (RemoteError, Fault(status=502, kind="upstream_error", message="the server refused")),
    (ProtocolError, Fault(status=502, kind="upstream_broken", message="the server answered badly")),
    (
        TransportError,
        Fault(status=502, kind="upstream_unreachable", message="the server cannot be reached"),
    ),
    (
        HandlerFailed,
        Fault(status=400, kind="input_missing", message="what the server asked for is not there"),
    ),
    (GatewayError, Fault(status=500, kind="internal", message="the gateway failed")),
)


def fault_of(error: GatewayError) -> Fault:
    """What is shown of *error*."""
    fault = next(fault for kind, fault in _FAULTS if isinstance(error, kind))
    late = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
    if late and fault.status == 502:
        fault = evolve(fault, status=504)
    if isinstance(error, RemoteError):
        # It is meant for whoever made the call, and was not written by us.
        fault = evolve(fault, message=str(error)[:QUOTE_CHARS_MAX], upstream_code=error.code)
    reason = getattr(error, "reason", None)
    retry_after_s = error.retry_after_s
    return evolve(
        fault,
        reason=reason if isinstance(reason, str) and _WORD.fullmatch(reason) else None,
        retry_after_s=fault.retry_after_s if retry_after_s is None else retry_after_s,
        delivery=error.delivery,
        request_id=error.request_id,
    )
