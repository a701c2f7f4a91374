"""Reading a log while it is written: from any record on, and only what is durable.

A follower keeps a place in a file and nothing else, so that one who reads slowly costs no memory,
and one who comes back goes on where it was.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import anyio
from anyio import to_thread
from attrs import define, field

from sark_trio.errors import AuditCorrupt, AuditError
from sark_trio.governance.audit_chain import (
    parse_frame,
    read_lines,
    segment_first_seq,
    segment_name,
)
from sark_trio.stores.audit_files import FileOps
from sark_trio.stores.audit_recovery import segment_names

__all__ = ["AuditFollower", "NumberedRecord", "Progress"]

#: Records that are read at a time: 16 MiB at the most, and usually 100 KiB.
RECORDS_AT_ONCE = 256


class NumberedRecord(NamedTuple):
    """A record's number, and its bytes: one object of canonical JSON."""

    seq: int
    data: bytes


@final
@define(eq=False)
class Progress:
    """How far a log is durable; told to all who wait for more."""

    #: Records that are on disk.
    durable: int = field(default=0, init=False)
    #: Whether there will be no more.
    ended: bool = field(default=False, init=False)
    _more: anyio.Event = field(factory=anyio.Event, init=False)

    def advance(self, durable: int) -> None:
        """So many are on disk now."""
        if durable > self.durable:
            self.durable = durable
            self._wake()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self._wake()

    async def beyond(self, count: int) -> bool:
        """Wait until more than *count* are durable; whether they ever will be."""
        while self.durable <= count and not self.ended:
            await self._more.wait()
        return self.durable > count

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()


@final
@define(eq=False)
class _Place:
    """A place in the log's files. :meth:`read` blocks.

    :param wanted: number of the first record that is asked for.
    """

    directory: Path
    files: FileOps
    wanted: int
    #: Number of the record that comes next in the file.
    at: int = field(default=0, init=False)
    _segment: str | None = field(default=None, init=False)
    _offset: int = field(default=0, init=False)

    def read(self, durable: int) -> list[NumberedRecord]:
        """The next records, all of them below number *durable*; some, if there are any."""
        found: list[NumberedRecord] = []
        if self._segment is None:
            self._find()
        while self.at < durable and len(found) < RECORDS_AT_ONCE:
            if not self._read_segment(found, durable):
                self._begin_segment(segment_name(self.at))
        return found

    def _find(self) -> None:
        """Go to the segment that holds the wanted record, or to the first that is still here."""
        names = segment_names(self.files.names(self.directory))
        firsts = {name: segment_first_seq(name) or 0 for name in names}
        holding = [name for name in names if firsts[name] <= self.wanted] or names
        if not holding:
            raise AuditError(f"the audit log {self.directory} has no segment")
        name = holding[-1] if firsts[holding[0]] <= self.wanted else holding[0]
        self.at = firsts[name]
        self._begin_segment(name)

    def _begin_segment(self, name: str) -> None:
        if name == self._segment:
            raise AuditError(f"record {self.at} of the audit log is not in its files")
        self._segment, self._offset = name, 0

    def _read_segment(self, found: list[NumberedRecord], durable: int) -> bool:
        """Read on in this segment; whether there was anything."""
        assert self._segment is not None
        path, begin, before = self.directory / self._segment, self._offset, self.at
        for line in read_lines(self.files.read(path, begin)):
            if self.at >= durable or len(found) >= RECORDS_AT_ONCE:
                break
            parsed = parse_frame(line.data)
            if isinstance(parsed, str):
                where = begin + line.offset
                raise AuditCorrupt(
                    f"{path}, byte {where}: {parsed}", segment=path.name, offset=where
                )
            if self.at >= self.wanted:
                found.append(NumberedRecord(self.at, parsed.record))
            self.at += 1
            self._offset = begin + line.offset + len(line.data)
        return self.at > before


@final
@define(eq=False)
class AuditFollower:
    """Reads a running log's durable records. Made by ``AuditLog.follow``."""

    _place: _Place
    _progress: Progress

    @classmethod
    def after(
        cls, seq: int | None, directory: Path, files: FileOps, progress: Progress
    ) -> AuditFollower:
        """A follower that goes on after record *seq*; ``None``: after what is durable now."""
        first = progress.durable if seq is None else seq + 1
        return cls(_Place(directory, files, first), progress)

    @property
    def next_seq(self) -> int:
        """The number of the record that comes next."""
        return max(self._place.at, self._place.wanted)

    async def wait(self) -> None:
        """Return when there is more, or will be no more. Cancelling it loses nothing."""
        await self._progress.beyond(self.next_seq)

    async def next(self) -> list[NumberedRecord]:
        """The next records, as soon as there are some; none once the log has ended.

        One task at a time.

        :raises AuditCorrupt: a line is damaged.
        :raises AuditError: the files can not be read any more.
        """
        if not await self._progress.beyond(self.next_seq):
            return []
        read = partial(self._place.read, self._progress.durable)
        try:
            return read() if self._place.files.in_memory else await to_thread.run_sync(read)
        except OSError as exc:
            raise AuditError(f"the audit log can not be read: {exc.strerror}") from exc
