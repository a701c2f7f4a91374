"""Answers to questions: JSON-RPC ids on one side, whoever waits for them on the other.

Ids are ints that only ever grow, over all epochs, so none is used twice and an answer's id
alone tells whether it was ever asked for. An *epoch* is the life of one connection or process:
what an earlier one still says answers nothing of a later one, whatever id it claims.

An id matches by type and value (JSON-RPC 2.0, section 5: "the same as the value of the id
member"): ``1`` is not ``1.0``, ``"1"`` or ``true``, though Python and some peers think so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar, final

from attrs import define, field, frozen, setters

from sark_trio.machines.checks import whole

__all__ = [
    "Closed",
    "Correlator",
    "CorrelatorStatistics",
    "Duplicate",
    "Full",
    "Late",
    "Match",
    "Pending",
    "Unknown",
]

#: As many as may wait for a connection (see the pool): beyond that a queue only adds latency.
PENDING_MAX: Final = 10_000
#: Cancelled ids that are remembered, to tell a late answer from a second one. Statistics only.
CANCELLED_MAX: Final = 1024

W = TypeVar("W")


@frozen
class Pending(Generic[W]):
    """A request without an answer."""

    id: int
    waiter: W
    #: ``now`` of its ``open``.
    opened_at: float


@frozen
class Match(Generic[W]):
    """The answer is for ``waiter``, who waits no more."""

    id: int
    waiter: W
    #: ``now`` of its ``open``.
    opened_at: float


@frozen
class Late:
    """The request was cancelled, or is of an earlier epoch. Drop the answer."""

    id: int


@frozen
class Duplicate:
    """The request was answered before (or cancelled long ago). Drop the answer."""

    id: int


@frozen
class Unknown:
    """No request ever had that id. Drop the answer."""

    id: object


@frozen
class Full:
    """As many requests are pending as may be."""

    limit: int


@frozen
class Closed:
    """Nothing can be asked until ``reopen``."""

    reason: str


@final
@frozen(kw_only=True)
class CorrelatorStatistics:
    """A snapshot: what is pending, and how answers fared."""

    epoch: int
    pending: int
    matched: int
    cancelled: int
    late: int
    duplicate: int
    unknown: int


@final
@define(eq=False, repr=False, kw_only=True, on_setattr=setters.NO_OP)  # no hook on hot sets
class Correlator(Generic[W]):
    """The pending requests of one peer; ``W`` is whatever wakes who waits.

    Every id that ``open`` minted ends exactly once: by ``Match``, ``cancel`` or ``close``.

    :param pending_max: requests that may be pending at once.
    :raises ValueError: the limit is no whole number of 1 to a million.
    """

    pending_max: int = field(default=PENDING_MAX, validator=whole(1, 1_000_000))
    _pending: dict[int, Pending[W]] = field(factory=dict, init=False)
    _cancelled_ids: OrderedDict[int, None] = field(factory=OrderedDict, init=False)
    _last_id: int = field(default=0, init=False)
    #: Ids up to here are of earlier epochs.
    _last_id_before: int = field(default=0, init=False)
    _epoch: int = field(default=1, init=False)
    _closed: Closed | None = field(default=None, init=False)
    _matched: int = field(default=0, init=False)
    _cancelled: int = field(default=0, init=False)
    _late: int = field(default=0, init=False)
    _duplicate: int = field(default=0, init=False)
    _unknown: int = field(default=0, init=False)

    @property
    def epoch(self) -> int:
        """Which connection this is. A reader keeps the value of when it began."""
        return self._epoch

    def open(self, now: float, waiter: W) -> int | Full | Closed:
        """A new id, under which *waiter* waits from now on; or why not."""
        if self._closed is not None:
            return self._closed
        if len(self._pending) >= self.pending_max:
            return Full(self.pending_max)
        self._last_id += 1
        self._pending[self._last_id] = Pending(self._last_id, waiter, now)
        return self._last_id

    def resolve(self, answer_id: object, *, epoch: int) -> Match[W] | Late | Duplicate | Unknown:
        """Whose answer came in.

        :param answer_id: the ``id`` member as decoded, of whatever type.
        :param epoch: :attr:`epoch` as it was when the connection that said it was made.
        """
        if type(answer_id) is not int or not 0 < answer_id <= self._last_id:
            self._unknown += 1
            return Unknown(answer_id)
        if epoch != self._epoch or self._closed is not None or answer_id <= self._last_id_before:
            self._late += 1
            return Late(answer_id)
        pending = self._pending.pop(answer_id, None)
        if pending is not None:
            self._matched += 1
            return Match(pending.id, pending.waiter, pending.opened_at)
        if answer_id in self._cancelled_ids:
            del self._cancelled_ids[answer_id]  # one late answer; a second one is a duplicate
            self._late += 1
            return Late(answer_id)
        self._duplicate += 1
        return Duplicate(answer_id)

    def peek(self, request_id: object) -> W | None:
        """Who waits under that id (for progress); the same strictness as :meth:`resolve`."""
        pending = self._pending.get(request_id) if type(request_id) is int else None
        return None if pending is None else pending.waiter

    def cancel(self, request_id: int) -> Pending[W] | None:
        """Give up a request. ``None``: it is not pending, so it ended some other way before."""
        pending = self._pending.pop(request_id, None) if type(request_id) is int else None
        if pending is not None:
            self._cancelled += 1
            self._cancelled_ids[request_id] = None
            if len(self._cancelled_ids) > CANCELLED_MAX:
                self._cancelled_ids.popitem(last=False)
        return pending

    def close(self, reason: str) -> tuple[Pending[W], ...]:
        """The connection is gone: what was pending, oldest first, for the caller to fail."""
        failed = tuple(self._pending.values())
        self._pending.clear()
        self._closed = self._closed or Closed(reason)
        return failed

    def reopen(self) -> int:
        """A new connection: its epoch. Changes nothing unless closed."""
        if self._closed is not None:
            self._closed = None
            self._epoch += 1
            self._last_id_before = self._last_id
            self._cancelled_ids.clear()
        return self._epoch

    def statistics(self) -> CorrelatorStatistics:
        """A snapshot."""
        return CorrelatorStatistics(
            epoch=self._epoch,
            pending=len(self._pending),
            matched=self._matched,
            cancelled=self._cancelled,
            late=self._late,
            duplicate=self._duplicate,
            unknown=self._unknown,
        )

    def check_invariants(self) -> None:
        """Assert that ids are of this epoch, ended at most once, and few enough."""
        assert len(self._pending) <= self.pending_max
        assert len(self._cancelled_ids) <= CANCELLED_MAX
        assert all(self._last_id_before < known <= self._last_id for known in self._pending)
        assert all(known > self._last_id_before for known in self._cancelled_ids)
        assert list(self._pending) == sorted(self._pending)
        assert not self._pending.keys() & self._cancelled_ids.keys()
        assert not (self._closed and self._pending)

    def __repr__(self) -> str:
        closed = "" if self._closed is None else f" closed={self._closed.reason!r}"
        return (
            f"<Correlator epoch={self._epoch}{closed} pending={len(self._pending)}"
            f" last_id={self._last_id}>"
        )
