"""Opening an audit log: lock it, find its end, cut what was torn off, find what is in doubt.

A start reads the last segment, and back to the oldest call that had no outcome when that
segment was begun; earlier segments are for ``sark audit verify``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, final

from attrs import define, field, frozen

from sark_trio.errors import AuditCorrupt, AuditError
from sark_trio.governance.audit_chain import (
    SYNCED,
    AuditChain,
    Frame,
    parse_frame,
    read_lines,
    segment_first_seq,
)
from sark_trio.stores.audit_files import FileOps, SegmentWriter

__all__ = ["LOCK_NAME", "InDoubt", "LogDirectory", "Opened", "segment_names"]

LOCK_NAME = "lock"


@final
@frozen(kw_only=True)
class InDoubt:
    """A call whose intent was found and whose outcome was not: it may have happened."""

    request_id: str
    seq: int
    ts: str
    server: str
    tool: str | None
    principal_id: str


@final
@frozen(kw_only=True)
class Opened:
    """Where the log stands."""

    chain: AuditChain
    in_doubt: tuple[InDoubt, ...]
    #: Bytes of an unfinished write that were cut off, and their digest.
    torn_bytes: int
    torn_sha256: str | None


def segment_names(names: list[str]) -> list[str]:
    """The segments among *names*, in order."""
    return sorted(name for name in names if segment_first_seq(name) is not None)


@final
@define(kw_only=True, eq=False)
class LogDirectory:
    """The directory of a log while it is ours. Its methods block."""

    path: Path
    files: FileOps
    segments: SegmentWriter
    _lock_fd: int | None = field(default=None, init=False)

    def open(self, log_id: str) -> Opened:
        """Lock the directory and bring its log to a clean end.

        :param log_id: the id of the log if there is none yet.
        :raises AuditError: another process writes to it, or the directory can not be used.
        :raises AuditCorrupt: a record that was acknowledged is damaged.
        """
        try:
            self.files.prepare(self.path)
            self._lock_fd = self.files.lock(self.path / LOCK_NAME)
            return _Recovery(directory=self.path, files=self.files).run(log_id)
        except BlockingIOError as exc:
            raise AuditError(f"another writer has the audit log {self.path} open") from exc
        except OSError as exc:
            why = exc.strerror or exc
            raise AuditError(f"the audit log {self.path} can not be opened: {why}") from exc

    def close(self) -> None:
        """Close the segment and let the lock go. Idempotent."""
        self.segments.close()
        if self._lock_fd is not None:
            fd, self._lock_fd = self._lock_fd, None
            self.files.close(fd)


@define(kw_only=True)
class _Recovery:
    directory: Path
    files: FileOps
    intents: dict[str, dict[str, Any]] = field(factory=dict)
    torn_bytes: int = 0
    _torn: Any = field(factory=hashlib.sha256, init=False)

    def run(self, log_id: str) -> Opened:
        names = self._mend(segment_names(self.files.names(self.directory)))
        chain = self._retrace(names) if names else AuditChain(log_id=log_id)
        return Opened(
            chain=chain,
            in_doubt=tuple(_in_doubt(self.intents[name]) for name in chain.open_intents),
            torn_bytes=self.torn_bytes,
            torn_sha256=self._torn.hexdigest() if self.torn_bytes else None,
        )

    def _mend(self, names: list[str]) -> list[str]:
        """Cut torn ends from the back until a segment with a record in it is the last."""
        while names:
            good = self._good_bytes(names[-1])
            path = self.directory / names[-1]
            if good == 0:
                self.files.remove(path)
                self.files.sync_directory(self.directory)
                names = names[:-1]
                continue
            # Even a whole file is synced: its last process may have died before it could.
            self.files.truncate(path, good)
            return names
        return names

    def _good_bytes(self, name: str) -> int:
        """How many bytes of a segment are whole lines, from its beginning."""
        good, size, torn = 0, 0, False
        for line in read_lines(self.files.read(self.directory / name)):
            size += len(line.data)
            parsed = parse_frame(line.data)
            if not torn and isinstance(parsed, Frame):
                good = size
                continue
            if torn and isinstance(parsed, Frame) and parsed.mark == SYNCED:
                self._corrupt(name, good, "a record that was on disk is damaged")
            torn = True
            self.torn_bytes += len(line.data)
            self._torn.update(line.data)
        return good

    def _retrace(self, names: list[str]) -> AuditChain:
        chain: AuditChain | None = None
        for name in self._needed(names):
            for offset, record in self._records(name):
                if chain is None:
                    chain = self._resume(name, record)
                value = chain.follow(record)
                if isinstance(value, str):
                    self._corrupt(name, offset, value, index=chain.size)
                if value["kind"] == "intent":
                    self.intents[value["request_id"]] = value
                elif value["kind"] in {"outcome", "recovered"}:
                    self.intents.pop(value["request_id"], None)
        assert chain is not None  # the last segment has a record in it
        return chain

    def _needed(self, names: list[str]) -> list[str]:
        """The last segment, and those back to the oldest open intent that it names."""
        _, record = next(self._records(names[-1]))
        chain = self._resume(names[-1], record)
        value = chain.follow(record)
        if isinstance(value, str):
            self._corrupt(names[-1], 0, value, index=chain.size)
        oldest = value.get("oldest_open")
        if oldest is None:
            return names[-1:]
        begin = [at for at, name in enumerate(names) if (segment_first_seq(name) or 0) <= oldest]
        return names[begin[-1] if begin else 0 :]

    def _resume(self, name: str, record: bytes) -> AuditChain:
        try:
            return AuditChain.resume(record)
        except ValueError as exc:
            self._corrupt(name, 0, str(exc))

    def _records(self, name: str) -> Iterator[tuple[int, bytes]]:
        for line in read_lines(self.files.read(self.directory / name)):
            parsed = parse_frame(line.data)
            if isinstance(parsed, str):
                self._corrupt(name, line.offset, parsed)
            yield line.offset, parsed.record

    def _corrupt(self, name: str, offset: int, reason: str, index: int | None = None) -> NoReturn:
        raise AuditCorrupt(
            f"{self.directory / name}, byte {offset}: {reason};"
            " move the directory away and keep it, then start a new log",
            index=index,
            segment=name,
            offset=offset,
        )


def _in_doubt(intent: dict[str, Any]) -> InDoubt:
    return InDoubt(
        request_id=intent["request_id"],
        seq=intent["seq"],
        ts=intent.get("ts", ""),
        server=intent.get("server", ""),
        tool=intent.get("tool"),
        principal_id=intent.get("principal_id", ""),
    )
