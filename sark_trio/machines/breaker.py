"""The circuit breaker of one upstream: closed, open, half open, by the table of ``circuit``.

Theory of operation. ``acquire`` hands out permits, ``settle`` takes them back with one of
three outcomes. Every move begins a new *generation*, and only permits of the current
generation count: what was sent before the breaker moved says nothing about the server as it is
now, so late outcomes are counted and otherwise ignored. A neutral outcome (cancelled, denied,
throttled) gives back a probe's slot and proves nothing.

While half open, at most ``probes`` calls are under way at a time. A probe that nobody settles
for ``probe_max_age_s`` makes the breaker open again, so a lost permit delays recovery and
never prevents it. Opening waits on the monotonic ``now``; reading changes nothing.

An operator's mode stands above the outcomes: ``forced_open`` admits nothing,
``forced_closed`` admits everything and records nothing. Leaving a forced mode, and ``reset``,
begin afresh in CLOSED.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self, final

from attrs import define, field

from sark_trio.machines.circuit import (
    OUTSTANDING_MAX,
    TRANSITIONS,
    Admit,
    BreakerOptions,
    BreakerStatistics,
    CircuitState,
    Fault,
    Mode,
    Outcome,
    Permit,
    Reject,
    Transition,
    Why,
)
from sark_trio.machines.deadline import TIME_S_MAX, seconds_until
from sark_trio.machines.window import Window, window_for

__all__ = [
    "Admit",
    "Breaker",
    "BreakerOptions",
    "BreakerStatistics",
    "CircuitState",
    "Fault",
    "Mode",
    "Outcome",
    "Permit",
    "Reject",
    "Transition",
]

_TARGETS: Final = {(edge.source, edge.why): edge.target for edge in TRANSITIONS}
_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
_COUNTERS: Final = ("rejected", "successes", "failures", "neutral", "late", "forgotten", "faults")
_PLAIN: Final = (
    *("generation", "sequence", "now", "open_until"),
    *("failures_in_row", "probe_successes", "opens_in_row"),
    *_COUNTERS,
)


@final
@define(eq=False, repr=False)
class Breaker:
    """The breaker of one upstream; see the module's docstring.

    Every event takes ``now``, monotonic seconds; a ``now`` before the last one counts as the
    last one.
    """

    options: BreakerOptions = field(factory=BreakerOptions)
    key: str = ""
    _mode: Mode = field(default=Mode.AUTO, init=False)
    _phase: CircuitState = field(default=_CLOSED, init=False)
    _generation: int = field(default=0, init=False)
    _sequence: int = field(default=0, init=False)
    _now: float = field(default=0.0, init=False)
    _open_until: float = field(default=0.0, init=False)
    _failures_in_row: int = field(default=0, init=False)
    _probe_successes: int = field(default=0, init=False)
    _opens_in_row: int = field(default=0, init=False)
    #: Oldest first, both: permits are handed out in the order of time.
    _outstanding: dict[int, Permit] = field(factory=dict, init=False)
    _probes: dict[int, float] = field(factory=dict, init=False)
    _window: Window | None = field(init=False)
    _rejected: int = field(default=0, init=False)
    _successes: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _neutral: int = field(default=0, init=False)
    _late: int = field(default=0, init=False)
    _forgotten: int = field(default=0, init=False)
    _faults: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._window = None if self.options.rate is None else window_for(self.options.rate)

    def __repr__(self) -> str:
        mode = "" if self._mode is Mode.AUTO else f" {self._mode}"
        permits = f"outstanding={len(self._outstanding)} probes={len(self._probes)}"
        return f"<Breaker {self.key!r} {self._phase}{mode} gen={self._generation} {permits}>"

    @property
    def state(self) -> CircuitState:
        """What the breaker does with calls. Reading it moves nothing, however late it is."""
        return self._phase

    @property
    def mode(self) -> Mode:
        """Who decides."""
        return self._mode

    @property
    def generation(self) -> int:
        """How often the breaker has moved."""
        return self._generation

    @property
    def outstanding(self) -> int:
        """Permits that are not settled yet."""
        return len(self._outstanding)

    def acquire(self, now: float) -> Admit | Reject:
        """Ask for leave to call: a permit, which must be settled, or a refusal."""
        if self._now < now < TIME_S_MAX:
            self._now = now
        if self._phase is _CLOSED:
            return Admit(self._issue(probe=False))
        moved = self.tick(now)
        if (refusal := self._refusal(self._now)) is not None:
            self._rejected += 1
            return Reject(refusal.reason, refusal.retry_after_s, moved)
        if self._phase is _OPEN:
            moved = self._move(Why.ELAPSED)
        return Admit(self._issue(probe=True), moved)

    def settle(
        self, now: float, permit: Permit, outcome: Outcome, duration_s: float = 0.0
    ) -> Transition | Fault | None:
        """Give a permit back and tell how its call ended.

        :param duration_s: how long the call took, for the rate rule.
        """
        if self._now < now < TIME_S_MAX:
            self._now = now
        held = self._outstanding.get(permit.seq)
        if held is not permit and held != permit:
            return self._fault(permit)
        del self._outstanding[permit.seq]
        if permit.gen != self._generation:
            self._late += 1
            return None
        if outcome is Outcome.SUCCESS:
            self._successes += 1
            if self._phase is _CLOSED and self._window is None:
                self._failures_in_row = 0
                return None
        elif outcome is Outcome.FAILURE:
            self._failures += 1
        else:
            self._neutral += 1
            self._probes.pop(permit.seq, None)
            return None
        if self._mode is not Mode.AUTO:
            return None
        if permit.probe:
            return self._count_probe(permit.seq, outcome, duration_s)
        return self._count(outcome, duration_s)

    def tick(self, now: float) -> Transition | None:
        """Let time pass: give up probes that are too old. Needed only at ``next_deadline``."""
        if self._now < now < TIME_S_MAX:
            self._now = now
        if self._probes and self._now >= self._probe_deadline():
            return self._move(Why.STALLED)
        return None

    def force(self, now: float, mode: Mode) -> Transition | None:
        """Put an operator's mode in force. The mode that already is changes nothing."""
        if self._now < now < TIME_S_MAX:
            self._now = now
        if mode is self._mode:
            return None
        self._mode = mode
        return self._move(Why.RELEASED if mode is Mode.AUTO else Why(mode.value))

    def reset(self, now: float) -> Transition:
        """Forget everything but the permits under way, and any forced mode, too."""
        if self._now < now < TIME_S_MAX:
            self._now = now
        self._mode = Mode.AUTO
        return self._move(Why.RESET)

    def peek(self, now: float) -> Reject | None:
        """The refusal that ``acquire`` would answer, or ``None``. Changes nothing."""
        return self._refusal(now if self._now < now < TIME_S_MAX else self._now)

    def next_deadline(self) -> float | None:
        """When ``tick`` will give up the oldest probe; an open breaker waits for a caller."""
        return self._probe_deadline() if self._probes else None

    def statistics(self) -> BreakerStatistics:
        """A snapshot of state and counters."""
        waiting = self._phase is _OPEN and self._mode is Mode.AUTO
        return BreakerStatistics(
            key=self.key,
            state=self._phase,
            mode=self._mode,
            generation=self._generation,
            admitted=self._sequence,
            outstanding=len(self._outstanding),
            probes=len(self._probes),
            failures_in_row=self._failures_in_row,
            probe_successes=self._probe_successes,
            opens_in_row=self._opens_in_row,
            open_until=self._open_until if waiting else None,
            window=None if self._window is None else self._window.counts(self._now),
            **{name: getattr(self, f"_{name}") for name in _COUNTERS},
        )

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        own = {p.seq: p for p in self._outstanding.values() if p.gen == self._generation}
        assert self._probes == {seq: p.admitted_at for seq, p in own.items() if p.probe}
        assert len(self._probes) <= self.options.probes
        assert len(self._outstanding) <= OUTSTANDING_MAX
        ended = self._successes + self._failures + self._neutral + self._late + self._forgotten
        assert self._sequence == ended + len(self._outstanding)
        assert 0 <= self._failures_in_row < self.options.failures
        assert 0 <= self._probe_successes < self.options.successes
        assert not (self._phase is _OPEN and own)
        assert self._phase is _HALF_OPEN or not (self._probes or self._probe_successes)
        assert (self._phase is _CLOSED and self._mode is Mode.AUTO) or not self._failures_in_row
        forced = {Mode.FORCED_OPEN: _OPEN, Mode.FORCED_CLOSED: _CLOSED}
        assert forced.get(self._mode, self._phase) is self._phase

    def snapshot(self) -> dict[str, Any]:
        """The whole state as a JSON value. Its times mean something until the next reboot."""
        permits = self._outstanding.values()
        return {
            "key": self.key,
            "mode": self._mode.value,
            "phase": self._phase.value,
            "window": None if self._window is None else self._window.snapshot(),
            "outstanding": [[p.gen, p.seq, p.probe, p.admitted_at] for p in permits],
            **{name: getattr(self, f"_{name}") for name in _PLAIN},
        }

    @classmethod
    def from_snapshot(cls, options: BreakerOptions, snapshot: Mapping[str, Any]) -> Self:
        """The breaker that *snapshot* was taken of, under the same *options*."""
        self = cls(options, snapshot["key"])
        self._mode, self._phase = Mode(snapshot["mode"]), CircuitState(snapshot["phase"])
        if self._window is not None:
            self._window.restore(snapshot["window"])
        for name in _PLAIN:
            setattr(self, f"_{name}", snapshot[name])
        for gen, seq, probe, admitted_at in snapshot["outstanding"]:
            self._outstanding[seq] = Permit(gen, seq, probe, admitted_at, self.key)
            if probe and gen == self._generation:
                self._probes[seq] = admitted_at
        return self

    def _issue(self, *, probe: bool) -> Permit:
        self._sequence = seq = self._sequence + 1
        permit = Permit(self._generation, seq, probe, self._now, self.key)
        self._outstanding[seq] = permit
        if probe:
            self._probes[seq] = self._now
        if len(self._outstanding) > OUTSTANDING_MAX:
            # No probe of this generation: those are the newest, and far fewer.
            oldest = next(iter(self._outstanding))
            del self._outstanding[oldest]
            self._forgotten += 1
        return permit

    def _fault(self, permit: Permit) -> Fault:
        self._faults += 1
        issued = permit.seq <= self._sequence and permit.gen <= self._generation
        ended = issued and permit.key == self.key and permit.seq not in self._outstanding
        return Fault("double_settle" if ended else "unknown_permit", permit)

    def _count(self, outcome: Outcome, duration_s: float) -> Transition | None:
        """A call of a closed breaker ended."""
        failed, slow = outcome is Outcome.FAILURE, False
        self._failures_in_row = self._failures_in_row + 1 if failed else 0
        rule, window = self.options.rate, self._window
        if rule is not None and window is not None:
            slow = rule.is_slow(duration_s)
            window.record(self._now, failed=failed, slow=slow)
        if self._failures_in_row >= self.options.failures:
            return self._move(Why.FAILURES)
        if rule is None or window is None or not (failed or slow):
            return None
        counts = window.counts(self._now)
        if failed and rule.failing(counts):
            return self._move(Why.FAILURE_RATE)
        return self._move(Why.SLOW_RATE) if rule.slowing(counts) else None

    def _count_probe(self, seq: int, outcome: Outcome, duration_s: float) -> Transition | None:
        """A probe of a half-open breaker ended."""
        del self._probes[seq]
        if outcome is Outcome.FAILURE:
            return self._move(Why.PROBE_FAILED)
        if self.options.rate is not None and self.options.rate.is_slow(duration_s):
            return self._move(Why.PROBE_SLOW)
        self._probe_successes += 1
        if self._probe_successes >= self.options.successes:
            return self._move(Why.RECOVERED)
        return None

    def _probe_deadline(self) -> float:
        return next(iter(self._probes.values())) + self.options.probe_max_age_s

    def _refusal(self, now: float) -> Reject | None:
        if self._phase is _CLOSED:
            return None
        if self._mode is Mode.FORCED_OPEN:
            return Reject("forced")
        if self._phase is _OPEN:
            wait_s = seconds_until(now, self._open_until)
            return Reject("open", wait_s) if wait_s > 0 else None
        if not self._probes:
            return None
        wait_s = seconds_until(now, self._probe_deadline())
        if wait_s <= 0:  # whoever acquires now finds the probes given up and the breaker open
            return Reject("open", self.options.open_time_s(self._opens_in_row))
        return Reject("probing", wait_s) if len(self._probes) >= self.options.probes else None

    def _move(self, why: Why) -> Transition:
        source = self._phase
        self._phase = target = _TARGETS[source, why]
        self._generation += 1
        self._failures_in_row = self._probe_successes = 0
        self._probes.clear()
        if self._window is not None:
            self._window.clear()
        if target is _CLOSED:
            self._opens_in_row = 0
        elif why is Why.PROBE_FAILED or why is Why.PROBE_SLOW:
            self._opens_in_row += 1
        open_s = self.options.open_time_s(self._opens_in_row)
        self._open_until = self._now + open_s if target is _OPEN else 0.0
        return Transition(source, target, self._generation, why)
