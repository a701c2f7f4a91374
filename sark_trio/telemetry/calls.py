"""The events of one call, from its beginning to its end. See :mod:`.events`."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal, final

from attrs import frozen

__all__ = [
    "OTHER",
    "AttemptFinished",
    "AttemptStarted",
    "CallDecided",
    "CallFinished",
    "CallInfo",
    "CallOutcome",
    "CallRetried",
    "CallStarted",
    "Event",
    "word",
]

#: Stands for a name that is not one of a known few.
OTHER: Final = "_other"
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)

#: How a call ended. ``tool_error``: the server answered that the tool failed; ``rejected``: we
#: refused to send it, and not because of the policy; ``unknown``: it may have happened.
CallOutcome = Literal[
    "ok", "tool_error", "denied", "rejected", "timeout", "cancelled", "unknown", "error"
]


def word(reason: object) -> str | None:
    """*reason*, if it is one word fit for a label; ``_other`` if not, as an application's own
    policy or error may say anything.
    """
    if reason is None:
        return None
    return reason if isinstance(reason, str) and _WORD.fullmatch(reason) else OTHER


@final
@frozen(kw_only=True)
class CallInfo:
    """Which call an event is about.

    :param request_id: the call's id in the audit log.
    :param method: of JSON-RPC: ``tools/call``, ``prompts/get``, ...
    :param tool: its name, or ``_other`` while no list of the server's has it; ``None`` where no
        tool is called.
    :param transport: ``http``, ``stdio``, ...
    :param host, port: where the server is, if it is on a network.
    :param protocol_version: the agreed MCP revision, as far as known.
    """

    request_id: str
    server: str
    transport: str
    method: str = "tools/call"
    tool: str | None = None
    host: str | None = None
    port: int | None = None
    protocol_version: str | None = None


@frozen(kw_only=True)
class Event:
    """Root of all events."""

    name: ClassVar[str]


# -- started, decided, (attempt started, attempt finished, retried)*, finished -----------------


@final
@frozen(kw_only=True)
class CallStarted(Event):
    """A call came in. A :class:`CallFinished` follows, whatever becomes of it.

    :param traceparent: the span that its caller named as the parent (W3C Trace Context).
    """

    name = "call.started"
    call: CallInfo
    traceparent: str | None = None


@final
@frozen(kw_only=True)
class CallDecided(Event):
    """Policy said yes or no; from here on the tool's name is known.

    :param reason: one word of ours where it is a no.
    :param cached: the yes was kept from an earlier question.
    """

    name = "call.decided"
    call: CallInfo
    allow: bool
    seconds: float
    cached: bool = False
    reason: str | None = None


@final
@frozen(kw_only=True)
class AttemptStarted(Event):
    """The breaker let an attempt out. *number* counts from 1."""

    name = "attempt.started"
    call: CallInfo
    number: int


@final
@frozen(kw_only=True)
class AttemptFinished(Event):
    """An attempt ended.

    :param error_type: class of the error that ended it; ``None`` if it was answered.
    :param status: code of the JSON-RPC or HTTP error that the server answered.
    """

    name = "attempt.finished"
    call: CallInfo
    number: int
    seconds: float
    error_type: str | None = None
    status: int | None = None


@final
@frozen(kw_only=True)
class CallRetried(Event):
    """The call will be sent again.

    :param number: of the attempt that ended, or within which it is sent again.
    :param reason: class of the error, or the transport's word for sending again at once.
    :param wait_s: seconds until then.
    """

    name = "call.retried"
    call: CallInfo
    number: int
    reason: str
    wait_s: float = 0.0


@final
@frozen(kw_only=True)
class CallFinished(Event):
    """A call ended, in one of all ways that there are.

    :param delivery: how far it got: ``not_sent``, ``unknown`` or ``answered``.
    :param error_type: class of the error that its caller got; ``None`` if there was none.
    :param reason: one word, of a refusal.
    :param status: code of the JSON-RPC or HTTP error that the server answered.
    """

    name = "call.finished"
    call: CallInfo
    outcome: CallOutcome
    delivery: Literal["not_sent", "unknown", "answered"]
    seconds: float
    attempts: int
    error_type: str | None = None
    reason: str | None = None
    status: int | None = None
