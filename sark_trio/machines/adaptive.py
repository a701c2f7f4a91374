"""How many calls a server gets at once, where nobody can say: found by trying, call by call.

Theory of operation. This is TCP's additive increase and multiplicative decrease (RFC 5681) with
calls for segments, as Netflix's concurrency-limits has it. Calls beyond the limit wait in line.

- *A round* is as many answers as the limit, and no fewer than ``ROUND_MIN``. If all that the
  limit allows was in use meanwhile, the next round may have one call more.
- *A drop* (the server says that it is too much, or does not answer) cuts the limit to
  ``keep_percent`` of itself. A crowd that fails together was let out under one limit, so it cuts
  once: whoever was let out before the last cut is not listened to (RFC 6582, "recover").
- *Slow* is a round whose fastest answer took ``slow_ratio`` times as long as the fastest ever.
  An average would tell which tools were called; when even the fastest is late, calls wait for
  each other over there. A slow round cuts, too.
- At the least limit there is no crowd of ours, so what a round takes there is what a call takes:
  the fastest ever begins anew. Hence a server that became slower for good is not starved, and
  from wherever it was driven the limit comes back (law L14).
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum, unique
from math import inf
from typing import Any, Final, Literal, final

from attrs import Attribute, define, field, frozen

from sark_trio.errors import (
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    Overloaded,
    TLSError,
    TransportError,
)
from sark_trio.machines.checks import between, whole
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = [
    "ROUND_MIN",
    "SIGNALS",
    "AdaptiveConcurrency",
    "AdaptiveLimiter",
    "AdaptiveStatistics",
    "Admitted",
    "Fault",
    "Queued",
    "Refused",
    "Signal",
    "signal_of",
]

#: Answers in the smallest round: the fastest of fewer is a matter of luck.
ROUND_MIN: Final = 10


@unique
class Signal(StrEnum):
    """What the end of a call says about how much the server can bear."""

    ANSWERED = "answered"
    DROPPED = "dropped"
    #: Nothing: it was cancelled, refused by us, or failed for a reason of its own.
    IGNORED = "ignored"


#: The first type that fits says. HTTP errors say it by status.
SIGNALS: Final[tuple[tuple[type[GatewayError], Signal], ...]] = (
    (TLSError, Signal.IGNORED),  # a bad certificate is as bad under any load
    (TransportError, Signal.DROPPED),  # time limits, resets, and the pool's own queue
    (Overloaded, Signal.DROPPED),  # a queue behind this one is full
    (GatewayError, Signal.IGNORED),
)
#: Too many requests, unavailable, the gateway's own time limit.
_DROPPED_STATUS: Final = frozenset({429, 503, 504})


def signal_of(error: BaseException) -> Signal:
    """What *error* says. What is not a :class:`GatewayError` is a cancellation."""
    if isinstance(error, OutcomeUnknown) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, HTTPStatusError):
        return Signal.DROPPED if error.status in _DROPPED_STATUS else Signal.IGNORED
    return next((signal for kind, signal in SIGNALS if isinstance(error, kind)), Signal.IGNORED)


def _ratio(instance: Any, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        between(1.1, 1_000)(instance, attribute, value)


@final
@frozen(kw_only=True)
class AdaptiveConcurrency:
    """Within which bounds the limit is looked for.

    :param limit_min: calls at once, however bad it gets.
    :param limit_max: ... however good. As much as *limit_min*: a limit that does not move.
    :param limit_start: ... before anything is known; within these bounds it is moved to them.
    :param keep_percent: what a cut leaves of the limit. 50 is TCP's, which shares its queue with
        strangers; CUBIC keeps 70 (RFC 9438).
    :param slow_ratio: how many times as long as ever a round's fastest answer may take; ``None``
        listens to drops only.
    :param waiters_max: calls that may wait in line; the next one is refused.
    :param wait_s: seconds for which one waits at most.
    :raises ValueError: an option is out of its bounds.
    """

    limit_min: int = field(default=1, validator=whole(1, 100_000))
    limit_max: int = field(default=100, validator=whole(1, 100_000))
    limit_start: int = field(default=10, validator=whole(1, 100_000))
    keep_percent: int = field(default=70, validator=whole(1, 95))
    slow_ratio: float | None = field(default=2.0, validator=_ratio)
    waiters_max: int = field(default=1_000, validator=whole(0, 100_000))
    wait_s: float = field(default=5.0, validator=between(0.001, 300))

    @limit_max.validator
    def _check(self, attribute: Attribute[int], value: int) -> None:
        if value < self.limit_min:
            raise ValueError(f"{attribute.name} must be limit_min or more, not {value!r}")


@final
@frozen
class Admitted:
    """Send now."""

    ticket: int


@final
@frozen
class Queued:
    """Wait until *ticket* is among those that :meth:`AdaptiveLimiter.done` lets in."""

    ticket: int


@final
@frozen
class Refused:
    """The line is full, too."""

    limit: int
    waiting: int


@final
@frozen
class Fault:
    """A misuse; it changed nothing."""

    kind: Literal["unknown_ticket"]


@final
@frozen(kw_only=True)
class AdaptiveStatistics:
    """A snapshot.

    :param out: calls that were let out and have not ended.
    :param fastest_s: the fastest answer ever, as far as that is remembered; ``None`` before the
        first round is over.
    """

    limit: int
    out: int
    waiting: int
    fastest_s: float | None
    admitted: int
    refused: int
    cuts: int
    raises: int


@frozen
class _Lease:
    since: float
    #: Cuts that there had been.
    epoch: int


@final
@define(eq=False, repr=False)
class AdaptiveLimiter:
    """Lets calls out to one server; see the module's docstring.

    ``now`` is in monotonic seconds; one before the last one counts as the last one.
    """

    options: AdaptiveConcurrency = field(factory=AdaptiveConcurrency)
    _limit: int = field(init=False)
    _now: float = field(default=0.0, init=False)
    _out: dict[int, _Lease] = field(factory=dict, init=False)
    #: The oldest first.
    _line: OrderedDict[int, None] = field(factory=OrderedDict, init=False)
    _tickets: int = field(default=0, init=False)
    #: Of this round: answers, the fastest of them, whether the limit was reached.
    _answers: int = field(default=0, init=False)
    _fastest_s: float = field(default=inf, init=False)
    _used_up: bool = field(default=False, init=False)
    _ever_s: float = field(default=inf, init=False)
    _admitted: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _cuts: int = field(default=0, init=False)
    _raises: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        bounds = self.options
        self._limit = min(max(bounds.limit_start, bounds.limit_min), bounds.limit_max)

    @property
    def limit(self) -> int:
        """Calls that may be out at once. After a cut more of them may still be."""
        return self._limit

    def want(self, now: float) -> Admitted | Queued | Refused:
        """A call wants to go out. End what it gets with :meth:`done`, whatever becomes of it."""
        self._advance(now)
        # Whoever waits already goes first; and nobody waits while there is room.
        if len(self._out) < self._limit:
            self._tickets += 1
            self._admit(self._tickets)
            return Admitted(self._tickets)
        if len(self._line) >= self.options.waiters_max:
            self._refused += 1
            return Refused(self._limit, len(self._line))
        self._tickets += 1
        self._line[self._tickets] = None
        return Queued(self._tickets)

    def done(self, now: float, ticket: int, signal: Signal) -> tuple[int, ...] | Fault:
        """The call of *ticket* ended, or waits no longer: the tickets that are let in now."""
        self._advance(now)
        if ticket in self._line:
            del self._line[ticket]
            return ()
        lease = self._out.pop(ticket, None)
        if lease is None:
            return Fault("unknown_ticket")
        if lease.epoch == self._cuts:
            if signal is Signal.DROPPED:
                self._cut()
            elif signal is Signal.ANSWERED:
                self._answered(self._now - lease.since)
        return self._let_in()

    def next_deadline(self) -> None:
        """Mere waiting changes nothing."""

    def statistics(self) -> AdaptiveStatistics:
        """A snapshot."""
        return AdaptiveStatistics(
            limit=self._limit,
            out=len(self._out),
            waiting=len(self._line),
            fastest_s=None if self._ever_s == inf else self._ever_s,
            admitted=self._admitted,
            refused=self._refused,
            cuts=self._cuts,
            raises=self._raises,
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        bounds = self.options
        assert bounds.limit_min <= self._limit <= bounds.limit_max
        assert not self._line or len(self._out) >= self._limit, "one waits beside a free place"
        assert len(self._line) <= bounds.waiters_max
        assert not self._line.keys() & self._out.keys()
        assert self._answers < self._round()
        assert all(lease.since <= self._now for lease in self._out.values())

    def __repr__(self) -> str:
        return (
            f"<AdaptiveLimiter {len(self._out)}/{self._limit} out, {len(self._line)} waiting,"
            f" {self._cuts} cuts>"
        )

    def _advance(self, now: float) -> None:
        if self._now < now < TIME_S_MAX:
            self._now = now

    def _round(self) -> int:
        return max(self._limit, ROUND_MIN)

    def _let_in(self) -> tuple[int, ...]:
        found = []
        while self._line and len(self._out) < self._limit:
            ticket, _ = self._line.popitem(last=False)
            self._admit(ticket)
            found.append(ticket)
        return tuple(found)

    def _admit(self, ticket: int) -> None:
        self._out[ticket] = _Lease(self._now, self._cuts)
        self._admitted += 1
        self._used_up = self._used_up or len(self._out) >= self._limit

    def _answered(self, took_s: float) -> None:
        self._answers += 1
        self._fastest_s = min(self._fastest_s, took_s)
        if self._answers < self._round():
            return
        fastest_s, ratio = self._fastest_s, self.options.slow_ratio
        alone = self._limit == self.options.limit_min
        self._ever_s = fastest_s if alone else min(self._ever_s, fastest_s)
        if ratio is not None and fastest_s > ratio * self._ever_s:
            self._cut()
            return
        if self._used_up and self._limit < self.options.limit_max:
            self._limit += 1
            self._raises += 1
        self._begin_round()

    def _cut(self) -> None:
        kept = self._limit * self.options.keep_percent // 100
        self._limit = max(kept, self.options.limit_min)
        self._cuts += 1
        self._begin_round()

    def _begin_round(self) -> None:
        self._answers, self._fastest_s, self._used_up = 0, inf, False
