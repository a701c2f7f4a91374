"""The time by which things get old, which goes on while the machine is suspended.

Event loops count on a clock that stands still in suspend (``CLOCK_MONOTONIC`` of Linux,
``mach_absolute_time`` of macOS). That is right for deadlines and for delays: a laptop that was
closed for a night has not let anybody wait. It is wrong for what was true when the lid was shut:
a decision, a list, an idle connection. Those are measured by :func:`lasting_time`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

import anyio
from attrs import define, field

__all__ = ["Suspensions", "lasting_time", "suspended_s"]

#: Two clocks are never read at the same moment; a shorter suspension is not worth a difference.
NOTICED_S: Final = 1.0


def _apart_s() -> float:
    """How far a clock that goes on in suspend is from the one of event loops."""
    goes_on = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    stands_still = time.CLOCK_MONOTONIC
    if goes_on is None:  # on macOS these are their names; elsewhere nothing is known
        goes_on = time.CLOCK_MONOTONIC
        stands_still = getattr(time, "CLOCK_UPTIME_RAW", goes_on)
    return time.clock_gettime(goes_on) - time.clock_gettime(stands_still)


@final
@define(eq=False)
class Suspensions:
    """Counts the seconds for which this machine was suspended, since this was made.

    :param apart_s: reads how far the two clocks are apart; that grows by each suspension.
    """

    apart_s: Callable[[], float] = _apart_s
    _at_first_s: float = field(init=False)
    _total_s: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._at_first_s = self.apart_s()

    def total_s(self) -> float:
        """All of them; never less than before."""
        total_s = self.apart_s() - self._at_first_s
        if total_s - self._total_s >= NOTICED_S:
            self._total_s = total_s
        return self._total_s


#: A machine has one clock, so this is the process's own.
machine: Suspensions = Suspensions()


def suspended_s() -> float:
    """Seconds for which this machine was suspended since this was imported."""
    return machine.total_s()


def lasting_time() -> float:
    """``anyio.current_time()``, and the time in suspend: for what gets old, never for deadlines."""
    return anyio.current_time() + machine.total_s()
