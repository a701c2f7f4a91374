"""One task that watches the deadlines of many waits.

A cancel scope with a deadline costs 10-20 us per wait on either event loop. Here a wait that
ends in time costs two dict operations; only one that does not ends through the watcher. It
wakes when the earliest deadline that it was told of has come, which, as deadlines mostly move
forward, is once per timeout and not once per wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import final

import anyio
from anyio.abc import TaskStatus

__all__ = ["DeadlineWatch"]


@final
class DeadlineWatch:
    """Call ``expire`` callbacks at deadlines, from the task that runs :meth:`run`.

    Callbacks must not raise and must not block: closing a socket is what they are for.
    """

    __slots__ = ("_armed", "_changed", "_wake_at", "running")

    def __init__(self) -> None:
        self._armed: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._wake_at = inf
        self._changed: anyio.Event | None = None
        #: Whether somebody watches; else deadlines must be kept in another way.
        self.running = False

    def arm(self, key: Hashable, deadline: float, expire: Callable[[], None]) -> None:
        """Call *expire* at *deadline* (of ``anyio.current_time``), unless disarmed before."""
        self._armed[key] = (deadline, expire)
        if deadline < self._wake_at:
            self._wake_at = deadline
            if self._changed is not None:
                self._changed.set()

    def disarm(self, key: Hashable) -> None:
        """Forget *key*; does nothing where it is not armed."""
        self._armed.pop(key, None)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Whoever ends it also ends those who wait, or they may for ever."""
        self.running = True
        try:
            task_status.started()
            while True:
                self._changed = anyio.Event()
                with anyio.CancelScope(deadline=self._wake_at):
                    await self._changed.wait()
                self._expire(anyio.current_time())
        finally:
            self.running = False

    def _expire(self, now: float) -> None:
        for key, (deadline, expire) in list(self._armed.items()):
            if deadline <= now and self._armed.pop(key, None) is not None:
                expire()
        self._wake_at = min((deadline for deadline, _ in self._armed.values()), default=inf)

    def __repr__(self) -> str:
        state = "running" if self.running else "idle"
        return f"<DeadlineWatch {state} armed={len(self._armed)}>"
