"""The retries of one call, by example: what stops them, and what surfaces."""

from __future__ import annotations

import pytest

from sark_trio.errors import (
    CircuitOpen,
    ConnectError,
    Denied,
    GatewayError,
    OutcomeUnknown,
    ProtocolError,
    ServerDisconnected,
    status_error,
)
from sark_trio.machines.budget import BudgetOptions, RetryBudget
from sark_trio.machines.deadline import Deadline
from sark_trio.machines.retry import (
    GiveUp,
    RetryConfig,
    RetryMachine,
    Safety,
    Wait,
    classify,
    surface,
)


def machine(safety: Safety = Safety.SAFE, deadline: float = 1e9, **options: object) -> RetryMachine:
    return RetryMachine(RetryConfig(**options), safety, Deadline(deadline))  # type: ignore[arg-type]


def fail(
    call: RetryMachine, *errors: GatewayError, budget: RetryBudget | None = None, now: float = 0.0
) -> Wait | GiveUp:
    """The answer to the last of *errors*."""
    account = RetryBudget() if budget is None else budget
    answers = [call.on_failure(now, classify(error), 0.5, account) for error in errors]
    call.check_invariants()
    return answers[-1]


def given_up(step: Wait | GiveUp) -> GiveUp:
    assert isinstance(step, GiveUp)
    return step


def test_a_call_is_tried_three_times() -> None:
    call, error = machine(), ConnectError("refused", server="db")
    assert fail(call, error) == Wait(1.0)
    assert call.next_deadline() == 1.0
    assert repr(call) == "<RetryMachine safe attempts=1/3 replays=0 gave_up=None>"
    assert fail(call, error, now=1.0) == Wait(2.0)
    step = given_up(fail(call, error, now=3.0))
    assert (step.reason, step.attempts, step.delivery) == ("attempts", 3, "not_sent")
    assert surface(step) is error
    assert error.attempts == 3
    stats = call.statistics()
    assert (stats.attempts, stats.waits, stats.waited_s, stats.gave_up) == (3, 2, 3.0, "attempts")


def test_what_surfaces_is_the_last_real_error() -> None:
    call, real = machine(), ServerDisconnected("gone")
    assert isinstance(fail(call, real), Wait)
    step = given_up(fail(call, CircuitOpen("open", retry_after_s=30.0)))
    assert (step.reason, step.failure.error, step.attempts) == ("held_back", real, 1)
    assert surface(step) is real
    assert (real.retry_after_s, real.delivery) == (30.0, "unknown")
    assert real.__notes__ == [
        "not retried: the circuit breaker or a full queue held the next attempt back"
    ]


def test_a_refusal_that_is_all_there_is_surfaces_itself() -> None:
    error = CircuitOpen("open", retry_after_s=5.0)
    step = given_up(fail(machine(), error))
    assert (step.reason, step.attempts, surface(step)) == ("held_back", 0, error)
    assert not hasattr(error, "__notes__")


def test_a_denial_meanwhile_is_the_real_error() -> None:
    denied = Denied("no longer")
    step = given_up(fail(machine(), ServerDisconnected("gone"), denied))
    assert surface(step) is denied
    # The first attempt may have arrived: "not sent" is no longer true of the call.
    assert (denied.delivery, denied.attempts) == ("unknown", 1)


@pytest.mark.parametrize(
    ("errors", "delivery"),
    [
        ((ConnectError("a"), ConnectError("b"), ConnectError("c")), "not_sent"),
        ((ServerDisconnected("a"), ConnectError("b"), ConnectError("c")), "unknown"),
        ((ServerDisconnected("a"), status_error(502, "b"), status_error(404, "c")), "answered"),
        ((status_error(502, "a"), CircuitOpen("b")), "answered"),
        ((status_error(502, "a"), ConnectError("b"), CircuitOpen("c")), "unknown"),
    ],
)
def test_delivery_is_that_of_all_attempts(errors: tuple[GatewayError, ...], delivery: str) -> None:
    step = given_up(fail(machine(), *errors))
    assert step.delivery == surface(step).delivery == delivery


def test_an_unsafe_call_that_may_have_happened_is_an_unknown_outcome() -> None:
    cause = ServerDisconnected("gone", server="db", request_id="r", decision_id="d")
    error = surface(given_up(fail(machine(Safety.UNSAFE), cause)))
    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is cause
    assert (error.server, error.request_id, error.decision_id) == ("db", "r", "d")
    assert (error.attempts, error.delivery) == (1, "unknown")
    already = OutcomeUnknown("stream ended")
    assert surface(given_up(fail(machine(Safety.UNSAFE), already))) is already


