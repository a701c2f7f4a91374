"""Limits on what a server process may use, with processes that use more."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import BreakerOptions, RetryConfig, Stdio
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ConfigError, GatewayError, ResourceLimitExceeded
from sark_trio.machines.limits import ResourceLimits, Usage
from sark_trio.transports import spawn, stdio_guard
from sark_trio.transports.procfs import session_usage
from sark_trio.transports.stdio import StdioTransport
from tests.support.stdio import baseline, call, ended, make, running

anyio_test = pytest.mark.anyio
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="limits need Linux")
NARROW = ResourceLimits(rss_bytes_max=96 << 20, interval_s=0.02)


@anyio_test
@pytest.mark.law("D1")
@pytest.mark.fault(43)
@pytest.mark.parametrize("in_child", [False, True])
async def test_d01_one_that_uses_too_much_memory_is_ended_with_its_children(in_child: bool):
    """After stop: no child, no zombie, no process in the group, descriptors as before."""
    outcomes: list[Any] = []

    async def ask(transport: StdioTransport, name: str, **arguments: Any) -> None:
        try:
            outcomes.append(await call(transport, name, **arguments))
        except GatewayError as exc:
            outcomes.append(exc)

    with baseline():
        async with running(make(limits=NARROW)) as transport:
            pid = (await call(transport, "pid"))["pid"]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, transport, "hold")
                while not (await call(transport, "held"))["held"]:
                    pass
                await ask(transport, "eat", mebibytes=128, in_child=in_child)
            errors = [one for one in outcomes if isinstance(one, ResourceLimitExceeded)]
            assert len(errors) == len(outcomes) - in_child
            for error in errors:
                assert (error.limit, error.allowed) == ("rss_bytes_max", 96 << 20)
                assert error.value is not None
                assert error.value > error.allowed
                assert error.delivery == "unknown"
                assert "rss_bytes_max" in str(error)
            assert (await call(transport, "pid"))["pid"] != pid
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            for child in (one["pid"] for one in outcomes if isinstance(one, dict)):
                await ended(child)
            assert transport.statistics().restarts == 1


@anyio_test
@pytest.mark.fault(41)
async def test_one_that_keeps_a_processor_busy_for_a_window_is_ended():
    limits = ResourceLimits(cpu_percent_max=10, cpu_window_s=0.3, interval_s=0.02)
    async with running(make(limits=limits)) as transport:
        with pytest.raises(ResourceLimitExceeded) as caught:
            await call(transport, "spin")
        assert caught.value.limit == "cpu_percent_max"


@anyio_test
@pytest.mark.fault(41)
async def test_the_event_loop_does_not_do_the_looking(monkeypatch: Any):
    looked = anyio.Event()
    threads: list[int] = []
    token = anyio.lowlevel.current_token()

    def look(leader: int) -> Usage:
        threads.append(threading.get_ident())
        anyio.from_thread.run_sync(looked.set, token=token)
        return session_usage(leader)

    monkeypatch.setattr(stdio_guard, "session_usage", look)
    async with running(make(limits=ResourceLimits())) as transport:
        await transport.connect()
        await looked.wait()
    assert threading.get_ident() not in threads


@anyio_test
async def test_limits_of_the_kernel_reach_the_process_and_the_others_are_left():
    own = resource.getrlimit(resource.RLIMIT_AS)
    limits = ResourceLimits(open_files_max=77, processes_max=4000)
    async with running(make(limits=limits)) as transport:
        around = await call(transport, "surroundings")
    assert (around["nofile"], around["nproc"]) == ([77, 77], [4000, 4000])
    assert around["as"] == list(own)


def limited() -> Upstream:
    server = Stdio(["cat"], limits=ResourceLimits())
    return Upstream.of("x", server, breaker=BreakerOptions(), retry=RetryConfig())


def test_where_no_limit_can_be_set_the_configuration_is_wrong(monkeypatch: Any):
    monkeypatch.delattr(resource, "prlimit")
    with pytest.raises(ConfigError, match=r"servers\.x: limits: .* Linux only"):
        limited()


def test_where_nothing_can_be_measured_the_configuration_is_wrong(monkeypatch: Any, tmp_path: Path):
    monkeypatch.setattr(spawn, "_MEASURED", tmp_path / "stat")
    with pytest.raises(ConfigError, match="/proc, which is not mounted"):
        limited()
    unwatched = ResourceLimits(rss_bytes_max=None)
    assert StdioTransport(["cat"], client_info={"name": "t"}, limits=unwatched).limits is unwatched


def test_what_a_session_uses_is_the_sum_of_its_processes(tmp_path: Path):
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    between = "0 0 0 0 0 0 0"

    def process(pid: int, name: str, session: int, times: str, pages: int) -> None:
        (tmp_path / str(pid)).mkdir()
        line = f"{pid} ({name}) S 1 {session} {session} {between} {times} 20 0 1 0 5 4096 {pages} 9"
        (tmp_path / str(pid) / "stat").write_text(line)

    process(10, "server", 10, "1 2 3 4", 100)
    process(11, "a (odd) name) S 1", 10, "10 0 0 0", 7)
    process(12, "stranger", 12, "999 9 9 9", 9999)
    (tmp_path / "13").mkdir()  # it ended while we looked
    (tmp_path / "self").mkdir()
    assert session_usage(10, tmp_path) == Usage(107 * page, 20 / tick)
    assert session_usage(99, tmp_path) == Usage(0, 0.0)


def test_what_this_process_uses_is_not_nothing():
    usage = session_usage(os.getsid(0))
    assert usage.rss_bytes > 1 << 20
    assert usage.cpu_s > 0
