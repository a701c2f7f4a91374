"""Our governed call beside what people would otherwise run, in one go, as ratios.

Machines are noisy, so figures of different runs say little: here every client is measured
against the same server in the same run, in interleaved rounds whose order is reversed each
time, and the medians are compared. Nothing here passes or fails by time.

    python benchmarks/run.py --sdk-python PATH [--quick] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Calls of one round: a slow client gets enough, a fast one does not end too soon.
CALLS = {"governed": 2000, "bare": 3000, "h11": 4000, "sdk": 800}
LABELS = {
    "governed": "sark_trio, governed",
    "bare": "sark_trio, bare transport",
    "h11": "h11 on an anyio socket",
    "sdk": "official SDK client",
}


@contextmanager
def server(cpu: int | None) -> Iterator[str]:
    """The upstream, in a process of its own and, where possible, on a core of its own."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pin(process.pid, cpu)
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def pin(pid: int, cpu: int | None) -> None:
    """Keep client and server from pushing each other off their cores."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {cpu})


def run_client(
    python: str, client: str, url: str, backend: str, concurrency: int, calls: int
) -> Any:
    """One round of one client."""
    done = subprocess.run(
        [
            python,
            str(HERE / "client.py"),
            client,
            f"--url={url}",
            f"--backend={backend}",
            f"--concurrency={concurrency}",
            f"--calls={calls}",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def measure(pythons: dict[str, str], rounds: int, scale: float) -> list[dict[str, Any]]:
    """All clients on both backends at both concurrencies."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    server_cpu = cores[1] if len(cores) > 1 else None
    if server_cpu is not None:
        os.sched_setaffinity(0, {cores[0]})
    cases = [(b, c) for b in ("asyncio", "trio") for c in (1, 32)]
    samples: dict[tuple[str, str, int], list[Any]] = {}
    with server(server_cpu) as url:
        for number in range(rounds):
            for backend, concurrency in cases:
                order = list(pythons.items())
                for client, python in order if number % 2 == 0 else reversed(order):
                    calls = int(CALLS[client] * scale)
                    figures = run_client(python, client, url, backend, concurrency, calls)
                    samples.setdefault((client, backend, concurrency), []).append(figures)
                    print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [
        {
            "client": client,
            "backend": backend,
            "concurrency": concurrency,
            **{key: statistics.median(one[key] for one in figures) for key in figures[0]},
        }
        for (client, backend, concurrency), figures in samples.items()
    ]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: calls per second, CPU, and the ratio to the SDK and to the socket."""
    by_key = {(r["client"], r["backend"], r["concurrency"]): r for r in results}
    lines = [
        "| backend | c | client | calls/s | CPU µs/call | p50 ms | p95 ms | to SDK | to h11 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: (r["backend"], r["concurrency"])):
        ratios = []
        for other in ("sdk", "h11"):
            base = by_key.get((other, r["backend"], r["concurrency"]))
            ratios.append(f"{r['calls_per_s'] / base['calls_per_s']:.2f}" if base else "-")
        lines.append(
            f"| {r['backend']} | {r['concurrency']} | {LABELS[r['client']]} "
            f"| {r['calls_per_s']:,.0f} | {r['cpu_us_per_call']:.0f} "
            f"| {r['p50_ms']:.2f} | {r['p95_ms']:.2f} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk-python", help="interpreter that has the official SDK 2.x")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    pythons = dict.fromkeys(("governed", "bare", "h11"), sys.executable)
    if options.sdk_python:
        pythons["sdk"] = options.sdk_python
    else:
        print("no --sdk-python: the official SDK is left out", file=sys.stderr)
    rounds, scale = (1, 0.1) if options.quick else (options.rounds, 1.0)
    results = measure(pythons, rounds, scale)
    print(table(results))
    if options.json:
        machine = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "rounds": rounds,
        }
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
