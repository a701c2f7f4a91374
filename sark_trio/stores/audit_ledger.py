"""One open audit log: its chain, its way to the disk, and its checkpoints.

Made by :class:`~sark_trio.stores.audit.AuditLog` for the time that it runs. Everything here
happens on the event loop; what touches files is handed to the disk thread by
:class:`~sark_trio.stores.audit_commit.GroupCommit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, final

import anyio
from attrs import define, field, frozen

from sark_trio.governance.audit_chain import FRAME_BYTES_MAX, AuditChain, Fault, segment_name
from sark_trio.governance.audit_checkpoint import Checkpoint
from sark_trio.governance.audit_record import (
    RECORD_BYTES_MAX,
    event_fields,
    open_fields,
    recovered_fields,
)
from sark_trio.stores.audit_commit import CLOSED, STALL_S, Batch, GroupCommit
from sark_trio.stores.audit_following import Progress
from sark_trio.stores.audit_recovery import Opened
from sark_trio.stores.audit_sink import CheckpointFeed

__all__ = ["Appended", "AuditStatistics", "Ledger", "Observer"]

#: A full queue is waited for no longer than this (laws, 2.7).
BLOCK_S = 1.0
#: Calls that may be open at once: the books are kept in memory.
OPEN_INTENTS_MAX = 65_536

#: Told of each record that was taken: its number and its members. Must neither block nor raise.
Observer = Callable[[int, Mapping[str, Any]], None]

_FRAME_OVERHEAD_BYTES = FRAME_BYTES_MAX - RECORD_BYTES_MAX


class Appended(NamedTuple):
    """A record that was taken: its number, and the batch that makes it durable."""

    seq: int
    batch: Batch


@final
@frozen(kw_only=True)
class AuditStatistics:
    """A snapshot of the log's counters and state."""

    records: int = 0
    flushes: int = 0
    queued_records: int = 0
    queued_bytes: int = 0
    open_intents: int = 0
    #: Records refused because they did not fit a call, or could not be kept.
    faults: int = 0
    #: Calls let through unrecorded; only ever with ``on_full="drop"``.
    dropped: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0
    #: Why nothing is taken at the moment, or for good.
    unavailable: str | None = None


