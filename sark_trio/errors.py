"""Every exception that leaves the public API, drawn as a tree.

A call either returns, raises exactly one :class:`GatewayError`, or lets its caller's own
cancellation through untouched. An ``ExceptionGroup`` never escapes. The type tells what to
do; the fields tell what happened::

    GatewayError                       delivery, retry_after_s, attempts, server, ...
    ├── UsageError                     you asked for something that cannot be; mend the code
    │   ├── ConfigError                a file or option is wrong: source, line, column
    │   ├── InvalidArguments           the arguments of a call can not be sent as they are
    │   ├── UnknownServer              no server has that name
    │   ├── UnknownTool                that server has no such tool
    │   ├── TransportNotAvailableError the transport mode forbids it, or its extra is missing
    │   ├── WrongTask                  trio: left from another task than the one that entered
    │   └── ClientClosed               the client is closed, or was never opened
    ├── Refused                        we decided not to send: reason, often retry_after_s
    │   ├── Denied (PermissionError)   policy said no
    │   │   └── PolicyUnavailable      policy could not say: that is a no
    │   ├── CircuitOpen                the breaker of this server is open or probing
    │   ├── ServerDown                 its process ended too often to be started again now
    │   ├── ToolChanged                the tool is not as it was approved: reason says how
    │   ├── Overloaded                 a queue of ours is full
    │   └── AuditUnavailable           the intent could not be made durable
    ├── CallTimeout (TimeoutError)     the deadline of the call passed: phase
    ├── TransportError                 the wire failed
    │   ├── ConnectError               no connection; nothing was sent
    │   │   ├── ConnectTimeout (TimeoutError)
    │   │   ├── TLSError               certificate or handshake; never retried
    │   │   └── PoolTimeout (TimeoutError)   no connection came free in time
    │   ├── ReadTimeout (TimeoutError)
    │   ├── WriteTimeout (TimeoutError)
    │   ├── ServerDisconnected         the peer went away before it answered
    │   ├── ProcessStartError          the command could not be started
    │   ├── ProcessExited              the server process ended: exit code, stderr tail
    │   ├── ProcessUnresponsive        the server process lives but does not answer
    │   └── ResourceLimitExceeded      the server process used more than it may: limit
    ├── ProtocolError                  the peer broke HTTP, SSE, JSON-RPC or MCP
    │   └── MessageTooLarge            ... by sending more than a limit allows
    ├── HTTPStatusError                the server answered with an HTTP error: status
    │   ├── AuthenticationRequired     401
    │   ├── Forbidden                  403
    │   ├── RateLimited                429, or 503 with Retry-After
    │   └── SessionExpired             a legacy session was lost
    ├── RemoteError                    the server answered with a JSON-RPC error: code, data
    ├── OutcomeUnknown                 it may have happened; an unsafe call is never repeated
    └── AuditError                     the audit log itself
        └── AuditCorrupt               a record is not what was written: index, offset

``delivery`` is the fact on which every retry rests:

- ``not_sent``: no byte of the request was accepted by the kernel or the pipe;
- ``unknown``: at least one byte went out and no complete matching answer came back;
- ``answered``: the server answered, and this error *is* the answer.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal, Self

__all__ = [
    "AuditCorrupt",
    "AuditError",
    "AuditUnavailable",
    "AuthenticationRequired",
    "CallTimeout",
    "CircuitOpen",
    "ClientClosed",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "Delivery",
    "Denied",
    "Forbidden",
    "GatewayError",
    "HTTPStatusError",
    "InvalidArguments",
    "MessageTooLarge",
    "OutcomeUnknown",
    "Overloaded",
    "PolicyUnavailable",
    "PoolTimeout",
    "ProcessExited",
    "ProcessStartError",
    "ProcessUnresponsive",
    "ProtocolError",
    "RateLimited",
    "ReadTimeout",
    "Refused",
    "RemoteError",
    "ResourceLimitExceeded",
    "ServerDisconnected",
    "ServerDown",
    "SessionExpired",
    "TLSError",
    "ToolChanged",
    "TransportError",
    "TransportNotAvailableError",
    "UnknownServer",
    "UnknownTool",
    "UsageError",
    "WriteTimeout",
    "WrongTask",
    "status_error",
]

Delivery = Literal["not_sent", "unknown", "answered"]


class GatewayError(Exception):
    """Root of everything that the public API raises.

    :param message: one line that says what was wrong, where, and what to do.
    :param delivery: how far the request got (see the module's docstring).
    :param retry_after_s: seconds after which a new try may succeed; ``None`` if unknown.
    :param attempts: attempts that were made, the first included.
    :param server: name of the upstream concerned.
    :param request_id: id of the call in the audit log.
    :param decision_id: id of the policy decision concerned.
    """

    default_delivery: ClassVar[Delivery] = "unknown"

    def __init__(
        self,
        message: str,
        *,
        delivery: Delivery | None = None,
        retry_after_s: float | None = None,
        attempts: int = 0,
        server: str | None = None,
        request_id: str | None = None,
        decision_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.delivery: Delivery = self.default_delivery if delivery is None else delivery
        self.retry_after_s = retry_after_s
        self.attempts = attempts
        self.server = server
        self.request_id = request_id
        self.decision_id = decision_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled whole: keyword-only fields are no arguments to ``BaseException``."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def twin(self) -> Self:
        """The same error for one more task that it concerns.

        What each of them adds (the ids of its call, a traceback, a note) is not the others'.
        """
        twin = copy.copy(self)
        twin.__cause__ = self.__cause__
        return twin

    @property
    def message(self) -> str:
        """The sentence that the error was made with."""
        return str(self.args[0])


class UsageError(GatewayError):
    """The caller asked for something that cannot be. Nothing was sent."""

    default_delivery = "not_sent"


class ConfigError(UsageError):
    """A configuration file or option is wrong.

    :param source: the file, or the name of the option.
    :param line: 1-based line in the file, where known.
    :param column: 1-based column in the line, where known.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (source, line, column) if part is not None)
        super().__init__(f"{where}: {message}" if where else message)
        self.source = source
        self.line = line
        self.column = column


