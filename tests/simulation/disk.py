"""The audit log's disk, and what on it is certain."""

from __future__ import annotations

from attrs import define, field

from sark_trio import jsontext
from sark_trio.governance.audit_chain import parse_frame, read_lines
from tests.support.audit_disk import MemoryDisk

__all__ = ["SimDisk"]


@define(eq=False)
class SimDisk(MemoryDisk):
    """Reads every record back at the moment at which a power cut could no longer take it."""

    durable_intents: dict[str, str] = field(factory=dict)
    _certain: dict[str, int] = field(factory=dict)

    def sync(self, fd: int) -> None:
        """As the disk does; then what was synced is durable."""
        super().sync(fd)
        name = self._open[fd]
        fresh = bytes(self.contents[name][self._certain.get(name, 0) :])
        self._certain[name] = len(self.contents[name])
        for line in read_lines([fresh]):
            parsed = parse_frame(line.data)
            assert not isinstance(parsed, str), parsed
            record = jsontext.decode(parsed.record)
            if record["kind"] == "intent":
                self.durable_intents[record["args_digest"]] = record["request_id"]
