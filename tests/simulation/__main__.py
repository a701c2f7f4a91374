"""Run many seeds, or one of them closely.

python -m tests.simulation --seeds 20000            # in all cores; a summary at the end
python -m tests.simulation --seed 283 --trace       # one, twice, and everything it did
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from tests.simulation.world import Report, simulate

#: Failures that are printed in full; the others are counted.
SHOWN = 3


def _one(seed: int) -> Report | str:
    try:
        return simulate(seed)
    except Exception:  # noqa: BLE001 - whatever it is, it is this seed's finding
        return f"seed {seed}\n{traceback.format_exc()}"


def _all(seeds: range, jobs: int) -> Iterator[Report | str]:
    if jobs == 1:
        yield from map(_one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_one, seeds, chunksize=50)


def run_many(first: int, count: int, jobs: int) -> int:
    """Run the seeds; the number of those that broke a promise."""
    began, outcomes, struck = time.monotonic(), Counter[str](), Counter[str]()
    seconds, failures = 0.0, 0
    for found in _all(range(first, first + count), jobs):
        if isinstance(found, str):
            failures += 1
            if failures <= SHOWN:
                print(found, file=sys.stderr)
            continue
        outcomes.update(found.outcomes)
        struck.update(found.struck)
        seconds += found.seconds
    took = time.monotonic() - began
    print(f"{count} runs, {failures} broke a promise; {took:.0f} s for {seconds / 3600:.0f} hours")
    for title, counted in (("calls", outcomes), ("faults", struck)):
        print(f"{title}: {counted.total()}")
        for name, number in counted.most_common():
            print(f"  {number:9} {name}")
    return failures


def run_one(seed: int, *, trace: bool) -> int:
    """Run *seed* twice: whether it is the same both times, and what happened."""
    first, again = simulate(seed), simulate(seed)
    if trace:
        print("\n".join(first.lines))
    print(f"seed {seed}: {first.calls} calls in {first.seconds:.1f} s, trace {first.trace}")
    if first.trace != again.trace:
        print(f"NOT REPEATABLE: the second time {again.trace}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="print what it did")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        return run_one(options.seed, trace=options.trace)
    return 1 if run_many(options.first, options.seeds, options.jobs) else 0


if __name__ == "__main__":
    sys.exit(main())
