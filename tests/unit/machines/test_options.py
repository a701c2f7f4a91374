"""Every option of every machine: its default, and the first and last value that are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from attrs import fields_dict, frozen

from sark_trio.machines.adaptive import AdaptiveConcurrency
from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.breakers import BreakerRegistry
from sark_trio.machines.budget import BudgetOptions
from sark_trio.machines.caching import CacheOptions
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.correlate import Correlator
from sark_trio.machines.limiter import ConcurrencyLimiter, RateLimiter, RateOptions
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.lines import LineSplitter
from sark_trio.machines.slots import PoolOptions
from sark_trio.machines.sse import SSEParser
from sark_trio.machines.streams import ReconnectOptions
from sark_trio.machines.supervision import SuperviseOptions
from sark_trio.machines.window import RateRule

DAY_S = 86_400
GIB = 2**30


@frozen
class Option:
    """One option: *beside* are others that have to be different for its extremes to make sense."""

    kind: Callable[..., Any]
    name: str
    default: float | None
    low: float
    high: float
    beside: Mapping[str, Any] = MappingProxyType({})

    def make(self, value: float) -> Any:
        return getattr(self.kind(**{**self.beside, self.name: value}), self.name)


OPTIONS = [
    Option(RateRule, "calls", 100, 1, 10_000, {"window": "time"}),
    Option(RateRule, "buckets", 10, 1, 600),
    Option(RateRule, "bucket_s", 1.0, 0.001, 3_600.0),
    Option(RateRule, "min_calls", 20, 1, 10_000, {"window": "time"}),
    Option(RateRule, "failure_percent", 50, 1, 100),
    Option(RateRule, "slow_percent", 100, 1, 100),
    Option(RateRule, "slow_s", 10.0, 0.001, 3_600.0),
    Option(BreakerOptions, "failures", 5, 1, 10_000),
    Option(BreakerOptions, "open_s", 30.0, 0.001, float(DAY_S), {"open_max_s": DAY_S}),
    Option(BreakerOptions, "probes", 3, 1, 1_000),
    Option(BreakerOptions, "successes", 2, 1, 1_000),
    Option(BreakerOptions, "probe_max_age_s", 60.0, 0.001, float(DAY_S)),
    Option(BreakerOptions, "open_multiplier", 1.0, 1.0, 100.0),
    Option(BreakerOptions, "open_max_s", 300.0, 0.001, float(DAY_S), {"open_s": 0.001}),
    Option(BudgetOptions, "start", 10_000, 0, 10**12, {"cap": 10**12}),
    Option(BudgetOptions, "cap", 100_000, 0, 10**12, {"start": 0, "idle_max": 0}),
    Option(BudgetOptions, "per_first", 200, 0, 10**12),
    Option(BudgetOptions, "per_second", 1_000, 0, 10**12),
    Option(BudgetOptions, "idle_max", 10_000, 0, 10**12, {"cap": 10**12}),
    Option(BudgetOptions, "per_retry", 1_000, 1, 10**12),
    Option(RetryConfig, "attempts", 3, 1, 100),
    Option(RetryConfig, "initial_delay_s", 1.0, 0.001, 3_600.0),
    Option(RetryConfig, "multiplier", 2.0, 1.0, 100.0),
    Option(RetryConfig, "max_delay_s", 30.0, 0.001, 3_600.0),
    Option(RetryConfig, "jitter", 0.25, 0.0, 1.0),
    Option(PoolOptions, "total", 50, 1, 1_000_000),
    Option(PoolOptions, "per_origin", 10, 1, 1_000_000),
    Option(PoolOptions, "idle_max", 20, 0, 1_000_000),
    Option(PoolOptions, "idle_s", 30.0, 0.001, float(DAY_S)),
    Option(PoolOptions, "waiters_max", 10_000, 1, 1_000_000),
    Option(PoolOptions, "age_max_s", 3_600.0, 0.001, float(DAY_S)),
    Option(PoolOptions, "streams_max", 20, 0, 1_000_000),
    Option(PoolOptions, "grace_s", 5.0, 0.001, float(DAY_S)),
    Option(CacheOptions, "entries_max", 1_024, 0, 1_000_000),
    Option(CacheOptions, "bytes_max", 64 * 2**20, 0, 2**40),
    Option(CacheOptions, "waiters_max", 10_000, 1, 1_000_000),
    Option(CacheOptions, "stale_s", 300.0, 0.0, 300.0),
    Option(CacheOptions, "early", 0.1, 0.0, 0.5),
    Option(ReconnectOptions, "reconnects_max", 5, 0, 1_000),
    Option(ReconnectOptions, "idle_s", 60.0, 0.001, float(DAY_S)),
    Option(SuperviseOptions, "restarts_max", 5, 0, 1_000),
    Option(SuperviseOptions, "window_s", 30.0, 0.001, float(DAY_S), {"cool_off_s": DAY_S}),
    Option(SuperviseOptions, "cool_off_s", 300.0, 0.001, float(DAY_S), {"window_s": 0.001}),
    Option(SuperviseOptions, "timeouts_max", 3, 1, 1_000),
    Option(SuperviseOptions, "probe_s", 10.0, 0.001, 3_600.0),
    Option(ResourceLimits, "address_space_bytes_max", None, 1, 2**63 - 1),
    Option(ResourceLimits, "open_files_max", 1_024, 1, 2**31 - 1),
    Option(ResourceLimits, "processes_max", None, 1, 2**31 - 1),
    Option(ResourceLimits, "rss_bytes_max", GIB, 1, 2**63 - 1),
    Option(ResourceLimits, "cpu_percent_max", None, 1.0, 1_000_000.0),
    Option(ResourceLimits, "cpu_window_s", 10.0, 0.1, 3_600.0),
    Option(ResourceLimits, "interval_s", 1.0, 0.01, 3_600.0),
    Option(AdaptiveConcurrency, "limit_min", 1, 1, 100_000, {"limit_max": 100_000}),
    Option(AdaptiveConcurrency, "limit_max", 100, 1, 100_000),
    Option(AdaptiveConcurrency, "limit_start", 10, 1, 100_000),
    Option(AdaptiveConcurrency, "keep_percent", 70, 1, 95),
    Option(AdaptiveConcurrency, "slow_ratio", 2.0, 1.1, 1_000.0),
    Option(AdaptiveConcurrency, "waiters_max", 1_000, 0, 100_000),
    Option(AdaptiveConcurrency, "wait_s", 5.0, 0.001, 300.0),
    Option(RateOptions, "per_s", 100.0, 0.001, 1_000_000.0),
    Option(RateOptions, "burst", 1_000, 1, 1_000_000),
    Option(RateLimiter, "keys_max", 10_000, 1, 1_000_000),
    Option(BreakerRegistry, "breakers_max", 4_096, 1, 4_096),
    Option(Correlator, "pending_max", 10_000, 1, 1_000_000),
    Option(LineSplitter, "line_bytes_max", 4 * 2**20, 1, GIB),
    Option(SSEParser, "line_bytes_max", 2**20, 1, GIB),
    Option(SSEParser, "event_bytes_max", 2**20, 1, GIB),
    Option(SSEParser, "id_bytes_max", 1_024, 1, GIB),
]
EVERY = pytest.mark.parametrize("option", OPTIONS, ids=lambda o: f"{o.kind.__name__}.{o.name}")


@EVERY
def test_the_default_is_the_documented_one(option: Option) -> None:
    assert getattr(option.kind(), option.name) == option.default


@EVERY
def test_both_bounds_are_taken_and_nothing_beyond_them(option: Option) -> None:
    assert (option.make(option.low), option.make(option.high)) == (option.low, option.high)
    if isinstance(option.low, int):
        outside: tuple[float, float] = option.low - 1, option.high + 1
    else:
        outside = math.nextafter(option.low, -math.inf), math.nextafter(option.high, math.inf)
    for value in outside:
        with pytest.raises(ValueError, match=f"{option.name} must be from"):
            option.make(value)


def test_the_limit_of_a_concurrency_limiter_has_to_be_said() -> None:
    limits = [ConcurrencyLimiter(1).limit, ConcurrencyLimiter(10**6).limit]
    assert limits == [1, 10**6]
    for limit in (0, 10**6 + 1):
        with pytest.raises(ValueError, match="limit must be from 1 to 1000000"):
            ConcurrencyLimiter(limit)


@pytest.mark.parametrize("kind", sorted({option.kind for option in OPTIONS}, key=repr))
def test_every_number_among_the_options_is_in_the_table(kind: Any) -> None:
    listed = {option.name for option in OPTIONS if option.kind is kind}
    numbers = {
        name
        for name, each in fields_dict(kind).items()
        if each.init and str(each.type).partition(" ")[0] in {"int", "float"}
    }
    assert numbers == listed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BreakerOptions(open_s=301), r"open_s \(301\) is more than open_max_s"),
        (lambda: BudgetOptions(start=100_001), r"start \(100001\) is more than cap"),
        (lambda: BudgetOptions(idle_max=100_001), r"idle_max \(100001\) is more than cap"),
        (lambda: RateRule(calls=10, min_calls=11), r"min_calls \(11\) is more than a window of 10"),
        (lambda: SuperviseOptions(cool_off_s=29), "cool_off_s must be window_s or more, not 29"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_options_may_be_equal_where_one_bounds_the_other() -> None:
    assert BreakerOptions(open_s=300).open_s == 300
    assert BudgetOptions(start=100_000, idle_max=100_000).cap == 100_000
    assert RateRule(calls=10, min_calls=10).min_calls == 10
    assert SuperviseOptions(cool_off_s=30).window_s == 30
    # What a window of time holds is not known beforehand.
    assert RateRule(window="time", calls=10, min_calls=11).min_calls == 11
