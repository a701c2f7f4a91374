"""A rate limit, naively: every admission, and buckets counted in exact fractions."""

from __future__ import annotations

from fractions import Fraction

from attrs import define, field

__all__ = ["Buckets"]


@define
class Buckets:
    """A token bucket for each key, none of them ever forgotten."""

    interval: Fraction
    burst: int
    tokens: dict[str, Fraction] = field(factory=dict)
    seen: dict[str, Fraction] = field(factory=dict)
    now: Fraction = Fraction(0)

    def take(self, now: Fraction, key: str) -> bool:
        """Whether one more request fits."""
        self.now = max(self.now, now)
        earned = (self.now - self.seen.get(key, self.now)) / self.interval
        tokens = min(self.tokens.get(key, Fraction(self.burst)) + earned, Fraction(self.burst))
        allowed = tokens >= 1
        self.tokens[key] = tokens - 1 if allowed else tokens
        self.seen[key] = self.now
        return allowed
