"""Whether, and when, a failed call is made again: attempts, backoff, Retry-After, deadline, budget.

The driver is a loop of six lines::

    retry = RetryMachine(config, safety, deadline)
    budget.on_first(now())
    while True:
        try:
            return await attempt()
        except GatewayError as error:
            step = retry.on_failure(now(), classify(error), jitter(), budget)
        if isinstance(step, GiveUp):
            raise surface(step)
        await sleep(step.seconds)

Whatever stops the retries, what surfaces is the last *real* error: that the budget was empty
or that the breaker held the next attempt back is a note on it.
"""

from __future__ import annotations

from typing import Final, Literal, final

from attrs import define, field, frozen

from sark_trio.errors import Delivery, GatewayError, OutcomeUnknown
from sark_trio.machines.backoff import RetryConfig, backoff
from sark_trio.machines.budget import RetryBudget
from sark_trio.machines.deadline import TIME_S_MAX, Deadline
from sark_trio.machines.failure import (
    RETRY_TABLE,
    Failure,
    Safety,
    Situation,
    classify,
    safety_of,
    vote,
)
from sark_trio.machines.retry_after import parse_retry_after

__all__ = [
    "RETRY_TABLE",
    "Failure",
    "GiveUp",
    "Reason",
    "RetryConfig",
    "RetryMachine",
    "RetryStatistics",
    "Safety",
    "Situation",
    "Wait",
    "backoff",
    "classify",
    "parse_retry_after",
    "safety_of",
    "surface",
    "vote",
]

#: A server that asks for more than this is told to the caller, not waited for.
RETRY_AFTER_S_MAX: Final = 300.0
#: Why a transport may put a request on a wire again within one attempt; once each per call.
REPLAY_REASONS: Final = frozenset(
    {
        "stale_connection",
        "session_renewed",
        "version_changed",
        # Refused before the server looked at the request, and authorized anew (RFC 6750, 9449).
        "unauthorized",
        "insufficient_scope",
        "dpop_nonce",
    }
)

Reason = Literal[
    "not_retryable",
    "outcome_unknown",
    "held_back",
    "attempts",
    "retry_after",
    "deadline",
    "budget",
    "cancelled",
]


@final
@frozen
class Wait:
    """Sleep, then make the next attempt with a new request id."""

    seconds: float


@final
@frozen
class GiveUp:
    """Make no further attempt; ``raise surface(give_up)``.

    :param failure: the last real failure.
    :param attempts: attempts that were let out, the first included.
    :param delivery: how far the request got, over all attempts.
    :param retry_after_s: when a new try may succeed, where somebody said so.
    """

    reason: Reason
    failure: Failure
    attempts: int
    delivery: Delivery
    retry_after_s: float | None = None


@final
@frozen(kw_only=True)
class RetryStatistics:
    """A snapshot of one call's retries."""

    attempts: int
    waits: int
    waited_s: float
    replays: int
    gave_up: Reason | None


def _as_deadline(value: Deadline | float) -> Deadline:
    return value if isinstance(value, Deadline) else Deadline(value)


