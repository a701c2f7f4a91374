"""An open audit log for a test, and file operations that hang when told to."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sark_trio.stores.audit import AuditedCall, AuditLog, Outcome
from sark_trio.stores.audit_files import OsFileOps

__all__ = ["HangingFiles", "call", "ended", "open_log"]


@asynccontextmanager
async def open_log(directory: Path | str = "log", **options: Any) -> AsyncIterator[AuditLog]:
    """A log that runs for the time of the block."""
    log = AuditLog(directory, **options)
    async with anyio.create_task_group() as tasks:
        await tasks.start(log.run)
        try:
            yield log
        finally:
            with anyio.CancelScope(shield=True):
                await log.aclose()


def call(request_id: str, **changes: Any) -> AuditedCall:
    """A call of little interest."""
    facts = {"server": "db", "tool": "query", "principal_id": "alice", "args": {"a": 1}}
    return AuditedCall(request_id=request_id, **{**facts, **changes})


def ended(request_id: str, **changes: Any) -> Outcome:
    """Its happy end."""
    facts: dict[str, Any] = {"outcome": "ok", "delivery": "answered"}
    return Outcome(request_id=request_id, **{**facts, **changes})


class HangingFiles:
    """The real file operations; ``sync`` waits in its thread while :meth:`hang` holds."""

    in_memory = False

    def __init__(self) -> None:
        self._real = OsFileOps()
        self._gate = threading.Event()
        self._gate.set()
        self.hanging = threading.Event()

    def hang(self) -> None:
        """From the next call on; those that hang already are not concerned."""
        self._gate = threading.Event()
        self.hanging = threading.Event()

    def release(self) -> None:
        self._gate.set()

    def sync(self, fd: int) -> None:
        gate = self._gate
        if not gate.is_set():
            self.hanging.set()
            gate.wait(60)
        self._real.sync(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
