"""Resource limits: which can be, and when one is exceeded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.machines.limits import Exceeded, LimitWatch, ResourceLimits, Usage

_steps = st.tuples(st.integers(0, 128), st.integers(0, 64))
UNLIMITED = {"open_files_max": None, "rss_bytes_max": None}


def test_the_defaults_bound_what_can_be_bounded_for_everybody() -> None:
    limits = ResourceLimits()
    assert (limits.rss_bytes_max, limits.open_files_max) == (2**30, 1024)
    assert limits.address_space_bytes_max is limits.processes_max is limits.cpu_percent_max is None
    assert limits.watched
    assert ResourceLimits(rss_bytes_max=None, cpu_percent_max=80).watched
    assert not ResourceLimits(rss_bytes_max=None).watched


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"open_files_max": 0}, ValueError),
        ({"rss_bytes_max": 1e9}, TypeError),
        ({"address_space_bytes_max": True}, TypeError),
        ({"cpu_percent_max": 0.5}, ValueError),
        ({"cpu_window_s": 0}, ValueError),
        ({"interval_s": float("nan")}, ValueError),
        ({"processes_max": "many"}, TypeError),
    ],
)
def test_bad_limits_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ResourceLimits(**options)


def test_memory_is_judged_at_once() -> None:
    watch = LimitWatch(ResourceLimits(rss_bytes_max=100))
    assert watch.sample(0.0, Usage(100, 0.0)) is None
    assert watch.sample(1.0, Usage(101, 0.0)) == Exceeded("rss_bytes_max", 101, 100)


@pytest.mark.fault(41)
def test_a_start_that_is_busy_is_no_offence_and_a_busy_window_is() -> None:
    watch = LimitWatch(ResourceLimits(rss_bytes_max=None, cpu_percent_max=80, cpu_window_s=10))
    assert [watch.sample(float(t), Usage(0, float(t))) for t in range(10)] == [None] * 10
    assert watch.sample(10.0, Usage(0, 10.0)) == Exceeded("cpu_percent_max", 100.0, 80)
    # From then on it rests, and the window forgets.
    for at in range(11, 30):
        last = watch.sample(float(at), Usage(0, 10.0))
    assert last is None


def test_time_that_went_with_a_child_is_not_given_back() -> None:
    limits = ResourceLimits(rss_bytes_max=None, cpu_percent_max=1, cpu_window_s=1)
    watch = LimitWatch(limits)
    assert watch.sample(0.0, Usage(0, 50.0)) is None
    assert watch.sample(2.0, Usage(0, 10.0)) is None
    assert watch.sample(1.0, Usage(0, 10.0)) is None  # a clock that goes back stands still


@pytest.mark.parametrize("no_time", [2.0**40, float("inf"), float("nan"), -1.0])
def test_what_is_no_time_blinds_no_watch(no_time: float) -> None:
    limits = ResourceLimits(rss_bytes_max=None, cpu_percent_max=80, cpu_window_s=1)
    watch = LimitWatch(limits)
    for now in (5.0, no_time, *range(6, 21)):
        assert watch.sample(now, Usage(0, 50.0)) is None
    watch.check_invariants()
    assert watch.sample(21.0, Usage(0, 51.0)) == Exceeded("cpu_percent_max", 100.0, 80)


def test_what_is_allowed_is_allowed() -> None:
    limits = ResourceLimits(rss_bytes_max=None, cpu_percent_max=80, cpu_window_s=10)
    watch = LimitWatch(limits)
    assert watch.sample(0.0, Usage(0, 0.0)) is watch.sample(10.0, Usage(0, 8.0)) is None


def test_a_window_has_sixty_four_samples() -> None:
    watch = LimitWatch(ResourceLimits(cpu_window_s=64))
    held = []
    for now in (0.0, 0.99, 1.0, 1.99, 2.0):
        watch.sample(now, Usage(0, 0.0))
        held.append(repr(watch))
    assert held == [f"<LimitWatch samples={count}>" for count in (1, 1, 2, 2, 3)]


@given(
    st.one_of(st.lists(_steps, max_size=20), st.lists(_steps, min_size=50, max_size=200)),
    st.integers(1, 200),
)
def test_the_share_is_that_of_the_latest_whole_window(
    steps: list[tuple[int, int]], percent: int
) -> None:
    watch = LimitWatch(ResourceLimits(**UNLIMITED, cpu_percent_max=percent, cpu_window_s=2.0))
    seen: list[tuple[float, float]] = []
    now = used = 0.0
    for wait, work in steps:
        now, used = now + wait / 32, used + work / 32
        got = watch.sample(now, Usage(0, used))
        watch.check_invariants()
        old = [(at, cpu) for at, cpu in seen if at <= now - 2.0]
        if not seen or now - seen[-1][0] >= 2.0 / 64:
            seen.append((now, used))
        if not old:
            assert got is None
            continue
        share = 100 * (used - old[-1][1]) / (now - old[-1][0])
        assert (got is not None) == (share > percent)
    assert repr(watch).startswith("<LimitWatch samples=")
