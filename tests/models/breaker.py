"""The circuit breaker, naively: the table of laws over the whole history, nothing kept count of.

Also what drives machine and model side by side: events, traces of them, and answers in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from sark_trio.machines.circuit import (
    Admit,
    BreakerOptions,
    CircuitState,
    Fault,
    Mode,
    Outcome,
    Permit,
    Reject,
    Transition,
)
from sark_trio.machines.window import Counts, RateRule

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL


@frozen
class Call:
    """A counted call: not neutral, not late, not under a forced mode."""

    failed: bool
    slow: bool
    at: float


def recount(rule: RateRule, calls: list[Call], now: float) -> Counts:
    """What a window must hold: look at every call there ever was."""
    if rule.window == "count":
        kept = calls[-rule.calls :]
    else:
        latest = max([now, *(call.at for call in calls)])
        span = [int((call.at - calls[0].at) // rule.bucket_s) for call in calls]
        current = int((latest - calls[0].at) // rule.bucket_s) if calls else 0
        kept = [c for c, n in zip(calls, span, strict=True) if n > current - rule.buckets]
    return Counts(len(kept), sum(c.failed for c in kept), sum(c.slow for c in kept))


def too_many(rule: RateRule | None, calls: list[Call], now: float) -> str | None:
    """Why the rates of *calls* open a breaker after the last of them, if they do."""
    if rule is None or not calls or not (calls[-1].failed or calls[-1].slow):
        return None
    held = recount(rule, calls, now)
    if held.calls < rule.min_calls:
        return None
    if calls[-1].failed and 100 * held.failures >= rule.failure_percent * held.calls:
        return "failure_rate"
    return "slow_rate" if 100 * held.slow >= rule.slow_percent * held.calls else None


def trailing_failures(calls: list[Call]) -> int:
    """How many of the last calls failed in a row."""
    successes = [place for place, call in enumerate(calls) if not call.failed]
    return len(calls) - 1 - successes[-1] if successes else len(calls)


@define
class Issued:
    """A permit, as the model remembers it."""

    gen: int
    probe: bool
    at: float
    settled: bool = False


Answer = tuple[Any, ...] | None


@define
class BreakerModel:
    """Laws 2.1, row by row."""

    options: BreakerOptions
    mode: Mode = Mode.AUTO
    phase: CircuitState = CLOSED
    now: float = 0.0
    opened_at: float = 0.0
    moves: list[str] = field(factory=list)
    calls: list[Call] = field(factory=list)
    issued: list[Issued] = field(factory=list)

    @property
    def generation(self) -> int:
        return len(self.moves)

    @property
    def probes(self) -> list[Issued]:
        own = [each for each in self.issued if each.gen == self.generation]
        return [each for each in own if each.probe and not each.settled]

    @property
    def rows(self) -> tuple[int, int]:
        """Failures in a row while closed, good probes while half open."""
        failures = trailing_failures(self.calls) if self.phase is CLOSED else 0
        return failures, len(self.calls) if self.phase is HALF_OPEN else 0

    @property
    def open_until(self) -> float:
        row = 0
        for move in self.moves:
            if move in {"probe_failed", "probe_slow"}:
                row += 1
            elif move in {"recovered", "reset", "released", "forced_closed"}:
                row = 0
        grown = self.options.open_s * self.options.open_multiplier**row
        return self.opened_at + min(grown, self.options.open_max_s)

    def move(self, why: str, target: CircuitState) -> str:
        self.phase = target
        self.moves.append(why)
        self.calls = []
        self.opened_at = self.now
        return why

    def tick(self, now: float) -> Answer:
        self.now = max(self.now, now)
        ages = [self.now - each.at for each in self.probes]
        if any(age >= self.options.probe_max_age_s for age in ages):
            return ("moved", self.move("stalled", OPEN))
        return None

    def acquire(self, now: float) -> Answer:
        stalled = self.tick(now)
        moved = stalled and stalled[1]
        if self.mode is Mode.FORCED_OPEN:
            return ("reject", "forced", None, moved)
        if self.phase is OPEN and self.now < self.open_until:
            return ("reject", "open", self.open_until - self.now, moved)
        if self.phase is OPEN:
            moved = self.move("elapsed", HALF_OPEN)
        if len(self.probes) >= self.options.probes:
            oldest = min(each.at for each in self.probes)
            return ("reject", "probing", oldest + self.options.probe_max_age_s - self.now, None)
        self.issued.append(Issued(self.generation, self.phase is HALF_OPEN, self.now))
        return ("admit", self.phase is HALF_OPEN, moved)

    def settle(self, now: float, number: int, outcome: Outcome, duration_s: float) -> Answer:
        """Settle the *number*-th permit that was issued."""
        self.now = max(self.now, now)
        issued = self.issued[number]
        if issued.settled:
            return ("fault", "double_settle")
        issued.settled = True
        if issued.gen != self.generation or outcome is NEUTRAL or self.mode is not Mode.AUTO:
            return None
        rule = self.options.rate
        slow = rule is not None and rule.slow_s is not None and duration_s >= rule.slow_s
        self.calls.append(Call(outcome is FAILURE, slow, self.now))
        why = self._why_closed() if self.phase is CLOSED else self._why_half_open()
        if why is None:
            return None
        return ("moved", self.move(why, CLOSED if why == "recovered" else OPEN))

    def _why_closed(self) -> str | None:
        if trailing_failures(self.calls) >= self.options.failures:
            return "failures"
        return too_many(self.options.rate, self.calls, self.now)

    def _why_half_open(self) -> str | None:
        if self.calls[-1].failed:
            return "probe_failed"
        if self.calls[-1].slow:
            return "probe_slow"
        return "recovered" if len(self.calls) >= self.options.successes else None

    def force(self, now: float, mode: Mode) -> Answer:
        self.now = max(self.now, now)
        if mode is self.mode:
            return None
        self.mode = mode
        why = "released" if mode is Mode.AUTO else mode.value
        return ("moved", self.move(why, OPEN if mode is Mode.FORCED_OPEN else CLOSED))

    def reset(self, now: float) -> Answer:
        self.now = max(self.now, now)
        self.mode = Mode.AUTO
        return ("moved", self.move("reset", CLOSED))


def in_words(answer: object) -> Answer:
    """An answer of the machine as the model says it."""
    match answer:
        case Admit(permit=permit, transition=moved):
            return ("admit", permit.probe, moved and str(moved.why))
        case Reject(reason=reason, retry_after_s=wait_s, transition=moved):
            return ("reject", reason, wait_s, moved and str(moved.why))
        case Transition(why=why):
            return ("moved", str(why))
        case Fault(what=what):
            return ("fault", what)
    assert answer is None
    return None


# -- events ------------------------------------------------------------------------------------


@frozen
class Event:
    """Something that happens ``dt`` seconds after the event before it.

    ``pick`` chooses a permit: of those outstanding for ``settle``, of all there ever were for
    ``again``. ``forge`` settles a permit that was never issued.
    """

    kind: str
    dt: float = 0.0
    pick: int = 0
    outcome: Outcome = SUCCESS
    duration_s: float = 0.0
    mode: Mode = Mode.AUTO


@define
class Play:
    """One breaker and what was done with it."""

    breaker: Any
    now: float = 0.0
    permits: list[Permit] = field(factory=list)
    outstanding: list[int] = field(factory=list)

    def do(self, event: Event) -> Any:
        """Let *event* happen; the breaker's answer."""
        self.now += event.dt
        answer = self._do(event)
        self.breaker.check_invariants()
        return answer

    def number(self, event: Event) -> int | None:
        """Which permit *event* settles."""
        if event.kind == "settle" and self.outstanding:
            return self.outstanding[event.pick % len(self.outstanding)]
        if event.kind == "again" and self.permits:
            return event.pick % len(self.permits)
        return None

    def _do(self, event: Event) -> Any:
        breaker, now = self.breaker, self.now
        number = self.number(event)
        match event.kind:
            case "acquire":
                answer = breaker.acquire(now)
                if isinstance(answer, Admit):
                    self.outstanding.append(len(self.permits))
                    self.permits.append(answer.permit)
                return answer
            case "settle" | "again" if number is not None:
                if number in self.outstanding:
                    self.outstanding.remove(number)
                return breaker.settle(now, self.permits[number], event.outcome, event.duration_s)
            case "forge":
                permit = self.permits[-1] if self.permits else Permit(0, 0, False, 0.0)
                forged = evolve(permit, seq=permit.seq + 1 + event.pick)
                return breaker.settle(now, forged, event.outcome)
            case "force":
                return breaker.force(now, event.mode)
            case "reset":
                return breaker.reset(now)
        return breaker.tick(now)


