"""One client, one backend, one concurrency: makes calls and prints what they cost, as JSON.

Run by ``benchmarks/run.py``, each time in a process of its own, so that imports, garbage and
warm caches of one client cannot help or harm another.

    python benchmarks/client.py governed --url http://127.0.0.1:1234/mcp --backend trio
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio

Call = Callable[[int], Awaitable[str]]

POLICY = """
package mcp.gateway

default allow := false

allow if {
    input.action == "gateway:tool:invoke"
    "analyst" in input.user.roles
    input.tool.name == "echo"
}
"""


@asynccontextmanager
async def governed(url: str) -> AsyncIterator[Call]:
    """Our client with all that it exists for: policy, filter, breaker, retry, audit on disk."""
    from sark_trio import AuditLog, GatewayClient, Principal, Rego

    analyst = Principal(id="alice", kind="user", roles=("analyst",))
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"bench": url},
            policy=Rego(texts={"bench.rego": POLICY}),
            audit=AuditLog(Path(folder) / "audit"),
        ) as client:

            async def call(_: int) -> str:
                result = await client.invoke_tool(
                    "bench", "echo", {"text": "hi"}, principal=analyst
                )
                return result.text

            yield call


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Call]:
    """Our transport alone: MCP on our pool, nothing decided, nothing recorded."""
    from sark_trio.transports.base import Outgoing
    from sark_trio.transports.http import HttpTransport

    async with anyio.create_task_group() as task_group:
        transport = HttpTransport(url)
        await task_group.start(transport.run)

        async def call(_: int) -> str:
            params = {"name": "echo", "arguments": {"text": "hi"}}
            result = await transport.request(Outgoing(method="tools/call", params=params))
            return str(result["content"][0]["text"])

        yield call
        await transport.aclose()


@asynccontextmanager
async def h11(url: str) -> AsyncIterator[Call]:
    """No client at all: h11 on an anyio socket, one connection for each caller."""
    import h11 as library

    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    streams: dict[int, tuple[anyio.abc.SocketStream, library.Connection]] = {}
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": "hi"}},
        }
    ).encode()
    headers = [
        ("host", f"{host}:{port}"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("content-length", str(len(body))),
    ]

    async def call(worker: int) -> str:
        if worker not in streams:
            stream = await anyio.connect_tcp(host, port)
            streams[worker] = stream, library.Connection(library.CLIENT)
        stream, connection = streams[worker]
        head = connection.send(library.Request(method="POST", target="/mcp", headers=headers))
        payload = connection.send(library.Data(data=body))
        tail = connection.send(library.EndOfMessage())
        await stream.send(b"".join(part for part in (head, payload, tail) if part))
        parts = []
        while True:
            event = connection.next_event()
            if event is library.NEED_DATA:
                connection.receive_data(await stream.receive())
            elif isinstance(event, library.Data):
                parts.append(event.data)
            elif isinstance(event, library.EndOfMessage):
                connection.start_next_cycle()
                return str(json.loads(b"".join(parts))["result"]["content"][0]["text"])

    try:
        yield call
    finally:
        for stream, _ in streams.values():
            await stream.aclose()


@asynccontextmanager
async def sdk(url: str) -> AsyncIterator[Call]:
    """The official SDK's client."""
    from mcp.client import Client

    async with Client(url) as client:

        async def call(_: int) -> str:
            result = await client.call_tool("echo", {"text": "hi"})
            return str(result.content[0].text)

        yield call


CLIENTS = {client.__name__: client for client in (governed, bare, h11, sdk)}


async def measure(name: str, url: str, calls: int, concurrency: int) -> dict[str, float]:
    """Make *calls* calls by *concurrency* workers; each answer is checked."""
    latencies: list[float] = []

    async with CLIENTS[name](url) as call:
        left = 0

        async def worker(number: int) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                begin = time.perf_counter()
                if await call(number) != "hi":
                    sys.exit(f"{name}: wrong answer")
                latencies.append(time.perf_counter() - begin)

        async def round_of(count: int) -> None:
            nonlocal left
            left = count
            async with anyio.create_task_group() as task_group:
                for number in range(concurrency):
                    task_group.start_soon(worker, number)

        await round_of(max(concurrency * 4, calls // 10))  # connections, caches, bytecode
        latencies.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        await round_of(calls)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    latencies.sort()
    return {
        "calls_per_s": calls / wall,
        "cpu_us_per_call": cpu / calls * 1e6,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p95_ms": latencies[int(len(latencies) * 0.95)] * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=1)
    options = parser.parse_args()
    figures = anyio.run(
        measure,
        options.client,
        options.url,
        options.calls,
        options.concurrency,
        backend=options.backend,
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