@final
@define(eq=False, repr=False)
class RetryMachine:
    """The retries of one call.

    :param config: the schedule.
    :param safety: whether the request may be made twice.
    :param deadline: of the whole call, also as its moment alone; a wait that does not end
        before it is not begun.
    """

    config: RetryConfig
    safety: Safety
    deadline: Deadline = field(converter=_as_deadline)
    _now: float = field(default=0.0, init=False)
    _attempts: int = field(default=0, init=False)
    _waits: int = field(default=0, init=False)
    _waited_s: float = field(default=0.0, init=False)
    _wake_at: float | None = field(default=None, init=False)
    _replays: set[str] = field(factory=set, init=False)
    _last: Failure | None = field(default=None, init=False)
    _delivery: Delivery = field(default="not_sent", init=False)
    _gave_up: Reason | None = field(default=None, init=False)
    _retry_after_s: float | None = field(default=None, init=False)

    def __repr__(self) -> str:
        return (
            f"<RetryMachine {self.safety} attempts={self._attempts}/{self.config.attempts}"
            f" replays={len(self._replays)} gave_up={self._gave_up}>"
        )

    def on_failure(
        self, now: float, failure: Failure, jitter: float, budget: RetryBudget
    ) -> Wait | GiveUp:
        """An attempt failed: wait and make another, or give up.

        *budget* is charged only if the answer is :class:`Wait`. After a :class:`GiveUp` or
        :meth:`cancel` the answer is a ``GiveUp`` for ever.
        """
        self._advance(now)
        if self._gave_up is not None:
            return self._give_up(self._gave_up, failure)
        self._note(failure)
        if (reason := self._reason_to_stop(failure)) is not None:
            return self._give_up(reason, failure)
        wait_s = self._delay_s(failure, jitter)
        if failure.retry_after_s is not None and failure.retry_after_s > RETRY_AFTER_S_MAX:
            return self._give_up("retry_after", failure)
        if self._now + wait_s >= self.deadline.at:
            return self._give_up("deadline", failure)
        if not budget.take(self._now):
            return self._give_up("budget", failure)
        self._waits += 1
        self._waited_s += wait_s
        self._wake_at = self._now + wait_s
        return Wait(wait_s)

    def on_replay(self, now: float, reason: str, budget: RetryBudget) -> bool:
        """Whether a transport may send the request again within the attempt; it costs a token.

        :param reason: of ``REPLAY_REASONS``; each is good for one replay in the call's life.
        """
        self._advance(now)
        known = reason in REPLAY_REASONS and reason not in self._replays
        if not known or self._gave_up is not None or self.deadline.expired(self._now):
            return False
        if not budget.take(self._now):
            return False
        self._replays.add(reason)
        return True

    def cancel(self, now: float) -> None:
        """The caller gave up: there will be no further attempt."""
        self._advance(now)
        self._wake_at = None
        self._gave_up = self._gave_up or "cancelled"

    def next_deadline(self) -> float | None:
        """When the next attempt is due, while one is waited for."""
        return self._wake_at

    def statistics(self) -> RetryStatistics:
        """A snapshot of the counters."""
        return RetryStatistics(
            attempts=self._attempts,
            waits=self._waits,
            waited_s=self._waited_s,
            replays=len(self._replays),
            gave_up=self._gave_up,
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert self._waits <= self._attempts <= self.config.attempts
        assert self._waits < self.config.attempts
        assert self._replays <= REPLAY_REASONS
        assert self._wake_at is None or self._gave_up is None
        assert self._wake_at is None or self._wake_at < self.deadline.at

    def _advance(self, now: float) -> None:
        if self._now < now < TIME_S_MAX:
            self._now = now

    def _note(self, failure: Failure) -> None:
        held_back = failure.situation is Situation.HELD_BACK
        refused = failure.situation is Situation.FINAL and failure.delivery == "not_sent"
        self._attempts += not (held_back or refused)
        if failure.retry_after_s is not None:
            self._retry_after_s = failure.retry_after_s
        if held_back and self._last is not None:
            return
        # "Not sent" is only true of the call while it is true of every attempt.
        went_out = self._delivery != "not_sent"
        lost = went_out and failure.delivery == "not_sent"
        self._delivery = "unknown" if lost else failure.delivery
        self._last = failure

    def _reason_to_stop(self, failure: Failure) -> Reason | None:
        if failure.situation is Situation.HELD_BACK:
            return "held_back"
        cell = RETRY_TABLE[failure.situation][self.safety]
        if cell == "if_not_executed" and self.config.throttled_means_not_executed:
            cell = "retry"
        if cell != "retry":
            unknown = failure.situation is Situation.UNKNOWN
            return "outcome_unknown" if unknown else "not_retryable"
        return "attempts" if self._attempts >= self.config.attempts else None

    def _delay_s(self, failure: Failure, jitter: float) -> float:
        wait_s = backoff(self.config, self._attempts, jitter)
        asked_s = failure.retry_after_s
        if asked_s is None:
            return wait_s
        # Never earlier than asked; a little later, or all clients come back in one instant.
        return max(wait_s, asked_s + jitter * min(1.0, asked_s / 10))

    def _give_up(self, reason: Reason, failure: Failure) -> GiveUp:
        self._gave_up = reason
        self._wake_at = None
        return GiveUp(
            reason,
            failure if self._last is None else self._last,
            self._attempts,
            self._delivery,
            self._retry_after_s,
        )


_NOTES: Final = {
    "budget": "not retried: the retry budget of this origin is empty",
    "deadline": "not retried: the next attempt would begin after the deadline of the call",
    "held_back": "not retried: the circuit breaker or a full queue held the next attempt back",
    "retry_after": f"not retried: the server asks to wait more than {RETRY_AFTER_S_MAX:.0f} s",
}


def surface(give_up: GiveUp) -> GatewayError:
    """The error to raise: the last real one, with what is known of the whole call.

    If an unsafe call may have happened, that is :class:`OutcomeUnknown`, and the error that
    hides the outcome is its ``__cause__``.
    """
    error, reason = give_up.failure.error, give_up.reason
    error.attempts = give_up.attempts
    error.delivery = give_up.delivery
    if error.retry_after_s is None:
        error.retry_after_s = give_up.retry_after_s
    if reason == "outcome_unknown" and not isinstance(error, OutcomeUnknown):
        unknown = OutcomeUnknown(
            f"the call may have happened and is not safe to repeat: {error}",
            attempts=give_up.attempts,
            server=error.server,
            request_id=error.request_id,
            decision_id=error.decision_id,
        )
        unknown.__cause__ = error
        return unknown
    held_back_itself = give_up.failure.situation is Situation.HELD_BACK
    if reason in _NOTES and not held_back_itself:
        error.add_note(_NOTES[reason])
    return error