@define
class ModelPlay:
    """The model, driven by the same events."""

    model: BreakerModel
    now: float = 0.0

    def do(self, event: Event, number: int | None) -> Answer:
        """Let *event* happen to the permit that the machine's driver chose."""
        self.now += event.dt
        match event.kind:
            case "acquire":
                return self.model.acquire(self.now)
            case "settle" | "again" if number is not None:
                return self.model.settle(self.now, number, event.outcome, event.duration_s)
            case "forge":
                self.model.now = max(self.model.now, self.now)
                return ("fault", "unknown_permit")
            case "force":
                return self.model.force(self.now, event.mode)
            case "reset":
                return self.model.reset(self.now)
        return self.model.tick(self.now)


#: Multiples of 1/1024, so that sums are exact and a shifted trace is the same trace.
DTS = (0.0, 0.0, 0.0, 0.0, 0.125, 1.0, 15.0, 15.0, 29.875, 30.0, 60.0, 61.5, 300.0, -5.0)
_dt = st.sampled_from(DTS)
_outcome = st.sampled_from([SUCCESS, SUCCESS, FAILURE, FAILURE, NEUTRAL])
#: Often the newest: among many outstanding permits the probes would seldom be met.
_pick = st.one_of(st.just(-1), st.integers(0, 7))
_settle = st.builds(
    Event,
    kind=st.just("settle"),
    dt=_dt,
    pick=_pick,
    outcome=_outcome,
    duration_s=st.sampled_from([0.0, 0.5, 9.875, 10.0, 40.0]),
)
_acquire = st.builds(Event, kind=st.just("acquire"), dt=_dt)
_odd = st.builds(
    Event,
    kind=st.sampled_from(["again", "forge", "tick", "tick"]),
    dt=_dt,
    pick=st.integers(0, 7),
    outcome=_outcome,
)
_operator = st.one_of(
    st.builds(Event, kind=st.just("force"), dt=_dt, mode=st.sampled_from(Mode)),
    st.builds(Event, kind=st.just("reset"), dt=_dt),
)
_calls = [Event("acquire")] * 6
#: What takes a breaker with default options all the way round, as a seed for what follows.
_trip = _calls + [Event("settle", outcome=FAILURE)] * 5


