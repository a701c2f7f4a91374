"""The words of supervision: phases, what to do, options, counters."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, unique
from types import MappingProxyType
from typing import Any, Final, Literal, final

from attrs import Attribute, field, frozen
from attrs.validators import instance_of

from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.checks import between, whole

__all__ = [
    "TABLE",
    "Down",
    "Event",
    "Fault",
    "Kill",
    "Phase",
    "Probe",
    "Start",
    "SuperviseOptions",
    "SupervisorStatistics",
    "Wait",
]


@unique
class Phase(StrEnum):
    """How it stands with the process."""

    #: None runs; one may be started, perhaps after a delay.
    IDLE = "idle"
    RUNNING = "running"
    #: It runs, left a call without an answer, and was asked whether it lives.
    PROBING = "probing"
    #: It has to be ended.
    SICK = "sick"
    #: None runs, and none may be started for a while.
    DOWN = "down"
    CLOSED = "closed"


class Event(Enum):
    """What moves a supervisor."""

    STARTED = "started"
    TIMED_OUT = "timed_out"
    ANSWERED = "answered"
    GIVEN_UP = "given_up"
    ENDED = "ended"
    EXCEEDED = "exceeded"
    COOLED_OFF = "cooled_off"
    RESET = "reset"
    CLOSED = "closed"


#: Everything else changes no phase. It is closed from wherever it is.
TABLE: Final[Mapping[tuple[Phase, Event], Phase]] = MappingProxyType(
    {
        (Phase.IDLE, Event.STARTED): Phase.RUNNING,
        (Phase.RUNNING, Event.TIMED_OUT): Phase.PROBING,
        (Phase.PROBING, Event.ANSWERED): Phase.RUNNING,
        (Phase.RUNNING, Event.GIVEN_UP): Phase.SICK,
        (Phase.PROBING, Event.GIVEN_UP): Phase.SICK,
        (Phase.RUNNING, Event.ENDED): Phase.IDLE,
        (Phase.PROBING, Event.ENDED): Phase.IDLE,
        (Phase.SICK, Event.ENDED): Phase.IDLE,
        (Phase.IDLE, Event.EXCEEDED): Phase.DOWN,
        (Phase.DOWN, Event.COOLED_OFF): Phase.IDLE,
        (Phase.DOWN, Event.RESET): Phase.IDLE,
        (Phase.IDLE, Event.CLOSED): Phase.CLOSED,
        (Phase.RUNNING, Event.CLOSED): Phase.CLOSED,
        (Phase.PROBING, Event.CLOSED): Phase.CLOSED,
        (Phase.SICK, Event.CLOSED): Phase.CLOSED,
        (Phase.DOWN, Event.CLOSED): Phase.CLOSED,
    }
)


@final
@frozen
class Start:
    """Start a process now. ``restart``: it is not the first."""

    restart: bool


@final
@frozen
class Wait:
    """Ask again in so many seconds."""

    seconds: float


@final
@frozen
class Down:
    """Start none; in so many seconds one may be tried."""

    retry_after_s: float


@final
@frozen
class Probe:
    """Ask the process whether it lives."""


@final
@frozen
class Kill:
    """End the process: it left too many calls unanswered, or the probe."""

    why: Literal["timeouts", "silent"]


@final
@frozen
class Fault:
    """The driver's mistake; nothing changed."""

    event: str
    phase: Phase


def _backoff(value: Any) -> Any:
    """A schedule, or the table of a configuration file that says where it differs."""
    return RetryConfig(**{"initial_delay_s": 0.2, **value}) if isinstance(value, Mapping) else value


@final
@frozen(kw_only=True)
class SuperviseOptions:
    """How much is borne.

    :param restarts_max: restarts within *window_s*; one more takes the server down.
    :param cool_off_s: seconds that it stays down; no less than *window_s*.
    :param timeouts_max: calls in a row, without any answer, after which it is taken to hang.
    :param probe_s: seconds of silence after a probe, ... the same.
    :param backoff: delays between processes that answered nothing; ``attempts`` is not used.
        The default begins below a second: with the seconds of retried *calls* five restarts
        would take longer than the window, and a program that cannot run would never be down.
    :raises ValueError: an option is out of its bounds.
    """

    restarts_max: int = field(default=5, validator=whole(0, 1_000))
    window_s: float = field(default=30.0, validator=between(0.001, 86_400))
    cool_off_s: float = field(default=300.0, validator=between(0.001, 86_400))
    timeouts_max: int = field(default=3, validator=whole(1, 1_000))
    probe_s: float = field(default=10.0, validator=between(0.001, 3_600))
    backoff: RetryConfig = field(
        factory=lambda: _backoff({}),
        converter=_backoff,
        validator=instance_of(RetryConfig),
    )

    @cool_off_s.validator
    def _check(self, attribute: Attribute[float], value: float) -> None:
        if value < self.window_s:
            raise ValueError(f"{attribute.name} must be window_s or more, not {value!r}")


@final
@frozen(kw_only=True)
class SupervisorStatistics:
    """A snapshot.

    :param restarts: processes after the first, since the beginning.
    :param recent: restarts that the window remembers.
    :param timeouts: calls in a row without any answer.
    :param down_until: on the clock of ``now``; ``None`` unless the server is down.
    """

    phase: Phase
    restarts: int
    recent: int
    timeouts: int
    kills: int
    downs: int
    down_until: float | None
    faults: int
