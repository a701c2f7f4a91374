"""The audit log on a disk that is full, slow, broken or gone; in virtual time."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sark_trio import jsontext
from sark_trio.errors import AuditError, AuditUnavailable
from sark_trio.governance.audit_chain import Fault, parse_frame
from sark_trio.governance.audit_checkpoint import Checkpoint
from sark_trio.governance.audit_verify import verify
from sark_trio.stores.audit import AuditLog, read_records, verify_directory
from tests.support.audit_disk import MemoryDisk
from tests.support.audit_harness import HangingFiles, call, ended, open_log

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


def _kinds(disk: MemoryDisk) -> list[str]:
    lines = b"".join(disk.contents[name] for name in sorted(disk.contents)).splitlines(
        keepends=True
    )
    frames = [parse_frame(line) for line in lines]
    return [jsontext.decode(item.record)["kind"] for item in frames if not isinstance(item, str)]


def _report(disk: MemoryDisk, checkpoints: list[Checkpoint] | None = None) -> Any:
    segments = [(name, [bytes(disk.contents[name])]) for name in sorted(disk.contents)]
    return verify(segments, checkpoints or ())


@pytest.mark.trio
async def test_an_outcome_is_written_soon_although_nobody_waits(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_log(files=disk) as log:
        await log.intent(call("a"))
        log.outcome_nowait(ended("a"))
        assert _kinds(disk) == ["open", "intent"]
        await trio.sleep(0.021)
        assert _kinds(disk) == ["open", "intent", "outcome"]
        assert disk.journal[-1][0] == "sync"
        assert await log.outcome(ended("a"), wait=True) == Fault("no_open_intent")


@pytest.mark.trio
async def test_who_wants_to_wait_for_an_outcome_can(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_log(files=disk) as log:
        await log.intent(call("a"))
        started = trio.current_time()
        assert await log.outcome(ended("a"), wait=True) == 2
        assert trio.current_time() == started
        assert _kinds(disk)[-1] == "outcome"


@pytest.mark.trio
async def test_the_interval_mode_syncs_by_the_clock(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    kept: list[Checkpoint] = []

    async def sink(checkpoint: Checkpoint) -> None:
        assert disk.journal[-1][0] == "sync"
        kept.append(checkpoint)

    async with open_log(
        files=disk, fsync="interval", checkpoint_sink=sink, checkpoint_records=1
    ) as log:
        await log.intent(call("a"))
        await log.intent(call("b"))
        assert all(entry[0] != "sync" for entry in disk.journal)
        await trio.sleep(1.001)
        assert disk.journal[-1][0] == "sync"
        assert kept[-1].size == 3
        await log.intent(call("c"))
    assert kept[-1].size == 4
    assert _report(disk, kept).ok


@pytest.mark.row(49)
@pytest.mark.trio
async def test_a_sync_that_fails_in_interval_mode(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_log(files=disk, fsync="interval") as log:
        await log.intent(call("a"))
        disk.errors["sync"] = [BROKEN]
        await trio.sleep(1.001)
        with pytest.raises(AuditUnavailable, match="Input/output error"):
            await log.intent(call("b"))


@pytest.mark.trio
async def test_a_checkpoint_is_due_by_the_clock_too(autojump_clock: MockClock) -> None:
    kept: list[Checkpoint] = []

    async def sink(checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)

    async with open_log(files=MemoryDisk(), checkpoint_sink=sink) as log:
        await log.intent(call("a"))
        await trio.sleep(59)
        assert kept == []
        await trio.sleep(2)
        assert [item.size for item in kept] == [2]
        await trio.sleep(300)
        assert len(kept) == 1
        await trio.sleep(58.99)
        log.event_nowait("just before the hour", {})
        await trio.sleep(60)
        assert [item.size for item in kept] == [2, 3]


@pytest.mark.row(49)
@pytest.mark.trio
@pytest.mark.fault(49)
async def test_a_broken_disk_ends_the_log(autojump_clock: MockClock) -> None:
    for operation in ("write", "sync"):
        disk, alarms = MemoryDisk(), list[str]()
        async with open_log(files=disk, on_alarm=alarms.append) as log:
            await log.intent(call("a"))
            disk.errors[operation] = [BROKEN]
            with pytest.raises(AuditUnavailable, match="must be opened anew") as caught:
                await log.intent(call("b"))
            assert caught.value.delivery == "not_sent"
            # The disk is well again, and is not asked again: what a failed sync lost stays lost.
            done = len(disk.journal)
            with pytest.raises(AuditUnavailable):
                await log.intent(call("c"))
            assert log.outcome_nowait(ended("a")) == Fault("unavailable")
            assert len(disk.journal) == done
        assert len(alarms) == 1
        async with open_log(files=disk) as log:
            assert "a" in [item.request_id for item in log.in_doubt]
        assert _report(disk).ok


@pytest.mark.row(49)
@pytest.mark.trio
async def test_a_full_disk_refuses_calls_until_there_is_room(autojump_clock: MockClock) -> None:
    disk = MemoryDisk(write_bytes_max=100)
    async with open_log(files=disk) as log:
        await log.intent(call("a"))
        size = sum(map(len, disk.contents.values()))
        # Room for a hundred bytes, then none, for more than a second.
        disk.errors["write"] = [NO_SPACE] * 15
        started = trio.current_time()
        with pytest.raises(AuditUnavailable, match="no room"):
            await log.intent(call("b"))
        assert trio.current_time() - started <= 1.001
        with pytest.raises(AuditUnavailable, match="no room"):
            await log.intent(call("c"))
        assert isinstance(log.outcome_nowait(ended("a")), int)
        assert sum(map(len, disk.contents.values())) == size
        await trio.sleep(2)
        assert log.unavailable is None
        await log.intent(call("d"))
    report = _report(disk)
    assert report.ok
    assert report.in_doubt == ("d",)
    assert _kinds(disk) == ["open", "intent", "intent", "outcome", "outcome", "intent"]


@pytest.mark.row(49, 50)
@pytest.mark.trio
async def test_a_disk_that_fills_in_the_middle_of_a_record(autojump_clock: MockClock) -> None:
    rng = random.Random(0)

    class Filling(MemoryDisk):
        def write(self, fd: int, data: Any) -> int:
            if rng.random() < 0.2:
                self.errors["write"] = [NO_SPACE]
            return super().write(fd, data)

    disk = Filling(write_bytes_max=200)
    async with open_log(files=disk, segment_bytes_max=1500) as log:
        for number in range(20):
            await log.intent(call(f"r{number}"))
            log.outcome_nowait(ended(f"r{number}"))
    assert any(entry[0] == "truncate" for entry in disk.journal)
    report = _report(disk)
    assert (report.ok, report.in_doubt) == (True, ())


@pytest.mark.row(49)
@pytest.mark.trio
async def test_a_disk_without_room_for_a_new_file(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_log(files=disk, segment_bytes_max=1) as log:
        disk.errors["create"] = [NO_SPACE] * 3
        await log.intent(call("a"))
        assert not disk.errors["create"]
        disk.errors["create"] = [BROKEN]
        with pytest.raises(AuditUnavailable, match="Input/output"):
            await log.intent(call("b"))
    assert _report(disk).ok


@pytest.mark.row(49)
@pytest.mark.trio
async def test_a_log_that_can_not_be_begun(autojump_clock: MockClock) -> None:
    for errors, message in (
        ({"create": [BROKEN]}, "can not be written"),
        ({"write": [NO_SPACE] * 100}, "can not be written: no room"),
        ({"names": [BROKEN]}, "can not be opened"),
        ({"prepare": [BROKEN]}, "can not be opened"),
    ):
        disk = MemoryDisk(errors=dict(errors))
        with pytest.raises(AuditError, match=message):
            await AuditLog("log", files=disk).run()
        assert not disk.locked


@pytest.mark.row(49)
def test_a_full_queue_blocks_for_a_second_and_refuses(tmp_path: Path) -> None:
    clock = MockClock()
    files = HangingFiles()

    async def main() -> None:
        async with open_log(tmp_path, files=files, queue_records_max=10) as log:
            await log.intent(call("first"))
            files.hang()
            refused: list[str] = []

            async def ask(name: str) -> None:
                try:
                    await log.intent(call(name))
                except AuditUnavailable as exc:
                    refused.append(f"{name}: {exc}")

            async with anyio.create_task_group() as tasks:
                for number in range(12):
                    tasks.start_soon(ask, f"r{number:02}")
                    await wait_all_tasks_blocked()
                statistics = log.statistics()
                assert statistics.queued_records == 9
                # A tenth is kept for those that are in.
                assert isinstance(log.outcome_nowait(ended("first")), int)
                assert log.outcome_nowait(ended("r00")) == Fault("queue_full")
                clock.jump(1.0)
            assert len(refused) == 12
            assert sum("queue" in text for text in refused) == 3
            assert sum("does not answer" in text for text in refused) == 9
            files.release()
            await _until(lambda: log.unavailable is None)
            await log.intent(call("last"))

    trio.run(main, clock=clock)


@pytest.mark.trio
async def test_dropping_is_counted_and_told(autojump_clock: MockClock) -> None:
    alarms: list[str] = []
    disk = MemoryDisk()
    async with open_log(
        files=disk, queue_records_max=10, on_full="drop", on_alarm=alarms.append
    ) as log:
        for number in range(9):
            log.event_nowait("e", {"number": number})
        assert await log.intent(call("a")) == -1
        assert await log.intent(call("b")) == -1
        assert log.statistics().dropped == 2
        assert log.outcome_nowait(ended("a")) == Fault("no_open_intent")
        await trio.sleep(0.1)
        assert await log.intent(call("c")) > 0
    assert len(alarms) == 2
    assert _kinds(disk)[-2:] == ["event", "intent"]
    assert b'"details":{"calls":2}' in b"".join(disk.contents.values())


@pytest.mark.row(49)
def test_a_disk_that_does_not_answer_refuses_calls_until_it_does(tmp_path: Path) -> None:
    clock, files, alarms = MockClock(), HangingFiles(), list[str]()

    async def main() -> None:
        async with open_log(tmp_path, files=files, on_alarm=alarms.append) as log:
            await log.intent(call("a"))
            files.hang()
            refused = anyio.Event()

            async def ask() -> None:
                with pytest.raises(AuditUnavailable, match="does not answer"):
                    await log.intent(call("b"))
                refused.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                tasks.start_soon(ask_later, log)
                await wait_all_tasks_blocked()
                clock.jump(0.99)
                await wait_all_tasks_blocked()
                assert not refused.is_set()
                clock.jump(0.02)
            with pytest.raises(AuditUnavailable, match="does not answer"):
                await log.intent(call("c"))
            files.release()
            await _until(lambda: log.unavailable is None)
            await log.intent(call("d"))
        assert len(alarms) == 1

    async def ask_later(log: AuditLog) -> None:
        await wait_all_tasks_blocked()
        with pytest.raises(AuditUnavailable, match="does not answer"):
            await log.denied(call("e"), "no")

    trio.run(main, clock=clock)
    report = verify_directory(tmp_path)
    # What was refused is on record all the same, with its end.
    assert (report.ok, report.in_doubt) == (True, ("a", "d"))


def test_a_waiter_has_a_second_whatever_was_before_it(tmp_path: Path) -> None:
    clock, files = MockClock(), HangingFiles()

    async def main() -> None:
        async with open_log(tmp_path, files=files) as log:
            files.hang()
            refused: list[float] = []

            async def ask() -> None:
                with pytest.raises(AuditUnavailable, match="does not answer"):
                    await log.intent(call("late"))
                refused.append(trio.current_time())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.intent, call("early"))
                await _until(files.hanging.is_set)
                clock.jump(0.6)
                tasks.start_soon(ask)
                await wait_all_tasks_blocked()
                clock.jump(0.3)
                files.release()
                files.hang()  # the next one, too: it takes off at 0.9
                await _until(files.hanging.is_set)
                clock.jump(0.69)
                await wait_all_tasks_blocked()
                assert not refused
                clock.jump(0.02)
            assert refused == [pytest.approx(1.61)]
            files.release()

    trio.run(main, clock=clock)


def test_what_nobody_waits_for_is_written_soon_after_a_slow_sync(tmp_path: Path) -> None:
    clock, files = MockClock(), HangingFiles()

    async def main() -> None:
        async with open_log(tmp_path, files=files) as log:
            await log.intent(call("a"))
            files.hang()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.intent, call("b"))
                await _until(files.hanging.is_set)
                log.outcome_nowait(ended("a"))
                files.release()
            assert log.statistics().queued_records == 1
            await wait_all_tasks_blocked()
            clock.jump(0.03)
            await _until(lambda: log.statistics().queued_records == 0)
            assert log.statistics().queued_bytes == 0

    trio.run(main, clock=clock)


def test_the_first_call_after_a_stall_is_taken(tmp_path: Path) -> None:
    clock, files = MockClock(), HangingFiles()

    async def main() -> None:
        async with open_log(tmp_path, files=files) as log:
            await log.intent(call("a"))
            files.hang()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(log.intent, call("b"))
                    await _until(files.hanging.is_set)
                    scope.cancel()
            log.outcome_nowait(ended("a"))  # nobody waits for anything any more
            clock.jump(1.01)
            await _until(lambda: log.unavailable is not None)
            files.release()
            await _until(lambda: log.unavailable is None)
            await log.intent(call("c"))

    trio.run(main, clock=clock)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


def test_closing_does_not_wait_for_a_disk_that_does_not_answer(tmp_path: Path) -> None:
    files, alarms = HangingFiles(), list[str]()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            log = AuditLog(tmp_path, files=files, on_alarm=alarms.append)
            await tasks.start(log.run)
            await log.intent(call("a"))
            files.hang()
            log.outcome_nowait(ended("a"))
            tasks.start_soon(log.aclose)
            await anyio.to_thread.run_sync(files.hanging.wait)
            clock.jump(1.01)
        assert "before the disk took its last records" in alarms[-1]
        with pytest.raises(AuditError, match="another writer"):
            await AuditLog(tmp_path).run()
        files.release()
        while True:  # the thread lets the lock go when the disk answers
            try:
                async with open_log(tmp_path):
                    break
            except* AuditError:
                await anyio.lowlevel.checkpoint()

    clock = MockClock()
    trio.run(main, clock=clock)


@pytest.mark.row(51)
@pytest.mark.trio
async def test_a_sink_that_hangs_holds_up_nothing(autojump_clock: MockClock) -> None:
    alarms: list[str] = []
    given: list[int] = []

    async def sink(checkpoint: Checkpoint) -> None:
        given.append(checkpoint.size)
        await trio.sleep_forever()

    async with open_log(
        files=MemoryDisk(), checkpoint_sink=sink, checkpoint_records=1, on_alarm=alarms.append
    ) as log:
        for number in range(100):
            await log.intent(call(f"r{number}"))
        assert given == [1]
        await trio.sleep(10.1)
        assert given == [1, 101]
        started = trio.current_time()
    assert trio.current_time() - started <= 2.1
    assert log.statistics().checkpoint_failures == 2
    assert "was not kept" in alarms[0]
    assert "before the log was closed" in alarms[-1]


@pytest.mark.row(52)
@pytest.mark.trio
async def test_the_wall_clock_decides_nothing(autojump_clock: MockClock) -> None:
    rng = random.Random(0)
    disk = MemoryDisk()
    async with open_log(
        files=disk, wall_clock=lambda: f"{rng.randint(1000, 9999)}-01-01T00:00:00+00:00"
    ) as log:
        for number in range(50):
            await log.intent(call(f"r{number}"))
            log.outcome_nowait(ended(f"r{number}"))
    report = _report(disk)
    assert (report.ok, report.in_doubt) == (True, ())


@pytest.mark.law("A4")
def test_calls_that_end_all_at_once_are_all_ended_in_the_log(tmp_path: Path) -> None:
    """A full queue, and more ends than it has room for: each is written when there is room."""
    files = HangingFiles()

    async def main() -> None:
        async with open_log(tmp_path, files=files, queue_records_max=10) as log:
            names = [f"r{number:02}" for number in range(30)]
            for name in names:
                await log.intent(call(name))
            files.hang()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.intent, call("one more"))
                await anyio.to_thread.run_sync(files.hanging.wait)
                log.attempt_nowait(names[0], 2, "retry")
                kept = [log.outcome_nowait(ended(name)) for name in names]
                assert kept.count(Fault("queue_full")) > 20
                assert log.outcome_nowait(ended(names[-1])) == Fault("no_open_intent")
                assert log.outcome_nowait(ended("nobody")) == Fault("no_open_intent")
                files.release()
            log.outcome_nowait(ended("one more"))
        records = list(read_records(tmp_path))
        found = [record["request_id"] for record in records if record["kind"] == "outcome"]
        assert sorted(found) == sorted([*names, "one more"])
        kinds = [record["kind"] for record in records if record.get("request_id") == names[0]]
        assert kinds == ["intent", "attempt", "outcome"]
        assert log.statistics().open_intents == 0

    trio.run(main, clock=MockClock())  # no time passes: the disk is never late


@pytest.mark.trio
async def test_an_event_loop_that_is_busy_is_not_a_disk_that_hangs(mock_clock: MockClock) -> None:
    """Callers come while the loop does something else for seconds: the disk was not asked yet."""
    async with open_log(files=MemoryDisk()) as log, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(log.intent, call(f"r{number}"))

        class Busy(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                mock_clock.jump(0.5)

        busy = Busy()
        trio.lowlevel.add_instrument(busy)
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(busy)
        assert log.unavailable is None
    assert log.statistics().open_intents == 5


@pytest.mark.row(49)
def test_an_answer_that_the_loop_was_too_busy_to_hear_is_no_silence(tmp_path: Path) -> None:
    """The disk has answered; that nobody listened for more than a second is not its fault."""
    clock, files, alarms = MockClock(), HangingFiles(), list[str]()

    async def main() -> None:
        async with open_log(tmp_path, files=files, on_alarm=alarms.append) as log:
            assert log._ledger is not None
            disk = log._ledger.commit.disk
            for number in range(20):  # trio draws who of the two is told first
                files.hang()
                async with trio.open_nursery() as calls:
                    calls.start_soon(log.intent, call(f"{number}"))
                    await wait_all_tasks_blocked()
                    files.release()
                    while not disk.has_answered():
                        pass  # as a loop does that has other work: it turns no further
                    clock.jump(1.01)
                log.outcome_nowait(ended(f"{number}"))

    trio.run(main, clock=clock)
    assert alarms == []
    assert verify_directory(tmp_path).ok


@pytest.mark.row(49)
@pytest.mark.trio
async def test_a_disk_that_was_not_asked_yet_is_not_silent(mock_clock: MockClock) -> None:
    """Where the loop itself does what the disk is asked for: it was late at any of its steps."""
    alarms: list[str] = []
    async with open_log(files=MemoryDisk(), on_alarm=alarms.append) as log:
        for number in range(200):  # trio draws the order of tasks
            async with trio.open_nursery() as calls:
                calls.start_soon(log.intent, call(f"{number}"))
                for _ in range(number % 10):
                    await trio.lowlevel.checkpoint()
                mock_clock.jump(1.01)
            log.outcome_nowait(ended(f"{number}"))
    assert alarms == []
