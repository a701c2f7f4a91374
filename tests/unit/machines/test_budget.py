"""The retry budget, by example."""

from __future__ import annotations

import pytest

from sark_trio.machines.budget import BudgetOptions, RetryBudget


def test_prices_with_defaults() -> None:
    budget = RetryBudget()
    assert [budget.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budget.on_first(100.0)
    assert budget.take(100.0)
    assert not budget.take(100.5)
    assert budget.take(101.0)
    assert budget.balance(101.25) == 250
    assert budget.balance(1e6) == 10_000
    stats = budget.statistics()
    assert (stats.first_attempts, stats.retries, stats.refused) == (5, 12, 2)
    assert repr(budget) == "<RetryBudget 0/100000 millitokens>"


def test_a_clock_may_begin_at_zero() -> None:
    budget = RetryBudget(BudgetOptions(start=0))
    budget.on_first(0.0)
    assert budget.balance(0.5) == 200 + 500


def test_time_fills_an_account_up_to_where_it_stops_and_no_further() -> None:
    budget = RetryBudget(BudgetOptions(start=4_000))
    budget.on_first(0.0)
    assert budget.balance(86_400.0) == 10_000


def test_a_full_account_saves_no_time() -> None:
    budget = RetryBudget(BudgetOptions(per_first=0))
    budget.on_first(0.0)
    assert budget.take(5.0)
    assert budget.balance(5.0) == 9_000


def test_first_attempts_save_up_to_the_cap() -> None:
    budget = RetryBudget()
    for _ in range(1_000):
        budget.on_first(0.0)
    assert budget.balance(0.0) == budget.balance(1e6) == 100_000


def test_time_that_is_no_time_earns_nothing() -> None:
    budget = RetryBudget(BudgetOptions(start=0))
    for now in (5.0, float("nan"), float("inf"), 2.0**40, float("-inf"), 1.0, 5.999):
        assert not budget.take(now)
    assert budget.take(6.0)
    budget.check_invariants()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 100_001}, "start .100001. is more than cap"),
        ({"idle_max": 100_001}, "idle_max .100001. is more than cap"),
        ({"per_retry": 0}, "per_retry must be from 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BudgetOptions(**options)
