"""Rows 49 and 51: what cannot be recorded is not sent, on any transport; sinks hold up nothing."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, GatewayClient
from sark_trio.client.servers import Memory
from sark_trio.errors import AuditUnavailable
from sark_trio.stores.audit import verify_directory
from sark_trio.testing import no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.audit_harness import HangingFiles
from tests.support.client import ALICE, check_log, desk, outcomes
from tests.support.faulty import EVERYWHERE, cell, do

#: A full disk is waited for, for a second: ``tests/drivers/client/test_governed.py`` has it.
FAULTS = {
    "broken": ("sync", errno.EIO),
    "read-only": ("write", errno.EROFS),
}


@pytest.mark.anyio
@pytest.mark.row(49)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_what_cannot_be_recorded_is_not_sent(kind: str, fault: str) -> None:
    operation, number = FAULTS[fault]
    disk = MemoryDisk()
    async with cell(kind, disk=disk, heals=False, log_fails=True) as (server, client):
        await client.list_tools("desk")
        disk.errors[operation] = [OSError(number, fault)] * 1_000
        with pytest.raises(AuditUnavailable) as caught:
            await client.invoke_tool("desk", "echo", do(), replay_safe=True)
        assert (caught.value.delivery, caught.value.attempts) == ("not_sent", 0)
        assert server.effects == 0
        assert client.statistics().servers["desk"].breaker.failures == 0
        disk.errors.clear()


def largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.glob("audit-*.log"))


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond that (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.anyio
@pytest.mark.row(49, 50)
async def test_a_real_file_that_may_not_grow_refuses_calls_and_is_whole_afterwards(
    tmp_path: Path,
) -> None:
    server = desk()
    async with no_leaks():
        async with opened(AuditLog(tmp_path), server) as client:
            await client.invoke_tool("desk", "echo")
            size = largest(tmp_path)
            with largest_file(size + 100), pytest.raises(AuditUnavailable) as caught:
                await client.invoke_tool("desk", "echo")
            assert caught.value.delivery == "not_sent"
            assert len(server.arrived) == 1
        async with opened(AuditLog(tmp_path), server) as client:
            await client.invoke_tool("desk", "echo")
    report = verify_directory(tmp_path)
    assert (report.ok, report.in_doubt) == (True, ())
    assert outcomes(tmp_path)[-1] == ("ok", "answered")


def opened(log: AuditLog, server: Any) -> GatewayClient:
    servers = {"desk": Memory(server)}
    return GatewayClient(servers=servers, policy=AllowAll(), audit=log, principal=ALICE)


@pytest.mark.row(49)
def test_a_disk_that_takes_half_a_minute_refuses_calls_within_a_second(tmp_path: Path) -> None:
    clock, files, server = MockClock(), HangingFiles(), desk()

    async def main() -> None:
        async with opened(AuditLog(tmp_path, files=files), server) as client:
            await client.invoke_tool("desk", "echo")
            files.hang()
            refused: list[float] = []

            async def call() -> None:
                with pytest.raises(AuditUnavailable):
                    await client.invoke_tool("desk", "echo")
                refused.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                assert refused == []
                clock.jump(1.01)
            assert refused == [pytest.approx(1.01)] * 5
            assert len(server.arrived) == 1
            clock.jump(29)
            files.release()
            while client.statistics().audit.unavailable is not None:
                await anyio.lowlevel.checkpoint()
            await client.invoke_tool("desk", "echo")

    trio.run(main, clock=clock)
    check_log(tmp_path)


@pytest.mark.trio
@pytest.mark.row(51)
@pytest.mark.parametrize("how", ["hangs", "refuses"])
async def test_a_sink_that_is_sick_costs_no_call_anything(
    autojump_clock: MockClock, how: str
) -> None:
    alarms: list[str] = []

    async def sink(_: object) -> None:
        if how == "hangs":
            await trio.sleep_forever()
        raise OSError("no room in the archive")

    server, disk = desk(), MemoryDisk()
    log = AuditLog(
        "log", files=disk, checkpoint_sink=sink, checkpoint_records=1, on_alarm=alarms.append
    )
    async with no_leaks(), opened(log, server) as client:
        began = trio.current_time()
        for _ in range(200):
            await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began < 1
        assert client.statistics().audit.queued_records < 10
        await trio.sleep(60)
    assert len(server.arrived) == 200
    assert alarms
    check_log(disk)
