"""Start a child process with three pipes, and say in words why it could not be started."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from sark_trio.errors import ProcessStartError
from sark_trio.machines.limits import ResourceLimits

__all__ = [
    "ENV_INHERITED",
    "Spawned",
    "apply_limits",
    "check_limits",
    "child_environment",
    "digest_of",
    "find_program",
    "spawn",
]

#: What a child needs to find programs, its home and its language. No secret has such a name.
ENV_INHERITED: Final = (
    "PATH", "HOME", "LANG", "LC_*", "TMPDIR", "USER", "LOGNAME", "SHELL", "TERM",
)  # fmt: skip

#: What processes use is read here.
_MEASURED: Final = Path("/proc/self/stat")

_ADVICE: Final[Mapping[int, str]] = {
    errno.ENOEXEC: "it is neither a program nor a script with a #! line",
    errno.ENOENT: "the interpreter in its #! line does not exist",
    errno.EMFILE: "this process has too many open files; raise its limit",
    errno.ENFILE: "the system has too many open files",
    errno.EPERM: "a limit is above our own hard limit, or the system forbids it",
    errno.EAGAIN: "no more processes are allowed to this user",
    errno.E2BIG: "its arguments and environment are too long",
}


def check_limits(limits: ResourceLimits | None) -> None:
    """Whether *limits* can be kept here. Limits that silently are none would be worse than none.

    :raises ValueError: this system has no ``prlimit``, or no ``/proc`` to measure with.
    """
    if limits is None:
        return
    if not hasattr(resource, "prlimit"):
        raise ValueError(
            "limits: those of another process can be set on Linux only; leave them out"
        )
    if limits.watched and not _MEASURED.exists():
        raise ValueError(
            "limits: memory and processor are measured through /proc, which is not mounted; "
            "mount it, or set rss_bytes_max and cpu_percent_max to None"
        )


def apply_limits(limits: ResourceLimits, pid: int) -> None:
    """Set the limits that the kernel keeps on process *pid*, soft and hard.

    From outside, right after the program was loaded. A ``preexec_fn`` would run Python between
    fork and exec, where any lock of any thread may be held; a wrapper that limits itself and
    then execs would need another program, or an interpreter's start for each server. What the
    program does within those microseconds is not lost: limits hold for what a process *has*
    from then on, and the two that are watched are the session's.

    :raises OSError: the kernel refused: a limit above our own hard limit.
    """
    for kind, value in (
        (resource.RLIMIT_AS, limits.address_space_bytes_max),
        (resource.RLIMIT_NOFILE, limits.open_files_max),
        (resource.RLIMIT_NPROC, limits.processes_max),
    ):
        if value is not None:
            with suppress(ProcessLookupError):  # it ended already: nothing to limit
                resource.prlimit(pid, kind, (value, value))


def child_environment(
    parent: Mapping[str, str],
    *,
    inherit: Iterable[str],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The variables of *parent* named in *inherit* (a final ``*`` matches any end), and *extra*."""
    names = tuple(inherit)
    exact = {name for name in names if not name.endswith("*")}
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    kept = {k: v for k, v in parent.items() if k in exact or (prefixes and k.startswith(prefixes))}
    return kept | dict(extra)


@frozen
class Spawned:
    """A child that runs, and our descriptors of it. The receiver owns all of them."""

    popen: subprocess.Popen[bytes]
    stdin_fd: int
    stdout_fd: int
    stderr_fd: int
    #: Readable once the child has ended; -1 where the kernel has no such thing.
    pidfd: int


def spawn(
    command: Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str],
    limits: ResourceLimits | None,
    die_with_parent: bool,
) -> Spawned:
    """Start *command*, never through a shell, in a session and process group of its own.

    :raises ProcessStartError: it could not be started; nothing is left of it.
    """
    try:
        check_limits(limits)
        program = find_program(command[0], cwd=cwd, env=env)
        argv = [*command]
        if die_with_parent:
            # PR_SET_PDEATHSIG has to be set by the child itself. A preexec_fn would run Python
            # between fork and exec, where any lock of any thread may be held.
            argv = ["setpriv", "--pdeathsig", "KILL", "--", program, *command[1:]]
            program = find_program("setpriv", cwd=cwd, env=env)
        return _spawn(argv, program, cwd=cwd, env=env, limits=limits)
    except (OSError, ValueError) as exc:
        raise ProcessStartError(_explain(exc, command[0], cwd)) from exc


def _spawn(
    argv: list[str],
    program: str,
    *,
    cwd: str | None,
    env: Mapping[str, str],
    limits: ResourceLimits | None,
) -> Spawned:
    with ExitStack() as always, ExitStack() as on_failure:
        ours = []
        theirs = []
        for outward in (True, False, False):
            read_fd, write_fd = os.pipe()
            mine, yours = (write_fd, read_fd) if outward else (read_fd, write_fd)
            always.callback(os.close, yours)
            on_failure.callback(os.close, mine)
            os.set_blocking(mine, False)
            ours.append(mine)
            theirs.append(yours)
        popen = subprocess.Popen(  # noqa: S603  # argv only; commands come from the operator
            argv,
            executable=program,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=cwd,
            env=dict(env),
            close_fds=True,
            start_new_session=True,
        )
        on_failure.callback(_destroy, popen)
        pidfd = _open_pidfd(popen.pid)
        if pidfd >= 0:
            on_failure.callback(os.close, pidfd)
        if limits is not None:
            apply_limits(limits, popen.pid)
        on_failure.pop_all()
    stdin_fd, stdout_fd, stderr_fd = ours
    return Spawned(popen, stdin_fd, stdout_fd, stderr_fd, pidfd)


def _destroy(popen: subprocess.Popen[bytes]) -> None:
    os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()


def _open_pidfd(pid: int) -> int:
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return -1
    try:
        return int(opener(pid))
    except OSError as exc:
        if exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return -1  # an old kernel, or a seccomp filter that does not know the call


def find_program(name: str, *, cwd: str | None, env: Mapping[str, str]) -> str:
    """The file that *name* means, as the child's own ``PATH`` has it; relative entries never.

    :raises ProcessStartError: there is none, or it cannot be executed.
    """
    if "/" in name:
        found = Path(cwd or ".", name)
        if not found.exists():
            raise ProcessStartError(f"command {name!r} does not exist; check the path")
        if not _executable(found):
            raise ProcessStartError(
                f"command {name!r} is not an executable file; chmod +x it, or name its interpreter"
            )
        return str(found.absolute())
    folders = [Path(entry) for entry in env.get("PATH", os.defpath).split(":")]
    for folder in folders:
        if folder.is_absolute() and _executable(folder / name):
            return str(folder / name)
    split = "; its arguments are further items of the list" if " " in name else ""
    raise ProcessStartError(
        f"command {name!r} was not found on PATH; install it, or give its absolute path{split}"
    )


def digest_of(program: str) -> str:
    """The SHA-256 of a file, in hex. Reads all of it: not for the event loop's own thread.

    :raises ProcessStartError: it cannot be read.
    """
    try:
        with Path(program).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ProcessStartError(f"{program} cannot be read: {exc.strerror}") from exc


def _executable(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def _explain(exc: OSError | ValueError, name: str, cwd: str | None) -> str:
    if cwd is not None and not Path(cwd).is_dir():
        return f"command {name!r}: the working directory {cwd!r} does not exist"
    why = str(exc)
    if isinstance(exc, OSError):
        why = _ADVICE.get(exc.errno or 0, exc.strerror or why)
    return f"command {name!r} could not be started: {why}"
