"""How much of a client one principal gets, before anything is decided or recorded for it."""

from __future__ import annotations

from typing import Final, final

from attrs import define, field

from sark_trio.errors import Overloaded
from sark_trio.governance.principal import Principal
from sark_trio.machines.limiter import ConcurrencyLimiter, RateLimiter

__all__ = ["CONCURRENT_MAX", "Allowance"]

#: Twice as many as may wait for connections: a loop that went wild, and no crowd.
CONCURRENT_MAX: Final = 20_000


@final
@define(eq=False)
class Allowance:
    """Counts the calls of each principal: those that are under way, and those that begin."""

    _places: ConcurrencyLimiter = field(factory=lambda: ConcurrencyLimiter(CONCURRENT_MAX))
    #: ``None``: as many begin as end.
    _rate: RateLimiter | None = None

    def take(self, now: float, principal: Principal, server: str) -> str:
        """Count a call that begins; give the word back to :meth:`release` when it has ended.

        :param now: monotonic seconds.
        :raises Overloaded: one too many; what is refused is not counted.
        """
        who = principal.key
        if not self._places.acquire(who):
            raise Overloaded(
                f"{principal.id!r} has as many calls under way as one caller may",
                reason="concurrency_caller",
                server=server,
            )
        if self._rate is not None and not (answer := self._rate.take(now, who)).allowed:
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