@pytest.mark.parametrize("safety", Safety)
@pytest.mark.parametrize("error", [ProtocolError("nonsense"), status_error(404, "no")])
def test_what_would_only_come_again_is_not_retried(safety: Safety, error: GatewayError) -> None:
    step = given_up(fail(machine(safety), error))
    assert (step.reason, surface(step)) == ("not_retryable", error)


def test_throttled_unsafe_calls_need_the_operators_word() -> None:
    error = status_error(429, "slow down", retry_after_s=4.0)
    assert given_up(fail(machine(Safety.UNSAFE), error)).reason == "not_retryable"
    sure = machine(Safety.UNSAFE, throttled_means_not_executed=True)
    assert fail(sure, error) == Wait(4.2)


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    error = status_error(503, "later", retry_after_s=10.0)
    step = given_up(fail(machine(deadline=10.5), error))
    assert (step.reason, step.retry_after_s) == ("deadline", 10.0)
    assert surface(step).__notes__ == [
        "not retried: the next attempt would begin after the deadline of the call"
    ]
    assert fail(machine(deadline=10.6), error) == Wait(10.5)


def test_a_deadline_may_be_given_as_its_moment() -> None:
    call = RetryMachine(RetryConfig(), Safety.SAFE, 1.5)
    assert call.deadline == Deadline(1.5)


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    step = given_up(fail(machine(), status_error(429, "later", retry_after_s=3600.0)))
    assert (step.reason, step.retry_after_s) == ("retry_after", 3600.0)
    error = surface(step)
    assert error.retry_after_s == 3600.0
    assert error.__notes__ == ["not retried: the server asks to wait more than 300 s"]


def test_five_minutes_are_the_longest_that_a_server_is_waited_for() -> None:
    def asked(wait_s: float) -> GatewayError:
        return status_error(429, "later", retry_after_s=wait_s)

    assert fail(machine(), asked(300.0)) == Wait(300.5)
    assert given_up(fail(machine(), asked(300.001))).reason == "retry_after"


def test_while_nothing_is_waited_for_there_is_no_next_deadline() -> None:
    call, error = machine(), ConnectError("refused")
    deadlines = []
    for now in (0.0, 1.0, 3.0):
        fail(call, error, now=now)
        deadlines.append(call.next_deadline())
    assert deadlines == [1.0, 3.0, None]


@pytest.mark.parametrize("no_time", [2.0**40, float("inf"), float("nan"), 1.0])
def test_what_is_no_time_does_not_pass(no_time: float) -> None:
    call = machine(deadline=10.0)
    assert fail(call, ConnectError("refused"), now=5.0) == Wait(1.0)
    assert fail(call, ConnectError("refused"), now=no_time) == Wait(2.0)
    assert call.next_deadline() == 7.0


def test_without_a_token_there_is_no_retry() -> None:
    error = ConnectError("refused")
    step = given_up(fail(machine(), error, budget=RetryBudget(BudgetOptions(start=0))))
    assert (step.reason, surface(step)) == ("budget", error)
    assert error.__notes__ == ["not retried: the retry budget of this origin is empty"]


def test_a_replay_is_paid_once_for_each_reason() -> None:
    call, account = machine(deadline=10.0), RetryBudget(BudgetOptions(start=2_000, per_second=0))
    assert call.on_replay(0.0, "because", account) is False
    assert call.on_replay(0.0, "stale_connection", account)
    assert not call.on_replay(0.0, "stale_connection", account)
    assert not call.on_replay(10.0, "session_renewed", account)
    assert account.balance(10.0) == 1_000
    other = machine()
    assert other.on_replay(0.0, "session_renewed", account)
    assert other.on_replay(0.0, "version_changed", account) is False
    assert (call.statistics().replays, other.statistics().replays) == (1, 1)


@pytest.mark.parametrize(
    "reason",
    [
        *("stale_connection", "session_renewed", "version_changed"),
        *("unauthorized", "insufficient_scope", "dpop_nonce"),
    ],
)
def test_every_reason_of_a_replay_is_good_for_one(reason: str) -> None:
    call, account = machine(), RetryBudget()
    assert [call.on_replay(0.0, reason, account) for _ in range(2)] == [True, False]


def test_whoever_gives_up_while_waiting_waits_for_nothing() -> None:
    call = machine()
    assert fail(call, ConnectError("refused")) == Wait(1.0)
    call.cancel(0.5)
    assert call.next_deadline() is None
    call.check_invariants()


def test_after_cancellation_nothing_follows() -> None:
    call, account = machine(), RetryBudget()
    call.cancel(1.0)
    step = given_up(fail(call, ConnectError("refused"), budget=account))
    assert (step.reason, step.attempts) == ("cancelled", 0)
    assert account.statistics().retries == 0
