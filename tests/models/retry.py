"""Retries with a perfect memory: each question is answered from all the failures there were."""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from sark_trio.machines.backoff import RetryConfig, backoff
from sark_trio.machines.failure import RETRY_TABLE, Failure, Safety, Situation

__all__ = ["Had", "RetryModel"]


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
        wait_s = backoff(self.config, len(self.out(past)), latest.jitter)
        asked_s = latest.failure.retry_after_s
        if asked_s is None:
            return wait_s
        return max(wait_s, asked_s + latest.jitter * min(1.0, asked_s / 10))

    def reason(self, past: list[Had], latest: Had) -> str | None:
        """Why no attempt follows on *latest*."""
        failure = latest.failure
        if failure.situation is Situation.HELD_BACK:
            return "held_back"
        cell = RETRY_TABLE[failure.situation][self.safety]
        if cell == "if_not_executed" and self.config.throttled_means_not_executed:
            cell = "retry"
        if cell != "retry":
            lost = failure.situation is Situation.UNKNOWN
            return "outcome_unknown" if lost else "not_retryable"
        if len(self.out(past)) >= self.config.attempts:
            return "attempts"
        if failure.retry_after_s is not None and failure.retry_after_s > 300:
            return "retry_after"
        if latest.at + self.seconds(past, latest) >= self.deadline:
            return "deadline"
        return "budget" if latest.tokens < 1 else None
