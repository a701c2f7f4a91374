"""Performance's five subjects of the original's integration report, one test each, by counts.

How fast something is says more of a machine than of a client: ``nox -s bench -- subjects`` measures
that, as ratios. The same code runs here, where what it counts is held to the report's promises.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from benchmarks import subjects
from benchmarks.registry import registry as fast_registry
from sark_trio import AllowAll, AuditLog, GatewayClient
from sark_trio.client.servers import Memory
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log, outcomes, tool
from tests.support.gateway import serving
from tests.support.http_servers import serve
from tests.support.registry import HUNG_S, RegistryDesk, base_of, registry
from tests.tidy.source import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ten_thousand() -> Iterator[str]:
    """A gateway in a process of its own, with 10,000 servers."""
    with fast_registry() as url:
        yield url


async def echo(incoming: Incoming) -> Mapping[str, Any]:
    """A server that says again what it is told."""
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [tool()]}
    said = {"echo": params["arguments"]}
    return {"content": [{"type": "text", "text": "hi"}], "structuredContent": said}


@asynccontextmanager
async def gateway(disk: MemoryDisk) -> AsyncIterator[str]:
    """A gateway of ours with one server."""
    client = GatewayClient(
        servers={"server-0": Memory(echo)},
        policy=AllowAll(),
        audit=AuditLog("log", files=disk),
    )
    async with client, serving(client) as served:
        yield served.url


async def test_http_latency_benchmark(ten_thousand: str) -> None:
    """Percentiles of every governed call, beside those of the same request on a bare socket."""
    assert subjects.percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert subjects.percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    found = await subjects.latency(ten_thousand, calls=20)
    for whose in ("", "bare_"):
        assert 0 < found[f"{whose}p50_ms"] <= found[f"{whose}p95_ms"] <= found[f"{whose}p99_ms"]
    for name in ("p50", "p95"):
        assert found[f"{name}_to_bare"] == found[f"{name}_ms"] / found[f"bare_{name}_ms"]


async def test_cache_hit_rate_benchmark() -> None:
    """Above the report's 80 % on the report's workload, and the gateway counts the same."""
    async with registry(RegistryDesk(servers=200)) as (shown, url):
        found = await subjects.cache(url, lists=2, repeats=10)
    assert (found["lookups"], found["hits"]) == (20, 18)
    assert found["hit_rate"] == 0.9
    # One request a list with the cache, ten without.
    assert shown.asked == {"/api/v1/servers": 11, "/api/v1/tools": 11}


async def test_concurrent_throughput_benchmark() -> None:
    """Every call of many at once is answered, decided and recorded, over few connections."""
    disk = MemoryDisk()
    with anyio.fail_after(HUNG_S):
        async with gateway(disk) as url:
            found = await subjects.throughput(url, calls=300, connections=30)
    assert found["answered"] == found["calls"] == 300
    # None is closed between two calls, though all may be idle while the log is written.
    assert found["dials"] <= 30
    assert outcomes(disk) == [("ok", "answered")] * (15 + 30 + 300)
    check_log(disk)


async def test_memory_efficiency(ten_thousand: str) -> None:
    """Ten times the report's servers, in the memory of a few pages of a hundred."""
    found = await subjects.memory(ten_thousand)
    assert found["servers"] == 10_000
    assert found["walked_kib"] < 600
    assert found["walked_to_collected"] < 0.25


async def test_connection_pool_efficiency() -> None:
    """Ten callers of ten servers share five connections, and none is left in use."""
    shown = RegistryDesk(servers=10)
    with anyio.fail_after(HUNG_S):
        async with serve(shown) as server:
            found = await subjects.pool(base_of(server), calls=200, connections=5)
            own = server.connections - 1 - 200 // 5  # but those of the bare socket
    assert len(shown.invoked) - 1 - 2 * 200 // 5 == found["calls"] == 200
    assert own == found["dials"] <= 5
    assert found["calls_per_connection"] >= 40
    assert found["held_at_the_end"] == 0


def test_figures_that_are_kept_are_of_every_subject() -> None:
    """What a run wrote names each subject on both backends, and can be read again."""
    (kept, *_) = sorted((ROOT / "benchmarks" / "results").glob("subjects-*.json"), reverse=True)
    results = json.loads(kept.read_text())["results"]
    named = sorted((one["subject"], one["backend"]) for one in results)
    assert named == sorted((each, on) for each in subjects.SUBJECTS for on in ("asyncio", "trio"))
    assert subjects.table(results).count("\n") == len(results) + 1
