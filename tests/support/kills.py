"""Processes that are killed at any moment, one after another, and what they left behind.

:func:`kill_writers` kills processes that write an audit log; :func:`kill_callers` kills clients in
the middle of governed calls to a server that goes on and counts what happened. Both check that
what was promised is kept, and return how much was.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio

from sark_trio.governance.audit_verify import BadRecord
from sark_trio.stores.audit import read_records, verify_directory
from tests.support import audit_writer, counting_server, governed_caller, independent_verifier
from tests.support.audit_harness import open_log

__all__ = ["ROOT", "forks", "kill_callers", "kill_writers", "serve"]

ROOT = Path(__file__).parents[2]


def serve(run: Callable[[], Any]) -> None:
    """In a program: fork a process for each line on stdin, which runs until it is killed.

    Says ``pid N`` when it begins and ``dead N`` when it is over.
    """
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            audit_writer.say(f"pid {os.getpid()}")
            run()
        os.waitpid(pid, 0)
        audit_writer.say(f"dead {pid}")


class Forks:
    """A program that forks processes, and what they said before they were killed."""

    def __init__(self, program: ModuleType, *arguments: object) -> None:
        self.said: list[str] = []
        self._server = subprocess.Popen(
            [sys.executable, "-m", program.__name__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def run_one(self, lines: int, further_s: float) -> None:
        """Start one, take *lines* of what it says, let it go on for a moment, and kill it.

        :param lines: -1 does not even wait until it is ready.
        """
        assert self._server.stdin is not None
        self._server.stdin.write(b"go\n")
        self._server.stdin.flush()
        pid = int(self._take().removeprefix("pid "))
        assert lines < 0 or self._take() == "ready"
        for _ in range(lines):
            self.said.append(self._take())
        # A wait that is no sleep of the test's: the process goes on meanwhile.
        select.select([], [], [], further_s)
        os.kill(pid, signal.SIGKILL)
        while (line := self._take()) != f"dead {pid}":
            if line != "ready":
                self.said.append(line)

    def close(self) -> None:
        """End the program."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait() == 0

    def _take(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line.endswith(b"\n")
        return line[:-1].decode()


@contextmanager
def forks(program: ModuleType, *arguments: object) -> Iterator[Forks]:
    """*program*, run with *arguments*, until the block ends."""
    made = Forks(program, *arguments)
    try:
        yield made
    finally:
        made.close()


def kill_writers(directory: Path, backend: str, fsync: str, kills: int) -> int:
    """Kill so many writers; the number of records that were promised and are there."""
    rng = random.Random(f"{backend}{fsync}")
    with forks(audit_writer, directory, backend, fsync, 4, 20_000) as writers:
        for _ in range(kills):
            writers.run_one(rng.randint(0, 40), rng.random() * 0.005)
    records = _healed(directory, backend)
    kept = {f"{record['kind'][0]} {record.get('request_id')}" for record in records}
    assert set(writers.said) <= kept
    assert len(writers.said) > kills
    assert any(record["kind"] == "recovered" for record in records)
    openings = sum(record["kind"] == "open" and record["reason"] != "rotated" for record in records)
    assert openings == kills + 1
    return len(writers.said)


def kill_callers(
    directory: Path, backend: str, fsync: str, kills: int, *, calls: int = 4
) -> tuple[int, int]:
    """Kill so many clients; the effects that the server saw, and the answers that were told.

    :param calls: that each of them makes at once.
    """
    rng, log, seen = random.Random(f"{backend}{fsync}"), directory / "log", directory / "effects"
    seen.touch()
    with (
        counting_server.running(seen) as url,
        forks(governed_caller, log, backend, fsync, calls, url) as callers,
    ):
        for _ in range(kills):
            callers.run_one(rng.randint(-1, 12), rng.random() * 0.02)
    effects, records = seen.read_text().split(), _healed(log, backend)
    by_kind = {
        kind: [record for record in records if record["kind"] == kind]
        for kind in ("intent", "outcome", "recovered")
    }
    intended = Counter(record["args"]["effect"] for record in by_kind["intent"])
    # Nothing happened that had not been written down before, and nothing happened twice.
    assert set(effects) <= intended.keys()
    assert max(Counter(effects).values(), default=1) == max(intended.values(), default=1) == 1
    # Whoever was told an answer finds it: the effect, and what led to it.
    assert set(callers.said) <= set(effects)
    ends = Counter(r["request_id"] for kind in ("outcome", "recovered") for r in by_kind[kind])
    assert ends == Counter(record["request_id"] for record in by_kind["intent"])
    return len(effects), len(callers.said)


def _healed(directory: Path, backend: str) -> list[dict[str, Any]]:
    """The log's records, after it was found whole but for its last line, and opened once more."""
    report = verify_directory(directory)
    # The last kill may have cut a write short: then its line, the very last, has no end.
    assert report.ok or _is_unfinished_tail(directory, report.fault), report

    async def heal() -> None:
        async with open_log(directory) as log:
            assert {item.request_id for item in log.in_doubt} == set(report.in_doubt)

    anyio.run(heal, backend=backend)
    assert verify_directory(directory).ok
    records = list(read_records(directory))
    segments = {path.name: path.read_bytes() for path in directory.glob("audit-*.log")}
    assert independent_verifier.check(segments)[0] == len(records)
    return records


def _is_unfinished_tail(directory: Path, fault: BadRecord | None) -> bool:
    assert fault is not None
    last = max(path.name for path in directory.glob("audit-*.log"))
    if fault.segment != last or fault.offset is None:
        return False
    tail = (directory / last).read_bytes()[fault.offset :]
    return bool(tail) and b"\n" not in tail
