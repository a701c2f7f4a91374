"""The schedule's options."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.backoff import RetryConfig, backoff


def test_the_names_of_the_original_system_are_readable() -> None:
    config = RetryConfig(attempts=4, initial_delay_s=0.5, max_delay_s=8.0)
    assert (config.max_attempts, config.initial_delay, config.max_delay) == (4, 0.5, 8.0)
    defaults = RetryConfig()
    assert (defaults.max_attempts, defaults.initial_delay, defaults.max_delay) == (3, 1.0, 30.0)
    assert (defaults.multiplier, defaults.jitter) == (2.0, 0.25)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": 1.0}, TypeError),
        ({"initial_delay_s": 0}, ValueError),
        ({"multiplier": 0.5}, ValueError),
        ({"max_delay_s": float("inf")}, ValueError),
        ({"jitter": 1.1}, ValueError),
        ({"throttled_means_not_executed": "yes"}, TypeError),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        RetryConfig(**options)


def test_what_no_float_can_hold_is_the_cap() -> None:
    assert backoff(RetryConfig(jitter=0.0), 1_000_000, 0.5) == 30.0


@pytest.mark.fault(12)
def test_jitter_does_not_exceed_the_cap() -> None:
    config = RetryConfig()
    delays = [backoff(config, 10, n / 1_000) for n in range(1_000)]
    assert min(delays) == 22.5
    assert max(delays) < 30.0
    assert len(set(delays)) == len(delays)  # and does not pile up on it
