"""What every request on somebody's behalf has, and how one is decided, made and read.

Each goes the way of :class:`~sark_trio.client.call.Call`: decided, recorded, sent, recorded
again. A kind of request only says what it is about: the question to the policy, the parameters,
how to read the result.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, final

from attrs import field, frozen

from sark_trio.client.handlers import Handlers
from sark_trio.client.relay import Relay
from sark_trio.client.servers import Server
from sark_trio.client.upstream import Upstream
from sark_trio.errors import Delivery, UsageError
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query
from sark_trio.machines.retry import Safety
from sark_trio.mcp.messages import Notification
from sark_trio.mcp.meta import LogLevel
from sark_trio.mcp.progress import (
    LOG,
    PROGRESS,
    LogMessage,
    Progress,
    parse_log_message,
    parse_progress,
)

__all__ = ["Asked", "Plan"]


def _is_a(kind: type) -> Callable[[Any, Any, Any], None]:
    def check(_: object, attribute: Any, value: object) -> None:
        if value is not None and not isinstance(value, kind):
            got = type(value).__name__
            raise UsageError(f"{attribute.name}: expected {kind.__name__}, got {got}")

    return check


T_co = TypeVar("T_co", covariant=True)
Composed = tuple[dict[str, Any], tuple[tuple[str, str], ...]]


@final
@frozen(kw_only=True)
class Plan(Generic[T_co]):
    """How one request is decided, made and read.

    :param compose: parameters and mirrored headers for the arguments that policy lets through.
    :param parse: reads the result; raises ProtocolError.
    :param kept_s: seconds for which an answer may stand in for later ones; ``None``: never.
    """

    query: Query = field(repr=False)
    compose: Callable[[Mapping[str, Any]], Composed]
    parse: Callable[[Mapping[str, Any]], T_co]
    safety: Safety = Safety.SAFE
    facts: ToolFacts | None = None
    kept_s: Callable[[Mapping[str, Any]], float | None] | None = None


@frozen(kw_only=True)
class Asked(Generic[T_co]):
    """What every request has.

    :param timeout_s: deadline of the whole call, retries included; ``None``: the configured one.
    :param on_progress: told the progress of this call; synchronous, must not block.
    :param on_log: told the server's log messages of this call; synchronous, must not block.
    :param log_level: least severe message to ask for (since 2026-07-28; before, see
        ``GatewayClient.set_log_level``).
    :param handlers: for what the server asks meanwhile, over those of the client.
    :param relay: whoever the call is made for, where it is not this application: then *handlers*
        and those of the client are not asked.
    :param context: facts for the policy, such as the purpose of the call.
    :param traceparent: the span that this call belongs to (W3C Trace Context).
    """

    #: JSON-RPC method.
    method: str
    #: The name of the tool, if it is one that is asked for.
    tool: str | None = None
    #: Nothing is asked for: it is said once, and never answered.
    is_notification: bool = False
    #: It is the application's own message: no answers to questions are put into it.
    as_is: bool = False

    principal: Principal = field(validator=_is_a(Principal))
    timeout_s: float | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_log: Callable[[LogMessage], None] | None = None
    log_level: LogLevel | None = None
    handlers: Handlers | None = field(default=None, validator=_is_a(Handlers))
    relay: Relay | None = None
    context: Mapping[str, Any] = field(factory=dict)
    traceparent: str | None = None

    @property
    @abstractmethod
    def what(self) -> str:
        """What is asked for, for messages: ``tool 'query'``."""

    @property
    def delivery(self) -> Delivery:
        """How far it got once it is done: nothing ever says that a notification arrived."""
        return "unknown" if self.is_notification else "answered"

    @property
    def listens(self) -> bool:
        """Whether somebody wants to hear what comes before the result."""
        return self.on_progress is not None or self.on_log is not None

    def hear(self, notification: Notification) -> None:
        """What came before the result."""
        if notification.method == PROGRESS and self.on_progress is not None:
            progress = parse_progress(notification.params)
            if progress is not None:
                self.on_progress(progress)
        elif notification.method == LOG and self.on_log is not None:
            line = parse_log_message(notification.params)
            if line is not None:
                self.on_log(line)

    def configured_s(self, server: Server) -> float | None:
        """The deadline that the operator gave to such requests."""
        return server.timeout_s

    @abstractmethod
    async def plan(self, upstream: Upstream) -> Plan[T_co]:
        """How to ask *upstream* for it.

        :raises GatewayError: it can not be asked for; nothing was sent.
        """
