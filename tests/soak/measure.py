"""What a process is measured by: memory, descriptors, tasks, threads, children, and complaints."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import Any

import sniffio
from attrs import field, frozen

from sark_trio.testing import census

__all__ = ["Complaints", "Sample", "Slope", "listening", "sample", "slope"]

_PAGE_KIB = resource.getpagesize() // 1024


@frozen
class Sample:
    """One look at the process, *at* seconds after the beginning."""

    at: float
    rss_kib: int
    #: Of Python's allocator, for small objects, and bytes that glibc has given out for large ones
    #: (0 elsewhere): what is in use, while RSS has what is free between it, too.
    blocks: int
    heap_kib: int
    descriptors: int
    tasks: int
    threads: int
    children: int


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc, all of it ``size_t``."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


_MALLINFO: Any = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _MALLINFO is not None:
    _MALLINFO.restype = _Mallinfo


def _heap_kib() -> int:
    if _MALLINFO is None:
        return 0
    # Arenas of Python's own allocator are mapped: of those, the blocks tell.
    return int(_MALLINFO().uordblks) // 1024


def sample(at: float) -> Sample:
    """A look at this process. Called in a task of the event loop."""
    found = census()
    return Sample(
        at=at,
        rss_kib=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB,
        blocks=sys.getallocatedblocks(),
        heap_kib=_heap_kib(),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a count of names
        tasks=len(found.tasks),
        threads=len(found.threads),
        children=len(found.children),
    )


@frozen
class Slope:
    """Of a line through points, by least squares, each minute; *error* is its standard error."""

    per_minute: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_minute:+.0f} ± {self.error:.0f}"


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """The line through *points* (seconds, value); ``None`` for fewer than three."""
    count = len(points)
    if count < 3:
        return None
    middle = sum(at for at, _ in points) / count
    mean = sum(value for _, value in points) / count
    spread = sum((at - middle) ** 2 for at, _ in points)
    steep = sum((at - middle) * (value - mean) for at, value in points) / spread
    rest = sum((value - mean - steep * (at - middle)) ** 2 for at, value in points)
    return Slope(steep * 60, sqrt(rest / (count - 2) / spread) * 60)


@frozen
class Complaints:
    """What nobody caught, by kind, and the first of each kind."""

    counts: Counter[str] = field(factory=Counter)
    first: dict[str, str] = field(factory=dict)

    def add(self, kind: str, what: object) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, str(what)[:2_000])


@contextmanager
def listening(complaints: Complaints) -> Iterator[None]:
    """Hear of everything that Python would only print."""

    def warned(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        complaints.add(category.__name__, message)

    def unraisable(found: Any) -> None:
        complaints.add("unraisable exceptions", f"{found.exc_value!r} in {found.object!r}")

    def in_thread(found: Any) -> None:
        complaints.add("exceptions of threads", repr(found.exc_value))

    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = unraisable, in_thread
    if sniffio.current_async_library() == "asyncio":
        # A task whose exception nobody asked for, a transport that nobody closed.
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.add(
                "unretrieved exceptions", f"{context['message']}: {context.get('exception')!r}"
            )
        )
    handler = _Logged(complaints)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = warned
            yield
    finally:
        sys.unraisablehook, threading.excepthook = hooks
        logging.getLogger().removeHandler(handler)


class _Logged(logging.Handler):
    """Errors that a library logs because nobody else would hear of them."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.add(f"errors logged by {record.name}", record.getMessage())
