"""Real third-party servers for the tests, from the environments of ``tests/peers``.

``peer("mcp2")`` is that environment, or the test is skipped with the reason; where
``SARK_PEERS=required`` is set (as in CI) a missing peer is a failure. On top of it:

- :func:`stdio_server`: the argv of a named MCP server that speaks on stdin and stdout;
- :func:`http_server`: starts a named MCP server, yields its URL, and ends its process group;
  :func:`sse_server` and :func:`websocket_server` do so for the other transports behind a URL;
- :func:`opa_server`: the same for OPA with the given policy and data files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.peers.provision import PEERS

__all__ = [
    "PeerPaths",
    "http_server",
    "on_free_port",
    "opa_server",
    "peer",
    "says_its_url",
    "sse_server",
    "stdio_server",
    "websocket_server",
]

SERVERS = Path(__file__).parents[1] / "peers" / "servers"
#: A server of ours on a loaded two-core machine is up within two seconds.
START_TIMEOUT_S = 30.0
#: SIGTERM, then this long, then SIGKILL for the whole group.
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02


@dataclass(frozen=True)
class PeerPaths:
    """Where the parts of a provisioned peer are."""

    name: str
    root: Path

    @property
    def python(self) -> Path:
        """The interpreter that has the peer's packages."""
        return self.program("python")

    def program(self, name: str) -> Path:
        """An executable of the peer."""
        return self.root / "bin" / name

    def node_program(self, package: str) -> list[str]:
        """The argv that runs an npm package's ``dist/index.js`` on the peer's own Node."""
        script = self.root / "node_modules" / package / "dist" / "index.js"
        return [str(self.program("node")), str(script)]


def peer(name: str) -> PeerPaths:
    """The environment of that name; skips (or, where required, fails) if it was not built."""
    known = PEERS[name]
    if known.ready:
        return PeerPaths(name, known.root)
    reason = f"peer {name!r} is not there: run `python tests/peers/provision.py {name}`"
    if os.environ.get("SARK_PEERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _sdk(name: str, kind: str = "everything") -> Callable[[str], list[str]]:
    return lambda how: [str(peer(name).python), str(SERVERS / f"{kind}_{name}.py"), how]


def _reference(program: str) -> Callable[[str], list[str]]:
    return lambda _: [str(peer("mcp2").program(program))]


def _npm(name: str, *how: str) -> Callable[[str], list[str]]:
    package = f"@modelcontextprotocol/{name}"
    return lambda kind: [*peer("node").node_program(package), *([kind] if kind in how else [])]


_COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "everything-mcp2": _sdk("mcp2"),
    "everything-mcp1": _sdk("mcp1"),
    "asking-mcp2": _sdk("mcp2", "asking"),
    "conformance-mcp2": _sdk("mcp2", "conformance"),
    "asking-mcp1": _sdk("mcp1", "asking"),
    "everything-node": _npm("server-everything", "stdio", "streamableHttp", "sse"),
    "filesystem": _npm("server-filesystem"),
    "git": _reference("mcp-server-git"),
    "time": _reference("mcp-server-time"),
}


def stdio_server(name: str, *args: str | Path) -> list[str]:
    """The argv of a server that speaks on stdin and stdout.

    *name*: ``everything-mcp2``, ``everything-mcp1``, ``everything-node``, ``filesystem``,
    ``git`` or ``time``.
    *args* are the server's own: folders for ``filesystem``, ``--repository PATH`` for ``git``.
    """
    return [*_COMMANDS[name]("stdio"), *map(str, args)]


@contextlib.contextmanager
def http_server(name: str, *args: str) -> Iterator[str]:
    """Run ``everything-mcp2``, ``everything-mcp1`` or ``everything-node``; yields its MCP URL.

    *args* are the server's own: ``--json`` and ``--stateless`` for the SDK's.
    """
    if name == "everything-node":
        argv = _COMMANDS[name]("streamableHttp")
        with on_free_port(lambda port: (argv, {"PORT": str(port)})) as base:
            yield f"{base}/mcp"
        return
    with says_its_url([*_COMMANDS[name]("http"), *args]) as url:
        yield url


@contextlib.contextmanager
def sse_server(name: str, *args: str) -> Iterator[str]:
    """Run ``everything-mcp1`` or ``everything-node`` over HTTP+SSE (2024-11-05); yields its URL."""
    argv = _COMMANDS[name]("sse")
    if name == "everything-node":
        with on_free_port(lambda port: (argv, {"PORT": str(port)})) as base:
            yield f"{base}/sse"
        return
    with says_its_url([*argv, *args]) as url:
        yield url


@contextlib.contextmanager
def websocket_server(*args: str) -> Iterator[str]:
    """Run ``everything-mcp1`` over WebSockets; yields its URL."""
    with says_its_url([*_COMMANDS["everything-mcp1"]("ws"), *args]) as url:
        yield url


@contextlib.contextmanager
def says_its_url(argv: Sequence[str]) -> Iterator[str]:
    """Run a server whose first line on stdout is its URL; yields that."""
    with _started(argv, {}, stdout=subprocess.PIPE) as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().decode().strip()
        if not url.startswith(("http://", "ws://")):
            server.fail("said no URL")
        yield url


@contextlib.contextmanager
def opa_server(*files: str | Path) -> Iterator[str]:
    """Run OPA over the given policy and data files; yields its base URL."""
    opa = peer("opa").program("opa")
    paths = [str(file) for file in files]

    def command(port: int) -> tuple[list[str], dict[str, str]]:
        address = f"--addr=127.0.0.1:{port}"
        quiet = ("--log-level=error", "--skip-version-check", "--disable-telemetry")
        return [str(opa), "run", "--server", address, *quiet, *paths], {}

    with on_free_port(command) as base:
        yield base


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    log: Path

    def fail(self, what: str) -> None:
        said = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.process.args} {what}; stderr: {said}")


@contextlib.contextmanager
def _started(
    argv: Sequence[str], env: Mapping[str, str], *, stdout: int = subprocess.DEVNULL
) -> Iterator[_Server]:
    """The process in a group of its own, which is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="sark-peer-") as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            yield _Server(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def on_free_port(command: Callable[[int], tuple[list[str], dict[str, str]]]) -> Iterator[str]:
    """For servers that do not say which port they got: choose one, and again if it was taken."""
    for last in (False, False, True):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        argv, env = command(port)
        with _started(argv, env) as server:
            base = f"http://127.0.0.1:{port}"
            if _listens(server, base):
                yield base
                return
            if last:
                server.fail("did not listen")


def _listens(server: _Server, base: str) -> bool:
    address = urlsplit(base)
    until = time.monotonic() + START_TIMEOUT_S
    while server.process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection((str(address.hostname), int(address.port or 0)), 1).close()
            return server.process.poll() is None
        # A wait for a foreign process to come up: there is no clock of ours to advance.
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(POLL_S)
    return False
