"""``sark demo``: what the product promises, shown on real servers and checked at each step."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio

from sark_trio.cli.demo.machinery import (
    OPEN_S,
    Failed,
    Stage,
    Step,
    directory_server,
    make_client,
)
from sark_trio.cli.output import Output, visible
from sark_trio.cli.running import run
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    Denied,
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    ProcessExited,
)
from sark_trio.stores.audit import read_records, verify_directory

__all__ = ["tell"]

_Error = TypeVar("_Error", bound=GatewayError)
#: Given to a tool that has no use for it; nobody may see it afterwards.
_SECRET = "correct-horse-battery-staple"  # noqa: S105 - it opens nothing


def tell(options: argparse.Namespace, output: Output) -> int:
    """Tell the story; 1 if a step of it does not hold."""
    output.line(f"sark demo on {options.backend}: two real servers, one policy, one audit log\n")
    try:
        run(_tell, backend=options.backend)
    except Failed as exc:
        print(f"    FAILED  {exc}", file=sys.stderr)
        return 1
    output.line("\nall as it should be")
    return 0


async def _tell() -> None:
    with tempfile.TemporaryDirectory(prefix="sark-demo-") as name:
        folder = Path(name)
        async with directory_server() as directory:
            client = make_client(folder, directory.url)
            stage = Stage(client, directory, folder, lambda text: print(visible(text)))
            async with client:
                for step in _STEPS:
                    await _perform(step, stage)
                pid = _pid(stage)
            await _perform(_nothing_left(pid), stage)
        await _perform(_audit, stage)


async def _perform(step: Step, stage: Stage) -> None:
    stage.steps += 1
    stage.say(f"{stage.steps}. {step.__doc__}")
    try:
        with anyio.fail_after(10):
            await step(stage)
    except GatewayError as exc:
        raise Failed(f"{type(exc).__name__}: {exc}") from exc
    except TimeoutError as exc:
        raise Failed("it took more than 10 s") from exc


async def _refused(kind: type[_Error], call: Callable[[], Awaitable[Any]]) -> _Error:
    """The error that *call* must end with."""
    try:
        await call()
    except kind as exc:
        return exc
    raise Failed(f"expected {kind.__name__}, but the call succeeded")


# -- the steps --------------------------------------------------------------------------------


async def _allowed(stage: Stage) -> None:
    """An analyst queries a database behind a stdio server"""
    listing = await stage.client.list_tools()
    names = sorted(f"{tool.server_name}/{tool.tool_name}" for tool in listing)
    stage.say(f"    tools: {', '.join(names)}")
    result = await stage.client.invoke_tool("database", "query", {"sql": "select * from people"})
    stage.check("allowed: three people came back", holds=len(_rows(result)) == 3)


async def _denied(stage: Stage) -> None:
    """The same analyst and tool, but the statement destroys: Rego decides on the arguments"""

    async def destroy() -> None:
        await stage.client.invoke_tool("database", "query", {"sql": "DROP TABLE people"})

    error = await _refused(Denied, destroy)
    stage.say(f"    {error}")
    stage.check("nothing was sent", holds=error.delivery == "not_sent")
    count = await stage.client.invoke_tool("database", "query", {"sql": "select * from people"})
    stage.check("the table is still there", holds=len(_rows(count)) == 3)


async def _stripped(stage: Stage) -> None:
    """A secret parameter is stripped before the call leaves"""
    arguments = {"sql": "select 1 as one", "password": _SECRET}
    result = await stage.client.invoke_tool("database", "query", arguments)
    arrived = result.structured_content["arguments"]
    stage.check(f"the server saw only {arrived}", holds=arrived == ["sql"])


async def _redacted(stage: Stage) -> None:
    """Personal data in a result of an HTTP server is redacted"""
    result = await stage.client.invoke_tool("directory", "lookup", {"name": "ada lovelace"})
    stage.say(f"    {result.text}")
    shown = result.text + str(result.structured_content)
    stage.check("no mail address, no card number", holds="@" not in shown and "4111" not in shown)


async def _killed(stage: Stage) -> None:
    """The stdio server is killed in the middle of a call"""
    before = _pid(stage)
    assert before is not None

    async def report() -> None:
        await stage.client.invoke_tool(
            "database", "report", on_progress=lambda _: os.kill(before, signal.SIGKILL)
        )

    error = await _refused(OutcomeUnknown, report)
    stage.say(f"    {error}")
    cause = error.__cause__
    stage.check("the caller knows that it may have run", holds=error.delivery == "unknown")
    stage.check("and why", holds=isinstance(cause, ProcessExited) and cause.exit_code == -9)
    result = await stage.client.invoke_tool("database", "query", {"sql": "select * from people"})
    stage.check("the next call is served", holds=len(_rows(result)) == 3)
    stage.check("by a new process", holds=_pid(stage) not in {None, before})


async def _tripped(stage: Stage) -> None:
    """A sick HTTP server trips its circuit breaker, and only its own"""
    await stage.directory.say("sick")
    before = int(await stage.directory.say("count"))
    for _ in range(5):
        failure = await _refused(HTTPStatusError, lambda: _lookup(stage))
        if failure.status != 503:
            raise Failed(f"expected status 503, got {failure.status}")
    stage.check("closed until the fifth failure, then open", holds=_breaker(stage) == "open")
    refusal = await _refused(CircuitOpen, lambda: _lookup(stage))
    stage.say(f"    {refusal}")
    wait_s = refusal.retry_after_s or 0.0
    stage.check("it says how long to wait", holds=0 < wait_s <= OPEN_S)
    after = int(await stage.directory.say("count"))
    stage.check("the server saw five calls, not six", holds=after - before == 5)
    other = await stage.client.invoke_tool("database", "query", {"sql": "select * from people"})
    stage.check("the other server never noticed", holds=len(_rows(other)) == 3)
    await stage.directory.say("well")
    await anyio.sleep(wait_s)
    await _lookup(stage)
    stage.check("after the wait a probe passes", holds=_breaker(stage) == "half_open")
    await _lookup(stage)
    stage.check("and the second one closes it", holds=_breaker(stage) == "closed")


async def _cut_off(stage: Stage) -> None:
    """A deadline and a cancellation leave nothing behind"""
    await stage.directory.say("slow")

    async def slow() -> None:
        await stage.client.invoke_tool(
            "directory", "lookup", {"name": "grace hopper"}, timeout_s=0.3
        )

    error = await _refused(CallTimeout, slow)
    stage.say(f"    {error}")
    with anyio.move_on_after(0.2) as scope:
        await _lookup(stage)
    stage.check("the caller's own cancellation is its own", holds=scope.cancelled_caught)
    await stage.directory.say("well")
    statistics = stage.client.statistics()
    pool = statistics.servers["directory"].wire.details["pool"]
    stage.check("no call is running", holds=statistics.running_calls == 0)
    stage.check("no connection is leased", holds=pool["leased"] == 0)
    stage.check("no intent is open", holds=statistics.audit.open_intents == 0)


def _nothing_left(pid: int | None) -> Step:
    async def closed(stage: Stage) -> None:
        """The client is closed"""
        stage.check("the child process is gone", holds=pid is not None and not _lives(pid))

    return closed


async def _audit(stage: Stage) -> None:
    """The audit log is a hash chain"""
    log, checkpoints = stage.folder / "audit", stage.folder / "checkpoints"
    report = verify_directory(log, checkpoints)
    stage.check(f"{report.records} records, every link holds", holds=report.ok)
    stage.check("the secret is in none of them", holds=_SECRET.encode() not in _read(log))
    forged = _forge(log, stage.folder / "copy")
    fault = verify_directory(forged, checkpoints).fault
    if fault is None:
        raise Failed("a changed byte was not found")
    stage.say(f"    one byte of a copy changed; record {fault.index}: {fault.reason}")
    denied = next(one["seq"] for one in read_records(log) if one["kind"] == "denied")
    stage.check("found, and at its record", holds=fault.index == denied)


def _read(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file())


def _forge(log: Path, copy: Path) -> Path:
    """A copy of the log in which somebody asked for another table to be dropped."""
    shutil.copytree(log, copy)
    for segment in copy.iterdir():
        segment.write_bytes(
            segment.read_bytes().replace(b"DROP TABLE people", b"DROP TABLE peopLe")
        )
    return copy


_STEPS: tuple[Step, ...] = (
    _allowed,
    _denied,
    _stripped,
    _redacted,
    _killed,
    _tripped,
    _cut_off,
)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _lookup(stage: Stage) -> Any:
    return await stage.client.invoke_tool("directory", "lookup", {"name": "grace hopper"})


def _rows(result: Any) -> list[Any]:
    return list(result.structured_content["rows"])


def _pid(stage: Stage) -> int | None:
    pid = stage.client.statistics().servers["database"].wire.details["pid"]
    return pid if isinstance(pid, int) else None


def _breaker(stage: Stage) -> str:
    return stage.client.statistics().servers["directory"].breaker.state.value
