"""Retries with a perfect memory: each question is answered from all the failures there were.

What may follow on a failure, and after how long, is written down here once more, from the law
and not from the code that it judges.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.failure import Failure, Safety, Situation

__all__ = ["Had", "RetryModel"]

#: May a call be made again? By situation, then for a call that is safe to repeat, for any
#: other call of a tool, and for a request of the protocol's own.
MAY: dict[str, tuple[str, str, str]] = {
    "not_sent": ("yes", "yes", "yes"),
    "unknown": ("yes", "no", "yes"),
    "throttled": ("yes", "if told", "yes"),  # if told that who is throttled did nothing
    "server_error": ("yes", "no", "yes"),
    "answered": ("no", "no", "no"),
    "broken": ("no", "no", "no"),
    "held_back": ("no", "no", "no"),
    "final": ("no", "no", "no"),
}
COLUMNS = ("safe", "unsafe", "listing")


def delay_s(config: RetryConfig, number: int, jitter: float) -> float:
    """What lies between attempt *number* and the next: within its share, never over the cap."""
    base = config.initial_delay_s
    for _ in range(number - 1):
        base *= config.multiplier
    base = min(base, config.max_delay_s)
    least, most = base * (1 - config.jitter), base * (1 + config.jitter)
    return least + jitter * (min(most, config.max_delay_s) - least)


@frozen
class Had:
    """A failure, with when it came, and what chance and budget there were then."""

    failure: Failure
    at: float
    jitter: float
    tokens: int


@define
class RetryModel:
    """The oracle. It says ``("wait", seconds)`` or ``("give up", reason, attempts, delivery)``."""

    config: RetryConfig
    safety: Safety
    deadline: float
    had: list[Had] = field(factory=list)

    def on_failure(self, latest: Had) -> tuple[Any, ...]:
        self.had.append(latest)
        for place, each in enumerate(self.had):
            past = self.had[: place + 1]
            reason = self.reason(past, each)
            if reason is not None:
                return ("give up", reason, len(self.out(past)), self.delivery(past))
        return ("wait", self.seconds(self.had, latest))

    def out(self, past: list[Had]) -> list[Had]:
        """Those attempts that were let out."""

        def kept(failure: Failure) -> bool:
            refused = failure.situation is Situation.FINAL and failure.delivery == "not_sent"
            return failure.situation is Situation.HELD_BACK or refused

        return [each for each in past if not kept(each.failure)]

    def delivery(self, past: list[Had]) -> str:
        """Not sent if nothing ever was; else how far the last got, as far as that is known."""
        said = [
            each.failure.delivery
            for place, each in enumerate(past)
            if place == 0 or each.failure.situation is not Situation.HELD_BACK
        ]
        gone = any(delivery != "not_sent" for delivery in said[:-1])
        return "unknown" if gone and said[-1] == "not_sent" else said[-1]

    def seconds(self, past: list[Had], latest: Had) -> float:
        wait_s = delay_s(self.config, len(self.out(past)), latest.jitter)
        asked_s = latest.failure.retry_after_s
        if asked_s is None:
            return wait_s
        return max(wait_s, asked_s + latest.jitter * min(1.0, asked_s / 10))

    def reason(self, past: list[Had], latest: Had) -> str | None:
        """Why no attempt follows on *latest*."""
        failure = latest.failure
        if failure.situation is Situation.HELD_BACK:
            return "held_back"
        may = MAY[failure.situation][COLUMNS.index(self.safety)]
        if may == "if told" and self.config.throttled_means_not_executed:
            may = "yes"
        if may != "yes":
            lost = failure.situation is Situation.UNKNOWN
            return "outcome_unknown" if lost else "not_retryable"
        if len(self.out(past)) >= self.config.attempts:
            return "attempts"
        if failure.retry_after_s is not None and failure.retry_after_s > 300:
            return "retry_after"
        if latest.at + self.seconds(past, latest) >= self.deadline:
            return "deadline"
        return "budget" if latest.tokens < 1 else None