@final
@define(kw_only=True, eq=False, repr=False)
class Ledger:
    """See the module's docstring.

    :param segment_bytes_max: a new segment is begun when the next record would pass it.
    :param checkpoint_records: a checkpoint is taken after so many records.
    :param progress: told how far the log is durable.
    """

    chain: AuditChain
    commit: GroupCommit
    feed: CheckpointFeed | None
    wall_clock: Callable[[], str]
    segment_bytes_max: int
    checkpoint_records: int
    progress: Progress
    observers: Sequence[Observer] = ()
    _taken: int = field(default=0, init=False)
    _faults: int = field(default=0, init=False)
    _dropped: int = field(default=0, init=False)
    _untold: int = field(default=0, init=False)
    #: Records of calls that were let in, for which there was no room; the oldest first.
    _late: deque[Mapping[str, Any]] = field(factory=deque, init=False)
    #: The calls that end among them.
    _late_ends: set[str] = field(factory=set, init=False)
    _segment_bytes: int = field(default=0, init=False)
    _covered: int = field(default=0, init=False)
    _wanted: bool = field(default=False, init=False)
    _checkpoint: Checkpoint | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.commit.on_take, self.commit.on_durable = self.on_take, self.on_durable
        self.commit.on_room = self.on_room
        if self.feed is not None:
            self.feed.on_interval = self.on_interval

    def append(self, fields: Mapping[str, Any], *, urgent: bool) -> Appended | Fault:
        """Make a record and put it on its way; *urgent* if somebody waits for it."""
        if self._untold and self.commit.has_room():
            untold, self._untold = self._untold, 0
            self.append(event_fields("dropped", {"calls": untold}), urgent=False)
        if self._segment_bytes >= self.segment_bytes_max:
            self._begin_segment("rotated")
        record = self.chain.append(fields, ts=self.wall_clock())
        if isinstance(record, Fault):
            return record
        self._segment_bytes += len(record) + _FRAME_OVERHEAD_BYTES
        for observer in self.observers:
            with suppress(Exception):  # nobody who looks on may stop what is recorded
                observer(self.chain.size - 1, fields)
        return Appended(self.chain.size - 1, self.commit.put((None, record), urgent=urgent))

    def take(
        self, fields: Mapping[str, Any], *, reserved: bool, urgent: bool = False
    ) -> Appended | Fault:
        """As :meth:`append`, if there is room; *reserved* if the record ends something.

        What ends a call that was let in is written when there is room, and until then a Fault.
        """
        if reserved and self.commit.failure is None and self._must_wait():
            return self._put_off(fields)
        if self.commit.failure is not None:
            result: Appended | Fault = Fault("unavailable")
        elif not self.commit.has_room(reserved=reserved):
            result = Fault("queue_full")
            self.commit.alarm(f"no room in the audit log's queue for a record: {fields['kind']}")
        else:
            result = self.append(fields, urgent=urgent)
        if isinstance(result, Fault):
            self._faults += 1
        return result

    def _must_wait(self) -> bool:
        """Whether a call that was let in cannot be ended yet: those before it come first."""
        return bool(self._late) or not self.commit.has_room(reserved=True)

    def _put_off(self, fields: Mapping[str, Any]) -> Fault:
        # A batch lets thousands of calls go at once, and they may end before the next one is
        # written. There are no more of them than calls are open, and those are bounded.
        name = fields["request_id"]
        known = name in self.chain.open_intents and name not in self._late_ends
        if not known or len(self._late) >= OPEN_INTENTS_MAX:
            self._faults += 1
            return Fault("queue_full" if known else "no_open_intent")
        self._late.append(fields)
        if fields["kind"] == "outcome":
            self._late_ends.add(name)
        return Fault("queue_full")

    def on_room(self) -> None:
        """A batch was written: what had to wait for that goes before anything new."""
        while self._late and self.commit.has_room(reserved=True):
            fields = self._late.popleft()
            self._late_ends.discard(fields["request_id"])
            self.append(fields, urgent=False)

    @property
    def is_full(self) -> bool:
        """Whether a new call must wait for room."""
        return not self.commit.has_room() or len(self.chain.open_intents) >= OPEN_INTENTS_MAX

    async def wait_for_room(self) -> str | None:
        """Wait until there is room for a new call; what is wrong if none came free in time."""
        with anyio.move_on_after(BLOCK_S):
            while self.is_full and self.commit.failure is None:
                await self.commit.room.wait()
            return None
        return "its queue is full"

    def drop(self) -> None:
        """Count a call that goes unrecorded; the next record that finds room tells of it."""
        self._dropped += 1
        self._untold += 1
        self.commit.alarm(f"{self._dropped} calls went unrecorded: the audit log's queue is full")

    def statistics(self) -> AuditStatistics:
        """A snapshot."""
        return AuditStatistics(
            records=self.chain.size,
            flushes=self.commit.flushes,
            queued_records=self.commit.records,
            queued_bytes=self.commit.size_bytes,
            open_intents=len(self.chain.open_intents),
            faults=self._faults,
            dropped=self._dropped,
            checkpoints=0 if self.feed is None else self.feed.delivered,
            checkpoint_failures=0 if self.feed is None else self.feed.failures,
        )

    async def begin(self, opened: Opened) -> str | None:
        """Write the opening record and end what was in doubt; what went wrong, if anything."""
        self._covered = self.chain.size
        batch = self._begin_segment(
            "reopened" if self.chain.size else "created",
            torn_bytes=opened.torn_bytes,
            torn_sha256=opened.torn_sha256,
            in_doubt=len(opened.in_doubt),
        )
        for call in opened.in_doubt:
            appended = self.append(recovered_fields(call.request_id, call.seq), urgent=True)
            assert isinstance(appended, Appended)  # each of them is open in the chain
            batch = appended.batch
        await batch.done.wait()
        return batch.error

    async def run(self) -> None:
        """Write until closed, then hand over the last checkpoint."""
        try:
            await self.commit.run()
        finally:
            if self.feed is not None:
                if self.commit.failure == CLOSED:
                    if self.chain.size > self._covered:
                        self._take_checkpoint()
                    self._hand_over()
                # After a failure none: it would speak of records that may not be on disk.
                self.feed.finish()
            self.progress.end()

    def close(self) -> None:
        """Write what is left and end, within :data:`STALL_S` for the disk and for the sink."""
        now = anyio.current_time()
        self.commit.close(now + STALL_S)
        if self.feed is not None:
            self.feed.limit(now + 2 * STALL_S)

    def on_take(self) -> None:
        """A batch begins its way, and with it everything up to here."""
        self._taken = self.chain.size
        if self.feed is None:
            return
        fresh = self.chain.size - self._covered
        if fresh >= self.checkpoint_records or (fresh and self._wanted):
            self._take_checkpoint()

    def on_durable(self) -> None:
        """Everything that began its way is on disk."""
        self.progress.advance(self._taken)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._checkpoint is not None and self.feed is not None:
            self.feed.offer(self._checkpoint)
            self._checkpoint = None

    def on_interval(self) -> None:
        """It is time for a checkpoint, if there is anything new."""
        if self.chain.size == self._covered or self.commit.failure is not None:
            return
        self._wanted = True
        if self.commit.is_clean:
            self._take_checkpoint()
            self.on_durable()

    def _take_checkpoint(self) -> None:
        self._covered = self.chain.size
        self._wanted = False
        self._checkpoint = Checkpoint(
            log_id=self.chain.log_id,
            size=self.chain.size,
            root=self.chain.tree.root().hex(),
            chain_head=self.chain.head,
            ts=self.wall_clock(),
        )

    def _begin_segment(
        self, reason: Literal["created", "reopened", "rotated"], **more: Any
    ) -> Batch:
        name = segment_name(self.chain.size)
        fields = open_fields(
            log_id=self.chain.log_id,
            reason=reason,
            tree=self.chain.tree.frontier,
            oldest_open=self.chain.oldest_open,
            **more,
        )
        record = self.chain.append(fields, ts=self.wall_clock())
        assert isinstance(record, bytes)  # only intents and outcomes are refused
        self._segment_bytes = len(record) + _FRAME_OVERHEAD_BYTES
        return self.commit.put((name, record), urgent=reason != "rotated")
