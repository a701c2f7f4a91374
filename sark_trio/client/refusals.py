"""The error of a call that a circuit breaker refuses."""

from __future__ import annotations

from sark_trio.errors import CircuitOpen
from sark_trio.machines.circuit import Reject

__all__ = ["circuit_open"]


def circuit_open(rejected: Reject, name: str) -> CircuitOpen:
    """What *rejected* is for whoever called; *name* is of the server, or empty."""
    wait = rejected.retry_after_s
    when = "" if wait is None else f"; try again in {wait:.1f} s"
    what = f"{name}: the" if name else "the"
    return CircuitOpen(
        f"{what} circuit breaker refuses ({rejected.reason}){when}",
        reason=rejected.reason,
        retry_after_s=wait,
        server=name or None,
    )
