"""Reading a log while it is written: from any record on, and only what is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AuditLog, jsontext
from sark_trio.errors import AuditCorrupt, AuditError, AuditUnavailable
from sark_trio.stores import audit_following
from sark_trio.stores.audit import AuditFollower
from tests.support.audit_disk import MemoryDisk
from tests.support.client import records

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(log: AuditLog) -> AsyncIterator[AuditLog]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(log.run)
        yield log
        await log.aclose()


async def read_to(follower: AuditFollower, seq: int) -> list[int]:
    """The numbers of what is read until record *seq*."""
    found: list[int] = []
    while not found or found[-1] < seq:
        found += [each.seq for each in await follower.next()]
    return found


@pytest.mark.parametrize("in_memory", [True, False])
async def test_every_record_once_and_in_order_from_anywhere(
    in_memory: bool, tmp_path: Path
) -> None:
    """Small segments, so that there are many; every place to begin at."""
    disk: Any = {"files": MemoryDisk()} if in_memory else {}
    log = AuditLog(tmp_path / "log", segment_bytes_max=1_000, **disk)
    async with running(log):
        live = log.follow(-1)
        for number in range(20):
            await log.event("tick", {"number": number})
        last = log.statistics().records - 1
        expected = records(disk["files"] if in_memory else tmp_path / "log")
        assert await read_to(live, last) == list(range(last + 1))
        for first in range(-1, last):
            assert await read_to(log.follow(first), last) == list(range(first + 1, last + 1))
        (newest,) = await log.follow(last - 1).next()
        assert jsontext.decode(newest.data) == expected[-1]


async def test_more_records_than_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_following, "RECORDS_AT_ONCE", 3)
    async with running(AuditLog(tmp_path / "log", segment_bytes_max=1_000)) as log:
        for number in range(20):
            await log.event("tick", {"number": number})
        last, follower, sizes = log.statistics().records - 1, log.follow(-1), []
        found: list[int] = []
        while len(found) <= last:
            batch = await follower.next()
            sizes.append(len(batch))
            found += [each.seq for each in batch]
    assert found == list(range(last + 1))
    assert max(sizes) == 3


async def test_nothing_is_told_before_it_is_durable() -> None:
    """Between the write and the sync a follower sees nothing of it."""
    seen_at_sync: list[int] = []

    class Watched(MemoryDisk):
        def sync(self, fd: int) -> None:
            seen_at_sync.append(log._progress.durable)
            super().sync(fd)

    log = AuditLog("log", files=Watched())
    async with running(log):
        follower = log.follow()
        await log.event("one", {})
        assert log.statistics().records > seen_at_sync[-1]
        (found,) = await follower.next()
        assert found.seq == seen_at_sync[-1]


async def test_it_waits_for_more_and_ends_with_the_log() -> None:
    log, found = AuditLog("log", files=MemoryDisk()), []
    async with running(log), anyio.create_task_group() as tasks:
        follower = log.follow()

        async def follow() -> None:
            while batch := await follower.next():
                found.extend(each.seq for each in batch)

        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        first = await log.event("one", {})
        await log.event("two", {})
        await anyio.wait_all_tasks_blocked()
        assert found == [first, first + 1]
        await log.aclose()
    await follower.wait()
    assert await follower.next() == []


async def test_a_failed_write_is_never_told() -> None:
    disk = MemoryDisk()
    log = AuditLog("log", files=disk)
    async with running(log):
        follower = log.follow()
        disk.errors["sync"] = [OSError(5, "I/O error")]
        with pytest.raises(AuditUnavailable):
            await log.event("lost", {})
        assert await follower.next() == []


async def test_segments_that_were_put_away_are_passed_over(tmp_path: Path) -> None:
    async with running(AuditLog(tmp_path / "log", segment_bytes_max=1_000)) as log:
        for number in range(20):
            await log.event("tick", {"number": number})
        last = log.statistics().records - 1
        segments = sorted((tmp_path / "log").glob("audit-*"))
        segments[0].unlink()
        begin = int(segments[1].stem.removeprefix("audit-"))
        assert await read_to(log.follow(-1), last) == list(range(begin, last + 1))
        segments[2].unlink()
        with pytest.raises(AuditError):
            await read_to(log.follow(begin - 1), last)


async def test_damage_is_found(tmp_path: Path) -> None:
    async with running(AuditLog(tmp_path / "log")) as log:
        await log.event("tick", {"word": "marmalade"})
        (segment,) = (tmp_path / "log").glob("audit-*")
        data = segment.read_bytes()
        segment.write_bytes(data.replace(b"marmalade", b"marmelade"))
        with pytest.raises(AuditCorrupt):
            await read_to(log.follow(-1), 1)
        segment.write_bytes(data[: data.index(b"\n") + 1])
        with pytest.raises(AuditError):
            await read_to(log.follow(-1), 1)


async def test_an_empty_directory_has_nothing_to_follow(tmp_path: Path) -> None:
    async with running(AuditLog(tmp_path / "log")) as log:
        (segment,) = (tmp_path / "log").glob("audit-*")
        segment.rename(tmp_path / "away")
        with pytest.raises(AuditError, match="no segment"):
            await log.follow(-1).next()
        (tmp_path / "away").rename(segment)


@pytest.mark.fault(49)
async def test_what_others_report_is_durable_typed_and_never_dropped(tmp_path: Path) -> None:
    """No queue that drops, no batch that is lost, no time that is local."""
    log = AuditLog(tmp_path / "log")
    async with running(log), anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(log.event, "reported", {"number": number, "deep": {"a": [None, 1.5]}})
    found = [each for each in records(tmp_path / "log") if each["kind"] == "event"]
    assert sorted(each["details"]["number"] for each in found) == list(range(100))
    assert {str(each["details"]["deep"]) for each in found} == {"{'a': [None, 1.5]}"}
    assert all(each["ts"].endswith("+00:00") for each in found)


async def test_no_checkpoint_speaks_of_records_that_failed() -> None:
    """Or the auditor would call a power cut after a failed sync a truncation."""
    sizes: list[int] = []

    async def sink(checkpoint: Any) -> None:
        sizes.append(checkpoint.size)

    disk = MemoryDisk()
    log = AuditLog("log", files=disk, checkpoint_records=1, checkpoint_sink=sink)
    async with running(log):
        await log.event("kept", {})
        kept = log.statistics().records
        disk.errors["sync"] = [OSError(5, "I/O error")]
        with pytest.raises(AuditUnavailable):
            await log.event("lost", {})
    assert max(sizes) == kept
