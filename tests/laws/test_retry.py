"""Laws R1 to R4, R7, R9, R10 and R12 of retrying one call.

``retry`` and ``backoff`` are looked up at each call: ``test_planted_bugs`` puts broken ones in.
"""

from __future__ import annotations

from math import exp, inf, log, nan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConnectError,
    Denied,
    GatewayError,
    OutcomeUnknown,
    PoolTimeout,
    ProtocolError,
    ReadTimeout,
    RemoteError,
    ServerDisconnected,
    TLSError,
    status_error,
)
from sark_trio.machines import backoff, retry
from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.budget import BudgetOptions, RetryBudget
from sark_trio.machines.failure import Safety, classify
from tests.models.retry import Had, RetryModel

DEFAULT = RetryConfig()
_jitter = st.floats(0, 1, exclude_max=True)
_configs = st.one_of(
    st.just(DEFAULT),
    st.builds(
        RetryConfig,
        attempts=st.integers(1, 6),
        initial_delay_s=st.floats(0.001, 10),
        multiplier=st.floats(1, 5),
        max_delay_s=st.floats(0.001, 40),
        jitter=st.floats(0, 1),
        throttled_means_not_executed=st.booleans(),
    ),
)
_retry_after = st.one_of(st.none(), st.floats(0, 400), st.sampled_from([0.0, 5.0, inf, nan, -1.0]))


def _errors() -> st.SearchStrategy[GatewayError]:
    delivery = st.sampled_from(["not_sent", "unknown"])
    kinds = [ConnectError, PoolTimeout, TLSError, ReadTimeout, ServerDisconnected, ProtocolError]
    return st.one_of(
        st.builds(lambda kind, how: kind("wire", delivery=how), st.sampled_from(kinds), delivery),
        st.builds(
            lambda status, wait: status_error(status, "no", retry_after_s=wait),
            st.sampled_from([400, 401, 404, 429, 500, 502, 503, 504]),
            _retry_after,
        ),
        st.builds(lambda kind: kind("no"), st.sampled_from([Denied, CallTimeout, OutcomeUnknown])),
        st.builds(lambda wait: CircuitOpen("open", retry_after_s=wait), _retry_after),
        st.builds(lambda: RemoteError("no", code=-32000)),
    )


_failures = st.lists(st.tuples(_errors(), st.floats(0, 20), _jitter), min_size=3, max_size=8)
_safety = st.sampled_from(Safety)
Failures = list[tuple[GatewayError, float, float]]


def machine(config: RetryConfig, safety: Safety, deadline: float = inf) -> Any:
    return retry.RetryMachine(config, safety, deadline)


def rich() -> RetryBudget:
    """A budget that never says no."""
    return RetryBudget(BudgetOptions(start=10**9, cap=10**9))


def attempts(call: Any, failures: Failures, budget: RetryBudget) -> list[Any]:
    """Drive *call* through *failures*, each of which takes its time, until it gives up."""
    now, steps = 0.0, []
    for error, took_s, jitter in failures:
        now += took_s
        steps.append(call.on_failure(now, classify(error), jitter, budget))
        call.check_invariants()
        if isinstance(steps[-1], retry.GiveUp):
            assert call.next_deadline() is None
            break
        assert call.next_deadline() == now + steps[-1].seconds
        now += steps[-1].seconds
    return steps


@pytest.mark.law("R1")
@given(_configs, st.integers(1, 1_000_000), _jitter)
@example(DEFAULT, 1_000_000, 1 - 2**-53)
@example(DEFAULT, 1_000_000, 0.0)
def test_r01_a_delay_stays_within_its_share_and_the_cap(
    config: RetryConfig, k: int, jitter: float
) -> None:
    """0.75 b <= d <= min(1.25 b, cap) for every attempt up to a million; nothing overflows."""
    growth = (k - 1) * log(config.multiplier)
    grown = exp(growth) if growth < 100 else inf
    base = min(config.initial_delay_s * grown, config.max_delay_s)
    delay_s = backoff.backoff(config, k, jitter)
    assert (1 - config.jitter) * base * (1 - 1e-9) <= delay_s <= config.max_delay_s
    assert delay_s <= (1 + config.jitter) * base * (1 + 1e-9)


