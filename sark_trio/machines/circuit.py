"""The words of the circuit breaker: options, states, legal moves, answers, snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Any, Final, Literal, final

from attrs import field, frozen
from attrs.validators import instance_of, optional

from sark_trio.machines.checks import between, whole
from sark_trio.machines.window import Counts, RateRule

__all__ = [
    "TRANSITIONS",
    "Admit",
    "BreakerOptions",
    "BreakerStatistics",
    "CircuitState",
    "Edge",
    "Fault",
    "Mode",
    "Outcome",
    "Permit",
    "Reject",
    "Transition",
    "Why",
]


@unique
class CircuitState(StrEnum):
    """What the breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@unique
class Mode(StrEnum):
    """Who decides: the outcomes, or an operator."""

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


@unique
class Outcome(StrEnum):
    """The three ends of a permit. A neutral one says nothing about the server."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


@unique
class Why(StrEnum):
    """What made the breaker move."""

    FAILURES = "failures"
    FAILURE_RATE = "failure_rate"
    SLOW_RATE = "slow_rate"
    ELAPSED = "elapsed"
    PROBE_FAILED = "probe_failed"
    PROBE_SLOW = "probe_slow"
    STALLED = "stalled"
    RECOVERED = "recovered"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    RELEASED = "released"
    RESET = "reset"


@final
@frozen
class Edge:
    """One legal move of a breaker."""

    source: CircuitState
    target: CircuitState
    why: Why


_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

#: Every move there is. The machine looks its targets up here; the documentation draws it.
TRANSITIONS: Final[tuple[Edge, ...]] = (
    # So many failures in a row; or, with a rate rule, too large a share of failed or slow calls.
    Edge(_CLOSED, _OPEN, Why.FAILURES),
    Edge(_CLOSED, _OPEN, Why.FAILURE_RATE),
    Edge(_CLOSED, _OPEN, Why.SLOW_RATE),
    # The wait is over and somebody calls: that call is the first probe.
    Edge(_OPEN, _HALF_OPEN, Why.ELAPSED),
    Edge(_HALF_OPEN, _CLOSED, Why.RECOVERED),
    Edge(_HALF_OPEN, _OPEN, Why.PROBE_FAILED),
    Edge(_HALF_OPEN, _OPEN, Why.PROBE_SLOW),
    # A probe was never settled: its slot must not be lost for ever.
    Edge(_HALF_OPEN, _OPEN, Why.STALLED),
    # An operator decides, from wherever it is.
    Edge(_CLOSED, _OPEN, Why.FORCED_OPEN),
    Edge(_OPEN, _OPEN, Why.FORCED_OPEN),
    Edge(_HALF_OPEN, _OPEN, Why.FORCED_OPEN),
    Edge(_CLOSED, _CLOSED, Why.FORCED_CLOSED),
    Edge(_OPEN, _CLOSED, Why.FORCED_CLOSED),
    Edge(_HALF_OPEN, _CLOSED, Why.FORCED_CLOSED),
    Edge(_CLOSED, _CLOSED, Why.RELEASED),
    Edge(_OPEN, _CLOSED, Why.RELEASED),
    Edge(_CLOSED, _CLOSED, Why.RESET),
    Edge(_OPEN, _CLOSED, Why.RESET),
    Edge(_HALF_OPEN, _CLOSED, Why.RESET),
)

#: More unsettled permits than this are not remembered: the oldest is taken for lost. The
#: queues in front of one upstream end at 10,000, so only a driver that forgets to settle gets
#: here.
OUTSTANDING_MAX: Final = 65_536


def _rate_rule(value: Any) -> Any:
    # A configuration file says it as a table.
    return RateRule(**value) if isinstance(value, Mapping) else value


@final
@frozen(kw_only=True)
class BreakerOptions:
    """When a breaker opens, and how it comes back.

    :param failures: failures in a row that open it.
    :param open_s: seconds that it stays open.
    :param probes: calls that may be under way at a time while it is half open.
    :param successes: probes that must succeed to close it.
    :param probe_max_age_s: a probe unsettled for so long is given up and the breaker opens
        again; a safety net that belongs above the timeout of a call.
    :param open_multiplier: each failed recovery multiplies the next ``open_s``...
    :param open_max_s: ... up to this many seconds.
    :param rate: opens it by rates, too; ``None`` counts failures in a row alone.
    :raises ValueError: an option is out of its bounds; ``TypeError``: it is no number.
    """

    failures: int = field(default=5, validator=whole(1, 10_000))
    open_s: float = field(default=30.0, validator=between(0.001, 86_400))
    probes: int = field(default=3, validator=whole(1, 1_000))
    successes: int = field(default=2, validator=whole(1, 1_000))
    probe_max_age_s: float = field(default=60.0, validator=between(0.001, 86_400))
    open_multiplier: float = field(default=1.0, validator=between(1, 100))
    open_max_s: float = field(default=300.0, validator=between(0.001, 86_400))
    rate: RateRule | None = field(
        default=None, converter=_rate_rule, validator=optional(instance_of(RateRule))
    )

    def __attrs_post_init__(self) -> None:
        if self.open_s > self.open_max_s:
            raise ValueError(f"open_s ({self.open_s}) is more than open_max_s ({self.open_max_s})")

    def open_time_s(self, opens_in_row: int) -> float:
        """Seconds to stay open after that many failed recoveries."""
        try:
            return min(self.open_s * self.open_multiplier**opens_in_row, self.open_max_s)
        except OverflowError:
            return self.open_max_s


@final
@frozen
class Permit:
    """Leave to make one call. It is settled once, whatever becomes of the call."""

    gen: int
    seq: int
    probe: bool
    admitted_at: float
    key: str = ""


@final
@frozen
class Transition:
    """The breaker moved; ``gen`` is the generation that began."""

    source: CircuitState
    target: CircuitState
    gen: int
    why: Why


@final
@frozen
class Admit:
    """Make the call, and settle the permit."""

    permit: Permit
    transition: Transition | None = None


@final
@frozen
class Reject:
    """Do not call. ``retry_after_s`` is ``None`` where only an operator can tell."""

    reason: Literal["open", "probing", "forced"]
    retry_after_s: float | None = None
    transition: Transition | None = None


@final
@frozen
class Fault:
    """The driver erred; nothing changed. The permit was settled before, or is not ours."""

    what: Literal["double_settle", "unknown_permit"]
    permit: Permit


@final
@frozen(kw_only=True)
class BreakerStatistics:
    """A snapshot of a breaker.

    ``admitted == successes + failures + neutral + late + outstanding + forgotten``. What was
    rejected is no call and dilutes no rate.
    """

    key: str
    state: CircuitState
    mode: Mode
    generation: int
    admitted: int
    rejected: int
    successes: int
    failures: int
    neutral: int
    #: Settled after the breaker had moved on: they changed nothing.
    late: int
    #: Permits that are not settled yet, and those of them that occupy a probe's slot.
    outstanding: int
    probes: int
    #: Permits given up for lost, see ``OUTSTANDING_MAX``.
    forgotten: int
    faults: int
    failures_in_row: int
    probe_successes: int
    opens_in_row: int
    #: When an open breaker lets the first probe pass; ``None`` unless it is open by itself.
    open_until: float | None
    #: What the window of the rate rule holds; ``None`` without a rule.
    window: Counts | None
