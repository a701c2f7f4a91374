"""One child process: its pipes, its process group, and an end that is certain.

Spawning is synchronous on purpose. There is no await between the birth of the child and the
object that owns it, so no cancellation can lose it; and the thread that spawns is the one that
runs the event loop, not a worker that may end while the child lives. The pipes are ours too: a
byte counts as sent when the kernel took it, not when some buffer of a library did.

The child leads its own session and group. Its exit is seen by its pid, not by its pipes, which
a grandchild may hold open. It stays a zombie until its group was killed: a zombie keeps its pid
taken, so that the signal can not hit a stranger that was given the same number.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol, final

import anyio
from anyio import CancelScope
from attrs import define, field

from sark_trio.machines.limits import ResourceLimits
from sark_trio.transports.spawn import spawn

__all__ = ["BROKEN_GRACE_S", "GRACE_S", "Channel", "ChildProcess", "Leader", "Pipe", "Spawn"]

#: Default capacity of a Linux pipe: one read empties it.
CHUNK_BYTES: Final = 65_536
#: Seconds given to a child to end after its stdin closed, then after SIGTERM (laws, 2.5).
GRACE_S: Final = (2.0, 3.0)
#: The same for a child that broke its word.
BROKEN_GRACE_S: Final = (0.0, 0.5)
#: Seconds in which a killed child must be gone; only uninterruptible I/O takes longer.
REAP_S: Final = 1.0
#: Seconds in which the pipes of a killed group must reach their end.
ORPHAN_S: Final = 0.2
#: Seconds that :meth:`ChildProcess.kill` may block for a child that just got SIGKILL.
KILL_S: Final = 0.1
#: Seconds between looks at a child where the kernel has no pidfd (macOS, Linux before 5.3).
POLL_S: Final = 0.02


class Channel(Protocol):
    """Our end of a pipe, non-blocking. One task at a time may wait on it."""

    @property
    def is_open(self) -> bool:
        """Whether we have not closed it."""

    def receive_nowait(self) -> bytes | None:
        """What is there: bytes, ``b""`` at the end, ``None`` if nothing is there yet."""

    async def receive(self) -> bytes:
        """The next bytes, or ``b""`` at the end. Always a checkpoint."""

    def send_nowait(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Give *buffers* to the kernel; the number of bytes that it took, 0 if it is full.

        :raises OSError: nobody reads, or closed by us.
        """

    async def wait_sendable(self) -> None:
        """Wait until the kernel takes bytes again, or refuses them for good."""

    def close(self) -> None:
        """Close it; a task that waits on it gets ``ClosedResourceError``. Idempotent."""


class Leader(Protocol):
    """A process that leads a group of its own, as the kernel knows it."""

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its group."""

    @property
    def exit_code(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it runs or if nobody knows."""

    def has_exited(self) -> bool:
        """Look, without waiting, whether it has ended. Does not reap it."""

    async def wait_exited(self) -> int | None:
        """Wait until it has ended, whoever holds its pipes; its exit status."""

    def signal_group(self, signum: signal.Signals) -> None:
        """Send *signum* to every process of its group. Harmless once it was reaped."""

    def reap(self) -> None:
        """Reap what was killed, without an await. Idempotent."""


class Spawn(Protocol):
    """Starts processes. The default is the operating system's; a simulation has its own."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        limits: ResourceLimits | None,
        die_with_parent: bool,
    ) -> ChildProcess:
        """Start *command* in a session and group of its own.

        :raises ProcessStartError: it could not be started.
        """


@final
@define(eq=False, repr=False)
class Pipe:
    """A :class:`Channel` of the kernel's."""

    fd: int = -1

    def __repr__(self) -> str:
        return f"<Pipe fd={self.fd}>" if self.fd >= 0 else "<Pipe closed>"

    @property
    def is_open(self) -> bool:
        """Whether we have not closed it."""
        return self.fd >= 0

    def receive_nowait(self) -> bytes | None:
        """What is there: bytes, ``b""`` at the end, ``None`` if nothing is there yet."""
        try:
            return os.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # closed by us, or a broken device: nothing will ever come
            return b""

    async def receive(self) -> bytes:
        """The next bytes, or ``b""`` at the end. Always a checkpoint."""
        while True:
            await anyio.wait_readable(self.fd)
            chunk = self.receive_nowait()
            if chunk is not None:
                return chunk

    def send_nowait(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Give *buffers* to the kernel; the number of bytes that it took, 0 if it is full.

        :raises OSError: nobody reads, or closed by us.
        """
        try:
            return os.writev(self.fd, buffers)
        except BlockingIOError:
            return 0

    async def wait_sendable(self) -> None:
        """Wait until the kernel takes bytes again, or refuses them for good."""
        await anyio.wait_writable(self.fd)

    def close(self) -> None:
        """Close it; a task that waits on it gets ``ClosedResourceError``. Idempotent."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            anyio.notify_closing(fd)
            os.close(fd)


@final
@define(eq=False, repr=False)
class _Started:
    """A :class:`Leader` that this process started."""

    _popen: subprocess.Popen[bytes]
    _pidfd: Pipe
    _exited: bool = field(default=False, init=False)
    _exit_code: int | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    def has_exited(self) -> bool:
        if self._exited:
            return True
        if not hasattr(os, "waitid"):  # macOS with Python 3.12 and before: look is to reap
            self._exit_code = self._popen.poll()
            self._exited = self.exit_code is not None
            return self._exited
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            # Somebody's waitpid(-1) took it, and its status: its pid is not ours any more.
            self._popen.poll()
            self._exited = True
        else:
            if found is not None:
                self._exited = True
                by_signal = found.si_code != os.CLD_EXITED
                self._exit_code = -found.si_status if by_signal else found.si_status
        return self._exited

    async def wait_exited(self) -> int | None:
        while not self.has_exited():
            if self._pidfd.fd < 0:
                await anyio.sleep(POLL_S)
            else:
                await anyio.wait_readable(self._pidfd.fd)
        return self._exit_code

    def signal_group(self, signum: signal.Signals) -> None:
        if self._popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)

    def reap(self) -> None:
        self._pidfd.close()
        self.has_exited()
        # Only uninterruptible I/O outlives SIGKILL for longer; such a child is left to init.
        with suppress(subprocess.TimeoutExpired):
            code = self._popen.wait(timeout=KILL_S)
            if not self._exited:
                self._exited, self._exit_code = True, code


