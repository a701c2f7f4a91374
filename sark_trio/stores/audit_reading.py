"""Reading an audit log from its files: synchronous, for tools, on a log that may be in use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sark_trio import jsontext
from sark_trio.errors import AuditCorrupt, AuditError
from sark_trio.governance.audit_chain import parse_frame, read_lines
from sark_trio.governance.audit_checkpoint import Checkpoint, Verifier, parse_checkpoints
from sark_trio.governance.audit_verify import Report, verify
from sark_trio.stores.audit_files import OsFileOps
from sark_trio.stores.audit_recovery import segment_names

__all__ = ["read_records", "tail", "verify_directory"]

AnyPath = str | os.PathLike[str]


def read_records(directory: AnyPath) -> Iterator[dict[str, Any]]:
    """Every record, oldest first. Lines are checked for themselves; the chain is not.

    A last line that has no end yet is skipped: it is being written, or was torn.

    :raises AuditError: there is no such directory.
    :raises AuditCorrupt: a line is damaged.
    """
    for path in _segments(directory):
        yield from _records(path)


def tail(directory: AnyPath, count: int = 20) -> list[dict[str, Any]]:
    """The last *count* records, oldest first. The same errors as :func:`read_records`."""
    found: list[dict[str, Any]] = []
    for path in reversed(_segments(directory)):
        wanted = count - len(found)
        if wanted <= 0:
            break
        found = [*deque(_records(path), maxlen=wanted), *found]
    return found


def verify_directory(
    directory: AnyPath,
    checkpoints: AnyPath | Iterable[Checkpoint] | None = None,
    *,
    verifier: Verifier | None = None,
) -> Report:
    """Verify the whole log (see :func:`~sark_trio.governance.audit_verify.verify`).

    :param checkpoints: the file of a :class:`~sark_trio.stores.audit_sink.FileSink`, or the
        checkpoints themselves. Without them a cut at the end can not be seen.
    :raises AuditError: the directory or the file can not be read, or holds no checkpoints.
    """
    if isinstance(checkpoints, str | os.PathLike):
        try:
            checkpoints = list(parse_checkpoints(Path(checkpoints).read_bytes()))
        except (OSError, ValueError) as exc:
            raise AuditError(f"the checkpoints can not be read: {exc}") from exc
    files = OsFileOps()
    segments = ((path.name, files.read(path)) for path in _segments(directory))
    return verify(segments, checkpoints or (), verifier=verifier)


def _segments(directory: AnyPath) -> list[Path]:
    try:
        names = segment_names(OsFileOps().names(Path(directory)))
    except OSError as exc:
        why = exc.strerror or exc
        raise AuditError(f"the audit log {os.fspath(directory)} can not be read: {why}") from exc
    return [Path(directory) / name for name in names]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(OsFileOps().read(path)):
        parsed = parse_frame(line.data)
        if not isinstance(parsed, str):
            yield jsontext.decode(parsed.record)
        elif line.data.endswith(b"\n"):
            raise AuditCorrupt(
                f"{path}, byte {line.offset}: {parsed}", segment=path.name, offset=line.offset
            )
