"""A disk in memory for the audit log: it notes every operation, fails on request, loses power.

What is certain after a power cut is what was synced, and no more: later bytes of a file may be
there, be zeros or be missing, page by page, and a name that was not synced may be gone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

__all__ = ["PAGE_BYTES", "MemoryDisk", "after_power_cut"]

#: Small, so that one batch spans several.
PAGE_BYTES = 128


@define(eq=False)
class MemoryDisk:
    """File operations on a dictionary (see :class:`sark_trio.stores.audit_files.FileOps`).

    ``journal`` holds what was done, in order, and whatever a test adds to it.
    ``errors`` maps an operation to the errors that its next calls raise.
    """

    contents: dict[str, bytearray] = field(factory=dict)
    journal: list[tuple[Any, ...]] = field(factory=list)
    errors: dict[str, list[BaseException]] = field(factory=dict)
    in_memory: bool = True
    #: Bytes that one write takes at most.
    write_bytes_max: int = 1 << 30
    locked: bool = False
    _open: dict[int, str] = field(factory=dict)

    def prepare(self, directory: Path) -> None:
        self._trip("prepare")

    def lock(self, path: Path) -> int:
        self._trip("lock")
        if self.locked:
            raise BlockingIOError
        self.locked = True
        return 1

    def names(self, directory: Path) -> list[str]:
        self._trip("names")
        return ["lock", *self.contents]

    def read(self, path: Path, offset: int = 0) -> Iterator[bytes]:
        self._trip("read")
        data = bytes(self.contents[path.name][offset:])
        yield from (data[at : at + 1000] for at in range(0, len(data), 1000))

    def create(self, path: Path) -> int:
        self._trip("create")
        if path.name in self.contents:
            raise FileExistsError(path.name)
        self.contents[path.name] = bytearray()
        self._note("create", path.name)
        fd = 10 + len(self.journal)
        self._open[fd] = path.name
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._trip("write")
        taken = bytes(data[: self.write_bytes_max])
        self.contents[self._open[fd]] += taken
        self._note("write", self._open[fd], taken)
        return len(taken)

    def sync(self, fd: int) -> None:
        self._trip("sync")
        self._note("sync", self._open[fd])

    def sync_directory(self, directory: Path) -> None:
        self._trip("sync_directory")
        self._note("sync_directory")

    def truncate(self, path: Path, size_bytes: int) -> None:
        self._trip("truncate")
        del self.contents[path.name][size_bytes:]
        self._note("truncate", path.name, size_bytes)

    def remove(self, path: Path) -> None:
        self._trip("remove")
        del self.contents[path.name]
        self._note("remove", path.name)

    def is_intact(self, fd: int, path: Path, size_bytes: int) -> bool:
        name = self._open[fd]
        return name == path.name and len(self.contents.get(name, b"")) == size_bytes

    def close(self, fd: int) -> None:
        if fd == 1:
            self.locked = False
        else:
            del self._open[fd]

    def _trip(self, operation: str) -> None:
        if self.errors.get(operation):
            raise self.errors[operation].pop(0)

    def _note(self, *entry: Any) -> None:
        self.journal.append(entry)


def after_power_cut(
    before: dict[str, bytes], journal: list[tuple[Any, ...]], rng: random.Random
) -> dict[str, bytearray]:
    """One disk that may be found when the power goes after the last entry of *journal*."""
    contents = {name: bytearray(data) for name, data in before.items()}
    synced = {name: len(data) for name, data in before.items()}
    doubtful: set[str] = set()
    for operation, *details in journal:
        name = details[0] if details else ""
        if operation == "create":
            contents[name], synced[name] = bytearray(), 0
            doubtful.add(name)
        elif operation == "write":
            contents[name] += details[1]
        elif operation == "sync":
            synced[name] = len(contents[name])
        elif operation == "truncate":
            del contents[name][details[1] :]
            synced[name] = len(contents[name])
        elif operation == "remove":
            del contents[name]
        elif operation == "sync_directory":
            doubtful.clear()
    return {
        name: _torn(data, synced[name], rng)
        for name, data in contents.items()
        if name not in doubtful or rng.random() < 0.5
    }


def _torn(data: bytearray, synced: int, rng: random.Random) -> bytearray:
    """The synced bytes, and of the others what a disk may have kept."""
    end = rng.choice([len(data), synced, rng.randint(synced, len(data))])
    found = data[:end]
    for page in range(0, len(found), PAGE_BYTES):
        if page + PAGE_BYTES > synced and rng.random() < 0.4:
            begin = max(page, synced)
            stop = min(page + PAGE_BYTES, len(found))
            found[begin:stop] = bytes(stop - begin)
    return found
