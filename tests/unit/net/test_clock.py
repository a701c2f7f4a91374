from __future__ import annotations

import time

import pytest

from sark_trio.net import clock
from sark_trio.net.clock import Suspensions


def test_only_what_comes_after_it_was_made_counts() -> None:
    apart = [3_600.0]
    slept = Suspensions(lambda: apart[0])
    assert slept.total_s() == 0.0
    apart[0] += 28_800.0
    assert slept.total_s() == 28_800.0
    apart[0] += 60.0
    assert slept.total_s() == 28_860.0


def test_two_clocks_that_are_read_one_after_the_other_are_never_quite_alike() -> None:
    apart = [0.0]
    slept = Suspensions(lambda: apart[0])
    for apart[0] in (1e-6, -1e-6, 0.5, 0.999, 0.0):
        assert slept.total_s() == 0.0
    apart[0] = 1.0
    assert slept.total_s() == 1.0
    for apart[0] in (1.4, 0.999, 0.0, -5.0):
        assert slept.total_s() == 1.0


@pytest.mark.parametrize(
    ("clocks", "apart_s"),
    [
        ({"CLOCK_MONOTONIC": 100.0, "CLOCK_BOOTTIME": 107.0}, 7.0),  # Linux
        ({"CLOCK_MONOTONIC": 107.0, "CLOCK_UPTIME_RAW": 100.0}, 7.0),  # macOS
        ({"CLOCK_MONOTONIC": 100.0}, 0.0),
    ],
)
def test_the_clocks_of_each_system(
    monkeypatch: pytest.MonkeyPatch, clocks: dict[str, float], apart_s: float
) -> None:
    for name in ("CLOCK_BOOTTIME", "CLOCK_UPTIME_RAW"):
        monkeypatch.delattr(time, name, raising=False)
    for name in clocks:
        monkeypatch.setattr(time, name, name, raising=False)
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    read = clock._apart_s()
    monkeypatch.undo()
    assert read == apart_s
