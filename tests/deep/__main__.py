"""The deep tier: the searches of CI again, as long as a night allows. Each part says its figure.

    python -m tests.deep                            # everything, for hours
    python -m tests.deep events kills --kills 2000  # these parts
    python -m tests.deep --events 100000            # each machine beside its oracle
    python -m tests.deep breaker --seed 77          # one of them, from that seed on

Parts are ``laws`` (tests/laws with ten thousand examples each), ``events`` (machines beside their
oracles), ``states`` (every reachable state of small machines), ``sweep`` (cancellation at every
step), ``kills``, ``throng`` (calls at once on real sockets), ``crowds`` (each row of the fault
matrix under a thousand calls), ``floods`` and ``fuzz``. Where a name is a machine's, only its
events are played. The exit status is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio

from tests.deep import kills
from tests.deep.events import MACHINES, play
from tests.deep.states import SEARCHES
from tests.support.glutton import GROWTH_BYTES_MAX, fed
from tests.support.throng import SERVERS, throng

ROOT = Path(__file__).parents[2]
BACKENDS = ("asyncio", "trio")
Options = argparse.Namespace


def _pytest(*arguments: str, **environ: str) -> str:
    """The last line of a run of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout.strip().splitlines()[-1]


def _laws(_: Options) -> Iterator[str]:
    last = _pytest("tests/laws", SARK_HYPOTHESIS_PROFILE="deep")
    yield f"laws: 10,000 examples of each property: {last}"


def _events(options: Options) -> Iterator[str]:
    for name in options.machines or MACHINES:
        yield play(name, options.events or 1_000_000, options.seed)


def _states(_: Options) -> Iterator[str]:
    for name, search in SEARCHES.items():
        yield f"states: {name}: {search()}: all obey"


def _sweep(options: Options) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        _pytest("tests/sweep", SARK_SWEEP_SEEDS=str(options.seeds), SARK_SWEEP_REPORT=str(report))
        lines = [line.split() for line in report.read_text().splitlines()]
    runs, cancelled = (sum(int(line[column]) for line in lines) for column in (0, 1))
    yield (
        f"sweep: {len(lines)} operations, {options.seeds} orders of tasks on trio: {runs:,} runs,"
        f" {cancelled:,} of them cancelled, 0 leaks"
    )


def _kills(options: Options) -> Iterator[str]:
    yield kills.writers(options.kills)
    yield kills.callers(options.kills)


def _throng(options: Options) -> Iterator[str]:
    for backend in BACKENDS:
        found = anyio.run(throng, options.calls, backend=backend)
        assert found.arrived == found.answered == Counter(range(options.calls))
        most = found.open_max
        assert len(most) == SERVERS
        assert max(most.values()) <= 10
        said = f"{options.calls:,} calls at once over {sum(most.values())} connections, none lost"
        yield f"throng: {backend}: {said}"


def _crowds(_: Options) -> Iterator[str]:
    last = _pytest("tests/drivers/rows/test_crowd.py", SARK_CROWDS="all")
    yield f"crowds: every row under 1,000 calls, on each transport and backend: {last}"


def _floods(options: Options) -> Iterator[str]:
    for backend in BACKENDS:
        for flood, said in anyio.run(fed, backend, options.mebibytes, backend=backend).items():
            assert said["grown_bytes"] <= GROWTH_BYTES_MAX, (flood, said)
            grown = said["grown_bytes"] / 2**20
            yield f"floods: {backend}: {options.mebibytes} MiB of {flood}: grew by {grown:.1f} MiB"


def _fuzz(options: Options) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fuzz", "--runs", str(options.runs)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    yield f"fuzz: {options.runs:,} inputs, nothing found"


PARTS: dict[str, Callable[[Options], Iterator[str]]] = {
    "laws": _laws,
    "events": _events,
    "states": _states,
    "sweep": _sweep,
    "kills": _kills,
    "throng": _throng,
    "crowds": _crowds,
    "floods": _floods,
    "fuzz": _fuzz,
}


def _options() -> Options:
    parser = argparse.ArgumentParser(
        prog="deep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = f"parts ({', '.join(PARTS)}) or machines ({', '.join(MACHINES)}); default: every part"
    parser.add_argument("names", nargs="*", help=names)
    parser.add_argument("--events", type=int, help="of each machine; alone: only these")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--seeds", type=int, default=8, help="orders of tasks in the sweep")
    parser.add_argument("--kills", type=int, default=2_000, help="of writers, and of clients")
    parser.add_argument("--calls", type=int, default=10_000, help="at once, in the throng")
    parser.add_argument("--mebibytes", type=int, default=1_024, help="of each flood")
    parser.add_argument("--runs", type=int, default=10_000_000, help="inputs of all fuzz targets")
    options = parser.parse_args()
    if unknown := set(options.names) - {*PARTS, *MACHINES}:
        parser.error(f"neither parts nor machines: {', '.join(sorted(unknown))}")
    options.machines = [name for name in options.names if name in MACHINES]
    parts = [name for name in options.names if name in PARTS]
    only_events = options.machines or options.events is not None
    options.parts = parts or (["events"] if only_events else list(PARTS))
    return options


def main() -> int:
    options, failed = _options(), list[str]()
    figures: list[str] = []
    for part in options.parts:
        began = time.monotonic()
        try:
            for figure in PARTS[part](options):
                print(figure, flush=True)
                figures.append(figure)
        except Exception:  # noqa: BLE001 -- the other parts are run nevertheless
            traceback.print_exc()
            failed.append(part)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print("\n".join(["", *figures, *(f"{part}: FAILED" for part in failed)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
