"""The audit log: what is about to happen is on disk before it happens.

::

    log = AuditLog("audit/", checkpoint_sink="/mnt/elsewhere/checkpoints")
    await task_group.start(log.run)
    await log.intent(call)                  # returns when durable: now the call may be sent
    log.outcome_nowait(Outcome(...))        # how it ended; never waits

An :meth:`~AuditLog.intent` that raises or is cancelled is closed by the log itself, as
``not_sent`` or ``cancelled``: whoever did not get a number back has sent nothing and owes
nothing. Everything but :meth:`~AuditLog.run` and :meth:`~AuditLog.aclose` belongs to the event
loop's thread and may be called from any task of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from attrs import define, evolve, field, validators

from sark_trio.errors import AuditError, AuditUnavailable, UsageError
from sark_trio.governance.audit_chain import Fault
from sark_trio.governance.audit_checkpoint import Signer
from sark_trio.governance.audit_record import (
    AuditedCall,
    Outcome,
    OutcomeKind,
    args_digest,
    attempt_fields,
    call_fields,
    event_fields,
    hmac_ref,
    outcome_fields,
)
from sark_trio.machines.checks import positive
from sark_trio.stores.audit_commit import CLOSED, STALL_S
from sark_trio.stores.audit_disk import DiskThread
from sark_trio.stores.audit_files import FileOps, FsyncMode, OsFileOps, SegmentWriter
from sark_trio.stores.audit_following import AuditFollower, Progress
from sark_trio.stores.audit_ledger import Appended, AuditStatistics, Ledger, Observer
from sark_trio.stores.audit_parts import new_ledger
from sark_trio.stores.audit_reading import read_records, tail, verify_directory
from sark_trio.stores.audit_recovery import InDoubt, LogDirectory, Opened
from sark_trio.stores.audit_sink import CheckpointSink, FileSink, as_sink
from sark_trio.telemetry.hooks import Emit

__all__ = [
    "AuditFollower",
    "AuditLog",
    "AuditStatistics",
    "AuditedCall",
    "CheckpointSink",
    "Fault",
    "FileSink",
    "Outcome",
    "read_records",
    "tail",
    "verify_directory",
]


def _wall_clock() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@final
@define(eq=False, repr=False)
class AuditLog:
    """A write-ahead, hash-chained, append-only log in one directory.

    :param directory: made (mode 0700) if missing; one writer at a time.
    :param fsync: ``group``: callers wait for a sync that they share; ``always``: a sync for
        each record; ``interval``: callers wait for the write only, and a power cut may take
        the records of the last *fsync_interval_s* (a killed process loses none).
    :param fsync_interval_s: seconds, for ``interval``.
    :param segment_bytes_max: a new file is begun at about this size.
    :param queue_records_max, queue_bytes_max: what may wait for the disk; a tenth of it is
        kept for outcomes and attempts, so that calls that were let in can be ended.
    :param on_full: ``block``: wait a second, then :class:`~sark_trio.errors.AuditUnavailable`;
        ``drop``: let the call go unrecorded, count it, and log how many were dropped.
    :param checkpoint_sink: an async callable, or a file that is not in *directory*.
    :param checkpoint_records, checkpoint_interval_s: a checkpoint at least so often, and at
        the end.
    :param signer: signs a checkpoint's body, such as ``Ed25519PrivateKey.sign``.
    :param hmac_key: key of this deployment for :meth:`reference` and :meth:`digest`; without
        one, references of different runs can not be compared.
    :param on_alarm: told in a sentence what failed, stalled or was lost; it may raise.
    :param files: the operations on files.
    :param wall_clock: the time that records are stamped with, RFC 3339.
    """

    directory: Path = field(converter=Path)
    fsync: FsyncMode = field(
        default="group", kw_only=True, validator=validators.in_(("group", "always", "interval"))
    )
    fsync_interval_s: float = field(default=1.0, kw_only=True, validator=positive)
    segment_bytes_max: int = field(default=64 * 1024 * 1024, kw_only=True, validator=positive)
    queue_records_max: int = field(default=4096, kw_only=True, validator=positive)
    queue_bytes_max: int = field(default=16 * 1024 * 1024, kw_only=True, validator=positive)
    on_full: Literal["block", "drop"] = field(
        default="block", kw_only=True, validator=validators.in_(("block", "drop"))
    )
    checkpoint_sink: CheckpointSink | None = field(default=None, kw_only=True, converter=as_sink)
    checkpoint_records: int = field(default=1000, kw_only=True, validator=positive)
    checkpoint_interval_s: float = field(default=60.0, kw_only=True, validator=positive)
    signer: Signer | None = field(default=None, kw_only=True)
    hmac_key: bytes = field(factory=lambda: secrets.token_bytes(32), kw_only=True, repr=False)
    on_alarm: Callable[[str], None] = field(default=lambda _sentence: None, kw_only=True)
    files: FileOps = field(factory=OsFileOps, kw_only=True)
    wall_clock: Callable[[], str] = field(default=_wall_clock, kw_only=True)
    #: Told events of telemetry. Set by the client that the log belongs to, before it runs.
    emit: Emit | None = field(default=None, init=False)
    _ledger: Ledger | None = field(default=None, init=False)
    _progress: Progress = field(factory=Progress, init=False)
    _observers: list[Observer] = field(factory=list, init=False)
    _in_doubt: tuple[InDoubt, ...] = field(default=(), init=False)
    _started: bool = field(default=False, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Open the log, report started, and write until :meth:`aclose` or cancellation.

        Either way what was taken is written first, for a second at most.

        :raises AuditError: it can not be opened, or another process has it.
        :raises AuditCorrupt: a record that was acknowledged is damaged.
        """
        if self._started:
            raise UsageError("an audit log runs once; make another AuditLog to open it again")
        self._started = True
        disk = DiskThread(inline=self.files.in_memory)
        segments = SegmentWriter(
            directory=self.directory, files=self.files, sync_each=self.fsync == "always"
        )
        place = LogDirectory(path=self.directory, files=self.files, segments=segments)
        try:
            disk.start()
            opened = await disk.call(partial(place.open, secrets.token_hex(16)))
            self._in_doubt = opened.in_doubt
            ledger = new_ledger(self, opened, disk, segments, self._progress, self._observers)
            await self._run(ledger, opened, task_status)
        finally:
            try:
                if not disk.left_behind:
                    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + STALL_S):
                        await disk.call(place.close)
            finally:
                disk.stop(place.close)
                self._ended.set()

    async def _run(self, ledger: Ledger, opened: Opened, task_status: TaskStatus[None]) -> None:
        self._ledger = ledger
        problem = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ledger.run)
            tasks.start_soon(ledger.commit.keep_time)
            if ledger.feed is not None:
                tasks.start_soon(ledger.feed.run)
            try:
                problem = await ledger.begin(opened)
                if problem is None:
                    task_status.started()
                    await self._closing.wait()
            finally:
                ledger.close()
        if problem is not None:
            raise AuditError(f"the audit log {self.directory} can not be written: {problem}")

    async def aclose(self) -> None:
        """Write what was taken, and end :meth:`run`. Idempotent; from any task."""
        self._closing.set()
        if self._started:
            await self._ended.wait()
        self._started = True  # one that was never run can not be run any more

    async def intent(self, call: AuditedCall) -> int:
        """Record that *call* is about to be made; return its number once that is durable.

        If this raises, or is cancelled, the call must not be made; its end is recorded already.
        With ``on_full="drop"`` and a full queue: -1, and nothing is recorded.

        :raises AuditUnavailable: it could not be made durable within a second.
        :raises UsageError: an intent with this request id is still open.
        """
        return await self._durable(call_fields("intent", call), call)

    async def denied(self, call: AuditedCall, reason: str) -> int:
        """Record that *call* was refused; return its number once that is durable.

        :raises AuditUnavailable: as :meth:`intent`.
        """
        return await self._durable(call_fields("denied", call, reason=reason), call)

    async def allowed(self, call: AuditedCall, reason: str) -> int:
        """Record that *call*, which somebody else will make, was allowed. See :meth:`denied`."""
        return await self._durable(call_fields("allowed", call, reason=reason), call)

    def denied_nowait(self, call: AuditedCall, reason: str) -> int | Fault:
        """As :meth:`denied`, without waiting."""
        return self._put(call_fields("denied", call, reason=reason))

    def served_nowait(self, call: AuditedCall, source: str) -> int | Fault:
        """Record that *call* was answered without its server, such as from the ``cache``."""
        return self._put(call_fields("served", call, source=source))

    def attempt_nowait(self, request_id: str, number: int, reason: str = "first") -> int | Fault:
        """Record that attempt *number* (from 1) of an open call begins, and why."""
        return self._put(attempt_fields(request_id, number, reason), reserved=True)

    def outcome_nowait(self, outcome: Outcome) -> int | Fault:
        """Record how an open call ended. Never waits, so it may stand in any ``finally``.

        A call has one outcome: any further one, or one without an intent, is a
        :class:`Fault` and changes nothing. One for which the queue has no room now is a Fault
        as well, and is written as soon as there is; if the process ends before that, the next
        start finds the call in doubt.
        """
        return self._put(outcome_fields(outcome), reserved=True)

    async def outcome(self, outcome: Outcome, *, wait: bool = False) -> int | Fault:
        """As :meth:`outcome_nowait`; with *wait* it returns when the record is durable."""
        appended = self._take(outcome_fields(outcome), reserved=True, urgent=wait)
        if isinstance(appended, Fault):
            return appended
        if wait:
            await appended.batch.done.wait()
            if appended.batch.error is not None:
                return Fault("unavailable")
        return appended.seq

    async def event(self, name: str, details: Mapping[str, Any]) -> int:
        """As :meth:`event_nowait`; return its number once that is durable.

        :raises AuditUnavailable: as :meth:`intent`.
        """
        return await self._durable(event_fields(name, details), None)

    def event_nowait(self, name: str, details: Mapping[str, Any]) -> int | Fault:
        """Record anything else that an auditor should see: a reload, an approval, a command."""
        return self._put(event_fields(name, details))

    def reference(self, value: str | bytes) -> str:
        """A keyed reference to a secret, to stand in its place."""
        return hmac_ref(self.hmac_key, value)

    def digest(self, args: Any) -> str:
        """The keyed digest of a call's final arguments.

        :raises JSONError: they have no canonical form.
        """
        return args_digest(args, key=self.hmac_key)

    def follow(self, after: int | None = None) -> AuditFollower:
        """Read what is recorded: what comes after record *after*, or from now on."""
        return AuditFollower.after(after, self.directory, self.files, self._progress)

    def observe(self, observer: Observer) -> None:
        """Tell *observer* of each record that is taken from now on, before it is durable."""
        self._observers.append(observer)

    @property
    def in_doubt(self) -> tuple[InDoubt, ...]:
        """Calls that the previous writer left without an outcome: they may have happened."""
        return self._in_doubt

    @property
    def unavailable(self) -> str | None:
        """Why no intent is taken at the moment; ``None`` if all is well."""
        if self._ledger is None:
            return "the audit log is not running"
        commit = self._ledger.commit
        if commit.failure is None and self._closing.is_set():
            return CLOSED
        return commit.failure or commit.stalled

    def statistics(self) -> AuditStatistics:
        """A snapshot."""
        if self._ledger is None:
            return AuditStatistics(unavailable=self.unavailable)
        return evolve(self._ledger.statistics(), unavailable=self.unavailable)

    def __repr__(self) -> str:
        return f"<AuditLog {str(self.directory)!r}: {self.unavailable or 'open'}>"

    async def _durable(self, fields: dict[str, Any], call: AuditedCall | None) -> int:
        problem, ledger = self.unavailable, self._ledger
        if problem is None and ledger is not None and ledger.is_full:
            if self.on_full == "drop":
                ledger.drop()
                return -1
            problem = await ledger.wait_for_room() or self.unavailable
        if problem is not None or ledger is None:
            raise self._refusal(problem, call)
        appended = ledger.append(fields, urgent=True)
        if isinstance(appended, Fault):
            raise UsageError(f"request id {fields['request_id']!r} already has an open intent")
        batch = appended.batch
        try:
            await batch.done.wait()
        except BaseException:
            if fields["kind"] == "intent":
                self._abandon(fields["request_id"], "cancelled")
            raise
        if batch.error is not None:
            if fields["kind"] == "intent":
                self._abandon(fields["request_id"], "not_sent")
            raise self._refusal(batch.error, call)
        return appended.seq

    def _put(self, fields: dict[str, Any], *, reserved: bool = False) -> int | Fault:
        appended = self._take(fields, reserved=reserved)
        return appended if isinstance(appended, Fault) else appended.seq

    def _take(
        self, fields: dict[str, Any], *, reserved: bool, urgent: bool = False
    ) -> Appended | Fault:
        if self._ledger is None:
            return Fault("unavailable")
        return self._ledger.take(fields, reserved=reserved, urgent=urgent)

    def _abandon(self, request_id: str, kind: OutcomeKind) -> None:
        end = Outcome(request_id=request_id, outcome=kind, delivery="not_sent")
        self._take(outcome_fields(end), reserved=True)

    def _refusal(self, problem: str | None, call: AuditedCall | None) -> AuditUnavailable:
        names = () if call is None else ("server", "request_id", "decision_id")
        message = f"the call was not made, because it could not be recorded: {problem}"
        return AuditUnavailable(message, **{name: getattr(call, name) for name in names})

    def alarm(self, sentence: str) -> None:
        """Tell *sentence* to ``on_alarm``."""
        with suppress(Exception):  # an application's own code must not take every call down
            self.on_alarm(sentence)
