"""Deadline, retry and breaker around an application's own functions, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, CircuitOpen, Denied, RetryConfig
from sark_trio.client.resilience import (
    CircuitBreaker,
    GatewayErrorHandler,
    with_retry,
    with_timeout,
)
from sark_trio.errors import CallTimeout, ConnectError, HTTPStatusError, RateLimited
from sark_trio.machines.budget import BudgetOptions, RetryBudget

pytestmark = pytest.mark.trio


def half() -> float:
    return 0.5


def scripted(*script: BaseException | object) -> tuple[Callable[..., Awaitable[object]], list[Any]]:
    """A function that does what *script* says, one item a call, and the times it was called."""
    left, calls = list(script), list[Any]()

    async def func(*args: object) -> object:
        calls.append((trio.current_time(), args))
        item = left.pop(0)
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, float):
            await anyio.sleep(item)
        return item

    return func, calls


# -- deadline -----------------------------------------------------------------------------------


@pytest.mark.fault(6, 13)
async def test_a_timeout_is_exact_and_pythons_own(autojump_clock: MockClock) -> None:
    func, _ = scripted(60.0)
    began = trio.current_time()
    with pytest.raises(TimeoutError, match="did not end within 30 s") as caught:
        await with_timeout(partial(func))
    assert isinstance(caught.value, CallTimeout)
    assert trio.current_time() - began == 30


@pytest.mark.fault(13)
async def test_a_timeout_of_zero_is_at_once(autojump_clock: MockClock) -> None:
    func, _ = scripted(1.0)
    began = trio.current_time()
    with pytest.raises(CallTimeout):
        await with_timeout(func, timeout_s=0)
    assert trio.current_time() == began


@pytest.mark.fault(13)
async def test_options_do_not_collide_with_the_functions_own(autojump_clock: MockClock) -> None:
    async def func(first: int, *, timeout_s: int, config: str) -> tuple[int, int, str]:
        return first, timeout_s, config

    bound = partial(func, timeout_s=7, config="mine")
    assert await with_timeout(bound, 1) == (1, 7, "mine")
    assert await with_retry(bound, 2) == (2, 7, "mine")


async def test_an_outer_deadline_is_not_ours(autojump_clock: MockClock) -> None:
    func, _ = scripted(60.0)
    with anyio.move_on_after(5) as scope:
        await with_timeout(func, timeout_s=10)
    assert scope.cancelled_caught
    inner, _ = scripted(TimeoutError("the function's own"))
    with pytest.raises(TimeoutError, match="own"):
        await with_timeout(inner)


async def test_a_nameless_callable_has_a_message(autojump_clock: MockClock) -> None:
    class Sleeper:
        async def __call__(self) -> None:
            await anyio.sleep(9)

    with pytest.raises(CallTimeout, match="Sleeper did not end within 1 s"):
        await with_timeout(Sleeper(), timeout_s=1)


# -- retry --------------------------------------------------------------------------------------


async def test_three_attempts_with_one_and_two_seconds_between(autojump_clock: MockClock) -> None:
    func, calls = scripted(ConnectionError("a"), TimeoutError("b"), "done")
    began = trio.current_time()
    assert await with_retry(func, "x", jitter=half) == "done"
    assert [(at - began, args) for at, args in calls] == [(0, ("x",)), (1, ("x",)), (3, ("x",))]


@pytest.mark.parametrize("error", [ConnectionError("the last"), ConnectError("the last")])
async def test_what_surfaces_is_the_last_error_itself(
    autojump_clock: MockClock, error: Exception
) -> None:
    func, calls = scripted(ConnectionError("a"), ConnectionError("b"), error)
    with pytest.raises(type(error), match="the last"):
        await with_retry(func, jitter=half)
    assert len(calls) == 3


@pytest.mark.fault(2, 4)
@pytest.mark.parametrize(
    "error",
    [
        Denied("no"),
        HTTPStatusError("not found", status=404),
        ValueError("a bug"),
        PermissionError("an OSError that no retry mends"),
    ],
)
async def test_what_will_not_pass_is_not_repeated(
    autojump_clock: MockClock, error: Exception
) -> None:
    func, calls = scripted(error, "never")
    with pytest.raises(type(error)):
        await with_retry(func)
    assert len(calls) == 1


@pytest.mark.fault(12)
async def test_retry_after_is_waited_for(autojump_clock: MockClock) -> None:
    func, calls = scripted(RateLimited("later", status=429, retry_after_s=20.0), "done")
    assert await with_retry(func, jitter=lambda: 0.0) == "done"
    assert calls[1][0] - calls[0][0] == 20


async def test_an_empty_budget_ends_it(autojump_clock: MockClock) -> None:
    func, calls = scripted(ConnectionError("a"), "never")
    with pytest.raises(ConnectionError) as caught:
        await with_retry(func, budget=RetryBudget(BudgetOptions(start=0, per_first=0)))
    assert len(calls) == 1
    assert "budget" in caught.value.__notes__[0]


async def test_no_attempt_begins_after_the_deadline(autojump_clock: MockClock) -> None:
    func, calls = scripted(ConnectionError("a"), "never")
    with pytest.raises(ConnectionError):
        await with_retry(func, deadline=trio.current_time() + 0.5, jitter=half)
    assert len(calls) == 1


# -- breaker ------------------------------------------------------------------------------------


async def test_it_opens_at_the_fifth_failure_probes_and_closes(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(name="billing")
    func, calls = scripted(*[RuntimeError("x")] * 5, "a", "b")
    for _ in range(5):
        assert breaker.state == "closed"
        with pytest.raises(RuntimeError):
            await breaker.call(func)
    assert breaker.state == "open"
    with pytest.raises(CircuitOpen, match="billing: the circuit breaker refuses") as caught:
        await breaker.call(func)
    assert caught.value.retry_after_s == 30
    assert len(calls) == 5
    await anyio.sleep(30)
    assert await breaker.call(func) == "a"
    assert breaker.state == "half_open"
    assert await breaker.call(func) == "b"
    assert breaker.state == "closed"


@pytest.mark.fault(9, 10)
async def test_metrics_have_the_originals_names_and_count_no_refusal(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreaker(BreakerOptions(failures=1))
    func, _ = scripted("a", RuntimeError("x"))
    await breaker.call(func)
    with pytest.raises(RuntimeError):
        await breaker.call(func)
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await breaker.call(func)
    metrics = breaker.metrics()
    assert breaker.metrics() == metrics  # reading changes nothing
    assert metrics.pop("last_failure_time") > 1e9
    assert metrics == {
        "state": "open",
        "failure_count": 0,
        "success_count": 0,
        "total_calls": 2,
        "total_failures": 1,
        "total_successes": 1,
        "failure_rate": 0.5,
        "state_changes": 1,
    }
    breaker.reset()
    assert breaker.state == "closed"


@pytest.mark.fault(11)
async def test_a_cancelled_call_says_nothing_and_gives_its_permit_back(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreaker(BreakerOptions(failures=1))
    func, _ = scripted(60.0, 60.0)
    for _ in range(2):
        with anyio.move_on_after(1):
            await breaker.call(func)
    counted = breaker.statistics()
    assert (counted.state, counted.neutral, counted.outstanding) == ("closed", 2, 0)


async def test_a_deadline_inside_counts_as_a_failure(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(BreakerOptions(failures=1))
    func, _ = scripted(60.0)
    with pytest.raises(CallTimeout):
        await breaker.call(partial(with_timeout, func, timeout_s=1))
    assert breaker.state == "open"


async def test_only_the_named_errors_count(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(BreakerOptions(failures=1), failures=(ConnectionError,))
    func, _ = scripted(ValueError("bad input"), Denied("no"), ConnectionError("down"))
    for error in (ValueError, Denied):
        with pytest.raises(error):
            await breaker.call(func)
        assert breaker.state == "closed"
    with pytest.raises(ConnectionError):
        await breaker.call(func)
    assert breaker.state == "open"


# -- all three ----------------------------------------------------------------------------------


@pytest.mark.fault(5)
async def test_one_deadline_is_over_all_attempts(autojump_clock: MockClock) -> None:
    handler = GatewayErrorHandler(timeout_s=10, jitter=half)
    func, calls = scripted(ConnectionError("a"), 60.0)
    began = trio.current_time()
    with pytest.raises(CallTimeout):
        await handler.call(func)
    assert trio.current_time() - began == 10
    assert len(calls) == 2


async def test_each_attempt_passes_the_breaker(autojump_clock: MockClock) -> None:
    handler = GatewayErrorHandler(breaker=BreakerOptions(failures=2), jitter=half)
    func, calls = scripted(ConnectionError("a"), ConnectionError("b"), "never")
    with pytest.raises(ConnectionError, match="b"):
        await handler.call(func)
    assert len(calls) == 2
    assert handler.circuit.state == "open"
    with pytest.raises(CircuitOpen):
        await handler.call(func)


async def test_a_hung_function_opens_the_breaker(autojump_clock: MockClock) -> None:
    handler = GatewayErrorHandler(breaker=BreakerOptions(failures=1))
    func, _ = scripted(600.0, 600.0)
    with anyio.move_on_after(1):
        await handler.call(func)
    assert handler.circuit.state == "closed"  # that was the caller's own patience
    with pytest.raises(CallTimeout):
        await handler.call(func, timeout_s=5)
    assert handler.circuit.state == "open"


async def test_its_metrics_have_the_originals_names(autojump_clock: MockClock) -> None:
    handler = GatewayErrorHandler(retry=RetryConfig(attempts=5))
    metrics = handler.metrics()
    assert metrics["circuit_breaker"]["state"] == "closed"
    assert metrics["retry_config"] == {"max_attempts": 5, "initial_delay": 1.0, "max_delay": 30.0}
    assert metrics["default_timeout"] == 30.0
