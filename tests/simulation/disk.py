"""The audit log's disk, and what on it is certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from sark_trio import jsontext
from sark_trio.governance.audit_chain import parse_frame, read_lines
from tests.simulation.network import Chaos
from tests.support.audit_disk import MemoryDisk

__all__ = ["SimDisk", "SlowThread"]

NO_SPACE, IO_ERROR = 28, 5


@define(eq=False)
class SimDisk(MemoryDisk):
    """Reads every record back at the moment at which a power cut could no longer take it."""

    durable_intents: dict[str, str] = field(factory=dict)
    #: Whether a sync failed: then nothing that comes after it is ever certain.
    dead: bool = False
    _certain: dict[str, int] = field(factory=dict)

    def sync(self, fd: int) -> None:
        """As the disk does; then what was synced is durable."""
        try:
            super().sync(fd)
        except OSError:
            self.dead = True
            raise
        name = self._open[fd]
        fresh = bytes(self.contents[name][self._certain.get(name, 0) :])
        self._certain[name] = len(self.contents[name])
        for line in read_lines([fresh]):
            parsed = parse_frame(line.data)
            assert not isinstance(parsed, str), parsed
            record = jsontext.decode(parsed.record)
            if record["kind"] == "intent":
                self.durable_intents[record["args_digest"]] = record["request_id"]

    def fill(self, times: int) -> None:
        """Have no room for the next so many writes."""
        self.errors["write"] = [OSError(NO_SPACE, "full") for _ in range(times)]

    def break_down(self) -> None:
        """Fail the next sync."""
        self.errors["sync"] = [OSError(IO_ERROR, "broken")]


@define(eq=False)
class SlowThread:
    """The thread of a disk that now and then does not answer for a while."""

    thread: Any
    chaos: Chaos

    def __getattr__(self, name: str) -> Any:
        return getattr(self.thread, name)

    async def call(self, job: Callable[[], Any]) -> Any:
        if self.chaos.strikes("slow disk"):
            await trio.sleep(self.chaos.seconds("slow disk", 0, 5))
        return await self.thread.call(job)
