"""Processes that are killed by SIGKILL, by the thousand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.kills import kill_callers, kill_writers

__all__ = ["callers", "writers"]

#: A log is begun anew after so many: each opening reads what the one before left.
ROUND = 50


def _rounds(kills: int, modes: tuple[str, ...]) -> Iterator[tuple[Path, str, str, int]]:
    variants = [(backend, fsync) for backend in ("asyncio", "trio") for fsync in modes]
    for number, first in enumerate(range(0, kills, ROUND)):
        backend, fsync = variants[number % len(variants)]
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder), backend, fsync, min(ROUND, kills - first)


def writers(kills: int) -> str:
    """Kill writers of the audit log."""
    rounds = _rounds(kills, ("group", "interval"))
    kept = sum(kill_writers(*each) for each in rounds)
    return f"kills: {kills:,} writers of the log, {kept:,} acknowledged records, 0 lost"


def callers(kills: int) -> str:
    """Kill clients in the middle of governed calls."""
    counts = [kill_callers(*each) for each in _rounds(kills, ("group", "always"))]
    effects, told = (sum(column) for column in zip(*counts, strict=True))
    return f"kills: {kills:,} clients, {effects:,} effects, 0 unaudited, {told:,} answers, 0 lost"
