"""The breaker's options and its table."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.breaker import Admit, Breaker
from sark_trio.machines.circuit import TRANSITIONS, BreakerOptions, CircuitState, Permit
from sark_trio.machines.window import RateRule


def test_defaults_are_the_documented_ones() -> None:
    options = BreakerOptions()
    assert (options.failures, options.open_s, options.probes, options.successes) == (5, 30, 3, 2)
    assert (options.probe_max_age_s, options.open_multiplier, options.open_max_s) == (60, 1, 300)
    assert options.rate is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failures": 0}, ValueError, "failures must be from 1"),
        ({"failures": 2.5}, TypeError, "failures must be a whole number, not 2.5"),
        ({"probes": True}, TypeError, "probes must be a number, not True"),
        ({"open_s": "30"}, TypeError, "open_s must be a number, not '30'"),
        ({"open_s": float("nan")}, ValueError, "open_s must be from"),
        ({"probe_max_age_s": float("inf")}, ValueError, "probe_max_age_s must be from"),
        ({"open_multiplier": 0.5}, ValueError, "open_multiplier must be from 1"),
        ({"open_s": 301}, ValueError, "open_s .301. is more than open_max_s .300"),
        ({"rate": 0.5}, TypeError, "rate"),
        ({"rate": {"calls": 0}}, ValueError, "calls must be from 1"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        BreakerOptions(**options)


def test_a_breaker_without_a_name_hands_out_permits_without_one() -> None:
    assert Breaker().acquire(0.0) == Admit(Permit(0, 1, False, 0.0))


def test_a_rate_rule_may_come_as_a_table() -> None:
    from_file: Any = {"window": "time", "min_calls": 3}
    assert BreakerOptions(rate=from_file).rate == RateRule(window="time", min_calls=3)


def test_the_table_names_a_target_for_each_source_and_reason() -> None:
    assert len({(edge.source, edge.why) for edge in TRANSITIONS}) == len(TRANSITIONS)
    assert {edge.source for edge in TRANSITIONS} == set(CircuitState)
