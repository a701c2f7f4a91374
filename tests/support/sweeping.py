"""Sweeps (:func:`sark_trio.testing.sweep`) as large as they are asked to be.

CI does what each test names. With ``SARK_SWEEP_SEEDS=8`` each is done for eight orders of ready
tasks, at every step; with ``SARK_SWEEP_REPORT=PATH`` what it did is added to that file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sark_trio import testing
from sark_trio.testing import Sweep
from sark_trio.testing.steps import Scenario

__all__ = ["sweep"]

_SEEDS = int(os.environ.get("SARK_SWEEP_SEEDS", "0"))


def sweep(scenario: Scenario, *, seeds: int = 1, every: int = 1, **options: Any) -> Sweep:
    """Cancel *scenario* at each step, or in CI at *every* so many, in *seeds* orders of tasks."""
    done = testing.sweep(
        scenario, seeds=range(max(seeds, _SEEDS)), every=1 if _SEEDS else every, **options
    )
    if report := os.environ.get("SARK_SWEEP_REPORT"):
        with Path(report).open("a") as file:
            file.write(f"{done.runs} {done.cancelled}\n")
    return done
