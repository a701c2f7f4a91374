"""The laws of the audit log (laws, 2.7)."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sark_trio import jsontext
from sark_trio.errors import AuditUnavailable
from sark_trio.governance.audit_chain import JOINED, SYNCED, Fault, frame, parse_frame
from sark_trio.governance.audit_record import RECORD_BYTES_MAX
from sark_trio.governance.audit_verify import BadRecord, verify
from sark_trio.stores.audit import AuditLog, read_records, verify_directory
from tests.support import independent_verifier
from tests.support.audit_disk import MemoryDisk, after_power_cut
from tests.support.audit_harness import call, ended, open_log
from tests.support.audit_logs import SmallLog
from tests.support.kills import kill_callers, kill_writers
from tests.support.traces import traces


def _durable_records(disk: MemoryDisk) -> list[dict[str, Any]]:
    """What would be found if the power went now, and the disk kept no more than it promised."""
    synced: dict[str, int] = {}
    written: Counter[str] = Counter()
    for operation, *details in disk.journal:
        if operation == "write":
            written[details[0]] += len(details[1])
        elif operation == "sync":
            synced[details[0]] = written[details[0]]
    data = b"".join(bytes(disk.contents[name][: synced[name]]) for name in sorted(synced))
    frames = [parse_frame(line) for line in data.splitlines(keepends=True)]
    return [jsontext.decode(item.record) for item in frames if not isinstance(item, str)]


def _fault(log: SmallLog) -> BadRecord | None:
    segments = [(name, [data]) for name, data in log.segments.items()]
    return verify(segments, log.checkpoints).fault


@pytest.mark.law("A1")
@given(
    batches=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    fsync=st.sampled_from(["group", "always"]),
)
@settings(max_examples=25)
def test_a01_an_intent_is_durable_before_it_returns(batches: list[int], fsync: Any) -> None:
    """For all request bytes on the wire there is an earlier durable intent."""
    disk = MemoryDisk(write_bytes_max=97)

    async def one(log: AuditLog, request_id: str) -> None:
        seq = await log.intent(call(request_id))
        found = _durable_records(disk)[seq]
        assert (found["kind"], found["request_id"]) == ("intent", request_id)
        log.outcome_nowait(ended(request_id))

    async def main() -> None:
        async with open_log(files=disk, fsync=fsync, segment_bytes_max=2000) as log:
            for number, size in enumerate(batches):
                async with anyio.create_task_group() as tasks:
                    for item in range(size):
                        tasks.start_soon(one, log, f"{number}-{item}")

    anyio.run(main, backend="trio")


async def _scenario(disk: MemoryDisk, fsync: str) -> None:
    """Concurrent calls, rotation, and promises noted in the journal as they are made."""

    async def one(log: AuditLog, number: int) -> None:
        request_id = f"r{number}"
        await log.intent(call(request_id, args={"padding": "x" * (number * 29 % 150)}))
        if fsync != "interval":  # which promises nothing against a power cut
            disk.journal.append(("promise", "intent", request_id))
        if number % 3:
            await log.outcome(ended(request_id), wait=True)
            if fsync != "interval":
                disk.journal.append(("promise", "outcome", request_id))

    async with open_log(files=disk, segment_bytes_max=2500, fsync=fsync) as log:
        for begin in (0, 4, 5, 9):
            async with anyio.create_task_group() as tasks:
                for number in range(begin, begin + 4):
                    tasks.start_soon(one, log, number + 100 * begin)


async def _reopen(found: dict[str, bytearray], promises: set[tuple[str, str]]) -> MemoryDisk:
    disk = MemoryDisk(contents=found)
    async with open_log(files=disk) as log:
        doubtful = {item.request_id for item in log.in_doubt}
    segments = [(name, [bytes(disk.contents[name])]) for name in sorted(disk.contents)]
    report = verify(segments)
    assert report.ok, report
    assert report.in_doubt == ()
    kept = {
        (record["kind"], record["request_id"])
        for _, data in segments
        for line in data[0].splitlines(keepends=True)
        if "request_id" in (record := jsontext.decode(_record(line)))
    }
    assert promises <= kept
    begun, over, recovered = (
        {name for kind, name in kept if kind == wanted}
        for wanted in ("intent", "outcome", "recovered")
    )
    assert doubtful <= recovered == begun - over
    return disk


def _record(line: bytes) -> bytes:
    parsed = parse_frame(line)
    assert not isinstance(parsed, str)
    return parsed.record


@pytest.mark.row(50)
@pytest.mark.law("A2")
@pytest.mark.fault(50)
@pytest.mark.parametrize("fsync", ["group", "always", "interval"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a02_a_power_cut_at_any_operation_loses_no_promise(backend: str, fsync: str) -> None:
    """Power cut at any write/fsync boundary: acknowledged records survive, the log opens."""

    async def main() -> None:
        disk = MemoryDisk(write_bytes_max=700)
        await _scenario(disk, fsync)
        rng = random.Random(7)
        for cut in range(len(disk.journal) + 1):
            journal = disk.journal[:cut]
            promises = {entry[1:] for entry in journal if entry[0] == "promise"}
            for _ in range(6):
                found = after_power_cut({}, journal, rng)
                before = {name: bytes(data) for name, data in found.items()}
                again = await _reopen(found, promises)
                # The power goes once more, while the log is being mended.
                second = again.journal[: rng.randint(0, len(again.journal))]
                await _reopen(after_power_cut(before, second, rng), promises)

    anyio.run(main, backend=backend)


@pytest.mark.row(50)
@pytest.mark.law("A2")
@pytest.mark.fault(50)
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fsync", ["group", "interval"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a02_a_killed_process_loses_no_promise(tmp_path: Path, backend: str, fsync: str) -> None:
    """SIGKILL at any moment: acknowledged records survive, the log opens, doubts are found."""
    assert kill_writers(tmp_path, backend, fsync, KILLS) > KILLS


#: Four variants of it: 300 in all. ``nox -s deep`` has 2,000, and as many of the next.
KILLS = 75


@pytest.mark.row(50)
@pytest.mark.law("A1", "A2", "R7")
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a01_a_killed_client_leaves_no_effect_unaudited(tmp_path: Path, backend: str) -> None:
    """SIGKILL at any moment of a call: every effect that a server saw has a durable intent."""
    effects, told = kill_callers(tmp_path, backend, "group", 8)
    assert 0 < told <= effects


def _small_log(texts: list[str], *, begin_every: int = 4) -> SmallLog:
    log = SmallLog(log_id="log")
    for number, text in enumerate(texts):
        if number % begin_every == 0:
            log.begin()
        if number % 3 == 0:
            log.intent(f"r{number}", tool=text)
        elif number % 3 == 1:
            log.event(text)
        else:
            log.outcome(f"r{number - 2}")
    log.checkpoint()
    return log


@pytest.mark.row(50)
@pytest.mark.law("A3")
@pytest.mark.fault(50)
def test_a03_any_flipped_bit_is_found_where_it_is() -> None:
    """Any edit is detected, and located: every single bit of a small log, one after another."""
    log = _small_log(["a", "b", "c"], begin_every=2)
    original = dict(log.segments)
    index = 0
    for name, data in original.items():
        for at, byte in enumerate(data):
            for bit in range(8):
                flipped = bytes([byte ^ 1 << bit])
                log.segments = {**original, name: data[:at] + flipped + data[at + 1 :]}
                fault = _fault(log)
                assert fault is not None
                assert (fault.index, fault.segment) == (index, name)
                _agree(log)
            if byte == ord("\n"):
                index += 1


@pytest.mark.law("A3")
def test_a03_any_changed_byte_is_found_where_it_is() -> None:
    """Any edit is detected, and located: each byte of a small log, as each other byte."""
    log = _small_log(["a", "b"])
    (name,) = log.segments
    data = log.segments[name]
    index = 0
    for at, byte in enumerate(data):
        for other in range(256):
            if other != byte:
                log.segments[name] = data[:at] + bytes([other]) + data[at + 1 :]
                fault = _fault(log)
                assert fault is not None
                assert fault.index == index
        if byte == ord("\n"):
            index += 1


_texts = st.lists(st.text(max_size=5), min_size=3, max_size=12)


@pytest.mark.security(29)
@pytest.mark.row(50)
@pytest.mark.law("A3")
@given(_texts, st.data())
def test_a03_edit_swap_insert_delete_and_cut_are_found(texts: list[str], data: Any) -> None:
    """Any edit, swap, insert, delete, or cut behind a checkpoint is detected, and located."""
    log = _small_log(texts)
    assert _fault(log) is None
    _agree(log)
    count = len(log.lines)
    first = data.draw(st.integers(0, count - 1), label="record")
    kind = data.draw(st.sampled_from(["edit", "swap", "insert", "delete", "cut"]), label="kind")
    if kind == "edit":
        value = jsontext.decode(log.records[first])
        value["ts"] = "earlier"
        log.replace(first, frame(JOINED, jsontext.canonical(value)))
    elif kind == "swap":
        second = data.draw(st.integers(0, count - 1).filter(lambda at: at != first))
        lines = log.lines
        log.replace(first, lines[second])
        log.replace(second, lines[first])
        first = min(first, second)
    elif kind == "insert":
        line = data.draw(st.sampled_from([*log.lines, frame(SYNCED, b"{}")]))
        log.replace(first, line, log.lines[first])
    elif kind == "delete":
        log.replace(first)
    else:
        log.truncate(first)
    fault = _fault(log)
    assert fault is not None
    _agree(log)
    if kind == "edit" and first == count - 1:
        assert "checkpoint" in fault.reason  # nothing follows it, so the checkpoint tells
    elif kind == "insert":
        # A copy of the line before is indistinguishable from the line itself: the second is bad.
        assert first <= fault.index <= first + 1
    else:
        assert fault.index == first


@pytest.mark.law("A3")
@given(_texts, st.integers(0, 11), st.text(max_size=5))
def test_a03_a_forged_continuation_is_found(texts: list[str], begin: int, other: str) -> None:
    """A log written anew from some record on, with good sums and links, is detected."""
    begin = min(begin, len(texts) - 1)
    log = _small_log(texts)
    forged = _small_log([*texts[:begin], other + "!", *texts[begin + 1 :]])
    changed = [at for at, line in enumerate(log.lines) if forged.lines[at] != line]
    forged.checkpoints = log.checkpoints
    fault = _fault(forged)
    assert (fault is None) is (not changed)
    _agree(forged)
    if fault is not None:
        assert fault.index <= changed[0]


def _agree(log: SmallLog) -> None:
    """The verifier and one that shares no code with it say the same."""
    fault = _fault(log)
    kept = b"".join(item.line() for item in log.checkpoints)
    try:
        independent_verifier.check(log.segments, kept)
    except independent_verifier.Bad:
        assert fault is not None
    else:
        assert fault is None


@pytest.mark.security(29)
@pytest.mark.law("A3")
def test_a03_an_independent_verifier_agrees_on_a_real_log(tmp_path: Path) -> None:
    """The log is verifiable offline, by a short program that shares no code with the writer."""

    async def main() -> None:
        async with open_log(
            tmp_path / "log",
            checkpoint_sink=tmp_path / "kept",
            checkpoint_records=7,
            segment_bytes_max=3000,
        ) as log:
            for number in range(30):
                await log.intent(call(f"r{number}", tool="\x1b\n\u2028\r", args={"n": number}))
                log.outcome_nowait(ended(f"r{number}"))

    anyio.run(main, backend="trio")
    command = [sys.executable, independent_verifier.__file__, tmp_path / "log", tmp_path / "kept"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    report = verify_directory(tmp_path / "log", tmp_path / "kept")
    assert report.checkpoints >= 5
    assert run.stdout == f"OK {report.records} {report.root}\n"
    victim = sorted((tmp_path / "log").glob("audit-*.log"))[2]
    victim.write_bytes(victim.read_bytes().replace(b'"db"', b'"dc"', 1))
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    fault = verify_directory(tmp_path / "log", tmp_path / "kept").fault
    assert fault is not None
    assert (run.returncode, run.stdout) == (1, f"BAD {fault.index}: frame\n")


_steps = traces(st.tuples(st.sampled_from(["intent", "outcome"]), st.integers(0, 3)), most=40)


@pytest.mark.law("A4")
@given(_steps)
def test_a04_a_call_has_one_outcome(steps: list[tuple[str, int]]) -> None:
    """One outcome per intent: any further one changes nothing and is counted."""
    disk = MemoryDisk()

    async def main() -> None:
        open_calls: set[int] = set()
        faults = 0
        async with open_log(files=disk) as log:
            for kind, number in steps:
                if kind == "intent" and number not in open_calls:
                    await log.intent(call(str(number)))
                    open_calls.add(number)
                elif kind == "outcome":
                    records = log.statistics().records
                    result = log.outcome_nowait(ended(str(number)))
                    if number in open_calls:
                        assert result == records
                        open_calls.remove(number)
                    else:
                        faults += 1
                        assert result == Fault("no_open_intent")
                        assert log.statistics().records == records
                assert log.statistics().open_intents == len(open_calls)
                assert log.statistics().faults == faults

    anyio.run(main, backend="trio")
    segments = [(name, [bytes(disk.contents[name])]) for name in sorted(disk.contents)]
    assert verify(segments).ok


@pytest.mark.law("A6")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(3))
def test_a06_concurrent_writers_make_one_chain(tmp_path: Path, backend: str, seed: int) -> None:
    """Concurrent writers: gap-free sequence numbers, one chain, also when some are cancelled."""
    rng = random.Random(seed)
    numbers: list[int] = []

    async def one(log: AuditLog, scope: anyio.CancelScope, name: str) -> None:
        with scope:
            for count in range(10):
                numbers.append(await log.intent(call(f"{name}-{count}")))
                for _ in range(rng.randint(0, 3)):
                    await anyio.lowlevel.checkpoint()
                log.outcome_nowait(ended(f"{name}-{count}"))

    async def main() -> None:
        scopes = [anyio.CancelScope() for _ in range(40)]
        async with (
            open_log(tmp_path, segment_bytes_max=20_000) as log,
            anyio.create_task_group() as tasks,
        ):
            for number, scope in enumerate(scopes):
                tasks.start_soon(one, log, scope, f"w{number}")
            for scope in rng.sample(scopes, 10):
                for _ in range(rng.randint(1, 40)):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

    anyio.run(main, backend=backend)
    records = list(read_records(tmp_path))
    assert [record["seq"] for record in records] == list(range(len(records)))
    assert len(set(numbers)) == len(numbers) >= 300
    assert all(records[number]["kind"] == "intent" for number in numbers)
    assert verify_directory(tmp_path).ok


@pytest.mark.law("A7")
def test_a07_a_disk_that_takes_nothing_does_not_fill_the_memory() -> None:
    """Bounded memory: what waits for the disk is limited in records and in bytes."""
    limit = 256 * 1024
    _peak_bytes(rounds=1, limit=limit)  # imports and caches
    short, long = _peak_bytes(rounds=3, limit=limit), _peak_bytes(rounds=30, limit=limit)
    assert long < short + limit


def _peak_bytes(*, rounds: int, limit: int) -> int:
    disk = MemoryDisk(errors={})

    async def ask(log: AuditLog, number: int) -> None:
        try:
            await log.intent(call(f"r{number}", args={"blob": "x" * 10_000}))
        except AuditUnavailable:
            log.event_nowait("refused", {"blob": "y" * 10_000})
        statistics = log.statistics()
        assert statistics.queued_records <= 100
        assert statistics.queued_bytes <= limit + RECORD_BYTES_MAX

    async def main() -> None:
        async with open_log(files=disk, queue_bytes_max=limit, queue_records_max=100) as log:
            disk.errors["write"] = [OSError(errno.ENOSPC, "no room")] * 1000
            for _ in range(rounds):
                async with anyio.create_task_group() as tasks:
                    for number in range(50):
                        tasks.start_soon(ask, log, number)
                assert log.statistics().open_intents <= 100
            assert log.statistics().faults > 0
            disk.errors.clear()

    tracemalloc.start()
    try:
        clock = MockClock(autojump_threshold=0)
        anyio.run(main, backend="trio", backend_options={"clock": clock})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.law("A7")
def test_a07_the_tree_over_a_long_log_is_small() -> None:
    """Bounded memory: the books of a log grow with its open calls and with log(records) only."""
    log = SmallLog(log_id="log")
    log.begin()
    for _ in range(2000):
        log.segments = dict.fromkeys(log.segments, b"")
        log.intent("a")
        log.outcome("a")
        log.chain.check_invariants()
        assert len(log.chain.tree.frontier) <= log.chain.size.bit_length()
        assert len(log.chain.open_intents) == 0
