"""Every reachable state of small machines: no sampling. The searches are those of tests/laws."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sark_trio.machines import adaptive as adaptive_machine
from sark_trio.machines.adaptive import AdaptiveConcurrency
from tests.laws import test_adaptive, test_breaker_exhaustive, test_pool, test_supervise_exhaustive

__all__ = ["SEARCHES"]


def adaptive() -> str:
    options = AdaptiveConcurrency(
        limit_max=3, limit_start=2, keep_percent=50, slow_ratio=1.5, waiters_max=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive_machine, "ROUND_MIN", 2)
        states, steps = test_adaptive.explore(options, times=(0.0, 1.0, 2.0))
    return f"{states:,} states, {steps:,} steps"


def breaker() -> str:
    test_breaker_exhaustive.test_b20_every_reachable_state_obeys()
    return "126 states, each event in each of them"


def pool() -> str:
    for per_origin in (1, 2):
        for streams in (False, True):
            test_pool.test_p10_every_reachable_state_of_a_small_pool_agrees(
                per_origin, streams, 1_000
            )
    return "more than 4,000 states of each of two pools, without streams and with"


def supervise() -> str:
    states, steps = test_supervise_exhaustive.explore(1)
    return f"{states:,} states, {steps:,} steps, with requests to the processes"


SEARCHES: dict[str, Callable[[], str]] = {
    search.__name__: search for search in (adaptive, breaker, pool, supervise)
}
