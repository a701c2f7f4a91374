"""A child process: how it starts, and that it always ends."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio.errors import ProcessStartError
from sark_trio.machines.limits import ResourceLimits
from sark_trio.transports import process
from sark_trio.transports.process import GRACE_S, ChildProcess
from sark_trio.transports.spawn import ENV_INHERITED, apply_limits, child_environment
from tests.support.stdio import SCRIPTED, baseline, ended

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"]}
#: A child that says it is ready, and heeds neither the end of its stdin nor SIGTERM.
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 600 <&- ; done"


def start(*command: str, **options: Any) -> ChildProcess:
    return ChildProcess.spawn(command, cwd=None, env=ENV, **options)


async def line_of(child: ChildProcess) -> bytes:
    line = b""
    with anyio.fail_after(20):
        while not line.endswith(b"\n"):
            line += await child.stdout.receive()
    return line


async def test_a_child_that_heeds_the_end_of_its_stdin_exits_with_its_own_status():
    with baseline():
        child = start("cat")
        assert child.stdin.send_nowait([b"to ", b"and fro\n"]) == 11
        assert await line_of(child) == b"to and fro\n"
        assert "running" in repr(child)
        await child.stop()
        assert (child.exit_code, child.survived) == (0, False)
        assert repr(child) == f"<ChildProcess pid={child.pid} exited 0>"


@pytest.mark.row(34)
@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("no-such-program", "was not found on PATH; install it"),
        ("/no/such/program", "does not exist; check the path"),
        ("{here}/plain.txt", "chmod \\+x"),
        ("{here}", "is not an executable file"),
        ("{here}/orphan.sh", "interpreter in its #! line does not exist"),
        ("{here}/noise", "neither a program nor a script"),
    ],
)
async def test_34_what_cannot_be_started_says_what_to_do(command: str, advice: str, tmp_path: Path):
    (tmp_path / "plain.txt").write_text("text")
    for name, text in (("orphan.sh", "#!/no/such/interpreter\n"), ("noise", "\x00\x01")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    command = command.replace("{here}", str(tmp_path))
    with baseline(), pytest.raises(ProcessStartError, match=advice) as caught:
        start(command)
    assert caught.value.delivery == "not_sent"


async def test_an_argument_that_has_no_bytes_is_refused():
    with baseline(), pytest.raises(ProcessStartError, match="surrogates not allowed"):
        start("true", "\ud800")


async def test_a_missing_working_directory_is_named():
    with pytest.raises(ProcessStartError, match="working directory '/no/such' does not exist"):
        ChildProcess.spawn(["true"], cwd="/no/such", env=ENV)


@pytest.mark.security(18)
async def test_relative_entries_of_path_are_never_searched(tmp_path: Path, monkeypatch: Any):
    trap = tmp_path / "trap"
    trap.write_text("#!/bin/sh\n")
    trap.chmod(stat.S_IRWXU)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProcessStartError, match="was not found on PATH"):
        ChildProcess.spawn(["trap"], cwd=None, env={"PATH": ".::"})


async def test_a_path_with_a_slash_is_relative_to_the_working_directory(tmp_path: Path):
    program = tmp_path / "hello"
    program.write_text("#!/bin/sh\necho $0 in $PWD\n")
    program.chmod(stat.S_IRWXU)
    child = ChildProcess.spawn(["./hello"], cwd=str(tmp_path), env=ENV)
    assert await line_of(child) == f"{tmp_path}/hello in {tmp_path}\n".encode()
    await child.stop()


@pytest.mark.row(60)
@pytest.mark.parametrize("failure", [errno.EMFILE, errno.ENOMEM])
async def test_60_no_descriptor_left_for_the_pidfd_leaves_no_child(failure: int, monkeypatch: Any):
    def refuse(_pid: int) -> int:
        raise OSError(failure, "no more")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with baseline(), pytest.raises(ProcessStartError):
        start("cat")


@pytest.mark.row(60)
async def test_60_too_many_open_files_leaves_nothing_and_recovers():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with baseline():
        probe = os.dup(0)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 3, hard))
        try:
            with pytest.raises(ProcessStartError, match="too many open files"):
                start("cat")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await start("cat").stop()


@pytest.mark.security(18)
def test_only_allowed_variables_are_inherited():
    parent = {"PATH": "/bin", "LC_ALL": "C", "LC_TIME": "C", "AWS_SECRET_ACCESS_KEY": "s"}
    assert child_environment(parent, inherit=ENV_INHERITED, extra={"TOKEN": "t"}) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "LC_TIME": "C",
        "TOKEN": "t",
    }
    assert child_environment(parent, inherit=(), extra={}) == {}
    assert child_environment(parent, inherit=("*",), extra={}) == parent


def test_limits_are_checked_where_they_are_written():
    with pytest.raises(ValueError, match="open_files_max must be from 1 to 2147483647, not 0"):
        ResourceLimits(open_files_max=0)


@pytest.mark.security(19)
async def test_limits_reach_the_child():
    limits = ResourceLimits(open_files_max=123, address_space_bytes_max=2**33, processes_max=4000)
    child = start("sh", "-c", "read go; ulimit -n", limits=limits)
    assert resource.prlimit(child.pid, resource.RLIMIT_AS) == (2**33, 2**33)
    assert resource.prlimit(child.pid, resource.RLIMIT_NPROC) == (4000, 4000)
    child.stdin.send_nowait([b"go\n"])
    assert await line_of(child) == b"123\n"
    await child.stop()


async def test_a_limit_that_the_kernel_refuses_leaves_no_child():
    with baseline(), pytest.raises(ProcessStartError, match="hard limit"):
        start("cat", limits=ResourceLimits(open_files_max=2**30))


async def test_limits_need_a_kernel_that_can_set_them(monkeypatch: Any):
    monkeypatch.delattr(resource, "prlimit")
    with baseline(), pytest.raises(ProcessStartError, match="on Linux only"):
        start("cat", limits=ResourceLimits(open_files_max=100))


async def test_limits_of_a_child_that_is_gone_already_are_no_error():
    child = start("true")
    await child.wait_exited()
    await child.stop()
    apply_limits(ResourceLimits(open_files_max=100), child.pid)


@pytest.mark.security(19)
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
async def test_a_child_dies_with_its_parent_where_it_is_told_to():
    code = (
        "import os, sys, time\n"
        "from sark_trio.transports.process import ChildProcess\n"
        "child = ChildProcess.spawn(sys.argv[1:], cwd=None, env=os.environ, die_with_parent=True)\n"
        "os.set_blocking(child.stdout.fd, True)\n"
        "print(child.pid, os.read(child.stdout.fd, 6), flush=True)\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", code, "sh", "-c", STUBBORN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline().split()[0])
        parent.kill()
    await ended(orphan)


@pytest.mark.row(37)
async def test_the_bounds_of_a_stop_add_up_to_less_than_six_and_a_half_seconds():
    assert sum(GRACE_S) + process.REAP_S + process.ORPHAN_S + process.KILL_S <= 6.5


@pytest.mark.row(37)
async def test_37_a_child_that_ignores_everything_is_killed():
    with baseline():
        child = start("sh", "-c", STUBBORN)
        await line_of(child)
        await child.stop((0.01, 0.01))
        assert child.exit_code == -signal.SIGKILL
        assert not child.survived


async def test_a_child_that_ignores_eof_gets_the_chance_of_sigterm():
    child = start("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 600 & wait; done")
    await line_of(child)
    await child.stop((0.01, 15))
    assert child.exit_code == 5


@pytest.mark.row(36)
@pytest.mark.law("D1")
async def test_36_a_stopped_child_can_still_heed_sigterm():
    """After stop there is no child, even if it was stopped by SIGSTOP before."""
    child = start("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 600 & wait; done")
    await line_of(child)
    child.signal_group(signal.SIGSTOP)
    await child.stop((0.01, 15))
    assert child.exit_code == 6


async def spawning(*, escape: bool) -> tuple[ChildProcess, int]:
    """A child that was told to leave a grandchild behind, and that one's pid."""
    child = ChildProcess.spawn(SCRIPTED, cwd=None, env=ENV)
    wanted = b"true" if escape else b"false"
    child.stdin.send_nowait(
        [
            b'{"id":1,"method":"tools/call","params":{"name":"spawn","arguments":{"escape":',
            wanted,
            b"}}}\n",
        ]
    )
    answer = await line_of(child)
    return child, int(answer.partition(b'"pid": ')[2].partition(b"}")[0])