@pytest.mark.law("R1")
def test_r01_the_default_schedule() -> None:
    """Three attempts sleep twice, about 1 and 2 seconds; the delays double up to 30."""
    middles = [backoff.backoff(DEFAULT, k, 0.5) for k in range(1, 9)]
    assert middles == [1, 2, 4, 8, 16, 26.25, 26.25, 26.25]
    assert [backoff.backoff(DEFAULT, k, 0.0) for k in (1, 2, 6)] == [0.75, 1.5, 22.5]
    steps = attempts(machine(DEFAULT, Safety.SAFE), [(ConnectError("x"), 0.0, 0.5)] * 9, rich())
    assert steps[:2] == [retry.Wait(1.0), retry.Wait(2.0)]
    assert (steps[2].reason, steps[2].attempts) == ("attempts", 3)


@pytest.mark.law("R2")
def test_r02_no_herd_meets_at_the_cap() -> None:
    """Of a million draws over the whole range of chance, fewer than 1 in 10,000 are the cap."""
    draws = (backoff.backoff(DEFAULT, 40, n / 1_000_000) for n in range(1_000_000))
    assert sum(delay_s >= DEFAULT.max_delay_s for delay_s in draws) < 100


@pytest.mark.law("R3")
@given(_configs, _safety, _failures, st.floats(0, 100))
def test_r03_no_attempt_begins_after_the_deadline(
    config: RetryConfig, safety: Safety, failures: Failures, deadline: float
) -> None:
    """Sleeps and attempts together end before the deadline: a wait that would not is not begun."""
    call, now = machine(config, safety, deadline), 0.0
    steps = attempts(call, failures, rich())
    for step, (_, took_s, _) in zip(steps, failures, strict=False):
        now += took_s
        if isinstance(step, retry.Wait):
            now += step.seconds
            assert now < deadline
    waited = sum(step.seconds for step in steps if isinstance(step, retry.Wait))
    assert call.statistics().waited_s == waited


@pytest.mark.law("R4")
@given(_configs, _safety, _failures)
def test_r04_never_earlier_than_asked(
    config: RetryConfig, safety: Safety, failures: Failures
) -> None:
    """A wait is at least the Retry-After; one of more than 300 seconds is told, not waited for."""
    steps = attempts(machine(config, safety), failures, rich())
    for step, (error, _, _) in zip(steps, failures, strict=False):
        asked_s = error.retry_after_s
        if asked_s is None or not asked_s >= 0:
            continue
        if isinstance(step, retry.Wait):
            assert asked_s <= step.seconds <= max(config.max_delay_s, asked_s + 1.0)
            assert asked_s <= 300
        elif step.reason == "retry_after":
            assert asked_s > 300
            assert step.retry_after_s == asked_s


@pytest.mark.law("R7")
@given(_configs, _failures)
def test_r07_an_unsafe_call_is_never_made_twice_by_accident(
    config: RetryConfig, failures: Failures
) -> None:
    """Unless provably nothing was sent (or the operator says so), an unsafe call is not repeated.

    If it may have happened, what surfaces is ``OutcomeUnknown``.
    """
    steps = attempts(machine(config, Safety.UNSAFE), failures, rich())
    for step, (error, _, _) in zip(steps, failures, strict=False):
        throttled = getattr(error, "status", 0) in {429, 503} and error.delivery == "answered"
        if isinstance(step, retry.Wait):
            assert error.delivery == "not_sent" or (
                throttled and config.throttled_means_not_executed
            )
        elif step.reason == "outcome_unknown":
            surfaced = retry.surface(step)
            assert isinstance(surfaced, OutcomeUnknown)
            assert surfaced.delivery == "unknown"
            assert error in {surfaced, surfaced.__cause__}


