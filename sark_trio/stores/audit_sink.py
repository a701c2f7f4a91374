"""Where checkpoints go, and the task that takes them there.

A sink that hangs or fails never holds up the log (laws, row 51): one checkpoint waits, and a
newer one takes its place, because it covers everything that the older one did.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import final

import anyio
from attrs import define, field

from sark_trio.governance.audit_checkpoint import Checkpoint, Signer
from sark_trio.stores.audit_disk import in_thread
from sark_trio.telemetry.events import CheckpointTaken
from sark_trio.telemetry.hooks import Emit

__all__ = ["CheckpointFeed", "CheckpointSink", "FileSink", "as_sink"]

#: Keeps a checkpoint. It is called with one at a time and tried again with the next.
CheckpointSink = Callable[[Checkpoint], Awaitable[None]]

#: No line of ours is longer: with its signature a checkpoint has some 500 bytes.
LINE_BYTES_MAX = 65_536
#: A sink that takes longer is given up, this once.
SINK_TIMEOUT_S = 10.0


@final
@define(kw_only=True)
class FileSink:
    """Appends checkpoints to a file, durably.

    It is only as good as the place: a directory, better a machine, that whoever can write the
    log can not.
    """

    path: Path = field(converter=Path)

    async def __call__(self, checkpoint: Checkpoint) -> None:
        """Append one line and sync it."""
        await in_thread(partial(self._append, checkpoint.line()))

    def _append(self, line: bytes) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _cut_torn_end(fd)
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)


def _cut_torn_end(fd: int) -> None:
    """Cut a last line without its end: a crash or a full disk left it, and it kept nothing.

    Appended to, it would become one line with the next checkpoint, and no checkpoint at all.
    """
    size = os.fstat(fd).st_size
    start = max(0, size - LINE_BYTES_MAX)
    end = start + os.pread(fd, size - start, start).rfind(b"\n") + 1
    if end < size and (end > start or start == 0):
        os.ftruncate(fd, end)


def as_sink(value: CheckpointSink | str | os.PathLike[str] | None) -> CheckpointSink | None:
    """A sink as options give it: a path becomes a :class:`FileSink`."""
    return FileSink(path=value) if isinstance(value, str | os.PathLike) else value


@final
@define(kw_only=True, eq=False, repr=False)
class CheckpointFeed:
    """Takes checkpoints to a sink, one at a time, the newest first of all.

    :param alarm: told, in one sentence, when a checkpoint could not be delivered.
    :param emit: told of each checkpoint.
    """

    sink: CheckpointSink
    alarm: Callable[[str], None]
    interval_s: float
    signer: Signer | None = None
    emit: Emit | None = None
    #: Set by the owner. Called every *interval_s* seconds; it may call :meth:`offer`.
    on_interval: Callable[[], None] = field(init=False)
    delivered: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    _next: Checkpoint | None = field(default=None, init=False)
    _ending: bool = field(default=False, init=False)
    _bell: anyio.Event = field(factory=anyio.Event, init=False)
    _scope: anyio.CancelScope = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._scope = anyio.CancelScope(shield=True)

    def offer(self, checkpoint: Checkpoint) -> None:
        """Deliver *checkpoint* next, in place of any that still waits."""
        self._next = checkpoint
        self._bell.set()

    def limit(self, deadline: float) -> None:
        """Give up at *deadline*, whatever is left."""
        self._scope.deadline = min(self._scope.deadline, deadline)

    def finish(self) -> None:
        """Deliver what waits and end."""
        self._ending = True
        self._bell.set()

    async def run(self) -> None:
        """Deliver until :meth:`finish`. Shielded: :meth:`limit` bounds it."""
        with self._scope:
            due = anyio.current_time() + self.interval_s
            while True:
                if anyio.current_time() >= due:
                    due = anyio.current_time() + self.interval_s
                    self.on_interval()
                checkpoint, self._next = self._next, None
                if checkpoint is not None:
                    await self._deliver(checkpoint)
                elif self._ending:
                    return
                else:
                    with anyio.CancelScope(deadline=due):
                        await self._bell.wait()
                        self._bell = anyio.Event()
        self.failures += 1
        self.alarm("the last checkpoint was not delivered before the log was closed")

    async def _deliver(self, checkpoint: Checkpoint) -> None:
        try:
            with anyio.fail_after(SINK_TIMEOUT_S):
                if self.signer is not None:
                    checkpoint = await in_thread(partial(checkpoint.signed, self.signer))
                await self.sink(checkpoint)
            self.delivered += 1
            self._tell(checkpoint, None)
        except Exception as exc:  # noqa: BLE001 - somebody else's code; the log goes on
            self.failures += 1
            self._tell(checkpoint, type(exc).__name__)
            self.alarm(f"the checkpoint over {checkpoint.size} records was not kept: {exc!r:.200}")

    def _tell(self, checkpoint: Checkpoint, error_type: str | None) -> None:
        if self.emit is not None:
            self.emit(CheckpointTaken(records=checkpoint.size, error_type=error_type))
