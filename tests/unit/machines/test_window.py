"""Windows and the rate rule, by example."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.window import Counts, CountWindow, RateRule, TimeWindow


def test_a_full_count_window_forgets_the_oldest() -> None:
    window = CountWindow(2)
    for failed, slow in ((True, True), (False, True), (False, False)):
        window.record(0.0, failed=failed, slow=slow)
    assert window.counts(1e9) == Counts(2, 0, 1)
    assert window.snapshot() == {"calls": "20"}
    copy = CountWindow(2)
    copy.restore(window.snapshot())
    copy.record(0.0, failed=True, slow=False)
    assert copy.counts(0.0) == Counts(2, 1, 0)
    copy.restore({"calls": "0"})
    assert copy.counts(0.0) == Counts(1, 0, 0)


def test_a_cleared_count_window_holds_nothing() -> None:
    window = CountWindow(2)
    window.record(0.0, failed=True, slow=True)
    window.clear()
    assert window.counts(0.0) == Counts()


def test_a_time_window_forgets_whole_spans() -> None:
    window = TimeWindow(2, 1.0)
    window.record(10.5, failed=True, slow=False)
    window.record(11.5, failed=False, slow=True)
    assert window.counts(12.4) == Counts(2, 1, 1)
    assert window.counts(12.5) == Counts(1, 0, 1)
    window.record(13.5, failed=False, slow=False)
    assert window.snapshot() == {"origin": 10.5, "spans": [[3, 1, 0, 0]]}
    copy = TimeWindow(2, 1.0)
    copy.restore(window.snapshot())
    assert copy.counts(13.5) == Counts(1, 0, 0)
    window.clear()
    assert window.counts(13.5) == Counts()


def test_a_time_that_is_no_time_counts_as_the_latest() -> None:
    window = TimeWindow(2, 1.0)
    for now in (5.0, 6.0, 2.0**40, float("inf"), float("nan"), -1.0):
        window.record(now, failed=False, slow=False)
    assert window.snapshot()["spans"] == [[0, 1, 0, 0], [1, 5, 0, 0]]
    assert window.counts(float("nan")) == Counts(6, 0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"window": "other"},
        {"calls": 10, "min_calls": 11},
        {"failure_percent": 101},
        {"bucket_s": 0},
        {"slow_s": 0},
    ],
)
def test_bad_rules_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RateRule(**options)


def test_slowness_can_be_left_out() -> None:
    rule = RateRule(slow_s=None, min_calls=1)
    assert not rule.is_slow(1e9)
    assert not rule.slowing(Counts(10, 0, 10))
    assert RateRule().is_slow(10.0)
    assert not RateRule().is_slow(9.9)
