"""One client, one server, a few steps: what happened, as JSON. Runs in each peer's own Python.

``python child.py PEER BACKEND`` reads a plan from stdin. Nothing but the standard library, anyio
and the peer itself is imported, and the peer is used as its first page says, with what it has by
default.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import logging
import os
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

#: Generous: what is asked is how much a client takes, not whether it can do with little.
MEMORY_BYTES_MAX = 6 << 30
#: For the event loop and for threads that were told to end.
SETTLE_S = 2.0
_RUNTIME = ("trio._core.", "trio._threads.", "<init>", "Init")

Call = Callable[[str, dict[str, Any], "float | None"], Awaitable[str]]


# -- the peers ------------------------------------------------------------------------------------


@asynccontextmanager
async def sark_trio(plan: dict[str, Any]) -> AsyncIterator[Call]:
    from sark_trio import AllowAll, GatewayClient, Http, Stdio

    there = "url" in plan
    server = Http(plan["url"], headers=plan["headers"]) if there else Stdio(plan["command"])
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(servers={"s": server}, policy=AllowAll(), audit=folder) as client:

            async def call(tool: str, arguments: dict[str, Any], timeout_s: float | None) -> str:
                found = await client.invoke_tool("s", tool, arguments, timeout_s=timeout_s)
                return found.text

            yield call


@asynccontextmanager
async def mcp(plan: dict[str, Any]) -> AsyncIterator[Call]:
    from mcp import Client, StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    @asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        if "command" in plan:
            command, *args = plan["command"]
            async with Client(StdioServerParameters(command=command, args=args)) as client:
                yield client
        elif plan["headers"]:
            async with create_mcp_http_client(headers=plan["headers"]) as http:
                transport = streamable_http_client(plan["url"], http_client=http)
                async with Client(transport) as client:
                    yield client
        else:
            async with Client(plan["url"]) as client:
                yield client

    async with connected() as client:

        async def call(tool: str, arguments: dict[str, Any], timeout_s: float | None) -> str:
            options = {} if timeout_s is None else {"read_timeout_seconds": timeout_s}
            return _text(await client.call_tool(tool, arguments, **options))

        yield call


@asynccontextmanager
async def fastmcp(plan: dict[str, Any]) -> AsyncIterator[Call]:
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport, StreamableHttpTransport

    transport: Any
    if "command" in plan:
        command, *args = plan["command"]
        # By default it keeps the process for the next client; here there is none.
        transport = StdioTransport(command, args, keep_alive=False)
    else:
        transport = StreamableHttpTransport(plan["url"], headers=plan["headers"])
    async with Client(transport) as client:

        async def call(tool: str, arguments: dict[str, Any], timeout_s: float | None) -> str:
            options = {} if timeout_s is None else {"timeout": timeout_s}
            return _text(await client.call_tool(tool, arguments, **options))

        yield call


def _text(result: Any) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


PEERS = {"sark_trio": sark_trio, "mcp": mcp, "fastmcp": fastmcp}


# -- the steps ------------------------------------------------------------------------------------


def described(exc: BaseException) -> dict[str, Any]:
    """What a caller gets, and in how many groups."""
    depth, inner = 0, exc
    while isinstance(inner, BaseExceptionGroup):
        depth, inner = depth + 1, inner.exceptions[0]
    message = " ".join(str(inner).split())[:160]
    delivery = getattr(inner, "delivery", None)
    found = {"kind": "error", "type": type(inner).__name__, "message": message, "groups": depth}
    retry_after_s = getattr(inner, "retry_after_s", None)
    return {**found, "delivery": delivery, "retry_after_s": retry_after_s}


async def step(call: Call, told: dict[str, Any], guard_s: float) -> dict[str, Any]:
    """One call, and how it ended; never longer than *guard_s*."""
    began = anyio.current_time()
    found: dict[str, Any] = {"kind": "unfinished"}
    limit_s = told.get("cancel_s") or guard_s
    with anyio.move_on_after(limit_s) as scope:
        try:
            tool = told.get("tool", "echo")
            text = await call(tool, told["arguments"], told.get("timeout_s"))
            found = {"kind": "answer", "text": text[:2_000]}
        except Exception as exc:  # noqa: BLE001 - whatever leaves is the finding
            found = described(exc)
    if scope.cancelled_caught and told.get("cancel_s"):
        found = {"kind": "cancelled"}
    return {**found, "s": round(anyio.current_time() - began, 3)}


async def together(
    call: Call, group: list[dict[str, Any]], guard_s: float, said: dict[str, Any]
) -> None:
    async def one(told: dict[str, Any]) -> None:
        if told.get("raises"):
            raise ValueError("of the application's own")
        # Replaced if it ends at all: a client that falls takes its callers along.
        said[told["label"]] = {"kind": "torn down"}
        said[told["label"]] = await step(call, told, guard_s)

    if len(group) == 1:
        await one(group[0])
        return
    async with anyio.create_task_group() as tasks:
        for told in group:
            tasks.start_soon(one, told)


async def perform(peer: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Connect, take the steps, close; what each of them came to, and what is left."""
    said: dict[str, Any] = {}
    importlib.import_module(peer)  # takes seconds, and is not what is timed
    before = alive()
    began = closing = anyio.current_time()
    peak = _Peak()
    block: dict[str, Any] = {"kind": "left"}
    try:
        async with PEERS[peer](plan) as call:
            if plan["warm"]:
                warm = {"label": "warm", "arguments": {"n": "warm"}}
                await together(call, [warm], plan["guard_s"], said)
            peak.begin()
            try:
                for group in plan["steps"]:
                    await together(call, group, plan["guard_s"], said)
            finally:
                closing = anyio.current_time()
    except Exception as exc:  # noqa: BLE001 - as above
        block = described(exc)
    ended = anyio.current_time()
    times = {"s": round(ended - began, 3), "close_s": round(ended - closing, 3)}
    return {
        "version": importlib.metadata.version(peer),
        "steps": said,
        "block": {**block, **times},
        "grown_mib": peak.end(),
        "left": await left_since(before),
    }


