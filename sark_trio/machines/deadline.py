"""Absolute deadlines. A timeout starts anew wherever it is handed on; a deadline does not."""

from __future__ import annotations

from math import inf, nextafter
from typing import Final, Self, final

from attrs import Attribute, field, frozen

__all__ = ["TIME_S_MAX", "Deadline", "seconds_until"]

#: 35,000 years. No monotonic clock gets here: a time beyond it (or NaN) is no time, and the
#: machines let it pass by. Below it sums and products are finite and milliseconds are exact.
TIME_S_MAX: Final = 2.0**40


def seconds_until(now: float, at: float) -> float:
    """The shortest wait w ≥ 0 with ``now + w >= at`` in floating point.

    ``at - now`` alone may round to a wait that ends an instant early, and whoever came back
    exactly when told would be turned away again.
    """
    wait = at - now
    if wait <= 0:
        return 0.0
    # Each step adds half an ulp of ``at`` or more, so two are enough.
    while now + wait < at:
        wait = nextafter(wait, inf)
    return wait


@final
@frozen(order=True)
class Deadline:
    """A moment of the monotonic clock after which an answer is of no use.

    :param at: seconds on the clock that ``now`` is read from; ``inf`` is no deadline.
    :raises ValueError: ``at`` is NaN.
    """

    at: float = field(default=inf)

    @at.validator
    def _check(self, attribute: Attribute[float], value: float) -> None:
        if value != value:  # noqa: PLR0124 -- the definition of NaN
            raise ValueError(f"{attribute.name} is not a number")

    @classmethod
    def after(cls, now: float, timeout_s: float) -> Self:
        """*timeout_s* seconds from *now*; zero and less have passed already."""
        return cls(now + timeout_s)

    def remaining(self, now: float) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self.at - now)

    def expired(self, now: float) -> bool:
        """Whether it has passed; the moment itself is too late."""
        return now >= self.at

    def tighten(self, other: Deadline) -> Deadline:
        """The earlier of the two: a part may hurry its whole, never delay it."""
        return other if other.at < self.at else self

    def split(self, now: float, shares: int) -> Deadline:
        """The end of the first of *shares* equal parts of what remains (one share: all of it)."""
        if shares <= 1 or self.at == inf or self.expired(now):
            return self
        return self.tighten(Deadline(now + (self.at - now) / shares))
