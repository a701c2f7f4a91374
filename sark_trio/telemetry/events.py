"""Everything that hooks are told. Frozen values of names, sizes and times.

No event holds a token, an argument, a result, or words of a policy or a server: what reaches a
metrics store or a log service is read by more people than the audit log is. What a caller could
choose freely is not in here, either: a tool is named only if its server's list has it, and is
``_other`` if not; a reason is one word of a few.

All times are durations in seconds.
"""

from __future__ import annotations

from typing import Any, Final, Literal, final

from attrs import frozen

from sark_trio.telemetry.calls import (
    OTHER,
    AttemptFinished,
    AttemptStarted,
    CallDecided,
    CallFinished,
    CallInfo,
    CallOutcome,
    CallRetried,
    CallStarted,
    Event,
    word,
)

__all__ = [
    "GATEWAY",
    "OTHER",
    "AttemptFinished",
    "AttemptStarted",
    "AuditFailed",
    "BreakerChanged",
    "CacheLookedUp",
    "CallDecided",
    "CallFinished",
    "CallInfo",
    "CallOutcome",
    "CallRetried",
    "CallStarted",
    "CheckpointTaken",
    "ConnectionClosed",
    "ConnectionOpened",
    "Event",
    "HookDisabled",
    "ListFetched",
    "PoolWaited",
    "ProcessExited",
    "ProcessStarted",
    "ServerConnected",
    "SessionRenewed",
    "StreamConnected",
    "StreamReconnecting",
    "TokenChecked",
    "fields_of",
    "word",
]

#: Stands for the gateway among the servers: none of theirs begins with an underscore.
GATEWAY: Final = "_gateway"


# -- servers ----------------------------------------------------------------------------------


@final
@frozen(kw_only=True)
class BreakerChanged(Event):
    """The circuit breaker of a server moved. *why* is a word of the machine's table."""

    name = "breaker.changed"
    server: str
    source: Literal["closed", "open", "half_open"]
    target: Literal["closed", "open", "half_open"]
    why: str


@final
@frozen(kw_only=True)
class ServerConnected(Event):
    """A server and we agreed on a protocol revision."""

    name = "server.connected"
    server: str
    transport: str
    protocol_version: str


@final
@frozen(kw_only=True)
class SessionRenewed(Event):
    """A legacy server had forgotten our session, and gave us another."""

    name = "session.renewed"
    server: str


@final
@frozen(kw_only=True)
class ConnectionOpened(Event):
    """A connection is ready for use. *seconds* is what that took, TLS included."""

    name = "connection.opened"
    server: str
    seconds: float


@final
@frozen(kw_only=True)
class ConnectionClosed(Event):
    """A connection was closed. *exchanges* is how many requests it carried."""

    name = "connection.closed"
    server: str
    exchanges: int


@final
@frozen(kw_only=True)
class PoolWaited(Event):
    """A request had to wait for a connection. *granted*: it got one."""

    name = "pool.waited"
    server: str
    seconds: float
    granted: bool


@final
@frozen(kw_only=True)
class ProcessStarted(Event):
    """A server process was started. *restarts* counts those before it."""

    name = "process.started"
    server: str
    pid: int
    restarts: int


@final
@frozen(kw_only=True)
class ProcessExited(Event):
    """A server process is gone.

    :param exit_code: negative for the signal that ended it; ``None`` if it is not known.
    :param expected: we had closed it.
    """

    name = "process.exited"
    server: str
    pid: int
    exit_code: int | None
    expected: bool


@final
@frozen(kw_only=True)
class StreamConnected(Event):
    """An event stream of a server's is open. *resumed*: it goes on where another one broke."""

    name = "stream.connected"
    server: str
    resumed: bool = False


@final
@frozen(kw_only=True)
class StreamReconnecting(Event):
    """An event stream broke, and is opened again in *wait_s* seconds."""

    name = "stream.reconnecting"
    server: str
    attempt: int
    wait_s: float


@final
@frozen(kw_only=True)
class ListFetched(Event):
    """A list was fetched from a server, all its pages.

    :param method: such as ``tools/list``.
    :param items: how many there were; ``None`` where it failed, with *error_type*.
    """

    name = "list.fetched"
    server: str
    method: str
    seconds: float
    items: int | None = None
    error_type: str | None = None


@final
@frozen(kw_only=True)
class CacheLookedUp(Event):
    """Something was looked for in one of our caches, and was there or not."""

    name = "cache.looked_up"
    server: str
    cache: str
    hit: bool


# -- the house itself -------------------------------------------------------------------------


@final
@frozen(kw_only=True)
class AuditFailed(Event):
    """The audit log failed, stalled, or lost something.

    :param problem: the log's own sentence, which names files at most.
    """

    name = "audit.failed"
    problem: str


@final
@frozen(kw_only=True)
class CheckpointTaken(Event):
    """A checkpoint over *records* records was delivered, or was not (*error_type*)."""

    name = "audit.checkpoint"
    records: int
    error_type: str | None = None


@final
@frozen(kw_only=True)
class TokenChecked(Event):
    """A caller's token was checked. *reason* is one word if it proves nothing."""

    name = "token.checked"
    ok: bool
    reason: str | None = None


@final
@frozen(kw_only=True)
class HookDisabled(Event):
    """A hook raised too often in a row, or was ``TooSlow``, and is told nothing any more."""

    name = "hook.disabled"
    hook: str
    error_type: str


def fields_of(event: Event) -> dict[str, Any]:
    """The event's fields by name, for a log: flat, and without those that are ``None``."""
    found: dict[str, Any] = {}
    for key in type(event).__attrs_attrs__:
        value = getattr(event, key.name)
        if isinstance(value, CallInfo):
            found.update({name: each for name, each in _members(value) if each is not None})
        elif value is not None:
            found[key.name] = value
    return found


def _members(call: CallInfo) -> list[tuple[str, Any]]:
    return [(name, getattr(call, name)) for name in _CALL_FIELDS]


_CALL_FIELDS: Final = tuple(key.name for key in CallInfo.__attrs_attrs__)