# -- what is left ---------------------------------------------------------------------------------


def alive() -> dict[str, str]:
    """Tasks, descriptors and child processes of this process."""
    found = {}
    for task in anyio.get_running_tasks():
        if not (task.name or "").startswith(_RUNTIME):
            found[f"task {task.id}"] = f"task {task.name}"
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(path)  # noqa: PTH115 - its text, not a path
        except OSError:
            continue
        if not target.startswith("anon_inode:[event"):
            found[f"fd {path.name}"] = f"descriptor {target.partition(':')[0]}"
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            children = listing.read_text().split()
        except OSError:
            continue
        found |= {f"child {pid}": "child process" for pid in children}
    return found


async def left_since(before: dict[str, str]) -> list[str]:
    left: list[str] = []
    with anyio.move_on_after(SETTLE_S):
        while left := _new(before):  # noqa: ASYNC110 - nothing tells of a descriptor's end
            await anyio.sleep(0.02)
    return left


def _new(before: dict[str, str]) -> list[str]:
    return sorted(what for key, what in alive().items() if before.get(key) != what)


class _Peak:
    """How far memory grew above what it was, at its highest."""

    def __init__(self) -> None:
        self._before_kib = 0

    def begin(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark, anew
        except OSError:
            return
        self._before_kib = _status_kib("VmRSS")

    def end(self) -> float | None:
        if not self._before_kib:
            return None
        return round(max(0, _status_kib("VmHWM") - self._before_kib) / 1024, 1)


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    peer, backend = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    logging.disable(logging.CRITICAL)
    plan = json.load(sys.stdin)
    if plan["collects"]:
        gc.enable()
    else:
        # What only the collector would close counts as left: it runs whenever it likes.
        gc.disable()
    found = anyio.run(perform, peer, plan, backend=backend)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
