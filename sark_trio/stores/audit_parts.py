"""What an audit log is made of while it runs, put together from its options."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from sark_trio.stores.audit_commit import GroupCommit
from sark_trio.stores.audit_disk import DiskThread
from sark_trio.stores.audit_files import SegmentWriter
from sark_trio.stores.audit_following import Progress
from sark_trio.stores.audit_ledger import Ledger, Observer
from sark_trio.stores.audit_recovery import Opened
from sark_trio.stores.audit_sink import CheckpointFeed
from sark_trio.telemetry.events import AuditFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sark_trio.stores.audit import AuditLog

__all__ = ["new_ledger"]


def new_ledger(
    log: AuditLog,
    opened: Opened,
    disk: DiskThread,
    segments: SegmentWriter,
    progress: Progress,
    observers: Sequence[Observer],
) -> Ledger:
    """The ledger of *log*, at the end of what was found in its files."""
    commit = GroupCommit(
        disk=disk,
        segments=segments,
        records_max=log.queue_records_max,
        bytes_max=log.queue_bytes_max,
        sync_interval_s=log.fsync_interval_s if log.fsync == "interval" else math.inf,
        alarm=partial(_alarm, log),
    )
    feed = log.checkpoint_sink and CheckpointFeed(
        sink=log.checkpoint_sink,
        alarm=log.alarm,
        interval_s=log.checkpoint_interval_s,
        signer=log.signer,
        emit=log.emit,
    )
    return Ledger(
        chain=opened.chain,
        commit=commit,
        feed=feed,
        wall_clock=log.wall_clock,
        segment_bytes_max=log.segment_bytes_max,
        checkpoint_records=log.checkpoint_records,
        progress=progress,
        observers=observers,
    )


def _alarm(log: AuditLog, sentence: str) -> None:
    # Of the log itself: names of files and words of the system. What a sink raised may hold more.
    if log.emit is not None:
        log.emit(AuditFailed(problem=sentence))
    log.alarm(sentence)
