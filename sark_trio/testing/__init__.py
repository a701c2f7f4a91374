"""Tools for testing what is built on this package, and the package itself.

- :mod:`sark_trio.testing.leaks`: the oracle: whatever a scenario opened is gone when it ends.
- :mod:`sark_trio.testing.steps`: runs a scenario again and again, and cancels it at every step
  that the scheduler takes.
"""

from __future__ import annotations

from sark_trio.testing.leaks import Census, Leaked, census, held, no_leaks
from sark_trio.testing.steps import Sweep, Victim, sweep

__all__ = [
    "Census",
    "Leaked",
    "Sweep",
    "Victim",
    "census",
    "held",
    "no_leaks",
    "sweep",
]
