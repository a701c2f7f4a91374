"""The audit log on a real disk, on both event loops."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sark_trio.errors import AuditCorrupt, AuditError, AuditUnavailable, UsageError
from sark_trio.governance.audit_chain import Fault, frame
from sark_trio.governance.audit_checkpoint import parse_checkpoints
from sark_trio.stores.audit import AuditLog, FileSink, read_records, tail, verify_directory
from sark_trio.stores.audit_recovery import InDoubt
from tests.support.audit_harness import call, ended, open_log

pytestmark = pytest.mark.anyio


def _kinds(directory: Path) -> list[str]:
    return [record["kind"] for record in read_records(directory)]


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("audit-*.log"))


async def test_a_call_leaves_an_intent_an_attempt_and_an_outcome(tmp_path: Path) -> None:
    async with open_log(tmp_path / "log") as log:
        seq = await log.intent(call("a"))
        assert log.attempt_nowait("a", 1) == seq + 1
        assert await log.outcome(ended("a", attempts=1)) == seq + 2
        assert log.statistics().open_intents == 0
        assert repr(log) == f"<AuditLog {str(tmp_path / 'log')!r}: open>"
    assert _kinds(tmp_path / "log") == ["open", "intent", "attempt", "outcome"]
    assert verify_directory(tmp_path / "log").ok


async def test_denials_cache_hits_and_events_are_recorded(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        assert await log.denied(call("a"), "no such role") == 1
        assert log.denied_nowait(call("b"), "no such role") == 2
        assert log.served_nowait(call("c"), "cache") == 3
        assert log.event_nowait("reload", {"ok": True}) == 4
    records = list(read_records(tmp_path))
    assert [record["kind"] for record in records] == ["open", "denied", "denied", "served", "event"]
    assert records[1]["reason"] == "no such role"
    assert records[3]["source"] == "cache"


@pytest.mark.security(29)
async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    async with open_log(tmp_path / "new" / "log") as log:
        await log.intent(call("a"))
    directory = tmp_path / "new" / "log"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_writer_is_told_so(tmp_path: Path) -> None:
    async with open_log(tmp_path):
        with pytest.raises(AuditError, match="another writer has the audit log"):
            await AuditLog(tmp_path).run()
    async with open_log(tmp_path) as log:
        assert log.unavailable is None


async def test_a_log_that_can_not_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="can not be opened"):
        await AuditLog(tmp_path / "file" / "log").run()


async def test_callers_share_a_sync(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log, anyio.create_task_group() as tasks:
        before = log.statistics().flushes
        for number in range(200):
            tasks.start_soon(log.intent, call(f"r{number}"))
        await anyio.lowlevel.checkpoint()
    assert log.statistics().flushes - before <= 3
    assert len(list(read_records(tmp_path))) == 201


@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_the_other_ways_to_sync(tmp_path: Path, fsync: str) -> None:
    async with (
        open_log(tmp_path, fsync=fsync, fsync_interval_s=0.001) as log,
        anyio.create_task_group() as tasks,
    ):
        for number in range(20):
            tasks.start_soon(log.intent, call(f"r{number}"))
    assert verify_directory(tmp_path).records == 21


async def test_segments_are_rotated_and_the_chain_goes_on(tmp_path: Path) -> None:
    async with open_log(tmp_path, segment_bytes_max=2000) as log:
        for number in range(20):
            await log.intent(call(f"r{number}"))
            log.outcome_nowait(ended(f"r{number}"))
    assert len(_segments(tmp_path)) > 5
    assert all(path.stat().st_size < 4000 for path in _segments(tmp_path))
    report = verify_directory(tmp_path)
    assert report.ok
    assert report.segments == len(_segments(tmp_path))
    assert [record["seq"] for record in tail(tmp_path, 7)] == list(
        range(report.records - 7, report.records)
    )
    assert tail(tmp_path, 0) == []


async def test_calls_without_an_outcome_are_found_and_ended(tmp_path: Path) -> None:
    async with open_log(tmp_path, segment_bytes_max=1500) as log:
        await log.intent(call("lost", tool=None))
        for number in range(9):
            await log.intent(call(f"r{number}"))
            log.outcome_nowait(ended(f"r{number}"))
    async with open_log(tmp_path) as log:
        first = next(record for record in read_records(tmp_path) if record["kind"] == "intent")
        found = InDoubt(
            request_id="lost", seq=1, ts=first["ts"], server="db", tool=None, principal_id="alice"
        )
        assert log.in_doubt == (found,)
        assert log.outcome_nowait(ended("lost")) == Fault("no_open_intent")
    last = tail(tmp_path, 1)[0]
    assert (last["kind"], last["outcome"], last["request_id"]) == ("recovered", "unknown", "lost")
    async with open_log(tmp_path) as log:
        assert log.in_doubt == ()
    assert verify_directory(tmp_path).ok


@pytest.mark.row(50)
async def test_a_torn_end_is_cut_off_and_recorded(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
        log.outcome_nowait(ended("a"))
    segment = _segments(tmp_path)[0]
    whole = segment.read_bytes()
    torn = whole + b"1234abcd .99 {half a rec"
    segment.write_bytes(torn)
    assert not verify_directory(tmp_path).ok
    assert _kinds(tmp_path) == ["open", "intent", "outcome"]
    async with open_log(tmp_path):
        pass
    assert segment.read_bytes() == whole
    opening = tail(tmp_path, 1)[0]
    assert (opening["kind"], opening["reason"]) == ("open", "reopened")
    assert opening["torn_bytes"] == len(torn) - len(whole)
    assert len(opening["torn_sha256"]) == 64
    assert verify_directory(tmp_path).ok


async def test_a_segment_without_a_record_goes(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
    (tmp_path / "audit-0000000000000002.log").write_bytes(b"half")
    async with open_log(tmp_path) as log:
        assert [item.request_id for item in log.in_doubt] == ["a"]
    assert verify_directory(tmp_path).ok


@pytest.mark.row(50)
@pytest.mark.parametrize("position", [0, 1])
async def test_a_damaged_record_that_was_acknowledged_is_no_torn_end(
    tmp_path: Path, position: int
) -> None:
    async with open_log(tmp_path) as log:
        for name in ("a", "b", "c"):
            await log.intent(call(name))
    segment = _segments(tmp_path)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[position] = lines[position].replace(b'"kind"', b'"kimd"')
    segment.write_bytes(b"".join(lines))
    with pytest.raises(AuditCorrupt, match="damaged") as caught:
        await AuditLog(tmp_path).run()
    assert caught.value.segment == segment.name
    assert caught.value.offset == sum(map(len, lines[:position]))
    with pytest.raises(AuditCorrupt):
        list(read_records(tmp_path))


@pytest.mark.row(50)
async def test_a_record_that_does_not_follow_is_no_torn_end(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
    segment = _segments(tmp_path)[0]
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + lines[1] + lines[1])
    with pytest.raises(AuditCorrupt, match="record 2 was expected") as caught:
        await AuditLog(tmp_path).run()
    assert caught.value.index == 2
    segment.write_bytes(frame("+", b"{}"))
    with pytest.raises(AuditCorrupt, match="not an opening record"):
        await AuditLog(tmp_path).run()
    opening = json.loads(lines[0][lines[0].index(b"{") :])
    opening["kind"] = 7
    segment.write_bytes(frame("+", json.dumps(opening).encode()))
    with pytest.raises(AuditCorrupt, match="no kind"):
        await AuditLog(tmp_path).run()


@pytest.mark.row(50)
async def test_a_damaged_older_segment_is_no_torn_end(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
    async with open_log(tmp_path, segment_bytes_max=1) as log:
        await log.intent(call("c"))
        await log.intent(call("d"))
    older = _segments(tmp_path)[-2]
    older.write_bytes(older.read_bytes()[:-1])
    with pytest.raises(AuditCorrupt):
        await AuditLog(tmp_path).run()


async def test_a_waiter_that_is_cancelled_owes_nothing(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.intent, call("a"))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await log.denied(call("b"), "no")
        assert log.statistics().open_intents == 0
        await log.intent(call("a"))
    records = [record for record in read_records(tmp_path) if record.get("request_id") == "a"]
    assert [record["kind"] for record in records] == ["intent", "outcome", "intent"]
    assert (records[1]["outcome"], records[1]["delivery"]) == ("cancelled", "not_sent")
    assert verify_directory(tmp_path).ok


async def test_a_request_id_is_open_once(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
        with pytest.raises(UsageError, match="'a' already has an open intent"):
            await log.intent(call("a"))
        assert log.statistics().open_intents == 1


async def test_a_log_that_does_not_run_takes_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    with pytest.raises(AuditUnavailable, match="not running") as caught:
        await log.intent(call("a", decision_id="d"))
    error = caught.value
    assert (error.delivery, error.request_id, error.server) == ("not_sent", "a", "db")
    assert error.decision_id == "d"
    assert log.outcome_nowait(ended("a")) == Fault("unavailable")
    assert log.statistics().unavailable == "the audit log is not running"
    await log.aclose()
    with pytest.raises(UsageError, match="runs once"):
        await log.run()


async def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.aclose()
        with pytest.raises(AuditUnavailable, match="the audit log is closed"):
            await log.intent(call("a"))
        assert log.event_nowait("late", {}) == Fault("unavailable")
        assert await log.outcome(ended("a"), wait=True) == Fault("unavailable")
        assert log.statistics().faults == 2
        await log.aclose()


async def test_closing_and_cancelling_write_everything(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        log = AuditLog(tmp_path)
        await tasks.start(log.run)
        for number in range(1000):
            log.event_nowait("e", {"number": number})
        tasks.cancel_scope.cancel()
    assert len(list(read_records(tmp_path))) == 1001
    async with open_log(tmp_path) as log:
        log.event_nowait("last", {})
    assert tail(tmp_path, 1)[0]["name"] == "last"


@pytest.mark.row(50)
async def test_a_file_that_is_taken_away_makes_the_log_unavailable(tmp_path: Path) -> None:
    alarms: list[str] = []
    async with open_log(tmp_path, on_alarm=alarms.append) as log:
        await log.intent(call("a"))
        _segments(tmp_path)[0].rename(tmp_path / "elsewhere")
        with pytest.raises(AuditUnavailable, match="replaced or changed under us"):
            await log.intent(call("b"))
        with pytest.raises(AuditUnavailable, match="must be opened anew"):
            await log.intent(call("c"))
        assert log.outcome_nowait(ended("a")) == Fault("unavailable")
        assert "replaced" in str(log.statistics().unavailable)
    assert len(alarms) == 1


@pytest.mark.row(50)
async def test_a_file_that_others_write_to_makes_the_log_unavailable(tmp_path: Path) -> None:
    async with open_log(tmp_path) as log:
        await log.intent(call("a"))
        os.truncate(_segments(tmp_path)[0], 10)
        with pytest.raises(AuditUnavailable, match="changed under us"):
            await log.intent(call("b"))


@pytest.mark.security(29)
@pytest.mark.row(50)
async def test_checkpoints_find_a_cut(tmp_path: Path) -> None:
    kept = tmp_path / "elsewhere"
    async with open_log(tmp_path / "log", checkpoint_sink=kept, checkpoint_records=5) as log:
        for number in range(12):
            await log.intent(call(f"r{number}"))
    checkpoints = list(parse_checkpoints(kept.read_bytes()))
    assert checkpoints[-1].size == 13
    assert len(checkpoints) >= 2
    assert log.statistics().checkpoints == len(checkpoints)
    assert verify_directory(tmp_path / "log", kept).checkpoints == len(checkpoints)
    segment = _segments(tmp_path / "log")[0]
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify_directory(tmp_path / "log").ok
    fault = verify_directory(tmp_path / "log", str(kept)).fault
    assert fault is not None
    assert fault.index == 12


async def test_checkpoints_are_signed(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()

    def verifier(body: bytes, signature: bytes) -> bool:
        try:
            key.public_key().verify(signature, body)
        except InvalidSignature:
            return False
        return True

    kept = tmp_path / "elsewhere"
    sink = FileSink(path=kept)
    async with open_log(tmp_path / "log", checkpoint_sink=sink, signer=key.sign) as log:
        await log.intent(call("a"))
    report = verify_directory(tmp_path / "log", kept, verifier=verifier)
    assert (report.ok, report.checkpoints) == (True, 1)
    kept.write_bytes(kept.read_bytes().replace(b'"size":2', b'"size":1'))
    assert not verify_directory(tmp_path / "log", kept, verifier=verifier).ok


@pytest.mark.row(51)
async def test_a_sink_that_fails_is_an_alarm_and_no_more(tmp_path: Path) -> None:
    alarms: list[str] = []

    async def sink(_: object) -> None:
        raise OSError("disk on fire")

    async with open_log(
        tmp_path, checkpoint_sink=sink, checkpoint_records=1, on_alarm=alarms.append
    ) as log:
        await log.intent(call("a"))
        await log.intent(call("b"))
    assert log.statistics().checkpoint_failures == len(alarms) > 0
    assert "disk on fire" in alarms[0]


@pytest.mark.row(61)
async def test_an_alarm_that_raises_is_forgotten(tmp_path: Path) -> None:
    told: list[str] = []

    def alarm(sentence: str) -> None:
        told.append(sentence)
        raise RuntimeError("the pager is down")

    async def sink(_: object) -> None:
        raise OSError("elsewhere is down")

    async with open_log(
        tmp_path, checkpoint_sink=sink, checkpoint_records=1, on_alarm=alarm
    ) as log:
        for number in range(5):
            await log.intent(call(str(number)))
        assert log.unavailable is None
    assert told
    assert verify_directory(tmp_path).ok


@pytest.mark.row(60)
async def test_a_log_without_a_thread_says_so_and_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log = AuditLog(tmp_path)
    with pytest.raises(AuditError, match="can't start new thread"):
        await log.run()
    with anyio.fail_after(1):
        await log.aclose()


@pytest.mark.row(60)
async def test_a_log_without_descriptors_says_so_and_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    log = AuditLog(tmp_path)
    with pytest.raises(AuditError, match="Too many open files"):
        await log.run()
    with anyio.fail_after(1):
        await log.aclose()


async def test_a_torn_checkpoint_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    for torn in (b"", b'{"log_id":"half', b"\n".join([b'{"log_id":"half']), b"x" * 70_000):
        kept = path.read_bytes() if path.exists() else b""
        with path.open("ab") as file:
            file.write(torn)
        async with open_log(tmp_path / "log", checkpoint_sink=path) as log:
            await log.intent(call("a" + str(len(kept))))
        assert path.read_bytes().startswith(kept)
        if len(torn) < 70_000:
            assert verify_directory(tmp_path / "log", path).ok


async def test_reading_what_is_not_there(tmp_path: Path) -> None:
    for read in (list, tuple):
        with pytest.raises(AuditError, match="can not be read"):
            read(read_records(tmp_path / "nothing"))
    with pytest.raises(AuditError):
        verify_directory(tmp_path / "nothing")
    with pytest.raises(AuditError, match="checkpoints can not be read"):
        verify_directory(tmp_path, tmp_path / "nothing")
    (tmp_path / "bad").write_text("bad\n")
    with pytest.raises(AuditError, match="line 1 is not a checkpoint"):
        verify_directory(tmp_path, tmp_path / "bad")


@pytest.mark.security(30)
async def test_secrets_are_referred_to_under_the_key_of_the_deployment(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path, hmac_key=b"k" * 32), AuditLog(tmp_path, hmac_key=b"k" * 32)
    assert one.reference("1234") == other.reference(b"1234")
    assert one.digest({"pin": "1234"}) == other.digest({"pin": "1234"})
    assert AuditLog(tmp_path).reference("1234") != one.reference("1234")
    assert "kkkk" not in repr(one)


@pytest.mark.parametrize(
    "options",
    [
        {"fsync": "never"},
        {"on_full": "crash"},
        {"fsync_interval_s": 0},
        {"segment_bytes_max": -1},
        {"queue_records_max": 0},
        {"queue_bytes_max": float("inf")},
        {"checkpoint_records": 0},
        {"checkpoint_interval_s": float("nan")},
    ],
)
async def test_wrong_options_are_refused_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AuditLog(tmp_path, **options)


def test_a_log_is_made_before_there_is_an_event_loop(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(log.run)
            await log.intent(call("a"))
            await log.aclose()

    anyio.run(main, backend="trio")
    assert _kinds(tmp_path) == ["open", "intent"]
