"""The retry budget, naively: exact fractions of a token, and the law itself over all intervals."""

from __future__ import annotations

from fractions import Fraction

from attrs import define, field, frozen

from sark_trio.machines.budget import BudgetOptions


@frozen
class Entry:
    """Something that was booked."""

    at: Fraction
    first: bool = False
    retry: bool = False


@define
class BudgetBook:
    """All that was booked, in order."""

    entries: list[Entry] = field(factory=list)

    def overdrawn(self, options: BudgetOptions) -> tuple[Entry, Entry] | None:
        """An interval with more retries than the law allows, if there is one.

        retries <= (cap + per_first * firsts + per_second * seconds) / per_retry
        """
        for start, begin in enumerate(self.entries):
            spent = earned = 0
            for end in self.entries[start:]:
                spent += options.per_retry * end.retry
                earned += options.per_first * end.first
                seconds = end.at - begin.at
                if spent > options.cap + earned + options.per_second * seconds:
                    return begin, end
        return None


@define
class Account:
    """A balance in exact fractions of a millitoken; what is full keeps no fraction."""

    options: BudgetOptions
    held: Fraction = field(init=False)
    now: Fraction | None = None

    def __attrs_post_init__(self) -> None:
        self.held = Fraction(self.options.start)

    def _advance(self, now: Fraction) -> None:
        since = now if self.now is None else self.now
        self.now = max(now, since)
        full = Fraction(self.options.idle_max)
        if self.held < full:
            self.held = min(full, self.held + self.options.per_second * (self.now - since))
        if self.held >= full:
            self.held = Fraction(int(self.held))

    def on_first(self, now: Fraction) -> None:
        self._advance(now)
        self.held = min(self.held + self.options.per_first, Fraction(self.options.cap))

    def take(self, now: Fraction) -> bool:
        """Pay for a retry, if there is enough."""
        self._advance(now)
        if int(self.held) < self.options.per_retry:
            return False
        self.held -= self.options.per_retry
        return True
