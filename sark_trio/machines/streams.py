"""The words of event streams: phases, how connections end, what follows, options, counters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum, unique
from types import MappingProxyType
from typing import Final, Literal, final

from attrs import field, frozen
from attrs.validators import instance_of

from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.checks import between, whole

__all__ = [
    "TABLE",
    "VERDICTS",
    "Authenticate",
    "Connect",
    "Deliver",
    "Duplicate",
    "End",
    "Event",
    "Fault",
    "Hangup",
    "Phase",
    "ReconnectOptions",
    "ReconnectStatistics",
    "RenewSession",
    "Skip",
    "Stop",
    "Verdict",
    "Wait",
    "judge",
    "tally",
]

#: Bounds of what a server may ask for with ``retry:``. Less would be a busy loop, and more
#: would let it put us off for ever.
RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 30.0
#: A delay that the server asks for is lengthened by up to this share, within ``RETRY_S_MAX``.
JITTER: Final = 0.25
#: A server that asks with Retry-After for more than this is not waited for.
RETRY_AFTER_S_MAX: Final = 300.0
#: Committed ids that are remembered; of at most 1 KiB each, by the parser's limit.
SEEN_MAX: Final = 1_024


@unique
class Phase(StrEnum):
    """Where a stream stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Event(Enum):
    """What moves a stream."""

    BEGUN = "begun"
    OPENED = "opened"
    LOST = "lost"
    STOPPED = "stopped"


#: Everything else is a :class:`Fault`. A stream is closed from wherever it is.
TABLE: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.DISCONNECTED, Event.BEGUN): Phase.CONNECTING,
    (Phase.RECONNECTING, Event.BEGUN): Phase.CONNECTING,
    (Phase.CONNECTING, Event.OPENED): Phase.CONNECTED,
    (Phase.CONNECTING, Event.LOST): Phase.RECONNECTING,
    (Phase.CONNECTED, Event.LOST): Phase.RECONNECTING,
    (Phase.DISCONNECTED, Event.STOPPED): Phase.CLOSED,
    (Phase.CONNECTING, Event.STOPPED): Phase.CLOSED,
    (Phase.CONNECTED, Event.STOPPED): Phase.CLOSED,
    (Phase.RECONNECTING, Event.STOPPED): Phase.CLOSED,
}


@unique
class End(StrEnum):
    """How a connection ended, or what came instead of one."""

    #: The server ended the response as one does.
    EOF = "eof"
    #: It could not be made, or broke.
    FAILED = "failed"
    #: Not one byte for too long; see ``Reconnector.tick``.
    IDLE = "idle"
    #: 5xx.
    SERVER_ERROR = "server_error"
    #: 429.
    THROTTLED = "throttled"
    #: 404: where there are sessions, it says that ours is gone (MCP 2025-11-25, Transports).
    NOT_FOUND = "not_found"
    #: 401.
    UNAUTHORIZED = "unauthorized"
    #: 204: the server asks us not to come back (WHATWG HTML, section 9.2.3).
    NO_CONTENT = "no_content"
    #: 2xx, and something else than an event stream.
    NOT_A_STREAM = "not_a_stream"
    #: Every other status: asking again gets the same answer.
    REFUSED = "refused"
    #: An event exceeded a limit. It is not committed, so a new connection would bring it again.
    TOO_LARGE = "too_large"


Verdict = Literal["wait", "renew", "authenticate", "stop"]

#: What follows. ``renew`` and ``authenticate`` are for once: until there is progress, the same
#: end again stops the stream.
VERDICTS: Final[Mapping[End, Verdict]] = MappingProxyType(
    {
        End.EOF: "wait",
        End.FAILED: "wait",
        End.IDLE: "wait",
        End.SERVER_ERROR: "wait",
        End.THROTTLED: "wait",
        End.NOT_FOUND: "renew",
        End.UNAUTHORIZED: "authenticate",
        End.NO_CONTENT: "stop",
        End.NOT_A_STREAM: "stop",
        End.REFUSED: "stop",
        End.TOO_LARGE: "stop",
    }
)

