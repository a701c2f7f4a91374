"""How often, and how many at once: limits for each of many keys, such as the callers of a gateway.

The rate is a token bucket, kept as the generic cell rate algorithm does (ITU-T I.371): one
integer a key, the time at which its bucket would be full again. A bucket that is full is that of
a key never seen, so forgetting it changes no answer; that is what bounds the keys. Where all of
them are in use, newcomers share one bucket: a crowd of new names can starve itself, and nobody
whom the limiter knows already.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Literal, final

from attrs import define, field, frozen

from sark_trio.machines.checks import between, whole
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = [
    "ConcurrencyLimiter",
    "ConcurrencyStatistics",
    "Fault",
    "RateAnswer",
    "RateLimiter",
    "RateOptions",
    "RateStatistics",
]

#: About 100 bytes each: more callers than that belong to a bigger gateway.
KEYS_MAX: Final = 10_000
_NS: Final = 10**9
#: Added to every wait: a caller's clock and float may round a microsecond away.
_MARGIN_NS: Final = 1_000


@final
@frozen
class Fault:
    """A misuse; it changed nothing."""

    kind: Literal["not_held"]


@final
@frozen(kw_only=True)
class RateOptions:
    """The limit of one key.

    :param per_s: requests a second that can go on for ever; 0.001 to a million.
    :param burst: requests at once after a quiet time; 1 to a million.
    :raises ValueError: an option is out of its bounds.
    """

    per_s: float = field(default=100.0, validator=between(0.001, 1e6))
    burst: int = field(default=1_000, validator=whole(1, 10**6))

    @property
    def interval_ns(self) -> int:
        """What one request costs, in nanoseconds of waiting."""
        return math.ceil(_NS / self.per_s)

    @property
    def window_s(self) -> float:
        """Seconds in which an empty bucket fills."""
        return self.burst * self.interval_ns / _NS


@final
@frozen(kw_only=True)
class RateAnswer:
    """Whether a request may go on, and what is left.

    :param remaining: requests that would be let through now.
    :param retry_after_s: seconds after which the same request is let through; 0 if it was.
    :param reset_s: seconds after which the bucket is full.
    """

    allowed: bool
    remaining: int
    retry_after_s: float
    reset_s: float


@final
@frozen(kw_only=True)
class RateStatistics:
    """A snapshot of the counters."""

    keys: int
    allowed: int
    refused: int
    #: Requests of newcomers that had to share a bucket.
    crowded: int


@final
@define(eq=False, repr=False)
class RateLimiter:
    """A token bucket for each key.

    :param keys_max: keys remembered at once.
    :raises ValueError: an option is out of its bounds.
    """

    options: RateOptions = field(factory=RateOptions)
    keys_max: int = field(default=KEYS_MAX, kw_only=True, validator=whole(1, 10**6))
    #: When each bucket is full again, in nanoseconds; the longest unused key first.
    _full_at: OrderedDict[str, int] = field(factory=OrderedDict, init=False)
    _shared_full_at: int = field(default=0, init=False)
    _now: float = field(default=0.0, init=False)
    _allowed: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _crowded: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<RateLimiter {len(self._full_at)} keys, {self._refused} refused>"

    def take(self, now: float, key: str) -> RateAnswer:
        """One request of *key*. A refused one costs nothing."""
        self._now = max(now, self._now) if now < TIME_S_MAX else self._now
        now_ns = round(self._now * _NS)
        own = key in self._full_at or self._has_room(now_ns)
        full_at = self._full_at.get(key, now_ns) if own else self._shared_full_at
        full_at, answer = self._answer(max(full_at, now_ns), now_ns)
        if own:
            self._full_at[key] = full_at
            self._full_at.move_to_end(key)
        else:
            self._shared_full_at = full_at
            self._crowded += 1
        if answer.allowed:
            self._allowed += 1
        else:
            self._refused += 1
        return answer

    def next_deadline(self) -> None:
        """Mere waiting changes nothing that needs doing."""

    def statistics(self) -> RateStatistics:
        """A snapshot of the counters."""
        return RateStatistics(
            keys=len(self._full_at),
            allowed=self._allowed,
            refused=self._refused,
            crowded=self._crowded,
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert len(self._full_at) <= self.keys_max
        latest = round(self._now * _NS) + self.options.burst * self.options.interval_ns
        assert all(full_at <= latest for full_at in self._full_at.values())
        assert self._shared_full_at <= latest

    def _answer(self, full_at: int, now_ns: int) -> tuple[int, RateAnswer]:
        cost, depth = self.options.interval_ns, self.options.burst * self.options.interval_ns
        allowed = full_at + cost - now_ns <= depth
        wait_ns = 0 if allowed else full_at + cost - now_ns - depth + _MARGIN_NS
        if allowed:
            full_at += cost
        answer = RateAnswer(
            allowed=allowed,
            remaining=(depth - (full_at - now_ns)) // cost,
            retry_after_s=wait_ns / _NS,
            reset_s=(full_at - now_ns) / _NS,
        )
        return full_at, answer

    def _has_room(self, now_ns: int) -> bool:
        """Whether one more key can be remembered; the front one makes room if it is full."""
        if len(self._full_at) < self.keys_max:
            return True
        oldest, full_at = next(iter(self._full_at.items()))
        if full_at > now_ns:
            return False
        del self._full_at[oldest]
        return True


@final
@frozen(kw_only=True)
class ConcurrencyStatistics:
    """A snapshot of the counters."""

    keys: int
    held: int
    refused: int


@final
@define(eq=False, repr=False)
class ConcurrencyLimiter:
    """So many at once for each key. Keys are those in use, and no others.

    :raises ValueError: *limit* is no whole number of 1 to a million.
    """

    limit: int = field(validator=whole(1, 10**6))
    _held: dict[str, int] = field(factory=dict, init=False)
    _refused: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter {sum(self._held.values())} held by {len(self._held)} keys>"

    def acquire(self, key: str) -> bool:
        """Whether *key* may have one more; then :meth:`release` it once."""
        held = self._held.get(key, 0)
        if held >= self.limit:
            self._refused += 1
            return False
        self._held[key] = held + 1
        return True

    def release(self, key: str) -> Fault | None:
        """One of *key*'s has ended; a :class:`Fault` if it has none."""
        held = self._held.get(key, 0)
        if held == 0:
            return Fault("not_held")
        if held == 1:
            del self._held[key]
        else:
            self._held[key] = held - 1
        return None

    def next_deadline(self) -> None:
        """Mere waiting changes nothing."""

    def statistics(self) -> ConcurrencyStatistics:
        """A snapshot of the counters."""
        return ConcurrencyStatistics(
            keys=len(self._held), held=sum(self._held.values()), refused=self._refused
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert all(0 < held <= self.limit for held in self._held.values())
