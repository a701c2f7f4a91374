"""A tier of the simulation that fits into CI, its regressions, and what a seed is."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.dice import Script
from tests.simulation.plan import SERVERS
from tests.simulation.runs import as_before, only_ours
from tests.simulation.world import simulate

#: `python -m tests.simulation --seeds 100000` is the deep tier.
SEEDS, AT_ONCE = 20_000, 250
#: Seeds between two collections.
TIDY = 25
#: What there is in each portion at least, which is half or less of what is usual: answers of each
#: kind of server, changes that were heard of each kind, faults, kinds of faults, calls of a world.
ANSWERED, HEARD, STRUCK, POINTS, LARGEST = 40, 15, 1_000, 45, 15


@pytest.fixture(autouse=True, scope="module")
def _only_ours() -> Iterator[None]:
    only_ours()
    yield
    as_before()


@pytest.mark.row(2, 5, 8, 10, 16, 19, 20, 26, 27, 29, 30, 34, 36, 37, 40, 41, 42, 43, 45, 46)
@pytest.mark.row(49, 52, 64)
@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_promise_is_broken(first: int) -> None:
    answered, heard, struck, largest = Counter[str](), Counter[str](), Counter[str](), 0
    for seed in range(first, first + AT_ONCE):
        report = simulate(seed)
        answered += report.answered
        heard += report.heard
        struck += report.struck
        largest = max(largest, len(report.calls))
        if seed % TIDY == 0:
            gc.collect()
    # Some of everything: a world in which nothing works proves as little as one without faults.
    assert min(answered[name[0]] for name in SERVERS) > ANSWERED
    assert min(heard["tools"], heard["resource"]) > HEARD
    assert struck.total() > STRUCK
    assert len(struck) > POINTS
    assert largest > LARGEST


#: Beyond those above: each broke a promise, of the client's or of a checker's.
@pytest.mark.parametrize("seed", [11741, 13905, 14408, 14464, 20951, 78013, 95461])
def test_what_was_broken_once_is_not_broken_again(seed: int) -> None:
    simulate(seed)


def test_a_seed_repeats_itself_in_this_process_and_in_another() -> None:
    here = simulate(7).trace
    assert simulate(7).trace == here
    code = "from tests.simulation.world import simulate; print(simulate(7).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here
    assert simulate(8).trace != here


def test_a_script_leaves_out_what_it_does_not_name() -> None:
    whole = simulate(3)
    assert simulate(3, Script(frozenset(whole.calls), frozenset(whole.faults))).trace == whole.trace
    some = frozenset(whole.faults[:1])
    part = simulate(3, Script(frozenset(whole.calls[:2]), some))
    assert part.calls == whole.calls[:2]
    assert set(part.faults) <= some
    assert simulate(3, Script(frozenset(), frozenset())).calls == ()


def test_many_seeds_run_in_several_processes() -> None:
    """They have to import what they run, which is nothing of a ``__main__``."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "4", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.startswith("4 runs, 0 broke a promise; ")
    assert "answered" in done.stdout


def elsewhere(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own: those that it starts end with it."""
    lines = f"from tests.simulation.runs import run_seeds\n{code}"
    command = [sys.executable, "-c", lines]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_a_worker_that_dies_is_an_error() -> None:
    done = elsewhere("import os; list(run_seeds(range(3), 2, work=os._exit))")
    assert done.returncode == 1
    assert "BrokenProcessPool" in done.stderr


def test_a_run_that_hangs_is_a_finding() -> None:
    done = elsewhere(
        "import time\n"
        "(found,) = run_seeds(range(10**6, 10**6 + 1), 1, work=time.sleep, seed_s=1)\n"
        "print(found.seed, found.what)"
    )
    assert done.stdout == "1000000 Hung: the run takes longer than any should\n"
