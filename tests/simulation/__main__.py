"""Run many seeds, or one of them closely.

python -m tests.simulation --seeds 20000            # on all cores; a summary at the end
python -m tests.simulation --seed 283 --trace       # one, twice, and everything it did
python -m tests.simulation --hashes                 # one hash of many, to be compared
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.simulation.dice import Script
from tests.simulation.runs import Finding, only_ours, run_seeds
from tests.simulation.shrink import shrink
from tests.simulation.world import Report, simulate

#: Failures that are printed in full; the others are counted.
SHOWN = 3
#: Lines at the end of a trace that are printed with a failure.
TRACE_LINES = 60
#: Runs between two words on how far it has come.
PROGRESS = 1_000
_HASHES = "one hash of N seeds' traces (default: 200)"


def run_many(first: int, count: int, jobs: int) -> int:
    """Run the seeds; the number of those that broke a promise."""
    began, outcomes, struck = time.monotonic(), Counter[str](), Counter[str]()
    seconds, findings = 0.0, list[Finding]()
    for done, found in enumerate(run_seeds(range(first, first + count), jobs), 1):
        if done % PROGRESS == 0:
            print(f"{done} runs, {len(findings)} findings", file=sys.stderr, flush=True)
        if isinstance(found, Finding):
            findings.append(found)
            if len(findings) <= SHOWN:
                show(found)
            continue
        outcomes.update(found.outcomes)
        struck.update(found.struck)
        seconds += found.seconds
    took = time.monotonic() - began
    broke = f"{len(findings)} broke a promise"
    print(f"{count} runs, {broke}; {took:.0f} s for {seconds / 3600:.0f} hours")
    for what, number in Counter(one.what for one in findings).most_common():
        seeds = " ".join(str(one.seed) for one in findings if one.what == what)
        print(f"  {number:9} {what} (seeds {seeds[:80]})")
    for title, counted in (("calls", outcomes), ("faults", struck)):
        print(f"{title}: {counted.total()}")
        for name, number in counted.most_common():
            print(f"  {number:9} {name}")
    return len(findings)


def show(finding: Finding) -> None:
    """Print what happened, and the least that makes it happen."""
    print(finding, file=sys.stderr)
    if finding.what.startswith("Hung"):
        return
    small = shrink(finding.seed)
    if small is None:
        print(f"NOT REPEATABLE: seed {finding.seed} passes now", file=sys.stderr)
        return
    print("\n".join(small.report.lines[-TRACE_LINES:]), file=sys.stderr)
    print(small, file=sys.stderr, flush=True)


def run_one(seed: int, script: Script, *, trace: bool) -> int:
    """Run *seed* twice: whether it is the same both times, and what happened."""
    first, again = _one(seed, script), _one(seed, script)
    if trace:
        print("\n".join(first.lines))
    print(f"seed {seed}: {len(first.calls)} calls in {first.seconds:.1f} s, trace {first.trace}")
    if first.trace != again.trace:
        print(f"NOT REPEATABLE: the second time {again.trace}", file=sys.stderr)
        return 1
    return 0


def _one(seed: int, script: Script) -> Report:
    try:
        return simulate(seed, script)
    except Exception as exc:  # noqa: BLE001 - shown, with what led to it
        traceback.print_exc()
        return exc.__dict__["simulated"]


def run_hashes(first: int, count: int, noted: Path | None) -> int:
    """Print one hash of the traces of many seeds; it is the one that was *noted*, if one was."""
    only_ours()
    whole = hashlib.sha256()
    for seed in range(first, first + count):
        whole.update(simulate(seed).trace.encode())
    line = f"seeds {first} to {first + count - 1}: {whole.hexdigest()}"
    print(line, f"(Python {platform.python_version()})")
    if noted is None:
        return 0
    if not noted.exists():
        noted.write_text(line)
    if noted.read_text() == line:
        return 0
    print(f"NOT THE SAME as in {noted}:\n{noted.read_text()}", file=sys.stderr)
    return 1


def _numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",") if text else ()))


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="simulate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--calls", type=_numbers, help="of that one: these calls only")
    parser.add_argument("--faults", type=_names, help="... and these faults")
    parser.add_argument("--points", type=_names, help="... and faults of these kinds")
    parser.add_argument("--trace", action="store_true", help="print what it did")
    parser.add_argument("--hashes", type=int, metavar="N", nargs="?", const=200, help=_HASHES)
    parser.add_argument("--as-in", type=Path, metavar="FILE", help="... has to be the one in FILE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.hashes is not None:
        return run_hashes(options.first, options.hashes, options.as_in)
    if options.seed is not None:
        script = Script(options.calls, options.faults, options.points)
        return run_one(options.seed, script, trace=options.trace)
    return 1 if run_many(options.first, options.seeds, options.jobs) else 0


if __name__ == "__main__":
    sys.exit(main())
