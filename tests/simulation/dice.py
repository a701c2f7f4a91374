"""All chance of a run, and the script that takes some of it away.

Each point at which a fault may happen has a stream of chance of its own. So what happens at one
point does not depend on who asks at another, and a fault can be left out of a run while the
others stay where they were: that is what makes a failing run small.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable

from attrs import define, field, frozen

__all__ = ["POINT_SHARE", "STRIKE_SHARE", "Dice", "Script"]

#: Share of the fault points that a run has at all, and how often one of those strikes: rare
#: enough that calls succeed, often enough that faults meet each other (FoundationDB, BUGGIFY).
POINT_SHARE, STRIKE_SHARE = 0.25, 0.25


@frozen
class Script:
    """What a run is limited to. ``None``: everything that its seed says."""

    #: Numbers of the calls that are made.
    calls: frozenset[int] | None = None
    #: Names of the faults that happen, such as ``resets 3``: the third one there.
    faults: frozenset[str] | None = None
    #: Points that there are at all.
    points: frozenset[str] | None = None


@define(eq=False)
class Dice:
    """All chance of the run *seed* (see :class:`tests.simulation.network.Chaos`)."""

    seed: int
    script: Script = field(factory=Script)
    #: Told of each fault as it happens.
    on_strike: Callable[[str], None] = field(default=lambda _name: None)
    #: Faults that happened, in order; and how many there were by point.
    faults: list[str] = field(factory=list)
    struck: Counter[str] = field(factory=Counter)
    #: No faults any more: what is left must heal.
    healed: bool = False
    _points: dict[str, random.Random | None] = field(factory=dict)
    _drawn: Counter[str] = field(factory=Counter)
    _streams: dict[str, random.Random] = field(factory=dict)

    def strikes(self, point: str) -> bool:
        """Whether the fault *point* happens now."""
        if self.healed:
            return False
        try:
            chance = self._points[point]
        except KeyError:
            chance = self._points[point] = self._point(point)
        if chance is None or chance.random() >= STRIKE_SHARE:
            return False
        self._drawn[point] += 1
        name = f"{point} {self._drawn[point]}"
        if self.script.faults is not None and name not in self.script.faults:
            return False
        self.struck[point] += 1
        self.faults.append(name)
        self.on_strike(name)
        return True

    def exists(self, point: str) -> bool:
        """Whether *point* is a property of this run: drawn once, and no fault of its own."""
        return self._share(f" {point}") < POINT_SHARE

    def chance(self, what: str) -> random.Random:
        """As :meth:`stream`, for who draws from it in one go and never again."""
        return random.Random(f"{self.seed}: {what}")

    def stream(self, what: str) -> random.Random:
        """The chance of *what*, and of nothing else."""
        try:
            return self._streams[what]
        except KeyError:
            stream = self._streams[what] = self.chance(what)
            return stream

    def seconds(self, what: str, low: float, high: float) -> float:
        """A delay."""
        return low + self.stream(what).random() * (high - low)

    def size(self, what: str, most: int) -> int:
        """A number from 1 to *most*."""
        return 1 + int(self.stream(what).random() * most)

    def _point(self, point: str) -> random.Random | None:
        if self.script.points is not None and point not in self.script.points:
            return None
        return self.chance(point) if self._share(f"/{point}") < POINT_SHARE else None

    def _share(self, what: str) -> float:
        """A number from [0, 1) for a single question, at a tenth of what a generator costs."""
        digest = hashlib.sha256(f"{self.seed}{what}".encode()).digest()
        return int.from_bytes(digest[:6]) / (1 << 48)
