"""Many seeds in several processes. A worker that dies or hangs is a finding, with its seeds."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from types import FrameType

from attrs import frozen

from tests.simulation.world import Report, simulate

__all__ = ["Finding", "Hung", "as_before", "only_ours", "run_seeds", "sentence"]

Work = Callable[[int], Report]

#: Seeds that one worker is given at a time.
CHUNK = 20
#: Real seconds for one seed, which takes some hundredths of one: who needs more hangs.
SEED_S = 30


class Hung(BaseException):
    """A run that does not come to its end. Nothing on the way may catch it."""


@frozen
class Finding:
    """A seed that broke a promise, and how."""

    seed: int
    #: The sentence of the promise: equal for equal findings.
    what: str
    traceback: str

    def __str__(self) -> str:
        return f"seed {self.seed}\n{self.traceback}"


def only_ours() -> None:
    """Let collections look at what comes from now on, and not at modules: half of a run's time.

    None begins by itself: a run's oracle wants that, and it need not be made for each run.
    """
    gc.disable()
    gc.collect()
    gc.freeze()


def as_before() -> None:
    """Undo :func:`only_ours`."""
    gc.unfreeze()
    gc.enable()


def sentence(exc: BaseException) -> str:
    """What is wrong, without the particulars."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    words = str(exc).partition(". ")[0]
    return f"{type(exc).__name__}: {''.join(c for c in words if not c.isdigit())[:80]}"


def run_seeds(
    seeds: range, jobs: int, *, work: Work = simulate, seed_s: int = SEED_S
) -> Iterator[Report | Finding]:
    """What came of each of *seeds*, in no order that means anything.

    :param work: what is done with a seed, which a new process must be able to import.
    :param seed_s: real seconds that one may take.
    :raises BrokenProcessPool: a worker died.
    """
    if jobs == 1:
        _begin()
        for seed in seeds:
            yield _timed(work, seed, seed_s)
            if seed % CHUNK == 0:
                gc.collect()
        return
    chunks = iter([seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=_begin) as pool:
        under_way: set[Future[list[Report | Finding]]] = set()
        while True:
            for chunk in islice(chunks, 2 * jobs - len(under_way)):
                under_way.add(pool.submit(_run_chunk, work, chunk, seed_s))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()


def _begin() -> None:
    """Get a process ready for many seeds."""
    signal.signal(signal.SIGALRM, _hung)
    only_ours()


def _run_chunk(work: Work, seeds: range, seed_s: int) -> list[Report | Finding]:
    found = [_timed(work, seed, seed_s) for seed in seeds]
    gc.collect()
    return found


def _timed(work: Work, seed: int, seed_s: int) -> Report | Finding:
    # The alarm says where it hangs; if it does not get through, the process says so, and ends.
    signal.alarm(seed_s)
    faulthandler.dump_traceback_later(2 * seed_s, exit=True)
    try:
        return work(seed)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it is this seed's finding
        return Finding(seed, sentence(exc), traceback.format_exc())
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)


def _hung(_signum: int, _frame: FrameType | None) -> None:
    raise Hung("the run takes longer than any should")
