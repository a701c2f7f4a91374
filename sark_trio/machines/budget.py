"""The retry budget of one origin: what bounds the load that retries add to an outage.

Integer millitokens, so that no sum is ever a rounding error away from a retry. Over any
interval ``retries <= cap + 0.2 * first attempts + 1 * seconds`` (in tokens, with defaults):
under a total outage 100 calls a second become at most 122.
"""

from __future__ import annotations

from typing import Final, final

from attrs import define, field, frozen

from sark_trio.machines.checks import whole
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = ["BudgetOptions", "BudgetStatistics", "RetryBudget"]

#: A billion tokens: beyond any use, and sums stay far from the integers that floats lose.
_MILLITOKENS_MAX: Final = 10**12


@final
@frozen(kw_only=True)
class BudgetOptions:
    """Prices and limits, in millitokens.

    :param start: balance of a new budget.
    :param cap: the balance never exceeds it; it bounds the burst after a long quiet time.
    :param per_first: earned by each first attempt. 200 lets a fifth of the calls be retried.
    :param per_second: earned by each second...
    :param idle_max: ... while the balance is below this: rare calls may be retried, too.
    :param per_retry: price of a retry, replay or hedge.
    :raises ValueError: an option is out of its bounds.
    """

    start: int = field(default=10_000, validator=whole(0, _MILLITOKENS_MAX))
    cap: int = field(default=100_000, validator=whole(0, _MILLITOKENS_MAX))
    per_first: int = field(default=200, validator=whole(0, _MILLITOKENS_MAX))
    per_second: int = field(default=1_000, validator=whole(0, _MILLITOKENS_MAX))
    idle_max: int = field(default=10_000, validator=whole(0, _MILLITOKENS_MAX))
    per_retry: int = field(default=1_000, validator=whole(1, _MILLITOKENS_MAX))

    def __attrs_post_init__(self) -> None:
        for name in ("start", "idle_max"):
            if getattr(self, name) > self.cap:
                raise ValueError(f"{name} ({getattr(self, name)}) is more than cap ({self.cap})")


@final
@frozen(kw_only=True)
class BudgetStatistics:
    """A snapshot of a budget; the balance is in millitokens."""

    balance: int
    first_attempts: int
    retries: int
    refused: int


@final
@define(eq=False, repr=False)
class RetryBudget:
    """The balance of one origin. Nobody waits for a token: there is one, or there is none."""

    options: BudgetOptions = field(factory=BudgetOptions)
    _balance: int = field(init=False)
    _now: float = field(default=0.0, init=False)
    #: Income is counted from here in whole millitokens, so none is lost or made by rounding.
    _since: float | None = field(default=None, init=False)
    _earned: int = field(default=0, init=False)
    _first_attempts: int = field(default=0, init=False)
    _retries: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._balance = self.options.start

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance}/{self.options.cap} millitokens>"

    def on_first(self, now: float) -> None:
        """A call made its first attempt."""
        self._advance(now)
        self._first_attempts += 1
        self._balance = min(self._balance + self.options.per_first, self.options.cap)

    def take(self, now: float) -> bool:
        """Pay for one retry, replay or hedge. A refusal costs nothing."""
        self._advance(now)
        if self._balance < self.options.per_retry:
            self._refused += 1
            return False
        self._balance -= self.options.per_retry
        self._retries += 1
        return True

    def balance(self, now: float) -> int:
        """Millitokens at *now*; asking changes nothing."""
        return self._balance + self._income(self._clamp(now))

    def statistics(self) -> BudgetStatistics:
        """A snapshot of balance and counters."""
        return BudgetStatistics(
            balance=self._balance,
            first_attempts=self._first_attempts,
            retries=self._retries,
            refused=self._refused,
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert 0 <= self._balance <= self.options.cap
        assert self._since is None or self._since <= self._now
        assert self._earned >= 0

    def _clamp(self, now: float) -> float:
        return max(now, self._now) if now < TIME_S_MAX else self._now

    def _income(self, now: float) -> int:
        options = self.options
        if self._since is None or self._balance >= options.idle_max:
            return 0
        total = int((now - self._since) * options.per_second)
        return min(total - self._earned, options.idle_max - self._balance)

    def _advance(self, now: float) -> None:
        self._now = now = self._clamp(now)
        income = self._income(now)
        self._balance += income
        self._earned += income
        if self._since is None or self._balance >= self.options.idle_max:
            # A full account earns nothing, not even the fraction of a millitoken.
            self._since, self._earned = now, 0