class InvalidArguments(UsageError):
    """The arguments of a call are not valid JSON, are too deep, or collide."""


class UnknownServer(UsageError):
    """No configured server has that name."""


class UnknownTool(UsageError):
    """The server has no tool of that name (or one that was rejected; the message says)."""


class TransportNotAvailableError(UsageError):
    """The transport mode forbids this operation, or the extra that it needs is missing."""


class WrongTask(UsageError):
    """On trio a nursery can only be left by the task that entered it."""


class ClientClosed(UsageError):
    """The client is closed, closing, or was never opened."""


class Refused(GatewayError):
    """We decided not to send. ``reason`` is one word fit for a metric label."""

    default_delivery = "not_sent"
    default_reason: ClassVar[str] = "refused"

    def __init__(self, message: str, *, reason: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.reason = self.default_reason if reason is None else reason


class Denied(Refused, PermissionError):
    """Policy said no. No byte reached the server; the denial is in the audit log."""

    default_reason = "denied"


class PolicyUnavailable(Denied):
    """Policy could not say yes or no in time: that is a no."""

    default_reason = "policy_unavailable"


class CircuitOpen(Refused):
    """The circuit breaker of this server refuses; ``retry_after_s`` says for how long."""

    default_reason = "open"


class ServerDown(Refused):
    """The server's process ended too often; after ``retry_after_s`` it is tried again."""

    default_reason = "down"


class Overloaded(Refused):
    """A bounded queue of ours is full (pool waiters, calls of one principal)."""

    default_reason = "overloaded"


class ToolChanged(Refused):
    """The tool is not as it was approved, or never was. ``reason`` is ``tool_changed``,
    ``tool_new`` or ``tool_refused``.
    """

    default_reason = "tool_changed"


class AuditUnavailable(Refused):
    """The intent could not be made durable, so the call was not made."""

    default_reason = "audit_unavailable"


class CallTimeout(GatewayError, TimeoutError):
    """The call's own deadline passed.

    :param phase: what it was waiting for: ``policy``, ``approval``, ``audit``, ``permit``,
        ``connect``, ``input``, ``answer`` or ``backoff``.
    """

    def __init__(self, message: str, *, phase: str = "answer", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.phase = phase


class TransportError(GatewayError):
    """The wire failed. ``delivery`` says whether the request may have arrived."""


class ConnectError(TransportError):
    """No connection could be made. Nothing was sent."""

    default_delivery = "not_sent"


class ConnectTimeout(ConnectError, TimeoutError):
    """No connection within ``connect_timeout_s``."""


class TLSError(ConnectError):
    """The TLS handshake or the certificate check failed. Never retried."""


class PoolTimeout(ConnectError, TimeoutError):
    """No connection of the pool came free within ``pool_timeout_s``."""


class ReadTimeout(TransportError, TimeoutError):
    """No byte came for ``read_timeout_s``."""


class WriteTimeout(TransportError, TimeoutError):
    """The peer did not take our bytes within ``write_timeout_s``."""


class ServerDisconnected(TransportError):
    """The peer closed or reset the connection before it had answered."""


class ProcessStartError(TransportError):
    """The command could not be started: not found, not executable, died at once."""

    default_delivery = "not_sent"


class ProcessExited(TransportError):
    """The server process ended.

    :param exit_code: the exit status; negative for the signal that ended it.
    :param stderr_tail: the last of what it wrote on stderr.
    """

    def __init__(
        self, message: str, *, exit_code: int | None = None, stderr_tail: str = "", **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


class ProcessUnresponsive(TransportError):
    """The server process lives but answered neither calls nor a probe."""


class ResourceLimitExceeded(TransportError):
    """The server process used more than it may, and was ended.

    :param limit: the option that says how much, such as ``rss_bytes_max``.
    :param value: what was measured.
    :param allowed: what the option says.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: str | None = None,
        value: float | None = None,
        allowed: float | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.limit = limit
        self.value = value
        self.allowed = allowed


class ProtocolError(GatewayError):
    """The peer broke HTTP, SSE, JSON-RPC or MCP. What it sent was not delivered."""


class MessageTooLarge(ProtocolError):
    """The peer sent more than ``limit_bytes``."""

    def __init__(self, message: str, *, limit_bytes: int | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.limit_bytes = limit_bytes


class HTTPStatusError(GatewayError):
    """The server answered with an HTTP error and no JSON-RPC error in it.

    :param status: the HTTP status code.
    :param www_authenticate: what the server asks for, as it said it (RFC 9110, 11.6.1).
    """

    default_delivery = "answered"

    def __init__(
        self, message: str, *, status: int, www_authenticate: tuple[str, ...] = (), **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.status = status
        self.www_authenticate = www_authenticate


class AuthenticationRequired(HTTPStatusError):
    """401: the credentials are missing, wrong or expired."""


class Forbidden(HTTPStatusError):
    """403: the credentials are known and not enough."""


class RateLimited(HTTPStatusError):
    """429, or 503 with Retry-After: the server asks to come back later."""


class SessionExpired(HTTPStatusError):
    """A legacy session was lost: again in a new one, or by a call that may not be repeated."""


class RemoteError(GatewayError):
    """The server answered with a JSON-RPC error (JSON-RPC 2.0, section 5.1).

    :param code: the error code.
    :param data: the ``data`` member, as it came.
    """

    default_delivery = "answered"

    def __init__(self, message: str, *, code: int, data: Any = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.code = code
        self.data = data


class OutcomeUnknown(GatewayError):
    """The call may have happened. It is not safe to repeat, so it was not repeated.

    ``__cause__`` is the failure that hid the outcome.
    """


class AuditError(GatewayError):
    """The audit log could not be opened, written or read."""

    default_delivery = "not_sent"


class AuditCorrupt(AuditError):
    """A record of the audit log is not what was written.

    :param index: sequence number of the first bad record.
    :param segment: file name of its segment.
    :param offset: byte offset of its frame in that file.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        segment: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.segment = segment
        self.offset = offset


def _rebuild(
    kind: type[GatewayError], args: tuple[Any, ...], fields: dict[str, Any]
) -> GatewayError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    if "__notes__" in fields:
        error.__notes__ = list(fields["__notes__"])
    return error


def status_error(
    status: int, message: str, *, retry_after_s: float | None = None, **fields: Any
) -> HTTPStatusError:
    """The :class:`HTTPStatusError` (or its subclass) for *status*."""
    kind: type[HTTPStatusError] = HTTPStatusError
    if status == 401:
        kind = AuthenticationRequired
    elif status == 403:
        kind = Forbidden
    elif status == 429 or (status == 503 and retry_after_s is not None):
        kind = RateLimited
    return kind(message, status=status, retry_after_s=retry_after_s, **fields)
