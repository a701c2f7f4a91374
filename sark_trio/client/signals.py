"""What hooks are told of one call. Made only where there are hooks: see ``telemetry``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Self, final

import anyio
from attrs import define, evolve, field

from sark_trio.client.servers import Http, Registry
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    Delivery,
    Denied,
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    Refused,
    RemoteError,
    UsageError,
)
from sark_trio.governance.pipeline import Verdict
from sark_trio.mcp.results import ToolResult
from sark_trio.net.url import parse_url
from sark_trio.telemetry.events import (
    OTHER,
    AttemptFinished,
    AttemptStarted,
    CallDecided,
    CallFinished,
    CallInfo,
    CallOutcome,
    CallRetried,
    CallStarted,
    word,
)
from sark_trio.telemetry.hooks import Emitter, trace_context

__all__ = ["Signals"]

#: The first type that fits says how a call without a result ended.
_OUTCOMES: tuple[tuple[type[BaseException], CallOutcome], ...] = (
    (Denied, "denied"),
    (Refused, "rejected"),
    (CallTimeout, "timeout"),
    (OutcomeUnknown, "unknown"),
    (ClientClosed, "cancelled"),
    (UsageError, "rejected"),
    (Exception, "error"),
    (BaseException, "cancelled"),
)


@final
@define(eq=False, kw_only=True)
class Signals:
    """The events of one call, in their order."""

    emitter: Emitter
    upstream: Upstream
    call: CallInfo
    began: float
    #: The span that the caller named as the parent.
    traceparent: str | None
    #: Whether a byte of it may have reached the server.
    sent: bool = field(default=False, init=False)
    _attempts: int = field(default=0, init=False)
    #: When the attempt under way began, if one is.
    _attempt_began: float | None = field(default=None, init=False)
    _last_error: str = field(default="", init=False)
    #: A hook was asked for the trace context, and said this.
    _asked: bool = field(default=False, init=False)
    _trace: Mapping[str, str] | None = field(default=None, init=False)

    @classmethod
    def begin(
        cls,
        emitter: Emitter,
        upstream: Upstream,
        *,
        request_id: str,
        method: str,
        tool: str | None,
        traceparent: str | None,
    ) -> Self:
        """The signals of a call that comes in now; the first one is given."""
        server = upstream.server
        host, port = _place(server.url) if isinstance(server, Http | Registry) else (None, None)
        call = CallInfo(
            request_id=request_id,
            server=upstream.name,
            transport=upstream.kind,
            method=method,
            # Whatever a model makes up must not name time series, or get into logs unseen.
            tool=tool if tool is None or upstream.catalogue.knows(tool) else OTHER,
            host=host,
            port=port,
            protocol_version=_version(upstream),
        )
        parent = trace_context({"traceparent": traceparent}).get("traceparent")
        emitter.emit(CallStarted(call=call, traceparent=parent))
        return cls(
            emitter=emitter,
            upstream=upstream,
            call=call,
            began=anyio.current_time(),
            traceparent=parent,
        )

    def trace(self) -> Mapping[str, str] | None:
        """The trace context that goes with the call: a hook's, else its caller's own."""
        if not self._asked:
            own = None if self.traceparent is None else {"traceparent": self.traceparent}
            self._asked, self._trace = True, self.emitter.carrier(self.call) or own
        return self._trace

    def decided(self, verdict: Verdict, seconds: float) -> None:
        """Policy said yes or no. A tool that it was asked about is one that the server has."""
        tool = None if self.call.tool is None else verdict.query.tool
        self.call = evolve(self.call, tool=tool, protocol_version=_version(self.upstream))
        self.emitter.emit(
            CallDecided(
                call=self.call,
                allow=verdict.allow,
                seconds=seconds,
                cached=verdict.cached,
                reason=None if verdict.allow else word(verdict.denial().reason),
            )
        )

    def attempt(self, number: int) -> None:
        """The breaker let an attempt out."""
        self._attempts, self._attempt_began = number, anyio.current_time()
        self.emitter.emit(AttemptStarted(call=self.call, number=number))

    def attempt_failed(self, error: GatewayError) -> None:
        """An attempt ended with *error*, or was refused before it began."""
        self._last_error = type(error).__name__
        self._end_attempt(self._last_error, _status(error))

    def questioned(self) -> None:
        """The server answered an attempt, but not with the result."""
        self._end_attempt(None, None)

    def retried(self, wait_s: float) -> None:
        """The call is made again in *wait_s* seconds."""
        self._retried(self._last_error, wait_s)

    def resent(self, reason: str) -> None:
        """The transport sends it again within the attempt."""
        self._retried(word(reason) or OTHER, 0.0)

    def done(self, result: object, delivery: Delivery) -> None:
        """The call has a result; a notification, which has none, is on its way."""
        self._end_attempt(None, None)
        failed = isinstance(result, ToolResult) and result.is_error
        outcome: CallOutcome = "tool_error" if failed else "ok"
        self._finish(outcome, delivery, None)

    def failed(self, error: BaseException) -> None:
        """The call ended with *error*, which may be its caller's own cancellation."""
        delivery: Delivery = "unknown" if self.sent else "not_sent"
        if isinstance(error, GatewayError):
            delivery = error.delivery
        outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
        # An attempt that still runs was cut off with the call.
        self._end_attempt(type(error).__name__, None)
        self._finish(outcome, delivery, error)

    def _retried(self, reason: str, wait_s: float) -> None:
        self.emitter.emit(
            CallRetried(call=self.call, number=self._attempts, reason=reason, wait_s=wait_s)
        )

    def _end_attempt(self, error_type: str | None, status: int | None) -> None:
        if self._attempt_began is not None:
            seconds = anyio.current_time() - self._attempt_began
            self._attempt_began = None
            self.emitter.emit(
                AttemptFinished(
                    call=self.call,
                    number=self._attempts,
                    seconds=seconds,
                    error_type=error_type,
                    status=status,
                )
            )

    def _finish(
        self, outcome: CallOutcome, delivery: Delivery, error: BaseException | None
    ) -> None:
        cancelled = outcome == "cancelled"
        self.emitter.emit(
            CallFinished(
                call=self.call,
                outcome=outcome,
                delivery=delivery,
                seconds=anyio.current_time() - self.began,
                attempts=self._attempts,
                error_type=None if error is None or cancelled else type(error).__name__,
                reason=word(getattr(error, "reason", None)),
                status=_status(error),
            )
        )


def _version(upstream: Upstream) -> str | None:
    return None if upstream.agreed is None else upstream.agreed.version


@lru_cache(maxsize=256)
def _place(url: str) -> tuple[str, int]:
    origin = parse_url(url).origin
    return origin.host, origin.port


def _status(error: BaseException | None) -> int | None:
    """The code that the server answered, where it answered with an error."""
    match error:
        case RemoteError(code=code):
            return code
        case HTTPStatusError(status=status):
            return status
    return None
