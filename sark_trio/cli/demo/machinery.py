"""What the demo runs on: real servers, a policy, an audit log, and checks of what happens."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from subprocess import PIPE
from typing import final

import anyio
from anyio.abc import ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field

from sark_trio import (
    AuditLog,
    BreakerOptions,
    GatewayClient,
    Http,
    PolicyEngine,
    Principal,
    Rego,
    Stdio,
    ToolRule,
)
from sark_trio.cli.demo import database

__all__ = ["Directory", "Failed", "Stage", "Step", "directory_server", "make_client"]

#: The breaker of the demo opens for this long: the default of 30 s would bore people.
OPEN_S = 1.0


class Failed(Exception):
    """Something was not as it should be; the demo says what and ends with status 1."""


@final
@define
class Directory:
    """The running HTTP server, and the switch of its health."""

    url: str
    _commands: ByteSendStream
    _answers: BufferedByteReceiveStream

    async def say(self, word: str) -> str:
        """Send one command; its answer."""
        await self._commands.send(f"{word}\n".encode())
        return await _line(self._answers)


@asynccontextmanager
async def directory_server() -> AsyncIterator[Directory]:
    """Start the HTTP server; end it by closing its standard input."""
    command = [sys.executable, "-m", "sark_trio.cli.demo.directory"]
    process: Process = await anyio.open_process(
        command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=None,
        start_new_session=True,  # a terminal's Ctrl-C is for us; it ends with its standard input
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = BufferedByteReceiveStream(process.stdout)
        yield Directory(await _line(answers), process.stdin, answers)
        await process.stdin.aclose()
        await process.wait()
    finally:
        await process.aclose()


async def _line(stream: BufferedByteReceiveStream) -> str:
    return (await stream.receive_until(b"\n", 1000)).decode()


def make_client(folder: Path, url: str, policy: PolicyEngine | None = None) -> GatewayClient:
    """The client as an application would make it.

    :param policy: decides instead of the demo's own.
    """
    path = folder / "people.db"
    database.create(path)
    rego = resources.files("sark_trio.cli.demo") / "policy.rego"
    return GatewayClient(
        servers={
            "database": Stdio(
                [sys.executable, "-m", "sark_trio.cli.demo.database", str(path)],
                sensitivity="high",
                tools={"query": ToolRule(sensitive_params=("password",))},
            ),
            "directory": Http(url, breaker=BreakerOptions(open_s=OPEN_S)),
        },
        policy=policy or Rego(texts={"policy.rego": rego.read_text(encoding="utf-8")}),
        audit=AuditLog(folder / "audit", checkpoint_sink=folder / "checkpoints"),
        principal=Principal(id="ada", roles=("analyst",)),
    )


@final
@define
class Stage:
    """Where the story is told, and what its steps need."""

    client: GatewayClient
    directory: Directory
    folder: Path
    say: Callable[[str], None]
    steps: int = field(default=0, init=False)

    def check(self, what: str, *, holds: bool) -> None:
        """Say that *what* holds, or fail."""
        if not holds:
            raise Failed(what)
        self.say(f"    ok  {what}")


Step = Callable[[Stage], Awaitable[None]]
