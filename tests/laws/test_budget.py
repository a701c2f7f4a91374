"""Laws R5, R6 and R10 of the retry budget."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import ConnectError
from sark_trio.machines import budget
from sark_trio.machines.budget import BudgetOptions
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import RetryConfig, RetryMachine, Safety, Wait, classify
from tests.models.budget import BudgetBook, Entry
from tests.support.traces import traces

_options = st.one_of(
    st.just(BudgetOptions()),
    st.builds(
        BudgetOptions,
        start=st.integers(0, 2_000),
        cap=st.integers(2_000, 4_000),
        per_first=st.integers(0, 700),
        per_second=st.integers(0, 3_000),
        idle_max=st.integers(0, 2_000),
    ),
)
#: Milliseconds, thousandths of them, and jumps; exact as fractions of 2**-20.
_dts = st.one_of(st.just(0), st.integers(0, 4_000), st.integers(-(2**20), 2**23))
_events = traces(st.tuples(_dts, st.booleans(), st.integers(1, 12)), most=20)


def make(options: BudgetOptions) -> Any:
    return budget.RetryBudget(options)


@pytest.mark.law("R5")
@given(_options, _events)
def test_r05_retries_are_bounded_over_every_interval(
    options: BudgetOptions, events: list[tuple[int, bool, int]]
) -> None:
    """Over any interval, retries <= cap + 0.2 per first attempt + 1 per second."""
    account, book, ticks, latest = make(options), BudgetBook(), 2**20, 0
    for step, first, times in events:
        ticks = max(0, ticks + step)
        latest = max(latest, ticks)
        for _ in range(times):
            if first:
                account.on_first(ticks / 2**20)
            taken = not first and account.take(ticks / 2**20)
            book.entries.append(Entry(Fraction(latest, 2**20), first=first, retry=taken))
            account.check_invariants()
    assert book.overdrawn(options) is None


@pytest.mark.law("R5")
@given(_options, _events)
def test_r05_nothing_earned_is_lost(
    options: BudgetOptions, events: list[tuple[int, bool, int]]
) -> None:
    """Income does not depend on how often one looks: many small steps earn what one step does."""
    often, once, ticks = make(options), make(options), 2**20
    for account in (often, once):
        account.take(1.0)
    for step, _, _ in events:
        ticks = max(ticks, ticks + step)
        if often.balance(ticks / 2**20) < options.per_retry:
            assert not often.take(ticks / 2**20)
    assert often.balance(ticks / 2**20) == once.balance(ticks / 2**20)


@pytest.mark.law("R6")
def test_r06_a_total_outage_is_amplified_by_a_fifth() -> None:
    """100 calls a second, all failing for 5 minutes without a breaker: at most 1.22 are sent."""
    account = make(BudgetOptions())
    config = RetryConfig(initial_delay_s=0.01, max_delay_s=0.01)
    failure = classify(ConnectError("refused"))
    offered = sent = 0
    due: list[tuple[float, RetryMachine]] = []
    for tick in range(5 * 60 * 100):
        now = tick / 100
        offered += 1
        account.on_first(now)
        attempts = [*due, (now, RetryMachine(config, Safety.SAFE, Deadline.after(now, 30.0)))]
        due = []
        for _, call in attempts:
            sent += 1
            step = call.on_failure(now, failure, 0.5, account)
            if isinstance(step, Wait):
                due.append((now + step.seconds, call))
    assert offered == 30_000
    assert sent / offered <= 1.2 + 1 / 100 + 10 / offered
    # The budget is used, too: a refusal to retry at all would also be below the limit.
    assert sent / offered >= 1.2
    assert account.statistics().retries == sent - offered


@pytest.mark.law("R10")
@given(_options, _events)
def test_r10_a_refusal_costs_nothing(
    options: BudgetOptions, events: list[tuple[int, bool, int]]
) -> None:
    """A refused retry leaves the balance as it was; a paid one costs its price."""
    account, now = make(options), 1.0
    for step, first, times in events:
        now = max(0.0, now + step / 2**20)
        for _ in range(times):
            before = account.balance(now)
            assert before == account.balance(now)
            if first:
                account.on_first(now)
                assert account.balance(now) == min(before + options.per_first, options.cap)
            else:
                price = options.per_retry if account.take(now) else 0
                assert account.balance(now) == before - price
                assert (price > 0) is (before >= options.per_retry)
