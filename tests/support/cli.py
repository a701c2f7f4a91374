"""Run ``sark`` as its users do: as a process, in a directory with a configuration."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sark_trio.cli.demo.database import create
from tests.tidy.source import ROOT

__all__ = ["POLICY", "Done", "Place", "closed_port", "finish", "make_place"]

#: Longest run of one command on a loaded machine.
TIMEOUT_S = 60.0
POLL_S = 0.02

POLICY = """\
package mcp.gateway

default allow := false

allow if input.action in {"gateway:tool:discover", "gateway:server:list", "gateway:server:info"}

allow if {
	"analyst" in input.user.roles
	not contains(lower(input.parameters.sql), "drop")
}

allow if {
	"analyst" in input.user.roles
	input.tool.name == "report"
}

reason := "no statement of yours drops a table" if contains(lower(input.parameters.sql), "drop")
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


@dataclass(frozen=True)
class Place:
    """A directory in which somebody uses ``sark``."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        """Put a file there."""
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``sark`` with *words*; ``env`` adds to the environment."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        env |= options.pop("env", {})
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "sark_trio", *words],
            cwd=self.folder,
            env={name: value for name, value in env.items() if value is not None},
            text=True,
            # A shell's background jobs ignore Ctrl-C, and a child inherits that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            **{
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )

    def sark(self, *words: str, stdin: str = "", **options: Any) -> Done:
        """Run ``sark`` with *words* to its end. No traceback is ever seen."""
        with self.start(*words, **options) as process:
            return finish(process, stdin)

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command whose call is under way: its intent is on disk."""
        seen = self.intents()
        with self.start(*words) as process:
            try:
                until = time.monotonic() + TIMEOUT_S
                while self.intents() == seen:
                    assert time.monotonic() < until, "no intent was recorded"
                    # Another program's progress has no clock of ours to advance.
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(POLL_S)
                        raise AssertionError(process.communicate())
                yield process
            finally:
                process.kill()

    def intents(self) -> int:
        """How many intents the audit log holds."""
        log = self.folder / "audit"
        files = list(log.iterdir()) if log.is_dir() else []
        return sum(path.read_bytes().count(b'"intent"') for path in files if path.is_file())


def finish(process: subprocess.Popen[str], stdin: str | None = None) -> Done:
    """Wait for the end of a started command."""
    out, err = process.communicate(stdin, timeout=TIMEOUT_S)
    assert "Traceback" not in err, err
    return Done(process.returncode, out or "", err or "")


def make_place(folder: Path) -> Place:
    """A place with a database behind a stdio server, a server that is down, and a policy."""
    place = Place(folder)
    create(folder / "people.db")
    place.write("policy.rego", POLICY)
    command = json.dumps(
        [sys.executable, "-m", "sark_trio.cli.demo.database", str(folder / "people.db")]
    )
    place.write(
        "sark.toml",
        f"""\
[servers.db]
command = {command}
env = {{PYTHONPATH = "{ROOT}"}}

[servers.down]
url = "http://127.0.0.1:{closed_port()}/mcp"

[policy]
rego = "policy.rego"

[audit]
directory = "audit"

[identity]
principal = "ann"
roles = ["analyst"]
""",
    )
    return place


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
