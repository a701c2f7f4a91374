"""The lines that a soak prints while it runs."""

from __future__ import annotations

from typing import Final

from tests.soak.load import Load
from tests.soak.measure import Complaints, Sample

__all__ = ["HEAD", "line"]

_COLUMNS: Final = {
    "s": 6,
    "calls/s": 8,
    "RSS MiB": 8,
    "heap KiB": 9,
    "blocks": 8,
    "fds": 5,
    "tasks": 6,
    "threads": 8,
    "children": 9,
    "answered": 9,
    "errors": 7,
    "complaints": 11,
}
HEAD: Final = " ".join(name.rjust(width) for name, width in _COLUMNS.items())


def line(found: Sample, rate: float, load: Load, complaints: Complaints) -> str:
    """What was seen at one moment; *rate* is that since the line before."""
    answered = load.outcomes["answered"]
    values = (
        f"{found.at:.0f}",
        f"{rate:.0f}",
        f"{found.rss_kib / 1024:.1f}",
        str(found.heap_kib),
        str(found.blocks),
        str(found.descriptors),
        str(found.tasks),
        str(found.threads),
        str(found.children),
        str(answered),
        str(load.outcomes.total() - answered),
        str(complaints.counts.total()),
    )
    pairs = zip(values, _COLUMNS.values(), strict=True)
    return " ".join(value.rjust(width) for value, width in pairs)
