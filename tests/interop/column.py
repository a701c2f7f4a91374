"""Running the script over one server: its row of the matrix."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal

import anyio
from attrs import define, field, frozen

from sark_trio import GatewayClient, Http, Server, Stdio, WebSocket
from tests.interop.relay import Relay, relay_to
from tests.interop.script import LIMIT_S, OPERATIONS, PEER, Heard, Operation, Run, open_client
from tests.interop.servers import Subject
from tests.interop.wire import (
    Sent,
    faults_in,
    http_messages,
    line_messages,
    websocket_messages,
)

__all__ = ["COLUMNS", "Cell", "run_subject"]

#: What an operation that a server cannot do is given to prove otherwise.
CANNOT_S: Final = 2.0
ANSWERS: Final = {"JSON answer": "application/json", "SSE answer": "text/event-stream"}
MESSAGES: Final = "messages"
#: The operations, and what the copy of the wire shows afterwards.
COLUMNS: Final = (*(operation.name for operation in OPERATIONS), *ANSWERS, MESSAGES)


@frozen
class Cell:
    """How one operation went: ``cannot`` says why, and so does ``failed``."""

    state: Literal["works", "not offered", "cannot", "failed"]
    why: str = ""


# -- the server and the copy of the wire ----------------------------------------------------------


@define(eq=False)
class Process:
    """A server that speaks on stdin and stdout."""

    command: list[str]
    copy: Path
    pid: int = field(default=0, init=False)

    def server(self, options: Mapping[str, object]) -> Server:
        tee = str(Path(__file__).parent / "tee.py")
        return Stdio([sys.executable, tee, str(self.copy), *self.command])

    async def restart(self, client: GatewayClient, heard: Heard) -> None:
        """Kill it: starting it again is the client's business."""
        os.kill(client.statistics().servers[PEER].wire.details["pid"], signal.SIGKILL)
        # What is called before the client has noticed may or may not have happened.
        await heard.ended.wait()

    def sent(self) -> list[Sent]:
        return line_messages(self.copy.read_bytes())


@define(eq=False)
class Behind:
    """A server behind a URL."""

    subject: Subject
    relay: Relay
    _running: ExitStack = field(factory=ExitStack, init=False)

    async def start(self) -> None:
        assert self.subject.serve is not None
        await self.relay.lead_to(self._running.enter_context(self.subject.serve()))

    async def restart(self, client: GatewayClient, heard: Heard) -> None:
        await self.relay.shut()
        self._running.close()
        await self.start()

    def close(self) -> None:
        self._running.close()

    def server(self, options: Mapping[str, object]) -> Server:
        if self.subject.transport == "WebSocket":
            return WebSocket(self.relay.url)
        return Http(self.relay.url, **options)

    def sent(self) -> list[Sent]:
        if self.subject.transport == "WebSocket":
            return websocket_messages(self.relay.connections)
        return http_messages(self.relay.connections)


@asynccontextmanager
async def _started(subject: Subject, folder: Path) -> AsyncIterator[Process | Behind]:
    if subject.transport == "stdio":
        assert subject.command is not None
        yield Process(subject.command(folder), folder.with_suffix(".stdin"))
        return
    async with relay_to() as relay:
        behind = Behind(subject, relay)
        try:
            await behind.start()
            yield behind
        finally:
            behind.close()


# -- the script -----------------------------------------------------------------------------------


async def run_subject(subject: Subject, folder: Path) -> dict[str, Cell]:
    """Start the server, do everything with it; how each column went.

    :param folder: empty, for what the server and the client write.
    """
    home = folder / "home"
    for name, content in subject.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    home.mkdir(exist_ok=True)
    cells: dict[str, Cell] = {}
    facts = {"folder": str(home)}
    async with AsyncExitStack() as stack:
        if subject.beside is not None:
            facts["url"] = stack.enter_context(subject.beside(home))
        started = await stack.enter_async_context(_started(subject, home))
        heard = Heard()
        client = open_client(started.server(subject.options), folder / "audit", heard)
        async with client:
            with anyio.fail_after(LIMIT_S):
                agreed = await client.connect(PEER)
            assert agreed.version == subject.version, agreed.version
            run = Run(
                client=client,
                agreed=agreed,
                plan=subject.plan.filled(facts),
                restart=partial(started.restart, client, heard),
                heard=heard,
            )
            for operation in OPERATIONS:
                cells[operation.name] = await _cell(operation, run, subject)
        sent = started.sent()
    return {**cells, **_what_the_wire_shows(sent, subject)}


async def _cell(operation: Operation, run: Run, subject: Subject) -> Cell:
    why = subject.cannot.get(operation.name)
    if operation.needs and getattr(run.plan, operation.needs) is None:
        return await _untried(operation, run, why)
    try:
        with anyio.fail_after(LIMIT_S if why is None else CANNOT_S):
            await operation.does(run)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it goes into the cell
        text = f"{type(exc).__name__}: {exc}"
        return Cell("failed", text) if why is None else Cell("cannot", why)
    return Cell("works") if why is None else Cell("failed", f"it can, though listed as: {why}")


async def _untried(operation: Operation, run: Run, why: str | None) -> Cell:
    """Nothing of the server's is known that this could be done with: rightly so?"""
    advertised = operation.capability and run.advertises(*operation.capability)
    if not advertised or (operation.is_empty is not None and await operation.is_empty(run)):
        return Cell("not offered")
    return Cell("cannot", why) if why else Cell("failed", "advertised, and not tried")


def _what_the_wire_shows(sent: list[Sent], subject: Subject) -> dict[str, Cell]:
    seen = {each.answered_with for each in sent if each.method == "tools/call"}
    cells = {
        name: Cell("works" if media_type in seen else "not offered")
        for name, media_type in ANSWERS.items()
    }
    faults = faults_in(sent, subject.version)
    if not any(each.method == "tools/call" for each in sent):
        faults.append("no call was seen on the wire")
    cells[MESSAGES] = Cell("failed", "; ".join(faults[:3])) if faults else Cell("works")
    return cells
