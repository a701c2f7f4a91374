"""The clock of a simulated world: it stands still while anybody works, and jumps when all wait.

As trio's ``MockClock`` with ``autojump_threshold=0``, at half of its cost: there is no input or
output that the event loop would have to look at before it may jump.
"""

from __future__ import annotations

import math

import trio.abc
from attrs import define

__all__ = ["Stuck", "VirtualClock"]


#: Looks of the event loop at its own wake-ups, which need no time, before it is taken to be stuck.
LOOKS_MAX = 1_000


class Stuck(AssertionError):
    """Everybody waits, and nothing will ever happen."""


@define(eq=False)
class VirtualClock(trio.abc.Clock):
    """Seconds since the world began."""

    now: float = 0.0
    #: For how long the machine was suspended: seconds that ``now`` does not count.
    suspended_s: float = 0.0
    #: When it last leapt, one way or the other.
    leapt_at: float = -math.inf
    _looks: int = 0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """The virtual time."""
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked when no task can run: be at *deadline* at once.

        :raises Stuck: there is none.
        """
        if deadline < math.inf:
            self.now, self._looks = max(self.now, deadline), 0
            return 0.0
        self._looks += 1
        if self._looks > LOOKS_MAX:
            raise Stuck("everybody waits for ever")
        return 0.0

    @property
    def lasting(self) -> float:
        """The time by which things get old."""
        return self.now + self.suspended_s

    def jump(self, seconds: float) -> None:
        """Be later, without anybody's having waited."""
        self.now += seconds
        self.leapt_at = self.now

    def suspend(self, seconds: float) -> None:
        """Close the lid: the world goes on, and no deadline comes nearer."""
        self.suspended_s += seconds
        self.leapt_at = self.now
