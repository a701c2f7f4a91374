"""What a soak has to say for itself, at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tests.soak.measure import Slope
from tests.soak.run import Plan, Soak, bounds

__all__ = ["summary"]


def summary(plan: Plan, soak: Soak) -> str:
    """What a run has to say for itself, at its end."""
    assert soak.load is not None
    load, books = soak.load, soak.books
    rate, (rss_bound, blocks_bound) = load.begun / soak.seconds, bounds(soak)
    peak = {
        name: max(getattr(one, name) for one in soak.samples)
        for name in ("descriptors", "tasks", "threads", "children")
    }
    first, last = soak.idle[0], soak.idle[-1]
    lines = [
        f"{soak.backend}, Python {sys.version.split()[0]}, policy {'OPA' if plan.opa else 'Rego'}: "
        f"{load.begun} calls in {soak.seconds:.0f} s, {rate:.0f} calls/s"
        + (f" ({load.missed} more were due)" if load.missed else ""),
        f"each minute, after {soak.warm_s:.0f} s:",
        f"  RSS {_judged(soak.rss, rss_bound)} KiB",
        f"  Python's blocks {_judged(soak.blocks, blocks_bound)}, heap {soak.heap} KiB",
        *(
            f"{name}: {getattr(first, name)} at rest after the warm-up, {getattr(last, name)} at "
            f"the end, {peak[name]} at most"
            for name in peak
        ),
        "calls: " + _counted(load.outcomes),
        "faults: " + _counted(load.injected),
        f"lists: {load.lists}; {soak.cache}",
        f"log: {books.intents} intents; " + _counted(books.outcomes),
        f"executed: {sum(soak.effects.values())} calls, each of them once"
        if not any("executed" in one for one in books.findings)
        else "executed: see below",
        *(f"FAILED: {one}" for one in soak.failures),
    ]
    return "\n".join(f"  {line}" for line in lines)


def _judged(found: Slope | None, bound: float) -> str:
    if found is None:
        return "(too short to tell)"
    within = found.per_minute - 2 * found.error <= bound
    return f"{found} ({'within' if within else 'ABOVE'} the bound, {bound:.0f})"


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {name}" for name, count in ordered)
