"""The operations on files that the audit log needs, and the segments made with them.

All of these block: they run in the log's disk thread. :class:`FileOps` is the seam at which
tests put a disk that is full, lies about ``fsync`` or loses power.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, final

from attrs import define, field

from sark_trio.governance.audit_chain import JOINED, SYNCED, frame

__all__ = ["DiskFull", "Entry", "FileOps", "FsyncMode", "OsFileOps", "SegmentWriter"]

FsyncMode = Literal["group", "always", "interval"]
#: A segment to begin first, or ``None``; and a record.
Entry = tuple[str | None, bytes]

#: Read this much at a time: verification needs no more memory than that.
_READ_BYTES = 256 * 1024
#: Errors of a *write* that may pass when somebody makes room.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(Exception):
    """There was no room; what was written of the batch is taken back and may be tried again."""


class FileOps(Protocol):
    """What the log does to a directory. Every method may raise ``OSError``."""

    #: Whether the operations never block, so that no thread is needed.
    in_memory: bool

    def prepare(self, directory: Path) -> None:
        """Make the directory (mode 0700) unless it is there."""

    def lock(self, path: Path) -> int:
        """Take an exclusive lock that ends with the process; ``BlockingIOError`` if taken."""

    def names(self, directory: Path) -> list[str]:
        """The names in the directory."""

    def read(self, path: Path, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file from *offset* on, in pieces."""

    def create(self, path: Path) -> int:
        """Make a new file (mode 0600, append only) and return its descriptor."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Append *data* or a beginning of it; the number of bytes taken."""

    def sync(self, fd: int) -> None:
        """Return when the file's bytes are on disk."""

    def sync_directory(self, directory: Path) -> None:
        """Return when the directory's names are on disk."""

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Cut a file, durably."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def is_intact(self, fd: int, path: Path, size_bytes: int) -> bool:
        """Whether *path* still is the open file *fd*, with exactly that size."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""


@final
class OsFileOps:
    """The real ones."""

    in_memory = False

    def prepare(self, directory: Path) -> None:
        """See :class:`FileOps`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self, path: Path) -> int:
        """See :class:`FileOps`."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def names(self, directory: Path) -> list[str]:
        """See :class:`FileOps`."""
        return [path.name for path in directory.iterdir()]

    def read(self, path: Path, offset: int = 0) -> Iterator[bytes]:
        """See :class:`FileOps`."""
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(_READ_BYTES):
                yield chunk

    def create(self, path: Path) -> int:
        """See :class:`FileOps`."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """See :class:`FileOps`."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """See :class:`FileOps`."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # elsewhere than on macOS, fsync reaches the medium
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_directory(self, directory: Path) -> None:
        """See :class:`FileOps`."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, path: Path, size_bytes: int) -> None:
        """See :class:`FileOps`."""
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """See :class:`FileOps`."""
        path.unlink()

    def is_intact(self, fd: int, path: Path, size_bytes: int) -> bool:
        """See :class:`FileOps`."""
        ours = os.fstat(fd)
        try:
            theirs = path.lstat()
        except FileNotFoundError:
            return False
        same = (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
        return same and stat.S_ISREG(ours.st_mode) and ours.st_size == size_bytes

    def close(self, fd: int) -> None:
        """See :class:`FileOps`."""
        os.close(fd)


@final
@define(kw_only=True, repr=False)
class SegmentWriter:
    """Writes batches of entries: one write and one sync for each, where nothing forbids it.

    :param sync_each: sync after every record, not after every batch.
    """

    directory: Path
    files: FileOps
    sync_each: bool = False
    _fd: int | None = field(default=None, init=False)
    _path: Path = field(init=False)
    _size: int = field(default=0, init=False)
    _synced: bool = field(default=True, init=False)

    def write(self, entries: deque[Entry], *, sync: bool) -> None:
        """Write *entries*, and make them durable if *sync*.

        Entries are taken out of the deque once they need not be written again.

        :raises DiskFull: try the rest again later.
        :raises OSError: the log can not be trusted any more.
        """
        while entries:
            name, _ = entries[0]
            if name is not None and (self._fd is None or self._path.name != name):
                self._begin(name)
            count = self._run_length(entries)
            self._append(entries, count)
            if sync or self.sync_each:
                self.sync()
            for _ in range(count):
                entries.popleft()

    def sync(self) -> None:
        """Make everything written durable, and check that it is still ours.

        :raises OSError: the sync failed, or the file was replaced, cut or written to by others.
        """
        if self._synced or self._fd is None:
            return
        self.files.sync(self._fd)
        if not self.files.is_intact(self._fd, self._path, self._size):
            raise OSError(errno.ESTALE, f"{self._path.name} was replaced or changed under us")
        self._synced = True

    def close(self) -> None:
        """Close the file; what was not synced is not made durable."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self.files.close(fd)

    def _begin(self, name: str) -> None:
        self.sync()  # a torn end is looked for in the last segment only
        self.close()
        path = self.directory / name
        try:
            fd = self.files.create(path)
        except OSError as exc:
            if exc.errno in _FULL:
                raise DiskFull(f"no room for {name}") from exc
            raise
        self._fd, self._path, self._size = fd, path, 0
        self.files.sync_directory(self.directory)

    def _run_length(self, entries: deque[Entry]) -> int:
        """How many entries can go in one write: up to the next segment."""
        if self.sync_each:
            return 1
        count = 1
        while count < len(entries) and entries[count][0] is None:
            count += 1
        return count

    def _append(self, entries: deque[Entry], count: int) -> None:
        assert self._fd is not None  # the first entry of a log begins a segment
        mark = SYNCED if self._synced else JOINED
        lines = []
        for position in range(count):
            lines.append(frame(mark, entries[position][1]))
            mark = JOINED
        rest = memoryview(b"".join(lines))
        size, written = self._size, len(rest)
        try:
            while rest:
                rest = rest[self.files.write(self._fd, rest) :]
        except OSError as exc:
            if exc.errno not in _FULL:
                raise
            self.files.truncate(self._path, size)
            raise DiskFull(f"no room in {self._path.name}") from exc
        self._size = size + written
        self._synced = False