_BY_STATUS: Final = MappingProxyType(
    {
        204: End.NO_CONTENT,
        401: End.UNAUTHORIZED,
        404: End.NOT_FOUND,
        429: End.THROTTLED,
    }
)


def tally(ids: Iterable[str]) -> OrderedDict[str, int]:
    """How many events of each id there were, the latest id last; the latest 1,024 ids."""
    found: OrderedDict[str, int] = OrderedDict()
    for event_id in ids:
        if event_id:
            found[event_id] = found.get(event_id, 0) + 1
            found.move_to_end(event_id)
    while len(found) > SEEN_MAX:
        found.popitem(last=False)
    return found


def judge(status: int, content_type: str | None) -> End | None:
    """What a response's head says; ``None``: it begins a stream of events."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    essence = (content_type or "").partition(";")[0].strip(" \t").lower()
    if status == 200 and essence == "text/event-stream":
        return None
    if 200 <= status < 300:
        return End.NOT_A_STREAM
    return End.SERVER_ERROR if 500 <= status < 600 else End.REFUSED


@final
@frozen
class Connect:
    """Connect, with ``Last-Event-ID`` unless that is ``None``; tell how it went."""

    last_event_id: str | None


@final
@frozen
class Wait:
    """Come back in so many seconds and ``begin``."""

    seconds: float


@final
@frozen
class RenewSession:
    """The session is gone: make a new one and ``begin``. Ids of the old one are forgotten."""


@final
@frozen
class Authenticate:
    """The credentials are not good any more: get new ones and ``begin``."""


@final
@frozen
class Stop:
    """The stream is over; *end* is what came last.

    ``final``: asking again gets the same. ``repeated``: new session or credentials did not
    help. ``exhausted``: too many connections without progress. ``retry_after``: the server
    asks for too long a wait. ``no_id``: nothing to resume from. ``closed``: by us.
    """

    reason: Literal["final", "repeated", "exhausted", "retry_after", "no_id", "closed"]
    end: End | None = None


@final
@frozen
class Deliver:
    """The event is new: hand it over, then tell ``on_handed_over``."""

    event_id: str


@final
@frozen
class Duplicate:
    """The event was handed over before: drop it."""

    event_id: str


@final
@frozen
class Skip:
    """There is nothing to hand over; the id is committed."""

    event_id: str


@final
@frozen
class Hangup:
    """Nothing was heard for too long: close the response, then tell ``End.IDLE``."""


@final
@frozen
class Fault:
    """The event made no sense here and changed nothing."""

    event: str
    reason: str


@final
@frozen(kw_only=True)
class ReconnectOptions:
    """How a stream comes back.

    :raises ValueError: an option is out of its bounds.
    """

    #: Reconnections in a row without progress; 0 never reconnects.
    reconnects_max: int = field(default=5, validator=whole(0, 1_000))
    #: Seconds without a byte, comments included, after which a connection is given up.
    idle_s: float = field(default=60.0, validator=between(0.001, 86_400))
    #: Delays where the server asks for none. Its ``attempts`` mean nothing here.
    schedule: RetryConfig = field(factory=RetryConfig, validator=instance_of(RetryConfig))
    #: 404 means that the session is gone. Without sessions it is final.
    sessions: bool = field(default=False, validator=instance_of(bool))
    #: The response to a request: it can be resumed from an id, and not be asked for anew.
    resume_only: bool = field(default=False, validator=instance_of(bool))


@final
@frozen(kw_only=True)
class ReconnectStatistics:
    """A snapshot."""

    phase: Phase
    last_event_id: str | None
    retry_ms: int | None
    #: Reconnections since the last progress.
    fruitless: int
    connects: int
    reconnects: int
    delivered: int
    duplicates: int
    skipped: int
    faults: int
