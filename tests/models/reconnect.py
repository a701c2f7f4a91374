"""A server that keeps a log and replays it, and a reader's loop that is cut wherever it hurts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from attrs import define, field, frozen

from sark_trio.machines.reconnect import (
    Connect,
    Deliver,
    Duplicate,
    End,
    Reconnector,
    Skip,
    Stop,
    Wait,
)

#: What can go wrong with an event on its way to the reader.
FINE, CUT_BEFORE, CUT_IN_HAND, CUT_AND_HANDED_LATE, CUT_AFTER = range(5)


@frozen
class Logged:
    """An event in the server's log; ids are unique, as MCP asks (2025-11-25, Transports)."""

    event_id: str
    type: str


def log_of(types: list[str]) -> list[Logged]:
    """A log of events of these types."""
    return [Logged(f"e{number}", kind) for number, kind in enumerate(types)]


@define
class Reader:
    """Reads a whole log through a reconnector; notes what it got, and at which ids it stood.

    :param log: of the server; it never ends a response by itself before the end of the log.
    :param overlap: events that are replayed although they are not asked for, per connection.
    :param trouble: for each event that arrives, one of the five ways in which it may go.
    """

    machine: Reconnector
    log: list[Logged]
    wanted: Callable[[str], bool]
    overlap: Iterator[int]
    trouble: Iterator[int]
    now: float = 0.0
    got: list[Logged] = field(factory=list)
    trail: list[str | None] = field(factory=list)
    waits: list[float] = field(factory=list)
    connects: int = 0

    def read(self) -> Stop | None:
        """All of the log, or until the stream stops."""
        for _ in count():
            step = self.machine.begin(self.now)
            if isinstance(step, Wait):
                self.now += step.seconds
                step = self.machine.begin(self.now)
            if isinstance(step, Stop):
                return step
            assert isinstance(step, Connect)
            self.connects += 1
            self.machine.on_connected(self.now)
            if self._listen(step.last_event_id):
                return None
            self._lost()
        return None

    def _listen(self, last_event_id: str | None) -> bool:
        ids = [logged.event_id for logged in self.log]
        start = 0 if last_event_id is None else ids.index(last_event_id) + 1
        for event in self.log[max(0, start - next(self.overlap)) :]:
            trouble = next(self.trouble)
            if trouble == CUT_BEFORE or not self._take(event, trouble):
                return False
            self.trail.append(self.machine.last_event_id)
            if trouble == CUT_AFTER:
                return False
        return True

    def _take(self, event: Logged, trouble: int) -> bool:
        kind = "message" if self.wanted(event.type) else "filtered"
        step = self.machine.on_event(self.now, event.event_id, kind)  # type: ignore[arg-type]
        self.machine.check_invariants()
        if isinstance(step, Duplicate | Skip):
            return True
        assert step == Deliver(event.event_id)
        if trouble == CUT_IN_HAND:
            return False
        if trouble == CUT_AND_HANDED_LATE:
            self._lost()
        self.got.append(event)
        assert self.machine.on_handed_over(self.now, event.event_id) is None
        return trouble != CUT_AND_HANDED_LATE

    def _lost(self) -> None:
        if self.machine.phase == "connected":
            step = self.machine.on_closed(self.now, End.FAILED, 0.5)
            self.machine.check_invariants()
            if isinstance(step, Wait):
                self.waits.append(step.seconds)
