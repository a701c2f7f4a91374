"""How much of the gateway one caller gets, before anything is decided for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

from attrs import define, field, frozen

from sark_trio import Principal
from sark_trio.gateway.faults import Refused
from sark_trio.machines.checks import whole
from sark_trio.machines.limiter import ConcurrencyLimiter, RateAnswer, RateLimiter, RateOptions

__all__ = ["Limits", "Turnstile", "caller_of"]

_Headers = tuple[tuple[str, str], ...]
#: For a place among requests or streams: about as long as one of them takes.
BUSY_S: Final = 1


@final
@frozen(kw_only=True)
class Limits:
    """What each caller gets.

    :param rate: requests a second, and at once.
    :param concurrent: requests under way at once, beside streams.
    :param streams: event streams at once; each holds a connection for as long as it likes.
    :raises ValueError: a limit that can be none.
    """

    rate: RateOptions = field(factory=RateOptions)
    concurrent: int = field(default=100, validator=whole(1, 100_000))
    streams: int = field(default=8, validator=whole(1, 100_000))


@final
@define(eq=False)
class Turnstile:
    """Lets callers through, each by its own count."""

    _limits: Limits
    _rate: RateLimiter = field(init=False)
    _calls: ConcurrencyLimiter = field(init=False)
    _streams: ConcurrencyLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rate = RateLimiter(self._limits.rate)
        self._calls = ConcurrencyLimiter(self._limits.concurrent)
        self._streams = ConcurrencyLimiter(self._limits.streams)

    def take(self, now: float, caller: str) -> _Headers:
        """Count one request; headers that say what is left.

        :raises Refused: 429, with ``Retry-After``.
        """
        answer = self._rate.take(now, caller)
        headers = self._told(answer)
        if not answer.allowed:
            wait = (("retry-after", str(math.ceil(answer.retry_after_s))),)
            raise _too_many("too many requests", "rate", (*wait, *headers))
        return headers

    @contextmanager
    def inside(self, caller: str, *, streaming: bool) -> Iterator[None]:
        """One request of *caller* is under way.

        :raises Refused: 429, so many are already.
        """
        limiter = self._streams if streaming else self._calls
        if not limiter.acquire(caller):
            what = "streams" if streaming else "requests"
            wait = (("retry-after", str(BUSY_S)),)
            raise _too_many(f"too many {what} at once", what, wait)
        try:
            yield
        finally:
            limiter.release(caller)

    def _told(self, answer: RateAnswer) -> _Headers:
        # draft-ietf-httpapi-ratelimit-headers: structured fields, one policy.
        burst, window = self._limits.rate.burst, math.ceil(self._limits.rate.window_s)
        reset = math.ceil(answer.reset_s)
        return (
            ("ratelimit-policy", f'"caller";q={burst};w={window}'),
            ("ratelimit", f'"caller";r={answer.remaining};t={reset}'),
        )


def caller_of(principal: Principal | None) -> str:
    """Whose count it is: a newer token of the same caller gives no new one."""
    return "" if principal is None else principal.key


def _too_many(message: str, reason: str, headers: _Headers) -> Refused:
    return Refused(429, "rate_limited", message, reason=reason, headers=headers)
