"""Make a failing run small: leave out calls and faults one after another while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import evolve, frozen

from tests.simulation.dice import Script
from tests.simulation.runs import sentence
from tests.simulation.world import Report, simulate

__all__ = ["Shrunk", "shrink"]

T = TypeVar("T", int, str)

#: Runs that one failure is worth.
RUNS_MAX = 400


@frozen
class Shrunk:
    """The least that still fails in the same way."""

    seed: int
    script: Script
    what: str
    report: Report
    error: BaseException
    runs: int

    def __str__(self) -> str:
        parts = {
            "calls": self.script.calls,
            "faults": self.script.faults,
            "points": self.script.points,
        }
        options = "".join(
            f" --{name} '{', '.join(map(str, sorted(part)))}'"
            for name, part in parts.items()
            if part is not None
        )
        made, struck = len(self.report.calls), len(self.report.faults)
        return (
            f"{self.what}\n{made} calls and {struck} faults of it fail in the same way "
            f"({self.runs} runs):\n  --seed {self.seed}{options}"
        )


def shrink(seed: int, *, runs_max: int = RUNS_MAX) -> Shrunk | None:
    """The smallest script that was found for which *seed* fails as it does; ``None``: it passes."""
    return _Search(seed, runs_max).run()


class _Search:
    def __init__(self, seed: int, runs_max: int) -> None:
        self.seed = seed
        self.left = runs_max
        self.runs = 0
        self.best: tuple[Report, BaseException] | None = None

    def run(self) -> Shrunk | None:
        failure = self._failure(Script())
        if failure is None:
            return None
        self.best = failure
        what = sentence(failure[1])
        script = self._without_points(Script(), what)
        script = self._without_calls(script, what)
        # From here on only what happened in the smallest run so far, by name.
        named = Script(script.calls, frozenset(self.best[0].faults))
        if self._fails(named, what):
            script = self._without_calls(self._without_faults(named, what), what)
        report, error = self.best
        return Shrunk(self.seed, script, what, report, error, self.runs)

    def _without_points(self, script: Script, what: str) -> Script:
        """Leave out all faults of a kind at once."""
        assert self.best is not None
        struck = self.best[0].struck
        return self._less(script, sorted(struck), what, lambda s, kept: evolve(s, points=kept))

    def _without_calls(self, script: Script, what: str) -> Script:
        assert self.best is not None
        made = self.best[0].calls
        return self._less(script, sorted(made), what, lambda s, kept: evolve(s, calls=kept))

    def _without_faults(self, script: Script, what: str) -> Script:
        faults = sorted(script.faults or ())
        return self._less(script, faults, what, lambda s, kept: evolve(s, faults=kept))

    def _less(
        self,
        script: Script,
        items: Sequence[T],
        what: str,
        using: Callable[[Script, frozenset[T]], Script],
    ) -> Script:
        """Leave out halves, then quarters, ... then single ones."""
        kept, size = list(items), max(1, len(items) // 2)
        while kept:
            at = 0
            while at < len(kept):
                fewer = kept[:at] + kept[at + size :]
                if self._fails(using(script, frozenset(fewer)), what):
                    kept = fewer
                else:
                    at += size
            if size == 1:
                break
            size //= 2
        return using(script, frozenset(kept))

    def _fails(self, script: Script, what: str) -> bool:
        if self.left <= 0:
            return False
        failure = self._failure(script)
        if failure is None or sentence(failure[1]) != what:
            return False
        self.best = failure
        return True

    def _failure(self, script: Script) -> tuple[Report, BaseException] | None:
        self.runs += 1
        self.left -= 1
        try:
            simulate(self.seed, script)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the finding
            return exc.__dict__["simulated"], exc
        return None
