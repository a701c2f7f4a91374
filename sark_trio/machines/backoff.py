"""How many attempts, and how far apart."""

from __future__ import annotations

from typing import final

from attrs import field, frozen
from attrs.validators import instance_of

from sark_trio.machines.checks import between, whole

__all__ = ["RetryConfig", "backoff"]


@final
@frozen(kw_only=True)
class RetryConfig:
    """The schedule of attempts.

    :param attempts: attempts *including the first*: the default sleeps at most twice.
    :param initial_delay_s: seconds before the second attempt.
    :param multiplier: each further delay is that many times the last.
    :param max_delay_s: no delay of ours is longer (a server's Retry-After may be).
    :param jitter: a delay varies by this share of it in both directions, within the cap.
    :param throttled_means_not_executed: the operator's word that this server answers 429, and
        503 with Retry-After, before it acts: then unsafe calls are retried, too.
    :raises ValueError: an option is out of its bounds.
    """

    attempts: int = field(default=3, validator=whole(1, 100))
    initial_delay_s: float = field(default=1.0, validator=between(0.001, 3_600))
    multiplier: float = field(default=2.0, validator=between(1, 100))
    max_delay_s: float = field(default=30.0, validator=between(0.001, 3_600))
    jitter: float = field(default=0.25, validator=between(0, 1))
    throttled_means_not_executed: bool = field(default=False, validator=instance_of(bool))

    @property
    def max_attempts(self) -> int:
        """The original system's name of :attr:`attempts`."""
        return self.attempts

    @property
    def initial_delay(self) -> float:
        """The original system's name of :attr:`initial_delay_s`."""
        return self.initial_delay_s

    @property
    def max_delay(self) -> float:
        """The original system's name of :attr:`max_delay_s`."""
        return self.max_delay_s


def backoff(config: RetryConfig, k: int, jitter: float) -> float:
    """Seconds to wait after the *k*-th failed attempt (from 1), for *jitter* in [0, 1).

    The jitter is scaled into what is left below the cap. Added after it, it would exceed the
    cap; clamped to it, a herd of clients would meet there.
    """
    try:
        base = min(config.initial_delay_s * config.multiplier ** (k - 1), config.max_delay_s)
    except OverflowError:
        base = config.max_delay_s
    low = (1 - config.jitter) * base
    high = min((1 + config.jitter) * base, config.max_delay_s)
    return min(low + jitter * (high - low), high)
