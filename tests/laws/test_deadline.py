"""Deadlines are absolute: they can be brought nearer, never pushed away (laws, 2.0; R3, B13)."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.machines import deadline

_times = st.floats(-1e9, 1e9)
_moments = st.one_of(_times, st.just(inf))


@pytest.mark.law("R3")
@given(_moments, _moments, _times)
def test_r03_a_part_never_outlives_its_whole(at: float, other: float, now: float) -> None:
    """Tightening yields the earlier deadline, in either order."""
    one, two = deadline.Deadline(at), deadline.Deadline(other)
    assert one.tighten(two).at == two.tighten(one).at == min(at, other)
    assert one.tighten(two).remaining(now) <= min(one.remaining(now), two.remaining(now))


@pytest.mark.law("R3")
@given(_moments, _times, st.integers(-1, 100))
def test_r03_shares_end_within_the_whole(at: float, now: float, shares: int) -> None:
    """A share of what remains ends no later than the whole, and none of nothing is left."""
    whole = deadline.Deadline(at)
    share = whole.split(now, shares)
    assert share <= whole
    assert share.expired(now) <= (whole.expired(now) or at - now < 1e-6)
    if shares > 1 and at < inf and not whole.expired(now):
        assert share.remaining(now) == pytest.approx((at - now) / shares, abs=1e-6)


@pytest.mark.law("R3")
@given(_moments, _times)
def test_r03_expired_is_having_nothing_left(at: float, now: float) -> None:
    """``remaining`` is never negative, and zero exactly when the deadline has passed."""
    one = deadline.Deadline(at)
    assert one.remaining(now) >= 0
    assert (one.remaining(now) == 0) is one.expired(now)


@pytest.mark.law("B13")
@given(_times, _times)
def test_b13_a_wait_ends_no_instant_early(now: float, at: float) -> None:
    """After ``seconds_until`` it is time, whatever rounding did; and not much later."""
    wait_s = deadline.seconds_until(now, at)
    assert wait_s >= 0
    assert now + wait_s >= at
    assert wait_s <= max(0.0, at - now) + 1e-6
