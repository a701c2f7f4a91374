"""Group commit: many callers, one write, one sync.

A flush begins at once when none is running; whoever comes while one runs shares the next.
No timer is on that path. Records that nobody waits for ride with the next batch, or go by
themselves after :data:`LINGER_S`.

Three tasks' worth of state, all of it owned by the event loop's thread: the open batch that
callers add to, the batch that the disk thread has, and the deadlines that
:meth:`GroupCommit.keep_time` watches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import final

import anyio
from attrs import define, field

from sark_trio.stores.audit_disk import DiskThread
from sark_trio.stores.audit_files import DiskFull, Entry, SegmentWriter

__all__ = ["CLOSED", "Batch", "GroupCommit"]

#: Records that nobody waits for are written this late at most: a crash in between makes their
#: calls "unknown", which is safe, and a caller that makes one call after another saves a sync.
LINGER_S = 0.02
#: A disk that does not answer for so long makes the log unavailable until it does (laws, 2.7).
STALL_S = 1.0
#: A full disk is tried again this often.
FULL_RETRY_S = 0.1
CLOSED = "the audit log is closed"
#: Share of the queue that only outcomes and attempts may use, so that calls can be ended.
RESERVED_SHARE = 0.1


@final
@define(kw_only=True, eq=False)
class Batch:
    """Records that are written and synced together."""

    due: float
    entries: deque[Entry] = field(factory=deque)
    records: int = 0
    size_bytes: int = 0
    #: When the first caller began to wait.
    waiting_since: float = math.inf
    #: Set when the batch is durable or has failed; ``error`` tells which.
    done: anyio.Event = field(factory=anyio.Event)
    error: str | None = None


@final
@define(kw_only=True, eq=False, repr=False)
class GroupCommit:
    """Batches, their way to the disk, and what happens when the disk does not keep up.

    :param sync_interval_s: sync this long after a write; infinity: with every write.
    """

    disk: DiskThread
    segments: SegmentWriter
    records_max: int
    bytes_max: int
    sync_interval_s: float
    alarm: Callable[[str], None]
    #: Set by the owner. Called when a batch begins its way, and with it all that was put;
    on_take: Callable[[], None] = field(init=False)
    #: and when everything that began its way is durable.
    on_durable: Callable[[], None] = field(init=False)
    #: and when a batch made room, before anybody is told of that.
    on_room: Callable[[], None] = field(init=False)
    #: Why nothing is taken any more.
    failure: str | None = field(default=None, init=False)
    #: Why nothing is taken at the moment.
    stalled: str | None = field(default=None, init=False)
    records: int = field(default=0, init=False)
    size_bytes: int = field(default=0, init=False)
    flushes: int = field(default=0, init=False)
    #: Set, and made anew, whenever room came free.
    room: anyio.Event = field(factory=anyio.Event, init=False)
    _batch: Batch | None = field(default=None, init=False)
    _flying: Batch | None = field(default=None, init=False)
    _flush_due: float = field(default=math.inf, init=False)
    _sync_due: float = field(default=math.inf, init=False)
    #: When the last batch was written.
    _landed_at: float = field(default=-math.inf, init=False)
    _closing: bool = field(default=False, init=False)
    _wake: anyio.Event = field(factory=anyio.Event, init=False)
    _nudge: anyio.Event = field(factory=anyio.Event, init=False)
    _wakes_at: float = field(default=math.inf, init=False)
    _scope: anyio.CancelScope = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._scope = anyio.CancelScope(shield=True)

    def has_room(self, *, reserved: bool = False) -> bool:
        """Whether one more record may be put; *reserved* if it ends something."""
        share = 1.0 if reserved else 1.0 - RESERVED_SHARE
        return self.records < self.records_max * share and self.size_bytes < self.bytes_max * share

    @property
    def is_clean(self) -> bool:
        """Whether everything that was put is durable."""
        return self._batch is None and self._flying is None and self._sync_due == math.inf

    def put(self, entry: Entry, *, urgent: bool) -> Batch:
        """Add a record to the open batch; *urgent* if somebody waits for it."""
        batch = self._batch
        if batch is None:
            batch = self._batch = Batch(due=anyio.current_time() + LINGER_S)
            self._arm(batch.due)
        size = len(entry[1])
        batch.entries.append(entry)
        batch.records += 1
        batch.size_bytes += size
        self.records += 1
        self.size_bytes += size
        if urgent and batch.waiting_since == math.inf:
            batch.waiting_since = anyio.current_time()
            self._wake.set()
        return batch

    def fail(self, reason: str) -> None:
        """Take nothing any more, and let nobody wait."""
        if self.failure is None:
            self.failure = reason
            self.alarm(reason)
        for batch in (self._flying, self._batch):
            if batch is not None:
                self._end(batch, self.failure)
        self._flying = self._batch = None
        self.records = self.size_bytes = 0
        self._flush_due = self._sync_due = math.inf
        self._nudge.set()

    def close(self, deadline: float) -> None:
        """Write what is left, at most until *deadline*, and end both loops."""
        self._closing = True
        self._scope.deadline = deadline
        self._wake.set()
        self._nudge.set()

    async def run(self) -> None:
        """Write batches until closed and empty. Shielded: :meth:`close` bounds it."""
        try:
            with self._scope:
                await self._run()
        finally:
            if self.is_clean:
                self.failure = self.failure or CLOSED
            else:
                self.fail("the audit log was closed before the disk took its last records")

    async def keep_time(self) -> None:
        """Watch the deadlines until closed: one timer, touched only when it must be earlier."""
        while not self._closing:
            self._wakes_at = self._next_deadline()
            with anyio.CancelScope(deadline=self._wakes_at):
                await self._nudge.wait()
                self._nudge = anyio.Event()
            self._on_time(anyio.current_time())

    async def _run(self) -> None:
        while self.failure is None:
            now = anyio.current_time()
            if self._batch is not None and self._is_due(self._batch, now):
                await self._flush(now)
            elif now >= self._sync_due or (self._closing and self._sync_due < math.inf):
                await self._sync()
            elif self._closing:
                return
            else:
                await self._wake.wait()
                self._wake = anyio.Event()

    def _is_due(self, batch: Batch, now: float) -> bool:
        return batch.waiting_since < math.inf or now >= batch.due or self._closing

    async def _flush(self, now: float) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        self._flying = batch
        # Of their second they have waited for the disk while it wrote the batch before; that the
        # event loop had other things to do, such as ten thousand calls, is not the disk's fault.
        # Those who waited for a batch that outlasted a stall are gone: it has a second anew.
        waited_s = 0.0 if batch.done.is_set() else max(0.0, self._landed_at - batch.waiting_since)
        self._flush_due = now + STALL_S - waited_s
        self._arm(self._flush_due)
        self.on_take()
        sync = self.sync_interval_s == math.inf
        try:
            await self._write(partial(self.segments.write, batch.entries, sync=sync))
        except Exception as exc:  # noqa: BLE001 - whatever it was, the file can not be trusted
            self.fail(f"the audit log failed and must be opened anew: {exc}")
            return
        if not sync:
            self._sync_due = min(self._sync_due, now + self.sync_interval_s)
        self._landed(batch)
        if sync:
            self.on_durable()

    async def _write(self, job: Callable[[], None]) -> None:
        while True:
            try:
                return await self.disk.call(job)
            except DiskFull as exc:
                self.stalled = self.stalled or str(exc)
                await anyio.sleep(FULL_RETRY_S)

    async def _sync(self) -> None:
        self._sync_due = math.inf
        try:
            await self.disk.call(self.segments.sync)
        except OSError as exc:
            self.fail(f"the audit log failed and must be opened anew: {exc}")
            return
        self.on_durable()

    def _landed(self, batch: Batch) -> None:
        self._flying = None
        self._landed_at = anyio.current_time()
        self._flush_due = math.inf
        self.stalled = None
        self.flushes += 1
        self.records -= batch.records
        self.size_bytes -= batch.size_bytes
        self.on_room()
        self._end(batch, None)
        self._arm(self._next_deadline())

    def _end(self, batch: Batch, error: str | None) -> None:
        if not batch.done.is_set():
            batch.error = error
            batch.done.set()
        self.room.set()
        self.room = anyio.Event()

    def _next_deadline(self) -> float:
        if self._flying is not None:
            return self._flush_due  # everything else waits until it has landed
        return min(self._sync_due, math.inf if self._batch is None else self._batch.due)

    def _arm(self, due: float) -> None:
        if due < self._wakes_at:
            self._nudge.set()

    def _on_time(self, now: float) -> None:
        if now >= self._flush_due and self.disk.has_answered():
            # In time, perhaps: the event loop was not there to hear it. If the answer is that the
            # disk is full, it has had its second, and is asked no more than once again.
            self._flush_due = now + FULL_RETRY_S
        elif now >= self._flush_due:
            self._stall()
        elif self._flying is None and now >= self._next_deadline():
            self._wake.set()

    def _stall(self) -> None:
        """The disk does not answer: let the waiting go; the batches stay and are tried on."""
        self._flush_due = math.inf
        self.stalled = self.stalled or "the disk of the audit log does not answer"
        self.alarm(self.stalled)
        for batch in (self._flying, self._batch):
            if batch is not None:
                batch.waiting_since = min(batch.waiting_since, anyio.current_time())
                self._end(batch, self.stalled)
