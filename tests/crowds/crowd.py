"""A thousand governed calls at once while a fault strikes, on real sockets, pipes and files."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import trustme

from sark_trio import AdaptiveConcurrency, AllowAll, AuditLog, GatewayClient
from sark_trio.client.servers import Server
from sark_trio.errors import GatewayError
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.audit_files import OsFileOps
from sark_trio.testing import no_leaks
from tests.crowds.fault import CALLS, Fault, World, is_safe, is_sick
from tests.crowds.front import Front
from tests.crowds.judge import judge, judge_log
from tests.support.client import ALICE
from tests.support.faulty import (
    AT_ONCE,
    NEVER,
    Faulty,
    described,
    do,
    faulty,
    free_port,
    is_idle,
)

__all__ = ["crowd"]

#: Longer than anything here takes on a loaded machine: a cell that gets there has hung.
HUNG_S = 100.0
#: Nobody's wait for a connection runs out because a machine is slow.
TEN = AdaptiveConcurrency(limit_min=10, limit_max=10, waiters_max=10_000, wait_s=300)
#: On which connections are pooled.
_POOLED = ("json", "events", "legacy", "sse")
_NETWORKED = (*_POOLED, "websocket")


class _Here:
    """The real file operations in the event loop itself: no thread of a busy machine is late."""

    in_memory = True

    def __getattr__(self, name: str) -> Any:
        return getattr(_REAL, name)


_REAL = OsFileOps()


async def crowd(fault: Fault, wire: str, folder: Path) -> World:
    """One cell: the world as it was left, after everything was looked at."""
    log = folder / "audit"
    with anyio.fail_after(HUNG_S):
        async with no_leaks(), AsyncExitStack() as stack:
            world = await _world(fault, wire, folder, stack)
            well = await stack.enter_async_context(
                faulty("json", on_call=_counting(world.arrived), concurrency=TEN)
            )
            if fault.options is not None:
                await _enter(stack, fault.options(world))
            servers = {"sick": _sick(fault, world), "well": well.server}
            async with _client(world, servers, log) as client:
                await _play(fault, world, client)
            for number in world.sick.numbers if wire == "stdio" else ():
                _counting(world.arrived)({"number": number})
            world.tasks.cancel_scope.cancel()
    judge(fault, world)
    judge_log(fault, world, log)
    if fault.check is not None:
        fault.check(world)
    return world


async def _enter(stack: AsyncExitStack, around: Any) -> None:
    if hasattr(around, "__aenter__"):
        await stack.enter_async_context(around)
    else:
        stack.enter_context(around)


def _counting(arrived: dict[int, int]) -> Callable[[Mapping[str, Any]], None]:
    def count(arguments: Mapping[str, Any]) -> None:
        number = arguments["number"]
        arrived[number] = arrived.get(number, 0) + 1

    return count


async def _world(fault: Fault, wire: str, folder: Path, stack: AsyncExitStack) -> World:
    """The sick server, with a relay before it where it is behind a URL."""
    arrived: dict[int, int] = {}
    facts: dict[str, Any] = {}
    options: dict[str, Any] = {**fault.servers}
    shows = _certified(facts, options) if fault.tls else None
    tasks = await stack.enter_async_context(anyio.create_task_group())
    wrapping: dict[str, Any] = {}
    world = World(wire, folder, Faulty(wire, Server()), tasks, arrived=arrived, facts=facts)
    if fault.wrap is not None:
        wrapping["wrap"] = fault.wrap(world)
    if wire == "sse":
        wrapping["endpoint"] = lambda number: facts.get("endpoint", f"/messages?session={number}")
    if wire in _POOLED:
        options["concurrency"] = TEN
    world.sick = await stack.enter_async_context(
        faulty(wire, shows=shows, on_call=_counting(arrived), **wrapping)
    )
    if wire in _NETWORKED:
        world._front = Front(free_port(), world.sick.listening.port, tasks)
        await world.front.listen()
        facts["options"] = options
    return world


def _certified(facts: dict[str, Any], options: dict[str, Any]) -> ssl.SSLContext:
    authority = facts["authority"] = trustme.CA()
    context = facts["shows"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    tls = options["tls"] = TLSOptions(ca_data=authority.cert_pem.bytes().decode())
    tls.context()  # here, or a worker thread would do it
    return context


def _sick(fault: Fault, world: World) -> Server:
    if world.wire not in _NETWORKED:
        return world.facts.get("server") or world.sick.server
    scheme = "https" if fault.tls else "http"
    url = fault.url or f"{scheme}://127.0.0.1:PORT/mcp"
    return described(
        world.wire, url.replace("PORT", str(world.front.port)), **world.facts["options"]
    )


@asynccontextmanager
async def _client(
    world: World, servers: Mapping[str, Server], log: Path
) -> AsyncIterator[GatewayClient]:
    own = dict(world.options)
    client = GatewayClient(
        servers=dict(servers),
        audit=AuditLog(log, queue_records_max=32_768, **{"files": _Here(), **own.pop("audit", {})}),
        principal=ALICE,
        timeout_s=300.0,
        **{"policy": AllowAll(), "breaker": NEVER, "retry": AT_ONCE, **own},
    )
    async with client:
        world._client = client
        yield client


async def _play(fault: Fault, world: World, client: GatewayClient) -> None:
    await client.list_tools("well")
    async with AsyncExitStack() as around:
        if fault.around is not None:
            await _enter(around, fault.around(world))
        world.facts["underway"] = 0
        try:
            async with anyio.create_task_group() as callers:
                for number in range(CALLS):
                    callers.start_soon(_call, fault, world, number)
                await _all_under_way(fault, world, callers)
                await fault.strike(world)
        except BaseExceptionGroup as group:
            if "crash" not in world.facts:
                raise
            _, others = group.split(lambda one: one is world.facts["crash"])
            if others is not None:
                raise others from None
    assert world.facts["underway"] == CALLS
    await is_idle(client)
    for name in ("sick", "well") if fault.heals else ("well",):
        await _works(world, name)
    await is_idle(client)


async def _works(world: World, name: str) -> None:
    """The next call succeeds, or the first after whatever has to pass has passed."""
    while True:
        try:
            found = await world.client.invoke_tool(
                name, "echo", {**do(n=41), "number": -1}, replay_safe=True
            )
        except GatewayError as exc:
            if not isinstance(exc, world.facts.get("passing", ())):
                raise
            await anyio.lowlevel.checkpoint()
        else:
            assert found.text == "41"
            return


async def _call(fault: Fault, world: World, number: int) -> None:
    hit = fault.hits(number)
    arguments = fault.says(number, world.wire) if hit else do(n=number)
    options: dict[str, Any] = {}
    if hit and fault.progress is not None:
        world.heard[number] = heard = []

        def listen(one: Any) -> None:
            heard.append(one.progress)
            fault.progress(one)

        options["on_progress"] = listen
    end: Any = None
    try:
        with anyio.CancelScope() as world.callers[number]:
            try:
                found = await world.client.invoke_tool(
                    "sick" if is_sick(number) else "well",
                    "echo",
                    {"number": number, **arguments},
                    replay_safe=is_safe(number),
                    timeout_s=fault.timeout_s if hit else None,
                    **options,
                )
                end = found.text
            except GatewayError as exc:
                end = exc
    finally:
        assert number not in world.ends
        world.ends[number] = end


async def _all_under_way(fault: Fault, world: World, callers: Any) -> None:
    """Until every call has begun, and as many are held by the sick server as it holds."""
    for _ in range(2):  # trio shuffles those who begin, and us among them
        await anyio.lowlevel.checkpoint()
    # Those that ended meanwhile began, too.
    world.facts["underway"] = world.client.statistics().running_calls + len(world.ends)
    if fault.says(0, world.wire).get("end") not in {"held", "hang"}:
        return
    wanted = 10 if world.wire in _POOLED else CALLS // 2
    while world.sick.effects < wanted and len(world.ends) < CALLS:
        await anyio.lowlevel.checkpoint()
