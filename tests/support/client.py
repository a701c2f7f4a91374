"""Clients for tests: a server in this process that is scripted, and a log in memory that is read.

What is in memory takes no time of its own, so that these tests run in virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field

from sark_trio import AllowAll, AuditLog, GatewayClient, Principal, jsontext
from sark_trio.client.servers import Memory
from sark_trio.governance.audit_chain import parse_frame, read_lines
from sark_trio.governance.audit_verify import Report, verify
from sark_trio.stores.audit import read_records, verify_directory
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk

__all__ = [
    "ALICE",
    "Desk",
    "Step",
    "answer",
    "audited",
    "check_log",
    "desk",
    "hang",
    "open_client",
    "outcomes",
    "records",
    "tool",
]

ALICE = Principal(id="alice", roles=("analyst",))

#: What a scripted call does: raise, answer, or run.
Step = BaseException | Mapping[str, Any] | Callable[[Incoming], Awaitable[Mapping[str, Any]]]


def tool(name: str = "echo", **members: Any) -> dict[str, Any]:
    """A tool's definition."""
    return {"name": name, "inputSchema": {"type": "object"}, **members}


def answer(text: str = "done", **members: Any) -> dict[str, Any]:
    """A tool's result."""
    return {"content": [{"type": "text", "text": text}], **members}


async def hang(incoming: Incoming) -> Mapping[str, Any]:
    """Take the request and never answer."""
    incoming.receive()
    await anyio.sleep_forever()
    raise AssertionError


@define(eq=False)
class Desk:
    """A server that does one scripted step a call, then answers ``done`` to all others."""

    script: list[Step] = field(factory=list)
    tools: list[dict[str, Any]] = field(factory=lambda: [tool()])
    #: Members beside ``tools`` of each answer to ``tools/list``.
    listing: dict[str, Any] = field(factory=dict)
    #: Steps for ``tools/list``; when there is none left, the list is given.
    list_script: list[Step] = field(factory=list)
    #: Arguments of each call that arrived, and when.
    arrived: list[dict[str, Any]] = field(factory=list)
    times: list[float] = field(factory=list)
    lists: int = 0
    #: Told of everything that arrives.
    journal: list[tuple[Any, ...]] = field(factory=list)

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        if incoming.method == "tools/list":
            return await self._list(incoming)
        self.times.append(anyio.current_time())
        return await self._perform(self.script.pop(0) if self.script else answer(), incoming)

    async def _list(self, incoming: Incoming) -> Mapping[str, Any]:
        self.lists += 1
        if self.list_script:
            return await self._perform(self.list_script.pop(0), incoming)
        incoming.receive()
        return {"tools": self.tools, **self.listing}

    async def _perform(self, step: Step, incoming: Incoming) -> Mapping[str, Any]:
        if callable(step):
            return await step(incoming)
        if isinstance(step, BaseException):
            if getattr(step, "delivery", "unknown") != "not_sent":
                self._take(incoming)
            raise step
        self._take(incoming)
        return step

    def _take(self, incoming: Incoming) -> None:
        params = incoming.receive()
        if incoming.method == "tools/call":
            self.journal.append(("arrived", params))
            self.arrived.append(params["arguments"])


def desk(*script: Step, **fields: Any) -> Desk:
    """A :class:`Desk` with that script."""
    return Desk(script=list(script), **fields)


@asynccontextmanager
async def open_client(
    server: Any, disk: MemoryDisk | None = None, **options: Any
) -> AsyncIterator[GatewayClient]:
    """A client of *server*, under the name ``desk``; options of the server are ``server_...``.

    Jitter is ½, so that delays are what the schedule names.
    """
    own = {name[7:]: options.pop(name) for name in list(options) if name.startswith("server_")}
    log: dict[str, Any] = {"on_alarm": options.pop("on_alarm")} if "on_alarm" in options else {}
    client = GatewayClient(
        servers={"desk": Memory(server, **own)},
        audit=AuditLog("log", files=disk or MemoryDisk(), **log),
        **{"policy": AllowAll(), "principal": ALICE, "jitter": lambda: 0.5, **options},
    )
    async with client:
        yield client


def records(log: MemoryDisk | Path) -> list[dict[str, Any]]:
    """All records, of a log in memory or in a directory."""
    if isinstance(log, Path):
        return list(read_records(log))
    found = []
    for name in sorted(log.contents):
        for line in read_lines([bytes(log.contents[name])]):
            parsed = parse_frame(line.data)
            assert not isinstance(parsed, str), parsed
            found.append(jsontext.decode(parsed.record))
    return found


def outcomes(log: MemoryDisk | Path) -> list[tuple[str, str]]:
    """Outcome and delivery of each call that has ended, in order."""
    return [(r["outcome"], r["delivery"]) for r in records(log) if r["kind"] == "outcome"]


def audited(log: MemoryDisk | Path, *kinds: str) -> list[dict[str, Any]]:
    """The records of those kinds."""
    return [record for record in records(log) if record["kind"] in kinds]


def check_log(log: MemoryDisk | Path) -> Sequence[dict[str, Any]]:
    """The log is whole, and each intent has one outcome that came after it; its records."""
    report: Report
    if isinstance(log, Path):
        report = verify_directory(log)
    else:
        report = verify((name, [bytes(log.contents[name])]) for name in sorted(log.contents))
    assert report.fault is None
    found = records(log)
    intents = {r["request_id"]: r["seq"] for r in found if r["kind"] == "intent"}
    ends = [(r["request_id"], r["seq"]) for r in found if r["kind"] == "outcome"]
    assert sorted(intents) == sorted(request_id for request_id, _ in ends)
    assert all(seq > intents[request_id] for request_id, seq in ends)
    return found
