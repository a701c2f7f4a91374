"""What every machine makes of a ``now``: it goes on, never back, and no clock gets to the largest.

Laws, 2.0: ``t = max(state.t, now)``, and what is no finite time is let pass by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sark_trio.machines.adaptive import AdaptiveLimiter, Signal
from sark_trio.machines.breaker import Admit, Breaker, Mode, Outcome, Reject
from sark_trio.machines.caching import CacheKey, Hit, Lead
from sark_trio.machines.deadline import TIME_S_MAX
from sark_trio.machines.freshness import ResponseCache
from sark_trio.machines.limiter import RateLimiter, RateOptions
from sark_trio.machines.reconnect import End, Reconnector, Wait
from sark_trio.machines.supervise import Probe, Supervisor

NO_TIMES = [TIME_S_MAX, 1e308, float("inf"), float("nan"), 4.0, float("-inf")]
KEY = CacheKey("server", "era", "method", "params", "partition")


def permit(breaker: Breaker, now: float) -> Any:
    answer = breaker.acquire(now)
    assert isinstance(answer, Admit)
    return answer.permit


EVENTS: dict[str, Callable[[Breaker, float], object]] = {
    "acquire": permit,
    "settle": lambda breaker, now: breaker.settle(now, permit(breaker, 5.0), Outcome.SUCCESS),
    "tick": Breaker.tick,
    "force": lambda breaker, now: [breaker.force(now, Mode.FORCED_CLOSED), breaker.reset(5.0)],
    "reset": Breaker.reset,
    "peek": Breaker.peek,
}


@pytest.mark.law("B9")
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("now", NO_TIMES)
def test_b09_no_event_of_a_breaker_passes_what_is_no_time(event: str, now: float) -> None:
    """After an event at a moment that is none, a second later is a second later."""
    breaker = Breaker()
    assert permit(breaker, 5.0).admitted_at == 5.0
    EVENTS[event](breaker, now)
    assert permit(breaker, 5.0).admitted_at == 5.0
    assert permit(breaker, 6.0).admitted_at == 6.0


@pytest.mark.law("B9")
@pytest.mark.parametrize("event", [name for name in EVENTS if name != "peek"])
def test_b09_time_goes_on_with_every_event_of_a_breaker(event: str) -> None:
    """What comes after an event, of whatever kind, is no earlier than that."""
    breaker = Breaker()
    EVENTS[event](breaker, 7.0)
    assert permit(breaker, 5.0).admitted_at == 7.0


@pytest.mark.law("B9")
@pytest.mark.parametrize("now", NO_TIMES)
def test_b09_what_is_no_time_ends_no_wait(now: float) -> None:
    """An open breaker stays open, whatever it is told that is no time."""
    breaker = Breaker()
    for _ in range(5):
        breaker.settle(5.0, permit(breaker, 5.0), Outcome.FAILURE)
    assert breaker.peek(now) == breaker.acquire(now) == Reject("open", 30.0)


@pytest.mark.law("C7")
@pytest.mark.parametrize("now", NO_TIMES)
def test_c07_what_is_no_time_makes_nothing_stale(now: float) -> None:
    """An entry is as old as it was when a lookup comes at a moment that is none."""
    cache: ResponseCache[str] = ResponseCache()
    begun = cache.lookup(5.0, KEY, 0.5)
    assert isinstance(begun, Lead)
    cache.store(5.0, begun.flight, "value", size_bytes=5, ttl_s=60.0)
    assert cache.lookup(now, KEY, 0.5) == Hit("value", 0.0)
    assert cache.lookup(6.0, KEY, 0.5) == Hit("value", 1.0)


@pytest.mark.law("S9")
@pytest.mark.parametrize("now", NO_TIMES)
def test_s09_what_is_no_time_ends_no_delay(now: float) -> None:
    """A stream waits as long as it was told to."""
    stream = Reconnector()
    stream.begin(5.0)
    wait = stream.on_closed(now, End.FAILED, 0.5)
    assert wait == stream.begin(now) == stream.begin(5.0) == Wait(1.0)
    assert stream.next_deadline() == 6.0


@pytest.mark.law("D2")
@pytest.mark.parametrize("now", NO_TIMES)
def test_d02_what_is_no_time_is_no_silence(now: float) -> None:
    """A probe has its time, whatever the supervisor is told that is no time."""
    supervisor = Supervisor()
    supervisor.start(5.0)
    assert supervisor.timed_out(now) == Probe()
    assert supervisor.tick(now) is None
    assert supervisor.next_deadline() == 15.0


@pytest.mark.law("D2")
@pytest.mark.parametrize("event", [Supervisor.answered, Supervisor.heard, Supervisor.reset])
def test_d02_time_goes_on_with_every_event(event: Callable[[Supervisor, float], object]) -> None:
    """A probe that follows an event has its time from then on."""
    supervisor = Supervisor()
    supervisor.start(5.0)
    event(supervisor, 7.0)
    supervisor.timed_out(6.0)
    assert supervisor.next_deadline() == 17.0


@pytest.mark.law("L9")
@pytest.mark.parametrize("now", NO_TIMES)
def test_l09_what_is_no_time_makes_no_call_slow(now: float) -> None:
    """A call whose end is told at a moment that is none took no time."""
    limiter = AdaptiveLimiter()
    for _ in range(10):
        limiter.want(5.0)
    for ticket in range(1, 11):
        limiter.done(now, ticket, Signal.ANSWERED)
    assert limiter.statistics().fastest_s == 0.0


@pytest.mark.law("L6")
@pytest.mark.parametrize("now", NO_TIMES)
def test_l06_what_is_no_time_fills_no_bucket(now: float) -> None:
    """A caller who used up its burst waits, whatever the limiter is told that is no time."""
    limiter = RateLimiter(RateOptions(per_s=1.0, burst=1))
    assert limiter.take(5.0, "caller").allowed
    answer = limiter.take(now, "caller")
    assert (answer.allowed, answer.reset_s) == (False, 1.0)
    assert limiter.take(6.0, "caller").allowed
