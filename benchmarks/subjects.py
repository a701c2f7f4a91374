"""The five subjects of performance in the original's integration report, as ratios.

    latency     p50, p95 and p99 of a governed call, beside the same request on a bare socket
    cache       share of lookups answered at once, and what that saves
    throughput  calls by fifty at once over fifty connections, beside one after another
    memory      10,000 servers walked page by page, beside all of them collected
    pool        calls for each connection, and what a new one for each call would cost

The original's targets were times ("p95 below 100 ms"), which say more of a machine than of a
client. Here each figure has its baseline from the same run, in turns, and nothing passes or fails
by time; counts (hits, dials, answers, bytes) are what the same code is held to by
``tests/e2e/test_performance_subjects.py``.

    python -m benchmarks.subjects [--rounds 5] [--quick] [--json results.json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import h11

from benchmarks.client import POLICY
from benchmarks.registry import registry
from sark_trio import AllowAll, AuditLog, CacheOptions, GatewayClient, Principal, Rego

Figures = dict[str, float]
ANALYST = Principal(id="alice", kind="user", roles=("analyst",))
#: As many connections as the original's client has at most.
CONNECTIONS = 50
INVOKE = b'{"server":"server-0","tool":"echo","parameters":{"text":"hi"}}'


@asynccontextmanager
async def governed(url: str, **options: Any) -> AsyncIterator[GatewayClient]:
    """Our client with all that it exists for: policy in process, audit on disk, breaker, retry."""
    with tempfile.TemporaryDirectory() as folder:
        client = GatewayClient(
            gateway_url=url,
            audit=AuditLog(Path(folder) / "audit"),
            principal=ANALYST,
            **{"policy": Rego(texts={"bench.rego": POLICY}), **options},
        )
        async with client:
            yield client


async def call(client: GatewayClient, server: str = "server-0") -> None:
    """One governed call; its answer is checked."""
    found = await client.invoke_tool(server, "echo", {"text": "hi"})
    assert found.structured_content == {"echo": {"text": "hi"}}


class Bare:
    """No client at all: h11 on an anyio socket, and nothing decided or recorded."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = (str(parts.hostname), int(parts.port or 80))
        self.headers = [
            ("host", parts.netloc),
            ("content-type", "application/json"),
            ("content-length", str(len(INVOKE))),
        ]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """The same call on one connection, as often as one likes."""
        stream = await anyio.connect_tcp(*self.address)
        async with stream:
            connection = h11.Connection(h11.CLIENT)
            yield partial(self._call, stream, connection)

    async def fresh(self) -> None:
        """The same call on a connection of its own."""
        async with self.connected() as invoke:
            await invoke()

    async def _call(self, stream: anyio.abc.SocketStream, connection: h11.Connection) -> None:
        request = h11.Request(method="POST", target="/api/v1/invoke", headers=self.headers)
        parts = [connection.send(each) for each in (request, h11.Data(INVOKE), h11.EndOfMessage())]
        await stream.send(b"".join(part or b"" for part in parts))
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive())
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                connection.start_next_cycle()
                assert json.loads(body)["result"] == {"echo": {"text": "hi"}}
                return


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that it takes."""
    begun = time.perf_counter()
    await action()
    return (time.perf_counter() - begun) * 1e3


def percentiles(values: Iterable[float]) -> Figures:
    """``p50``, ``p95`` and ``p99``: the least of *values* that so many are not above."""
    ordered = sorted(values)
    return {f"p{n}": ordered[max(0, -(-len(ordered) * n // 100) - 1)] for n in (50, 95, 99)}


# -- the subjects -----------------------------------------------------------------------------


async def latency(url: str, *, calls: int = 1_000) -> Figures:
    """Governed calls one after another, each followed by a bare one."""
    async with governed(url) as client, Bare(url).connected() as bare:
        for _ in range(max(1, calls // 10)):  # connections, caches, bytecode
            await call(client)
            await bare()
        pairs = [(await timed(partial(call, client)), await timed(bare)) for _ in range(calls)]
    ours, theirs = (percentiles(column) for column in zip(*pairs, strict=True))
    return {
        "calls": calls,
        **{f"{name}_ms": value for name, value in ours.items()},
        **{f"bare_{name}_ms": value for name, value in theirs.items()},
        **{f"{name}_to_bare": ours[name] / theirs[name] for name in ("p50", "p95")},
    }


async def cache(url: str, *, lists: int = 20, repeats: int = 10) -> Figures:
    """The original's workload: the same lists again and again, each by a client that is new."""
    found: dict[str, Figures] = {}
    for name, options in (("cached", CacheOptions()), ("plain", None)):
        async with governed(url, policy=AllowAll(), cache=options) as client:

            async def ask(client: GatewayClient = client) -> None:
                for page in range(1, lists // 2 + 1):
                    for _ in range(repeats):
                        assert len(await client.list_servers(page)) == 100
                        assert len(await client.list_tools(page=page)) == 100

            took = await timed(ask)
            counted = client.statistics().cache
            found[name] = {
                "ms": took / (lists * repeats),
                "hits": counted.hits,
                "hit_rate": counted.hit_rate,
            }
    return {
        "lookups": lists * repeats,
        "hits": found["cached"]["hits"],
        "hit_rate": found["cached"]["hit_rate"],
        "cached_ms_per_list": found["cached"]["ms"],
        "plain_ms_per_list": found["plain"]["ms"],
        "times_faster": found["plain"]["ms"] / found["cached"]["ms"],
    }


async def throughput(url: str, *, calls: int = 2_000, connections: int = CONNECTIONS) -> Figures:
    """Calls by *connections* at once, and a tenth as many one after another."""
    async with governed(url, max_connections=connections) as client:
        answered = 0

        async def worker(share: int) -> None:
            nonlocal answered
            for _ in range(share):
                await call(client)
                answered += 1

        async def all_at_once() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(connections):
                    share = calls // connections + (number < calls % connections)
                    tasks.start_soon(worker, share)

        await worker(max(1, calls // 20))
        one_by_one = await timed(partial(worker, max(1, calls // 10)))
        answered = 0
        together = await timed(all_at_once)
        dials = client._gateway.pool.statistics().dials
    per_s, alone_per_s = calls / together * 1e3, max(1, calls // 10) / one_by_one * 1e3
    return {
        "calls": calls,
        "answered": answered,
        "dials": dials,
        "calls_per_s": per_s,
        "one_by_one_per_s": alone_per_s,
        "to_one_by_one": per_s / alone_per_s,
    }


async def memory(url: str, *, page_size: int = 100) -> Figures:
    """Peaks of traced memory: every server walked, and every server collected."""
    async with governed(url, policy=AllowAll(), cache=None) as client:
        count = 0
        for _ in range(2):  # the first walk warms up: connections, parsers, compiled bytecode
            gc.collect()
            tracemalloc.start()
            count = 0
            async for info in client.stream_servers(page_size=page_size):
                count += info.tools_count == 1
            walked = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        gc.collect()
        tracemalloc.start()
        everything = await client.list_all_servers(page_size=page_size)
        collected = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(everything) == count
    return {
        "servers": count,
        "walked_kib": walked / 1024,
        "collected_kib": collected / 1024,
        "walked_to_collected": walked / collected,
    }


async def pool(url: str, *, calls: int = 500, connections: int = 5) -> Figures:
    """Calls to several servers behind one gateway, ten at once, over few connections."""
    async with governed(url, max_connections=connections) as client:

        async def worker(number: int) -> None:
            for _ in range(calls // 10):
                await call(client, f"server-{number}")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(worker, number)
        counted = client._gateway.pool.statistics()
    bare = Bare(url)
    async with bare.connected() as reused:
        await reused()
        pairs = [(await timed(bare.fresh), await timed(reused)) for _ in range(calls // 5)]
    fresh, kept = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "calls": calls // 10 * 10,
        "dials": counted.dials,
        "held_at_the_end": counted.leased + counted.waiting + counted.granted,
        "calls_per_connection": calls // 10 * 10 / counted.dials,
        "fresh_to_kept": fresh / kept,
    }


SUBJECTS = {each.__name__: each for each in (latency, cache, throughput, memory, pool)}
#: How a quick run differs: does it run?
QUICK: dict[str, dict[str, int]] = {
    "latency": {"calls": 20},
    "cache": {"lists": 2, "repeats": 10},
    "throughput": {"calls": 100, "connections": 10},
    "memory": {},
    "pool": {"calls": 50},
}


# -- the run ----------------------------------------------------------------------------------


def measure(rounds: int, sizes: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Every subject on both backends, in interleaved rounds; the medians."""
    found: dict[tuple[str, str], list[Figures]] = {}
    with registry() as url:
        for number in range(rounds):
            backends = ("asyncio", "trio") if number % 2 == 0 else ("trio", "asyncio")
            for name, subject in SUBJECTS.items():
                for backend in backends:
                    run = partial(subject, url, **sizes.get(name, {}))
                    found.setdefault((name, backend), []).append(anyio.run(run, backend=backend))
    return [
        {
            "subject": name,
            "backend": backend,
            **{key: statistics.median(one[key] for one in figures) for key in figures[0]},
        }
        for (name, backend), figures in found.items()
    ]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one line for each subject and backend, its ratios and counts."""
    lines = ["| subject | backend | ratio or count |", "|---|---|---|"]
    said = {
        "latency": (
            "p50 {p50_ms:.2f} ms, p95 {p95_ms:.2f} ms: "
            "{p50_to_bare:.1f} and {p95_to_bare:.1f} times a bare socket's"
        ),
        "cache": "{hit_rate:.0%} of {lookups:.0f} lookups, {times_faster:.1f} times as fast",
        "throughput": (
            "{answered:.0f} of {calls:.0f} answered over {dials:.0f} connections, "
            "{calls_per_s:.0f}/s, {to_one_by_one:.1f} times one by one"
        ),
        "memory": (
            "{servers:.0f} servers walked in {walked_kib:.0f} KiB, "
            "{walked_to_collected:.0%} of collecting them"
        ),
        "pool": (
            "{calls_per_connection:.0f} calls for each of {dials:.0f} connections; "
            "a new one each would take {fresh_to_kept:.1f} times as long on a bare socket"
        ),
    }
    for one in results:
        text = said[one["subject"]].format(**one)
        lines.append(f"| {one['subject']} | {one['backend']} | {text} |")
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="The report's performance subjects, as ratios.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    results = measure(rounds, QUICK if options.quick else {})
    print(table(results))
    if options.json is not None:
        machine = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "rounds": rounds,
        }
        found = {"machine": machine, "results": results}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