@pytest.mark.security(19)
@pytest.mark.row(38)
@pytest.mark.fault(43)
async def test_38_a_grandchild_that_holds_the_pipes_goes_with_its_group():
    with baseline():
        child, grandchild = await spawning(escape=False)
        await child.stop()
        assert child.exit_code == 0
        assert not child.survived
        await ended(grandchild)


@pytest.mark.row(38)
async def test_38_a_grandchild_that_left_the_group_is_reported_and_not_waited_for():
    with baseline():
        child, grandchild = await spawning(escape=True)
        try:
            await child.stop()
            assert child.exit_code == 0
            assert child.survived
        finally:
            os.kill(grandchild, signal.SIGKILL)
            await ended(grandchild)


@pytest.mark.parametrize("missing", ["pidfd_open", "waitid"])
async def test_exits_are_seen_on_kernels_without_modern_calls(missing: str, monkeypatch: Any):
    monkeypatch.delattr(os, missing)
    with baseline():
        child = start("sh", "-c", "read line; exit 9")
        assert not child.has_exited()
        child.stdin.send_nowait([b"\n"])
        with anyio.fail_after(20):
            assert await child.wait_exited() == 9
        await child.stop()


async def test_an_old_kernel_that_refuses_pidfds_is_polled(monkeypatch: Any):
    def refuse(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with baseline():
        child = start("true")
        with anyio.fail_after(20):
            assert await child.wait_exited() == 0
        await child.stop()


async def test_a_child_that_somebody_else_reaped_is_over_and_never_signalled():
    with baseline():
        child = start("true")
        os.waitpid(child.pid, 0)  # noqa: ASYNC222
        assert await child.wait_exited() is None
        await child.stop()
        assert child.exit_code is None


async def test_kill_needs_no_await_and_may_be_repeated():
    with baseline():
        child = start("sh", "-c", STUBBORN)
        await line_of(child)
        child.kill()
        child.kill()
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)


async def test_stop_is_not_cut_short_by_cancellation():
    with baseline():
        child = start(
            "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 600 & wait; done"
        )
        await line_of(child)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await child.stop((0.01, 15))
        assert child.exit_code == 5


async def test_a_closed_pipe_has_an_end():
    with baseline():
        child = start("cat")
        child.stdout.close()
        assert child.stdout.receive_nowait() == b""
        assert repr(child.stdout) == "<Pipe closed>"
        assert repr(child.stdin) == f"<Pipe fd={child.stdin.fd}>"
        await child.stop()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stop_that_asyncio_breaks_into_still_kills(anyio_backend: str):
    with baseline():
        child = start("sh", "-c", STUBBORN)
        await line_of(child)
        stop = asyncio.ensure_future(child.stop())
        await asyncio.sleep(0)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        assert child.exit_code == -signal.SIGKILL
