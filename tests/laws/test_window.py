"""Law B14: what a window holds, and when its rates are too high."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines import window
from sark_trio.machines.window import Counts, RateRule
from tests.models.breaker import RULES, Call, recount
from tests.support.traces import traces


@pytest.mark.law("B14")
@given(
    st.sampled_from([rule for rule in RULES if rule is not None]),
    traces(st.tuples(st.integers(-64, 4096), st.booleans(), st.booleans()), most=80),
)
def test_b14_the_window_is_a_recount(rule: RateRule, calls: list[tuple[int, bool, bool]]) -> None:
    """A window holds what a recount of all calls finds, in memory that does not grow with them."""
    machine, seen, now, latest = window.window_for(rule), [], 0.0, 0.0
    for step, failed, slow in calls:
        now = max(0.0, now + step / 1024)
        latest = max(latest, now)
        machine.record(now, failed=failed, slow=slow)
        seen.append(Call(failed, slow, latest))
        assert machine.counts(now) == recount(rule, seen, latest)
        held = machine.snapshot()
        assert len(held.get("calls", "")) <= rule.calls
        assert len(held.get("spans", ())) <= rule.buckets
        copy = window.window_for(rule)
        copy.restore(held)
        assert (copy.counts(now), copy.snapshot()) == (machine.counts(now), held)
    for wait_s in (0.5, 1.0, 16.0, 1e6):
        assert machine.counts(latest + wait_s) == recount(rule, seen, latest + wait_s)
    machine.clear()
    assert machine.counts(latest).calls == 0


@pytest.mark.law("B14")
@given(st.integers(1, 100), st.integers(0, 10_000), st.integers(0, 10_000))
def test_b14_rates_are_compared_as_integers(percent: int, failures: int, others: int) -> None:
    """A rate meets its threshold exactly when the cross product says so, at any size."""
    rule = RateRule(failure_percent=percent, slow_percent=percent, min_calls=1, slow_s=1.0)
    counts = Counts(failures + others, failures, failures)
    expected = counts.calls >= 1 and not 100 * failures < percent * (failures + others)
    assert rule.failing(counts) is expected
    assert rule.slowing(counts) is expected


@pytest.mark.law("B14")
@given(st.integers(1, 100), st.integers(2, 100))
def test_b14_a_rate_that_is_met_exactly_is_met(percent: int, hundreds: int) -> None:
    """So many percent are enough, and one call less is not."""
    rule = RateRule(failure_percent=percent, slow_percent=percent, min_calls=1, slow_s=1.0)
    calls, enough = 100 * hundreds, percent * hundreds
    for bad, met in ((enough, True), (enough - 1, False)):
        assert rule.failing(Counts(calls, bad, 0)) is met
        assert rule.slowing(Counts(calls, 0, bad)) is met


@pytest.mark.law("B15")
@given(st.integers(1, 100))
def test_b15_the_rule_speaks_from_the_first_call_that_is_enough(min_calls: int) -> None:
    """With ``min_calls`` calls a rate counts, and with one less it does not."""
    rule = RateRule(min_calls=min_calls, slow_s=1.0)
    for calls, heard in ((min_calls, True), (min_calls - 1, False)):
        assert rule.failing(Counts(calls, calls, 0)) is heard
        assert rule.slowing(Counts(calls, 0, calls)) is heard


@pytest.mark.law("B14")
@given(st.floats(0.001, 3_600.0), st.floats(0.0, 1e6), st.floats(0.0, 1e6))
@example(0.1, 0.0, 1.0)  # 1.0 / 0.1 is 10, and ten times 0.1 is a little more than 1.0
def test_b14_a_span_is_exact(bucket_s: float, origin: float, wait_s: float) -> None:
    """A call is counted in the span it falls into, whatever division rounds to."""
    machine, now = window.TimeWindow(1, bucket_s), origin + wait_s
    machine.record(origin, failed=False, slow=False)
    machine.record(now, failed=False, slow=False)
    number = Fraction(now - origin) // Fraction(bucket_s)
    assert machine.snapshot()["spans"][-1][0] == number
