"""Rolling windows over the outcomes of calls, and the rule that judges their rates.

Rates are compared by cross-multiplication of integers: no window is ever a rounding error
above or below its threshold. A window costs O(size) memory, and nothing for each call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, Protocol, final

from attrs import define, field, frozen
from attrs.validators import in_, optional

from sark_trio.machines.checks import Validator, between, whole
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = ["CountWindow", "Counts", "RateRule", "TimeWindow", "Window", "window_for"]

_SLOW_S: Validator = optional(between(0.001, 3_600))


@final
@frozen
class Counts:
    """What a window holds. A call may be both failed and slow."""

    calls: int = 0
    failures: int = 0
    slow: int = 0


@final
@frozen(kw_only=True)
class RateRule:
    """When the rates of failed or slow calls are too high.

    :param window: ``count`` looks at the last ``calls`` calls, ``time`` at the last
        ``buckets`` times ``bucket_s`` seconds.
    :param min_calls: fewer calls prove nothing: the rule stays silent.
    :param failure_percent: percentage of failed calls that is too high.
    :param slow_percent: percentage of slow calls that is too high.
    :param slow_s: a call that takes as long is slow; ``None`` judges no call by its time.
    """

    window: Literal["count", "time"] = field(default="count", validator=in_(("count", "time")))
    #: The bounds keep one window below 100 kB: there is one for each upstream.
    calls: int = field(default=100, validator=whole(1, 10_000))
    buckets: int = field(default=10, validator=whole(1, 600))
    bucket_s: float = field(default=1.0, validator=between(0.001, 3_600))
    min_calls: int = field(default=20, validator=whole(1, 10_000))
    failure_percent: int = field(default=50, validator=whole(1, 100))
    slow_percent: int = field(default=100, validator=whole(1, 100))
    slow_s: float | None = field(default=10.0, validator=_SLOW_S)

    def __attrs_post_init__(self) -> None:
        if self.window == "count" and self.min_calls > self.calls:
            raise ValueError(
                f"min_calls ({self.min_calls}) is more than a window of {self.calls} calls holds"
            )

    def is_slow(self, duration_s: float) -> bool:
        """Whether a call of that many seconds was slow."""
        return self.slow_s is not None and duration_s >= self.slow_s

    def failing(self, counts: Counts) -> bool:
        """Whether too many calls failed."""
        share = counts.failures * 100 >= self.failure_percent * counts.calls
        return share and counts.calls >= self.min_calls

    def slowing(self, counts: Counts) -> bool:
        """Whether too many calls were slow."""
        share = counts.slow * 100 >= self.slow_percent * counts.calls
        return share and counts.calls >= self.min_calls and self.slow_s is not None


class Window(Protocol):
    """What a breaker asks of a window."""

    def record(self, now: float, /, *, failed: bool, slow: bool) -> None:
        """Count one call."""

    def counts(self, now: float, /) -> Counts:
        """What the window holds at *now*."""

    def clear(self) -> None:
        """Forget everything."""

    def snapshot(self) -> dict[str, Any]:
        """The state as a JSON value."""

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the state from a snapshot of a window with the same options."""


def window_for(rule: RateRule) -> Window:
    """An empty window as *rule* asks for it."""
    if rule.window == "count":
        return CountWindow(rule.calls)
    return TimeWindow(rule.buckets, rule.bucket_s)


_FAILED, _SLOW = 1, 2


@final
@define(eq=False)
class CountWindow:
    """The last *size* calls."""

    size: int
    _calls: deque[int] = field(init=False)
    _failures: int = field(default=0, init=False)
    _slow: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._calls = deque(maxlen=self.size)

    def record(self, _now: float, /, *, failed: bool, slow: bool) -> None:
        """Count one call; the oldest leaves a full window."""
        if len(self._calls) == self.size:
            self._add(self._calls[0], -1)
        call = _FAILED * failed + _SLOW * slow
        self._calls.append(call)
        self._add(call, 1)

    def _add(self, call: int, sign: int) -> None:
        self._failures += sign * (call & _FAILED)
        self._slow += sign * ((call & _SLOW) >> 1)

    def counts(self, _now: float, /) -> Counts:
        """What the window holds; it does not age."""
        return Counts(len(self._calls), self._failures, self._slow)

    def clear(self) -> None:
        """Forget every call."""
        self._calls.clear()
        self._failures = self._slow = 0

    def snapshot(self) -> dict[str, Any]:
        """The calls, oldest first, a digit for each."""
        return {"calls": "".join(map(str, self._calls))}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the calls from a snapshot."""
        self.clear()
        for digit in snapshot["calls"]:
            call = int(digit)
            self.record(0.0, failed=bool(call & _FAILED), slow=bool(call & _SLOW))


@final
@define(eq=False)
class TimeWindow:
    """The last *buckets* spans of *bucket_s* seconds, the current and unfinished one included.

    Spans are counted from the first call after :meth:`clear`, not from the clock's zero: what
    the window decides must not depend on when the machine was booted.
    """

    buckets: int
    bucket_s: float
    _origin: float = field(default=0.0, init=False)
    #: [number, calls, failures, slow] of each span that saw a call, oldest first.
    _spans: deque[list[int]] = field(factory=deque, init=False)

    def record(self, now: float, /, *, failed: bool, slow: bool) -> None:
        """Count one call in the span of *now*."""
        if not self._spans:
            self._origin = now
        number = self._expire(now)
        if not self._spans or self._spans[-1][0] != number:
            self._spans.append([number, 0, 0, 0])
        span = self._spans[-1]
        span[1] += 1
        span[2] += failed
        span[3] += slow

    def counts(self, now: float, /) -> Counts:
        """The sums over the spans that are not older than the window."""
        number = self._number(now)
        live = [span for span in self._spans if span[0] > number - self.buckets]
        return Counts(*(sum(span[place] for span in live) for place in (1, 2, 3)))

    def clear(self) -> None:
        """Forget every call."""
        self._spans.clear()

    def snapshot(self) -> dict[str, Any]:
        """The origin and the spans."""
        return {"origin": self._origin, "spans": [list(span) for span in self._spans]}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take origin and spans from a snapshot."""
        self._origin = snapshot["origin"]
        self._spans = deque(list(span) for span in snapshot["spans"])

    def _number(self, now: float) -> int:
        # Time that went backwards, or is no time, counts as the latest span.
        newest = self._spans[-1][0] if self._spans else 0
        if not self._origin < now < TIME_S_MAX:
            return newest
        return max(newest, int((now - self._origin) // self.bucket_s))

    def _expire(self, now: float) -> int:
        number = self._number(now)
        while self._spans and self._spans[0][0] <= number - self.buckets:
            self._spans.popleft()
        return number
