"""Bugs that others shipped, as (old text, new text) of our modules: do the laws see them?

A machine is final, so a broken one is not a subclass of it. It is the module itself, read from
its source with one passage replaced, and run. The old text must be there exactly once: a bug
that no longer applies is an error and not a success.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from attrs import frozen

__all__ = ["PLANTED", "Planted", "copy", "load"]


@frozen
class Planted:
    """One bug."""

    name: str
    #: Module of ``sark_trio.machines`` that it is planted in.
    module: str
    old: str
    new: str
    #: Names of the laws that must fail, and the test module that they are in.
    caught_by: tuple[str, ...]
    laws: str


def load(bug: Planted) -> ModuleType:
    """A copy of the module with the bug in it. The real one is left alone."""
    source = _source(bug.module)
    assert source.count(bug.old) == 1, f"{bug.name}: the text to replace is not there once"
    return _run(bug.name, source.replace(bug.old, bug.new))


def copy(module: str) -> ModuleType:
    """A copy of the module without a bug: what shows that it is the bug that a law sees."""
    return _run(f"copy_of_{module}", _source(module))


def _source(module: str) -> str:
    real = importlib.import_module(f"sark_trio.machines.{module}")
    return Path(str(real.__file__)).read_text()


def _run(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), vars(module))
    return module


PLANTED = (
    # Polly 8: a cancelled probe counts as handled, and closes the circuit.
    Planted(
        "cancelled_probe_closes",
        "breaker",
        "            self._probes.pop(permit.seq, None)\n            return None\n",
        "            if not permit.probe:\n"
        "                return None\n"
        "            outcome = Outcome.SUCCESS\n",
        ("b02", "b05"),
        "breaker",
    ),
    # SARK, resilience4j: what was sent before the trip decides for the probes.
    Planted(
        "late_outcomes_count",
        "breaker",
        "            self._late += 1\n            return None\n",
        "            self._late += 1\n"
        "            if self._phase is not _HALF_OPEN or outcome is Outcome.NEUTRAL:\n"
        "                return None\n"
        "            good = outcome is Outcome.SUCCESS\n"
        "            return self._move(Why.RECOVERED if good else Why.PROBE_FAILED)\n",
        ("b02", "b07"),
        "breaker",
    ),
    # purgatory, aiobreaker: 200 of 200 concurrent calls probe.
    Planted(
        "unlimited_probes",
        "breaker",
        'return Reject("probing", wait_s) if len(self._probes) >= self.options.probes else None',
        "return None",
        ("b01", "b18"),
        "breaker",
    ),
    # All that wait by the wall clock: time goes back, and the wait grows.
    Planted(
        "clock_goes_back",
        "breaker",
        "        if self._now < now < TIME_S_MAX:\n"
        "            self._now = now\n"
        "        if self._phase is _CLOSED:\n",
        "        self._now = now\n        if self._phase is _CLOSED:\n",
        ("b09",),
        "breaker",
    ),
    # Polly, resilience4j by default: a probe that hangs blocks recovery for ever.
    Planted(
        "hung_probe_blocks",
        "breaker",
        "        if self._probes and self._now >= self._probe_deadline():\n",
        "        if self._probes and self._now < 0:\n",
        ("b02", "b12"),
        "breaker",
    ),
    # SARK: any call that finishes in HALF_OPEN gives back a slot, even one it never took.
    Planted(
        "decrement_without_increment",
        "breaker",
        "            self._late += 1\n",
        "            self._late += 1\n"
        "            if self._probes:\n"
        "                self._probes.popitem()\n",
        ("b01", "b07"),
        "breaker",
    ),
    # SARK: a late failure while OPEN prolongs the outage.
    Planted(
        "late_failure_prolongs",
        "breaker",
        "            self._late += 1\n",
        "            self._late += 1\n"
        "            if outcome is Outcome.FAILURE and self._phase is _OPEN:\n"
        "                self._open_until = self._now + self.options.open_s\n",
        ("b03", "b07"),
        "breaker",
    ),
    # SARK, the other way round: a cancelled probe keeps its slot.
    Planted(
        "cancelled_probe_keeps_its_slot",
        "breaker",
        "            self._neutral += 1\n            self._probes.pop(permit.seq, None)\n",
        "            self._neutral += 1\n",
        ("b02", "b05"),
        "breaker",
    ),
    # purgatory: five cancellations by users open it.
    Planted(
        "cancellation_is_failure",
        "breaker",
        "        elif outcome is Outcome.FAILURE:\n            self._failures += 1\n",
        "        elif outcome is not Outcome.SUCCESS and not permit.probe:\n"
        "            self._failures += 1\n"
        "            outcome = Outcome.FAILURE\n",
        ("b02", "b08"),
        "breaker",
    ),
    # SARK, the other way round: failures of a whole day add up, whatever succeeded in between.
    Planted(
        "success_forgives_nothing",
        "breaker",
        "                self._failures_in_row = 0\n                return None\n",
        "                return None\n",
        ("b02",),
        "breaker",
    ),
    # A wait that rounding ends an instant early: told when to come back, and turned away.
    Planted(
        "wait_rounds_down",
        "deadline",
        "    while now + wait < at:\n        wait = nextafter(wait, inf)\n",
        "",
        ("b13",),
        "deadline",
    ),
    # SARK: jitter after the cap sleeps 37.5 s of at most 30.
    Planted(
        "jitter_after_the_cap",
        "backoff",
        "    return min(low + jitter * (high - low), high)\n",
        "    return base + config.jitter * base * (2 * jitter - 1)\n",
        ("r01",),
        "retry",
    ),
    # stamina: clamped to the cap, half of all clients meet there.
    Planted(
        "herd_at_the_cap",
        "backoff",
        "    return min(low + jitter * (high - low), high)\n",
        "    return min(low + jitter * (1 + config.jitter) * base - jitter * low, high)\n",
        ("r02",),
        "retry",
    ),
    # A refusal that is charged keeps an empty account empty for good.
    Planted(
        "refused_retry_is_charged",
        "budget",
        "            self._refused += 1\n",
        "            self._refused += 1\n            self._balance = 0\n",
        ("r10",),
        "budget",
    ),
    # Paid, and then not made, for the deadline is too near.
    Planted(
        "paid_and_not_made",
        "retry",
        "        if self._now + wait_s >= self.deadline.at:\n",
        "        if self._now + wait_s >= self.deadline.at and budget.take(self._now):\n",
        ("r10",),
        "retry",
    ),
    # SARK: everything is retried, whatever may have happened already.
    Planted(
        "unsafe_is_repeated",
        "retry",
        '        if cell != "retry":\n',
        '        if cell != "retry" and failure.delivery == "answered":\n',
        ("r07",),
        "retry",
    ),
    # SARK: Retry-After is not read.
    Planted(
        "retry_after_ignored",
        "retry",
        "        return max(wait_s, asked_s + jitter * min(1.0, asked_s / 10))\n",
        "        return wait_s\n",
        ("r04",),
        "retry",
    ),
    # OTP's rule with the window forgotten: a program that cannot run is run for ever.
    Planted(
        "restarts_without_end",
        "supervise",
        "        return not self._recent or at < self._recent[0] + self.options.window_s\n",
        "        return False\n",
        ("d02",),
        "supervise",
    ),
    # SARK: a server that nobody calls is taken to hang.
    Planted(
        "idle_server_is_killed",
        "supervise",
        "        if self._phase is Phase.PROBING and self._now >= self._probe_until:\n",
        "        if self._phase in _LIVING and self._now >= self._probe_until:\n",
        ("d02",),
        "supervise",
    ),
    # SARK: the counter never goes back, so that a slow tool now and then ends a good server.
    Planted(
        "timeouts_are_never_forgiven",
        "supervise",
        "        self._timeouts, self._fruitful = 0, True\n",
        "        self._fruitful = True\n",
        ("d02",),
        "supervise",
    ),
)
