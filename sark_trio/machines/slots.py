"""The words of the connection pool: its effects, its limits, its counters, its legal moves."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, Literal, final

from attrs import field, frozen

from sark_trio.machines.checks import between, whole

__all__ = [
    "TRANSITIONS",
    "Close",
    "Dial",
    "Effect",
    "Effects",
    "Fail",
    "Fault",
    "Grant",
    "PoolOptions",
    "PoolStatistics",
    "State",
]

State = Literal["connecting", "idle", "granted", "leased", "closing", "gone"]

#: What each event may make of a slot, by the state it finds it in. An event that finds a
#: slot in a state not listed for it is a :class:`Fault` and changes nothing. Of its own accord
#: the pool also moves idle slots: to ``granted`` or ``leased`` (someone wants one) and to
#: ``closing`` (expired, evicted, shut down); at shutdown every slot goes to ``closing``.
TRANSITIONS: Final[Mapping[str, Mapping[State, tuple[State, ...]]]] = {
    # A dial may end after we asked to close its slot: whoever tells first is right.
    "dialed": {"connecting": ("granted", "idle", "closing"), "closing": ("closing",)},
    "dial_failed": {"connecting": ("gone",), "closing": ("gone",)},
    "start": {"granted": ("leased",)},
    "cancel": {"granted": ("granted", "idle", "closing")},
    "give_back": {
        "leased": ("granted", "idle", "closing"),
        "closing": ("closing",),
    },
    "peer_closed": {
        "idle": ("closing",),
        "granted": ("granted",),
        "leased": ("leased",),
        "closing": ("closing",),
    },
    "closed": {
        "idle": ("gone",),
        "leased": ("gone",),
        "closing": ("gone",),
    },
}


@frozen
class Dial:
    """Open a connection to *origin*; tell ``dialed`` or ``dial_failed`` of *slot* once."""

    slot: int
    origin: Hashable


@frozen
class Grant:
    """*ticket* may have *slot*: wake it, so that it calls ``start`` or ``cancel``."""

    ticket: int
    slot: int


@frozen
class Close:
    """Close the connection of *slot* (abort its dial, take it from its lessee), tell ``closed``."""

    slot: int


@frozen
class Fail:
    """*ticket* gets nothing; *error* is what the dial failed with."""

    ticket: int
    reason: Literal["dial_failed", "full", "streams_full", "shutdown"]
    error: BaseException | None = None


@frozen
class Fault:
    """The event made no sense here (wrong state, unknown id) and changed nothing."""

    event: str
    reason: str


Effect = Dial | Grant | Close | Fail | Fault
#: In the order in which they are to be carried out.
Effects = tuple[Effect, ...]


#: Every limit has a limit, if only that of what one process can hold open.
_MANY: Final = 1_000_000
_DAY_S: Final = 86_400.0


@final
@frozen(kw_only=True)
class PoolOptions:
    """The limits of a :class:`Pool`.

    :raises ValueError: a limit is out of range; the message names it.
    """

    #: Connections in any state, whatever the origin.
    total: int = field(default=50, validator=whole(1, _MANY))
    #: Connections in any state to one origin.
    per_origin: int = field(default=10, validator=whole(1, _MANY))
    #: Connections kept for later; the longest idle one goes first.
    idle_max: int = field(default=20, validator=whole(0, _MANY))
    #: Seconds for which an unused connection is kept. Servers often drop theirs after 60 s.
    idle_s: float = field(default=30.0, validator=between(0.001, _DAY_S))
    #: Tickets that may wait; the next one fails with ``full``.
    waiters_max: int = field(default=10_000, validator=whole(1, _MANY))
    #: Seconds after which a connection is used no more, so that DNS changes are followed.
    age_max_s: float = field(default=3600.0, validator=between(0.001, _DAY_S))
    #: Leases for long streams, granted or waited for; the next one fails with ``streams_full``.
    #: One connection always remains for calls, per origin and in all, where there are two.
    streams_max: int = field(default=20, validator=whole(0, _MANY))
    #: Seconds after ``shutdown`` until what is still leased is closed.
    grace_s: float = field(default=5.0, validator=between(0.001, _DAY_S))


@final
@frozen(kw_only=True)
class PoolStatistics:
    """Slots by state, tickets that wait, and what happened so far."""

    connecting: int
    idle: int
    granted: int
    leased: int
    closing: int
    waiting: int
    streams: int
    dials: int
    dial_failures: int
    evictions: int
    expiries: int
    refusals: int
