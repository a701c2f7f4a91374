"""One probe with one peer: starts the server, runs the client, and judges what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from attrs import asdict, frozen

from tests.peers.provision import PEERS, ROOT
from tests.probes.desks import Desk
from tests.probes.probes import Facts, Probe, common, said, told

__all__ = ["COLUMNS", "Cell", "Column", "in_a_process", "plan_of", "play"]

CHILD: Final = Path(__file__).with_name("child.py")
#: Beyond what a probe's steps may take: importing, connecting, closing, on a busy machine.
HARD_LIMIT_S: Final = 60.0
#: For the server to hear that a call was given up.
TOLD_S: Final = 2.0


@frozen
class Column:
    """One client on one event loop."""

    peer: str
    backend: str
    #: The environment that it is in (``tests/peers/provision.py``); empty: this one.
    environment: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer} on {self.backend}"

    @property
    def python(self) -> str:
        if not self.environment:
            return sys.executable
        return str(PEERS[self.environment].root / "bin" / "python")

    @property
    def ready(self) -> bool:
        return not self.environment or PEERS[self.environment].ready


COLUMNS: Final = (
    Column("sark_trio", "trio"),
    Column("sark_trio", "asyncio"),
    Column("mcp", "trio", "mcp2"),
    Column("mcp", "asyncio", "mcp2"),
    Column("fastmcp", "asyncio", "fastmcp"),
)


@frozen
class Cell:
    """What one client did in one probe."""

    probe: str
    peer: str
    backend: str
    version: str
    happened: str
    #: What is not as it should be; nothing: it is clean.
    faults: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def clean(self) -> bool:
        return not self.faults


#: Runs a plan: ``await client(plan)`` is what ``child.perform`` answers.
Client = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def plan_of(probe: Probe, desk: Desk) -> dict[str, Any]:
    """What the client is told to do."""
    return {
        **desk.target,
        "headers": dict(probe.headers),
        "warm": probe.warm,
        "steps": probe.steps,
        "guard_s": probe.guard_s,
        "collects": probe.collects,
    }


async def play(probe: Probe, column: Column, client: Client, *, timed: bool = True) -> Cell:
    """Start the server of *probe*, let *client* loose on it, and judge.

    :param timed: how long it took counts, too.
    """
    async with probe.desk() as desk:
        found = await client(plan_of(probe, desk))
        if told in probe.checks and probe.wire == "HTTP":
            with anyio.move_on_after(TOLD_S):
                await desk.heard.wait()
        seen = {
            "executed": list(desk.executed),
            "told": list(desk.told),
            "gap_s": desk.gap_s,
            "strangers": desk.strangers,
            "secrets": desk.secrets,
        }
    if "steps" not in found:
        why = found["ended"]
        return Cell(probe.name, column.peer, column.backend, "", why, (why,), {**found, **seen})
    facts = Facts(
        steps={label: one for label, one in found["steps"].items() if label != "warm"},
        block=found["block"],
        left=found["left"],
        grown_mib=found["grown_mib"],
        seen=seen,
        guard_s=probe.guard_s,
    )
    own = (check(facts) for check in (*probe.checks, *(probe.timed if timed else ())))
    faults = (*(what for what in own if what), *common(facts))
    return Cell(
        probe.name,
        column.peer,
        column.backend,
        found["version"],
        _happened(probe, facts),
        tuple(dict.fromkeys(faults)),
        asdict(facts),
    )


def _happened(probe: Probe, facts: Facts) -> str:
    """It in a few words, with figures."""
    parts = [
        said(one) if label == "call" else f"{label}: {said(one)}"
        for label, one in facts.steps.items()
    ]
    block, seen = facts.block, facts.seen
    if block["kind"] == "error":
        when = "" if facts.steps else f" after {block['s']:.2f} s"
        parts.append(f"out of the block: {said(block)}{when}")
    times = seen["executed"].count("fault")
    if times:
        parts.append(f"executed {times} time{'s' if times > 1 else ''}")
    if seen["gap_s"] is not None and seen["gap_s"] >= 0:
        parts.append(f"sent again after {seen['gap_s']:g} s")
    if seen["told"]:
        parts.append(f"the server was told: {' and '.join(seen['told'])}")
    if seen["strangers"]:
        parts.append(f"the other origin: {seen['strangers']} requests, {seen['secrets']} secrets")
    if probe.collects and facts.grown_mib is not None:
        parts.append(f"{facts.grown_mib:+.0f} MiB at most")
    if block["close_s"] >= 1 and facts.steps:
        parts.append(f"closed in {block['close_s']:.1f} s")
    return "; ".join(parts)


def in_a_process(column: Column, probe: Probe) -> Client:
    """The client in a Python of its own, which is killed if it does not end."""

    async def client(plan: dict[str, Any]) -> dict[str, Any]:
        limit_s = HARD_LIMIT_S + probe.guard_s * sum(map(len, probe.steps))
        with anyio.move_on_after(limit_s):
            done = await anyio.run_process(
                [column.python, str(CHILD), column.peer, column.backend],
                input=json.dumps(plan).encode(),
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(column),
                check=False,
            )
            if done.returncode:
                return {"ended": f"the process ended with {done.returncode}"}
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return answer
        return {"ended": f"the process did not end within {limit_s:.0f} s, and was killed"}

    return client


def _environment(column: Column) -> dict[str, str]:
    plain = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    # Ours is a checkout; theirs are installed, and see nothing of it.
    return plain if column.environment else {**plain, "PYTHONPATH": str(ROOT)}
