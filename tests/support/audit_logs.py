"""Small audit logs made in memory, and the ways in which somebody may change them."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from sark_trio.governance.audit_chain import (
    JOINED,
    SYNCED,
    AuditChain,
    frame,
    parse_frame,
    segment_name,
)
from sark_trio.governance.audit_checkpoint import Checkpoint
from sark_trio.governance.audit_record import (
    AuditedCall,
    Outcome,
    call_fields,
    event_fields,
    open_fields,
    outcome_fields,
)

__all__ = ["TS", "SmallLog"]

TS = "2026-11-23T12:00:00.000000+00:00"


@define
class SmallLog:
    """A log that is written by the real chain, in segments that are bytes."""

    log_id: str
    segments: dict[str, bytes] = field(factory=dict)
    checkpoints: list[Checkpoint] = field(factory=list)
    chain: AuditChain = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chain = AuditChain(log_id=self.log_id)

    def begin(self) -> None:
        """Begin a segment."""
        fields = open_fields(
            log_id=self.log_id,
            reason="created",
            tree=self.chain.tree.frontier,
            oldest_open=self.chain.oldest_open,
        )
        self.segments[segment_name(self.chain.size)] = b""
        self._add(SYNCED, fields)

    def intent(self, request_id: str, **changes: Any) -> None:
        call = AuditedCall(request_id=request_id, server="db", **changes)
        self._add(SYNCED, call_fields("intent", call))

    def outcome(self, request_id: str) -> None:
        outcome = Outcome(request_id=request_id, outcome="ok", delivery="answered")
        self._add(JOINED, outcome_fields(outcome))

    def event(self, text: str) -> None:
        self._add(JOINED, event_fields("event", {"text": text}))

    def checkpoint(self) -> None:
        """Keep a checkpoint over everything so far."""
        self.checkpoints.append(
            Checkpoint(
                log_id=self.log_id,
                size=self.chain.size,
                root=self.chain.tree.root().hex(),
                chain_head=self.chain.head,
                ts=TS,
            )
        )

    @property
    def lines(self) -> list[bytes]:
        """All lines of all segments."""
        return [line for data in self.segments.values() for line in data.splitlines(keepends=True)]

    @property
    def records(self) -> list[bytes]:
        """The records of all lines; a line that is no frame is no record."""
        parsed = [parse_frame(line) for line in self.lines]
        return [item.record for item in parsed if not isinstance(item, str)]

    def place(self, index: int) -> tuple[str, int]:
        """Segment and offset of record *index*."""
        for name, data in self.segments.items():
            lines = data.splitlines(keepends=True)
            if index < len(lines):
                return name, sum(map(len, lines[:index]))
            index -= len(lines)
        raise IndexError(index)

    def replace(self, index: int, *lines: bytes) -> None:
        """Put *lines* in the place of the line of record *index*."""
        name, offset = self.place(index)
        data = self.segments[name]
        end = data.index(b"\n", offset) + 1
        self.segments[name] = data[:offset] + b"".join(lines) + data[end:]

    def truncate(self, records: int) -> None:
        """Leave the first *records* only."""
        kept = self.lines[:records]
        for name, data in list(self.segments.items()):
            count = len(data.splitlines())
            mine, kept = kept[:count], kept[count:]
            if mine:
                self.segments[name] = b"".join(mine)
            else:
                del self.segments[name]

    def append_line(self, line: bytes) -> None:
        """Add a line to the last segment."""
        name = list(self.segments)[-1]
        self.segments[name] += line

    def _add(self, mark: str, fields: dict[str, Any]) -> None:
        record = self.chain.append(fields, ts=TS)
        assert isinstance(record, bytes)
        self.append_line(frame(mark, record))