@pytest.mark.law("R7")
@given(
    # Multipliers whose powers are exact: the oracle multiplies, where the code raises.
    st.builds(
        RetryConfig,
        attempts=st.integers(1, 6),
        initial_delay_s=st.sampled_from([0.25, 1.0, 7.0]),
        multiplier=st.sampled_from([1.0, 2.0, 4.0]),
        max_delay_s=st.sampled_from([0.5, 30.0]),
        jitter=st.sampled_from([0.0, 0.25, 1.0]),
        throttled_means_not_executed=st.booleans(),
    ),
    _safety,
    _failures,
    st.integers(0, 8),
    st.one_of(st.just(inf), st.floats(0, 60)),
)
def test_r07_every_step_is_the_one_that_the_table_says(
    config: RetryConfig, safety: Safety, failures: Failures, tokens: int, deadline: float
) -> None:
    """Machine and oracle agree on each step: wait for how long, or give up for which reason."""
    call, model, now = machine(config, safety, deadline), RetryModel(config, safety, deadline), 0.0
    account = RetryBudget(BudgetOptions(start=tokens * 1000, per_second=0))
    for error, took_s, jitter in failures:
        now += took_s
        left = account.balance(now) // 1000
        step = call.on_failure(now, classify(error), jitter, account)
        expected = model.on_failure(Had(classify(error), now, jitter, left))
        if isinstance(step, retry.GiveUp):
            assert expected == ("give up", step.reason, step.attempts, step.delivery)
            break
        assert expected == ("wait", step.seconds)
        now += step.seconds


@pytest.mark.law("R9")
@given(_configs, _safety, _failures, st.integers(0, 8))
def test_r09_after_the_end_nothing_is_sent(
    config: RetryConfig, safety: Safety, failures: Failures, cut: int
) -> None:
    """After a cancellation or a ``GiveUp`` there is no ``Wait``, no replay, and no charge."""
    call, account = machine(config, safety), rich()
    steps = attempts(call, failures[:cut], account)
    ended = bool(steps) and isinstance(steps[-1], retry.GiveUp)
    if not ended:
        call.cancel(1e6)
    assert call.next_deadline() is None
    balance, reason = account.balance(1e6), steps[-1].reason if ended else "cancelled"
    for error, _, jitter in failures:
        step = call.on_failure(1e6, classify(error), jitter, account)
        assert isinstance(step, retry.GiveUp)
        assert step.reason == reason
    assert not call.on_replay(1e6, "stale_connection", account)
    assert account.balance(1e6) == balance
    call.cancel(2e6)
    assert call.statistics().gave_up == reason


@pytest.mark.law("R10")
@given(_configs, _safety, _failures, st.integers(0, 3), st.floats(0, 60))
def test_r10_only_a_real_retry_is_paid(
    config: RetryConfig, safety: Safety, failures: Failures, tokens: int, deadline: float
) -> None:
    """Each ``Wait`` costs one token; giving up, for whatever reason, costs none."""
    account = RetryBudget(BudgetOptions(start=tokens * 1000, per_second=0))
    steps = attempts(machine(config, safety, deadline), failures, account)
    waits = sum(isinstance(step, retry.Wait) for step in steps)
    assert account.balance(1e9) == (tokens - waits) * 1000
    assert waits <= tokens


@pytest.mark.law("R12")
@given(
    _configs,
    _safety,
    _failures,
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.floats(0, 100), st.floats(0, 100)),
    st.integers(0, 5),
)
def test_r12_less_leave_never_sends_more(
    config: RetryConfig,
    safety: Safety,
    failures: Failures,
    tokens: tuple[int, int],
    deadlines: tuple[float, float],
    fewer: int,
) -> None:
    """Fewer tokens, fewer attempts or an earlier deadline never lead to more attempts."""
    sent = []
    for pick, cut in ((max, 0), (min, fewer)):
        options = BudgetOptions(start=pick(tokens) * 1000, per_second=0)
        count = max(1, config.attempts - cut)
        call = machine(_with_attempts(config, count), safety, pick(deadlines))
        sent.append(len(attempts(call, failures, RetryBudget(options))))
    assert sent[1] <= sent[0]


def _with_attempts(config: RetryConfig, count: int) -> RetryConfig:
    return RetryConfig(
        attempts=count,
        initial_delay_s=config.initial_delay_s,
        multiplier=config.multiplier,
        max_delay_s=config.max_delay_s,
        jitter=config.jitter,
        throttled_means_not_executed=config.throttled_means_not_executed,
    )
