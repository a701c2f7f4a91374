"""How much of a client one principal gets, before anything is decided or recorded for it."""

from __future__ import annotations

from typing import Final, final

from attrs import define, field

from sark_trio.errors import ConfigError, Overloaded
from sark_trio.governance.principal import Principal
from sark_trio.machines.limiter import ConcurrencyLimiter, RateLimiter, RateOptions

__all__ = ["CONCURRENT_MAX", "Allowance"]

#: Twice as many as may wait for connections: a loop that went wild, and no crowd.
CONCURRENT_MAX: Final = 20_000


@final
@define(eq=False)
class Allowance:
    """Counts the calls of each principal: those that begin, and those that are under way.

    :param concurrent_max: calls under way at once.
    :param rate: calls that begin; ``None``: as many as end.
    :raises ConfigError: a limit that can be none.
    """

    concurrent_max: int = CONCURRENT_MAX
    rate: RateOptions | None = None
    _places: ConcurrencyLimiter = field(init=False)
    _beginnings: RateLimiter | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            self._places = ConcurrencyLimiter(self.concurrent_max)
        except (TypeError, ValueError) as exc:
            raise ConfigError(str(exc), source="concurrent_max") from None
        if self.rate is not None:
            if not isinstance(self.rate, RateOptions):
                raise ConfigError(f"{self.rate!r} is no RateOptions", source="rate")
            self._beginnings = RateLimiter(self.rate)

    def take(self, now: float, principal: Principal, server: str) -> str:
        """Count a call that begins; give the word back to :meth:`release` when it has ended.

        :param now: monotonic seconds.
        :raises Overloaded: one too many; what is refused is not counted.
        """
        who = f"{principal.kind}:{principal.id}"
        if not self._places.acquire(who):
            raise Overloaded(
                f"{principal.id!r} has as many calls under way as one caller may",
                reason="concurrency_caller",
                server=server,
            )
        limiter = self._beginnings
        if limiter is not None and not (answer := limiter.take(now, who)).allowed:
            self._places.release(who)
            raise Overloaded(
                f"{principal.id!r} calls more often than one caller may",
                reason="rate_caller",
                retry_after_s=answer.retry_after_s,
                server=server,
            )
        return who

    def release(self, who: str) -> None:
        """A call has ended."""
        self._places.release(who)
