"""A real OPA server for a test: started, found, ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpcore

from sark_trio.governance.opa import Headers

__all__ = ["OPA", "http_exchange", "opa_server"]

#: The ``opa`` program, or ``None`` where this machine has none.
OPA = os.environ.get("SARK_OPA") or shutil.which("opa")
#: TCP_LISTEN, as ``/proc/net/tcp`` writes it.
_LISTEN = "0A"
#: Seconds until it must listen; a second is usual.
_START_S = 30.0


@contextmanager
def opa_server(*files: Path) -> Iterator[str]:
    """The URL of an OPA server with *files* loaded, on a free port of loopback."""
    assert OPA is not None
    command = [OPA, "run", "--server", "--addr", "127.0.0.1:0", "--disable-telemetry"]
    with subprocess.Popen(
        [*command, *map(str, files)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield f"http://127.0.0.1:{_port(process)}"
        finally:
            process.kill()


def _port(process: subprocess.Popen[bytes]) -> int:
    """The port that *process* listens on. OPA does not say which one it was given."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        sockets = {
            str(entry.readlink()).removeprefix("socket:[").removesuffix("]")
            for entry in Path(f"/proc/{process.pid}/fd").iterdir()
        }
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in sockets:
                return int(fields[1].rpartition(":")[2], 16)
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"OPA ended with status {process.wait(0.02)}")
    raise AssertionError("OPA did not start")


async def http_exchange(
    method: str, url: str, headers: Headers, body: bytes, timeout_s: float
) -> tuple[int, Headers, bytes]:
    """One HTTP exchange, as a client hands it to :class:`~sark_trio.governance.opa.Opa`."""
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
    async with httpcore.AsyncConnectionPool() as pool:
        answer = await pool.request(
            method, url, headers=list(headers), content=body, extensions={"timeout": timeouts}
        )
    names = [(name.decode(), value.decode()) for name, value in answer.headers]
    return answer.status, names, answer.content
