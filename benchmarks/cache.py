"""What the cache of responses saves: the original's workload, with and without, as a ratio.

The workload is that of the original's integration report: the same lists asked for again and
again, ten times each. Both clients run in this process against one registry in a process of its
own, in interleaved rounds whose order is reversed each time; the medians are compared. Nothing
here passes or fails by time.

    python -m benchmarks.cache [--rounds 7] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from benchmarks.registry import registry
from sark_trio import AllowAll, AuditLog, CacheOptions, GatewayClient

#: Lists of one round, and how often each of them is asked for.
LISTS, REPEATS = 20, 10


async def one_round(url: str, cache: CacheOptions | None) -> dict[str, float]:
    """Every list, as often as the workload says, by a client that knows nothing yet."""
    with tempfile.TemporaryDirectory() as folder:
        client = GatewayClient(
            gateway_url=url, audit=AuditLog(Path(folder)), policy=AllowAll(), cache=cache
        )
        async with client:
            wall, cpu = time.perf_counter(), time.process_time()
            for page in range(1, LISTS // 2 + 1):
                for _ in range(REPEATS):
                    await client.list_servers(page)
                    await client.list_tools(page=page)
            calls = LISTS * REPEATS
            return {
                "ms_per_list": (time.perf_counter() - wall) * 1e3 / calls,
                "cpu_ms_per_list": (time.process_time() - cpu) * 1e3 / calls,
                "hit_rate": client.statistics().cache.hit_rate,
            }


def measure(rounds: int) -> list[dict[str, Any]]:
    """Both clients on both backends."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with registry() as url:
        for number in range(rounds):
            for backend in ("asyncio", "trio"):
                order = [("cached", CacheOptions()), ("not cached", None)]
                for name, options in order if number % 2 == 0 else reversed(order):
                    figures = anyio.run(one_round, url, options, backend=backend)
                    found.setdefault((backend, name), []).append(figures)
    return [
        {
            "backend": backend,
            "client": name,
            **{key: statistics.median(one[key] for one in figures) for key in figures[0]},
        }
        for (backend, name), figures in found.items()
    ]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: time of a list, and how often that is to be had without the cache."""
    base = {one["backend"]: one for one in results if one["client"] == "not cached"}
    lines = [
        "| backend | client | ms/list | CPU ms/list | hit rate | times faster | CPU saved |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        plain = base[one["backend"]]
        lines.append(
            f"| {one['backend']} | {one['client']} | {one['ms_per_list']:.3f} "
            f"| {one['cpu_ms_per_list']:.3f} | {one['hit_rate']:.0%} "
            f"| {plain['ms_per_list'] / one['ms_per_list']:.1f} "
            f"| {1 - one['cpu_ms_per_list'] / plain['cpu_ms_per_list']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="What the cache of responses saves.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments.rounds)
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