def traces(*, operator: bool = True, size_max: int = 60) -> st.SearchStrategy[list[Event]]:
    """Traces of events; many begin with a trip, or nothing interesting would ever be reached."""
    kinds = [_acquire, _acquire, _settle, _settle, _settle, _odd]
    event = st.one_of(*kinds, _operator) if operator else st.one_of(*kinds)
    late = Event("settle", dt=15.0, outcome=FAILURE)
    heads = [[], _calls, _trip, [*_trip, late], [*_trip, Event("acquire", dt=30.0)]]
    start = st.sampled_from(heads)
    # Lists are short by default: half of these are long, or rows of outcomes would be rare.
    rest = st.one_of(
        st.lists(event, max_size=size_max),
        st.lists(event, min_size=size_max // 2, max_size=size_max),
    )
    return st.builds(lambda head, tail: [*head, *tail], start, rest)


RULES = (
    None,
    RateRule(calls=8, min_calls=4, bucket_s=2.0),
    RateRule(window="time", buckets=4, bucket_s=0.5, min_calls=3, failure_percent=40),
    RateRule(calls=6, min_calls=6, failure_percent=100, slow_percent=30, slow_s=0.5),
    RateRule(window="time", buckets=3, bucket_s=16.0, min_calls=2, slow_s=None),
)


def option_sets() -> st.SearchStrategy[BreakerOptions]:
    """Options that keep traces short, the defaults among them."""
    return st.one_of(
        st.just(BreakerOptions()),
        st.builds(
            BreakerOptions,
            failures=st.sampled_from([1, 2, 5]),
            probes=st.integers(1, 3),
            successes=st.integers(1, 3),
            open_multiplier=st.sampled_from([1.0, 2.0]),
            rate=st.sampled_from(RULES),
        ),
    )


def play(breaker: Any, events: Iterable[Event], start: float = 0.0) -> list[Answer]:
    """The answers, in words, to *events* from *start* on."""
    driver = Play(breaker, now=start)
    return [in_words(driver.do(event)) for event in events]