@final
@define(eq=False, repr=False, kw_only=True)
class ChildProcess:
    """A running child, from :meth:`spawn` until :meth:`stop` or :meth:`kill` has returned."""

    stdin: Channel
    stdout: Channel
    stderr: Channel
    _leader: Leader
    #: Whether something outlived :meth:`stop`: a process that left the group, or one that
    #: even SIGKILL did not end.
    survived: bool = field(default=False, init=False)

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        limits: ResourceLimits | None = None,
        die_with_parent: bool = False,
    ) -> ChildProcess:
        """Start *command* (never through a shell) in a session and group of its own.

        :raises ProcessStartError: it could not be started; the message says what to do.
        """
        born = spawn(command, cwd=cwd, env=env, limits=limits, die_with_parent=die_with_parent)
        return cls(
            stdin=Pipe(born.stdin_fd),
            stdout=Pipe(born.stdout_fd),
            stderr=Pipe(born.stderr_fd),
            leader=_Started(born.popen, Pipe(born.pidfd)),
        )

    def __repr__(self) -> str:
        state = f"exited {self.exit_code}" if self.has_exited() else "running"
        return f"<ChildProcess pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its group."""
        return self._leader.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it runs or if nobody knows."""
        return self._leader.exit_code

    def has_exited(self) -> bool:
        """Look, without waiting, whether it has ended. Does not reap it."""
        return self._leader.has_exited()

    async def wait_exited(self) -> int | None:
        """Wait until it has ended, whoever holds its pipes; its exit status."""
        return await self._leader.wait_exited()

    def signal_group(self, signum: signal.Signals) -> None:
        """Send *signum* to every process of its group. Harmless once it was reaped."""
        self._leader.signal_group(signum)

    async def stop(self, grace_s: tuple[float, float] = GRACE_S) -> None:
        """End it and its group: close stdin, wait, SIGTERM, wait, SIGKILL, reap.

        Shielded, and bounded by the sum of *grace_s* plus :data:`REAP_S` and
        :data:`ORPHAN_S`. Both outputs are drained meanwhile: a child must not hang in a
        write on its way out. What survives even this is told by :attr:`survived`.
        """
        try:
            with CancelScope(shield=True):
                async with anyio.create_task_group() as drains:
                    open_ends: set[Channel] = set()
                    ended = anyio.Event()
                    for pipe in (self.stdout, self.stderr):
                        open_ends.add(pipe)
                        drains.start_soon(_drain, pipe, open_ends, ended)
                    self.stdin.close()
                    await self._escalate(grace_s)
                    # The leader is gone; who stayed in the group goes too, before the reaping.
                    self.signal_group(signal.SIGKILL)
                    with anyio.move_on_after(ORPHAN_S):
                        await ended.wait()
                    self.survived = bool(open_ends) or not self.has_exited()
                    drains.cancel_scope.cancel()
        finally:
            self.kill()

    async def _escalate(self, grace_s: tuple[float, float]) -> None:
        for signals, patience_s in (
            ((), grace_s[0]),
            # SIGCONT: a stopped process could not even see the SIGTERM.
            ((signal.SIGTERM, signal.SIGCONT), grace_s[1]),
            ((signal.SIGKILL,), REAP_S),
        ):
            for signum in signals:
                self.signal_group(signum)
            with anyio.move_on_after(patience_s):
                await self.wait_exited()
            if self.has_exited():
                return

    def kill(self) -> None:
        """Kill the group, reap the child and close every descriptor, without an await."""
        self.signal_group(signal.SIGKILL)
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()
        self._leader.reap()


async def _drain(pipe: Channel, open_ends: set[Channel], ended: anyio.Event) -> None:
    with suppress(anyio.ClosedResourceError):
        while pipe.is_open and await pipe.receive():
            pass
    open_ends.discard(pipe)
    if not open_ends:
        ended.set()
