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
