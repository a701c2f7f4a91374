"""What waits to be written to a pipe: bounded, in order, and known to the byte.

Every message is one entry. Until the kernel has taken its first byte an entry can be withdrawn
without a trace, which is what makes ``not_sent`` a fact; after that it is written to its end
whoever still wants it, because half a line would spoil the next one. Many entries go out with
one ``writev``: coalescing is worth more than anything else on this path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final, final

import anyio
from attrs import define, field

from sark_trio.errors import GatewayError

__all__ = ["Entry", "Outbox"]

#: Messages that may wait for a server that does not read: enough to keep a pipe busy.
MESSAGES_MAX: Final = 64
#: Bytes after which no further message is let in: one message of the size limit.
BYTES_MAX: Final = 4 * 1024 * 1024
#: Answers and cancellations come from synchronous code that can not wait; beyond this many
#: extra messages the server is not reading anyway, and they are dropped.
EXTRA_MAX: Final = 256
#: Buffers in one ``writev``; the kernel's own limit (IOV_MAX) is 1,024.
BATCH_MAX: Final = 128


@final
@define(eq=False)
class Entry:
    """One message on its way out."""

    data: bytes | memoryview
    #: Called when the kernel took the first byte of it; synchronous, must not raise.
    on_begun: Callable[[], None] | None = None
    #: The call that it is, if it is one.
    call_id: int | None = None
    #: Whether the kernel took at least one byte of it.
    begun: bool = False

    def begin(self) -> None:
        """Some of it is out, or must be taken to be."""
        if not self.begun:
            self.begun = True
            if self.on_begun is not None:
                self.on_begun()


@final
@define(eq=False)
class _Turn:
    """A place in the line of those who wait for room."""

    called: anyio.Event = field(factory=anyio.Event)
    error: GatewayError | None = None


@final
@define(eq=False, repr=False)
class Outbox:
    """The queue in front of one pipe. Synchronous but for :meth:`wait_room`."""

    _queue: OrderedDict[Entry, None] = field(factory=OrderedDict, init=False)
    _line: OrderedDict[_Turn, None] = field(factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)
    #: Rooms that were given to a waiter and not yet used.
    _promised: int = field(default=0, init=False)
    _wake: anyio.Event = field(factory=anyio.Event, init=False)

    def __len__(self) -> int:
        return len(self._queue)

    def call_ids(self) -> list[int]:
        """The calls whose bytes are not all out, in order."""
        return [entry.call_id for entry in self._queue if entry.call_id is not None]

    def __repr__(self) -> str:
        return f"<Outbox {len(self)} messages, {self._bytes} bytes, {len(self._line)} in line>"

    def has_room(self) -> bool:
        """Whether a message may be :meth:`put` right now, without overtaking anybody."""
        return not self._line and self._fits()

    async def wait_room(self) -> None:
        """Wait for room for one message, in order of arrival. Use it with :meth:`put` at once.

        :raises GatewayError: what :meth:`fail_line` was given.
        """
        turn = _Turn()
        self._line[turn] = None
        try:
            await turn.called.wait()
        except BaseException:
            if turn in self._line:
                del self._line[turn]
            elif turn.error is None:
                self._promised -= 1
            self.call_next()
            raise
        if turn.error is not None:
            raise turn.error
        self._promised -= 1

    def put(
        self,
        data: bytes,
        on_begun: Callable[[], None] | None = None,
        *,
        call_id: int | None = None,
    ) -> Entry:
        """Queue one message, whose room was seen or waited for in this same step."""
        entry = Entry(data, on_begun, call_id)
        self._queue[entry] = None
        self._bytes += len(data)
        self._wake.set()
        return entry

    def put_extra(self, data: bytes) -> bool:
        """Queue an answer or a cancellation, without room; ``False`` if there are too many."""
        if len(self._queue) >= MESSAGES_MAX + EXTRA_MAX:
            return False
        self.put(data)
        return True

    def withdraw(self, entry: Entry) -> bool:
        """Take *entry* back; ``False`` if a byte of it is out already."""
        if entry.begun or entry not in self._queue:
            return False
        del self._queue[entry]
        self._bytes -= len(entry.data)
        self.call_next()
        return True

    async def wait_entry(self) -> None:
        """Wait until something is queued."""
        while not self._queue:
            self._wake = anyio.Event()
            await self._wake.wait()

    def batch(self) -> list[bytes | memoryview]:
        """The buffers that go out next, in order."""
        return [entry.data for entry in islice(self._queue, BATCH_MAX)]

    def first(self) -> Entry:
        """What goes out next, for a channel that takes one message at a time."""
        return next(iter(self._queue))

    def take(self) -> Entry:
        """What goes out next, no more in the queue: whoever takes it answers for it."""
        entry, _ = self._queue.popitem(last=False)
        self._bytes -= len(entry.data)
        self.call_next()
        return entry

    def advance(self, count: int) -> None:
        """The kernel took *count* bytes of :meth:`batch`."""
        self._bytes -= count
        while count > 0:
            entry = next(iter(self._queue))
            entry.begin()
            if count < len(entry.data):
                entry.data = memoryview(entry.data)[count:]
                break
            count -= len(entry.data)
            del self._queue[entry]
        if self._line:
            self.call_next()

    def fail_line(self, error: Callable[[], GatewayError]) -> None:
        """Send everybody in line away with an *error* of their own."""
        while self._line:
            turn, _ = self._line.popitem(last=False)
            turn.error = error()
            turn.called.set()

    def call_next(self) -> None:
        """Hand on what room there is: whoever got some and does not :meth:`put` says so."""
        while self._line and self._fits():
            turn, _ = self._line.popitem(last=False)
            self._promised += 1
            turn.called.set()

    def _fits(self) -> bool:
        return len(self._queue) + self._promised < MESSAGES_MAX and self._bytes < BYTES_MAX
