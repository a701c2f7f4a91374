"""What a soak must have left: one outcome for each call that happened, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from sark_trio.stores.audit import read_records, verify_directory

__all__ = ["Books", "judged"]

#: Of each kind of finding, so many are printed.
SHOWN = 5


@define(eq=False)
class Books:
    """What the log says, and what servers did, call by call."""

    intents: int = 0
    outcomes: Counter[str] = field(factory=Counter)
    ok: Counter[str] = field(factory=Counter)
    #: By request: the server and number of each intent that has no outcome yet.
    open: dict[str, tuple[str, int]] = field(factory=dict)
    #: By server: numbers of calls that the log has an intent of.
    meant: dict[str, set[int]] = field(factory=dict)
    findings: list[str] = field(factory=list)

    def read(self, records: Iterable[Mapping[str, Any]]) -> None:
        for record in records:
            request = record.get("request_id", "")
            if record["kind"] == "intent":
                server, number = record["server"], record["args"]["number"]
                self.intents += 1
                if request in self.open:
                    self.findings.append(f"two intents of {request}")
                self.open[request] = server, number
                self.meant.setdefault(server, set()).add(number)
            elif record["kind"] == "outcome":
                self._ended(request, record)

    def _ended(self, request: str, record: Mapping[str, Any]) -> None:
        call = self.open.pop(request, None)
        if call is None:
            self.findings.append(f"an outcome without an intent, or the second one: {request}")
            return
        self.outcomes[f"{record['outcome']}, {record['delivery']}"] += 1
        if record["outcome"] == "ok":
            self.ok[call[0]] += 1

    def effects(self, server: str, numbers: Iterable[int]) -> int:
        """Compare with what *server* executed; how much that was."""
        seen: set[int] = set()
        for number in numbers:
            if number in seen:
                self.findings.append(f"{server} executed call {number} more than once")
            if number not in self.meant.get(server, ()):
                self.findings.append(f"{server} executed call {number}, of which the log is silent")
            seen.add(number)
        return len(seen)


def _numbers(path: Path) -> Iterator[int]:
    if path.exists():
        with path.open() as lines:
            yield from map(int, lines)


def judged(log: Path, effects: Path, servers: Iterable[str]) -> tuple[Books, dict[str, int]]:
    """The books of a log and of the files that servers wrote, and the effects of each server."""
    books = Books()
    report = verify_directory(log)
    if report.fault is not None:
        books.findings.append(f"the log is broken: {report.fault}")
    books.read(read_records(log))
    for request, (server, number) in books.open.items():
        books.findings.append(f"call {number} of {server} has no outcome in the log: {request}")
    executed = {server: books.effects(server, _numbers(effects / server)) for server in servers}
    return books, executed
