"""Supervision with a perfect memory: every start there ever was, counted anew each time."""

from __future__ import annotations

from sark_trio.machines.backoff import backoff
from sark_trio.machines.supervise import SuperviseOptions

__all__ = ["SupervisorModel", "crowded"]


def crowded(restarts: list[float], window_s: float) -> int:
    """The most restarts within any half-open window of that length."""
    return max((sum(end - window_s < at <= end for at in restarts) for end in restarts), default=0)


class SupervisorModel:
    """The oracle: answers in words, and keeps lists where the machine keeps sums.

    Times are whole numbers of 1/64 s in the tests, so that sums of floats are exact.
    """

    def __init__(self, options: SuperviseOptions) -> None:
        self.options = options
        self.now = 0.0
        #: Since the last reset or cool-off: (when, did it answer anything).
        self.starts: list[float] = []
        self.lives: list[bool] = []
        #: All restarts, by epoch: an operator's word begins a new one.
        self.restarts: list[list[float]] = [[]]
        self.state = "idle"
        self.not_before = 0.0
        self.unanswered = 0
        self.asked_at: float | None = None
        self.down_since: float | None = None

    def advance(self, now: float) -> None:
        self.now = max(self.now, now)
        if self.down_since is not None and self.now >= self.down_since + self.options.cool_off_s:
            self.forget()

    def forget(self) -> None:
        """Only the present process is left to know of."""
        running = self.state in {"living", "sick"}
        self.state = self.state if running else "idle"
        self.starts = self.starts[-1:] if running else []
        self.lives = self.lives[-1:] if running else []
        self.restarts.append([])
        self.not_before, self.down_since = self.now, None

    def start(self, now: float) -> str:
        self.advance(now)
        if self.state == "down":
            return "Down"
        if self.state != "idle":
            return "Fault"
        again = bool(self.starts)
        at = max(self.now, self.not_before)
        since = at - self.options.window_s
        if again and 1 + sum(r > since for r in self.restarts[-1]) > self.options.restarts_max:
            self.state, self.down_since = "down", self.now
            return "Down"
        if self.now < self.not_before:
            return "Wait"
        if again:
            self.restarts[-1].append(self.now)
        self.starts.append(self.now)
        self.lives.append(False)
        self.state, self.unanswered, self.asked_at = "living", 0, None
        return "Start"

    def ended(self, now: float, jitter: float) -> str:
        self.advance(now)
        if self.state == "closed":
            return "None"
        if self.state not in {"living", "sick"}:
            return "Fault"
        self.state, self.asked_at = "idle", None
        barren = 0
        for fruitful in reversed(self.lives):
            if fruitful:
                break
            barren += 1
        delay = backoff(self.options.backoff, barren - 1, jitter) if barren > 1 else 0.0
        self.not_before = self.now + delay
        return "None"

    def answered(self, now: float) -> str:
        self.advance(now)
        if self.state == "sick":
            return "None"
        if self.state != "living":
            return "Fault"
        self.lives[-1], self.unanswered, self.asked_at = True, 0, None
        return "None"

    def heard(self, now: float) -> str:
        self.advance(now)
        if self.asked_at is not None and self.state == "living":
            self.asked_at = self.now
        return "None"

    def timed_out(self, now: float) -> str:
        self.advance(now)
        if self.state == "sick":
            return "None"
        if self.state != "living":
            return "Fault"
        self.unanswered += 1
        if self.unanswered >= self.options.timeouts_max:
            self.state = "sick"
            return "Kill"
        if self.asked_at is not None:
            return "None"
        self.asked_at = self.now
        return "Probe"

    def tick(self, now: float) -> str:
        self.advance(now)
        if self.state != "living" or self.asked_at is None:
            return "None"
        if self.now < self.asked_at + self.options.probe_s:
            return "None"
        self.state = "sick"
        return "Kill"

    def reset(self, now: float) -> str:
        self.advance(now)
        self.forget() if self.state != "closed" else None
        return "None"

    def close(self, now: float) -> str:
        self.advance(now)
        self.state, self.down_since = "closed", None
        return "None"
