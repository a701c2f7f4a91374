"""Allows, kept for a few seconds. White: time comes in as an argument.

Only allows are kept, under everything that could have changed them: the whole policy input
(arguments included) and the revision of the policy. A denial or an error is asked again each
time, and an allow that outlived its time is never fallen back on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from attrs import define, field, frozen
from attrs.validators import ge, instance_of, le

from sark_trio.governance.decision import Decision

__all__ = ["CacheStatistics", "DecisionCache"]

#: Entries: what one busy host asks in five seconds.
ENTRIES_MAX: Final = 4_096
#: Seconds: a right that was taken away lives on no longer than this.
TTL_MAX_S: Final = 5.0
#: Bytes of input above which a decision is not kept, as it may hold as many of arguments:
#: with 4,096 entries that bounds the cache at 64 MiB.
ENTRY_BYTES_MAX: Final = 16_384


@frozen(kw_only=True)
class CacheStatistics:
    """A snapshot of a cache's counters."""

    entries: int
    hits: int
    misses: int
    flushes: int


@final
@define(eq=False, kw_only=True)
class DecisionCache:
    """A bounded LRU of allows.

    :param entries_max: decisions kept at once; 0 keeps none.
    :param ttl_max_s: seconds, at most 60, whatever policy and sensitivity would permit.
    """

    entries_max: int = field(default=ENTRIES_MAX, validator=[instance_of(int), ge(0)])
    ttl_max_s: float = field(default=TTL_MAX_S, validator=[ge(0), le(60)])
    _kept: OrderedDict[bytes, tuple[float, Decision]] = field(
        factory=OrderedDict, init=False, repr=False
    )
    _revision: str | None = field(default=None, init=False, repr=False)
    _now: float = field(default=float("-inf"), init=False, repr=False)
    _epoch: int = field(default=0, init=False, repr=False)
    _hits: int = field(default=0, init=False, repr=False)
    _misses: int = field(default=0, init=False, repr=False)
    _flushes: int = field(default=0, init=False, repr=False)

    @property
    def epoch(self) -> int:
        """Grows whenever the policy may be another: an answer to a question of an earlier epoch
        is not to be :meth:`put`.
        """
        return self._epoch

    def get(self, now: float, key: bytes, revision: str | None) -> tuple[Decision, float] | None:
        """The allow kept for *key* under *revision* and when it ends, while it has not ended."""
        self._now = max(self._now, now)
        self._see(revision)
        entry = self._kept.get(key)
        if entry is None or self._now >= entry[0]:
            self._kept.pop(key, None)
            self._misses += 1
            return None
        self._kept.move_to_end(key)
        self._hits += 1
        ends, decision = entry
        return decision, ends

    def put(self, now: float, key: bytes, decision: Decision, *, ttl_s: float, size: int) -> float:
        """Keep *decision*, which was asked for at *now*; return when it ends.

        What was kept for *key* is gone, whether or not *decision* may take its place: of two
        answers to one question the later counts, also where it lives shorter.

        :param ttl_s: seconds that policy and sensitivity permit.
        :param size: bytes of the policy input.
        """
        self._now = max(self._now, now)
        lifetime = min(ttl_s, self.ttl_max_s)
        ends = now + max(lifetime, 0.0)
        self._see(decision.revision)
        self.forget(key)
        if decision.allow and size <= ENTRY_BYTES_MAX and ends > self._now:
            self._kept[key] = (ends, decision)
            if len(self._kept) > self.entries_max:
                self._kept.popitem(last=False)
        return ends

    def forget(self, key: bytes) -> None:
        """Drop what is kept for *key*: its question was answered otherwise, or not at all."""
        self._kept.pop(key, None)

    def flush(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._flushes += 1
        self._epoch += 1

    def _see(self, revision: str | None) -> None:
        if revision != self._revision:
            self._revision = revision
            if self._kept:
                self.flush()
            else:
                self._epoch += 1

    def statistics(self) -> CacheStatistics:
        """A snapshot of the counters."""
        return CacheStatistics(
            entries=len(self._kept),
            hits=self._hits,
            misses=self._misses,
            flushes=self._flushes,
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if the cache is not what it promises to be."""
        assert len(self._kept) <= self.entries_max
        for ends, decision in self._kept.values():
            assert decision.allow
            assert decision.revision == self._revision
            assert ends <= self._now + self.ttl_max_s
