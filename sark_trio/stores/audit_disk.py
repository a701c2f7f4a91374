"""A thread that owns the audit log's files, and a bell that tells the event loop.

One thread for the life of the log, not one hop through a pool for each flush: the pool costs
twice as much, and a thread of our own may be left behind a disk that does not answer. When the
disk does answer, the thread closes the files and goes.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar, final

import anyio
import anyio.lowlevel
from attrs import define, field

from sark_trio.errors import AuditError

__all__ = ["DiskThread", "in_thread"]

T = TypeVar("T")


@final
@define(kw_only=True, eq=False, repr=False)
class DiskThread:
    """Runs one job at a time, off the event loop.

    :param inline: run jobs in the loop itself: for file operations that never block.
    """

    inline: bool = False
    #: Whether a job was left running: the disk did not answer.
    left_behind: bool = field(default=False, init=False)
    # Holds one job at a time and the word to stop: `call` waits for each job's end.
    _jobs: queue.SimpleQueue[Callable[[], Any] | None] = field(
        factory=queue.SimpleQueue, init=False
    )
    #: Whether a job of the loop's own waits for its turn.
    _waits: bool = field(default=False, init=False)
    _result: Any = field(default=None, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _ear: socket.socket | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the thread.

        :raises AuditError: there is no thread or no descriptor left; nothing was started.
        """
        if self.inline:
            return
        try:
            ear, bell = socket.socketpair()
        except OSError as exc:
            raise AuditError(f"the audit log's thread can not be reached: {exc}") from exc
        ear.setblocking(False)
        # A daemon: a disk that hangs must not keep the interpreter from ending.
        thread = threading.Thread(target=self._work, args=(bell,), name="sark-audit", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            ear.close()
            bell.close()
            raise AuditError(f"the audit log's thread can not be started: {exc}") from exc
        self._ear = ear

    async def call(self, job: Callable[[], T]) -> T:
        """Run *job* in the thread and return what it returns, or raise what it raises.

        When this is cancelled the job goes on unheard; nothing but :meth:`stop` may follow.
        """
        if self._ear is None:
            self._waits = True
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                self._waits = False
            return job()
        self.left_behind = True
        self._jobs.put(job)
        await anyio.wait_readable(self._ear)
        self._ear.recv(1)
        self.left_behind = False
        result, error = self._result, self._error
        self._result = self._error = None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def has_answered(self) -> bool:
        """Whether the event loop is what is late: a job has ended of which it has not heard yet,
        or, *inline*, one has not been begun.
        """
        if self._ear is None:
            return self._waits
        try:
            return bool(self._ear.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def stop(self, last: Callable[[], object] = lambda: None) -> None:
        """End the thread after *last*; a job that still runs is not waited for."""
        if self._ear is None:
            last()
            return
        self._jobs.put(last)
        self._jobs.put(None)
        self._ear.close()

    def _work(self, bell: socket.socket) -> None:
        with bell:
            while (job := self._jobs.get()) is not None:
                try:
                    self._result = job()
                except BaseException as exc:  # noqa: BLE001 - raised again where it is awaited
                    self._error = exc
                try:
                    bell.send(b"\0")
                except OSError:
                    continue  # nobody listens any more: the log is being closed


async def in_thread(job: Callable[[], T]) -> T:
    """Run *job* in a thread of its own, which is left behind on cancellation."""
    disk = DiskThread()
    disk.start()
    try:
        return await disk.call(job)
    finally:
        disk.stop()
