"""Deadlines, by example."""

from __future__ import annotations

from math import inf, nan

import pytest

from sark_trio.machines.deadline import TIME_S_MAX, Deadline, seconds_until


def test_a_deadline_is_a_moment() -> None:
    deadline = Deadline.after(10.0, 30.0)
    assert deadline == Deadline(40.0)
    assert (deadline.remaining(15.0), deadline.remaining(50.0)) == (25.0, 0.0)
    assert not deadline.expired(39.9)
    assert deadline.expired(40.0)
    assert deadline.split(10.0, 2) == Deadline(25.0)
    assert deadline.split(10.0, 3) == Deadline(20.0)
    assert deadline.split(10.0, 1) is deadline
    assert deadline.split(50.0, 3) is deadline
    assert Deadline(3.4).split(0.8, 1) == Deadline(3.4)  # though 0.8 + (3.4 - 0.8) is less


def test_a_timeout_of_zero_has_passed_already() -> None:
    assert Deadline.after(10.0, 0.0).expired(10.0)


def test_no_deadline_is_infinite() -> None:
    assert Deadline() == Deadline(inf)
    assert Deadline().split(0.0, 3) == Deadline()
    assert not Deadline().expired(1e300)


def test_what_is_no_number_is_no_deadline() -> None:
    with pytest.raises(ValueError, match="at is not a number"):
        Deadline(nan)


def test_the_largest_time_is_beyond_every_clock_and_keeps_milliseconds_apart() -> None:
    years = TIME_S_MAX / (365.25 * 86_400)
    assert 34_000 < years < 35_000
    assert TIME_S_MAX + 0.001 > TIME_S_MAX


def test_waiting_for_the_past_takes_no_time() -> None:
    assert seconds_until(10.0, 5.0) == seconds_until(5.0, 5.0) == 0.0
    assert seconds_until(5.0, 7.5) == 2.5
    now, at = 0.8, 3.4
    assert now + (at - now) < at  # the plain difference is an instant short
    assert now + seconds_until(now, at) >= at
