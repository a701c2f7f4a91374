"""Laws B1 to B18 of the circuit breaker. (B14 and B20 are next door.)

``breaker`` is looked up at each call, so that ``test_planted_bugs`` can put a broken one in.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sark_trio import jsontext
from sark_trio.machines import breaker, breakers
from sark_trio.machines.circuit import (
    TRANSITIONS,
    Admit,
    BreakerOptions,
    CircuitState,
    Fault,
    Mode,
    Permit,
    Reject,
    Transition,
    Why,
)
from sark_trio.machines.window import RateRule
from tests.models.breaker import (
    CLOSED,
    FAILURE,
    HALF_OPEN,
    NEUTRAL,
    OPEN,
    RULES,
    SUCCESS,
    BreakerModel,
    Event,
    ModelPlay,
    Play,
    in_words,
    option_sets,
    play,
    traces,
)


def make(options: BreakerOptions | None = None) -> Any:
    return breaker.Breaker(BreakerOptions() if options is None else options)


def admitted(machine: Any, now: float) -> Permit:
    """A permit, which *machine* must give."""
    answer = machine.acquire(now)
    assert isinstance(answer, Admit)
    return answer.permit


def fail(machine: Any, now: float) -> int:
    """Fail calls until the breaker opens: how many it took."""
    failed = 0
    while machine.state is CLOSED:
        machine.settle(now, admitted(machine, now), FAILURE)
        failed += 1
    return failed


def tripped(options: BreakerOptions | None = None, now: float = 0.0) -> Any:
    """A breaker that opened at *now*."""
    machine = make(options)
    fail(machine, now)
    return machine


def what_decides(machine: Any) -> dict[str, Any]:
    """The state without its metrics: all that later decisions can depend on, but for time."""
    metrics = ("late", "faults", "rejected", "neutral", "successes", "failures", "now")
    kept = {name: value for name, value in machine.snapshot().items() if name not in metrics}
    generation = kept["generation"]
    kept["outstanding"] = [each for each in kept["outstanding"] if each[0] == generation]
    return kept


@pytest.mark.law("B1")
@given(option_sets(), traces())
def test_b01_probes_never_exceed_their_limit(options: BreakerOptions, trace: list[Event]) -> None:
    """Never more than ``probes`` calls are under way in a half-open breaker."""
    driver = Play(make(options))
    for event in trace:
        driver.do(event)
        held = [driver.permits[number] for number in driver.outstanding]
        own = [permit for permit in held if permit.gen == driver.breaker.generation]
        assert sum(permit.probe for permit in own) <= options.probes
        assert driver.breaker.state is not HALF_OPEN or all(permit.probe for permit in own)


@pytest.mark.law("B2")
@given(option_sets(), traces())
def test_b02_opens_exactly_when_the_rule_says(options: BreakerOptions, trace: list[Event]) -> None:
    """It opens from CLOSED after so many counted failures in a row, or by its rates, and only then.

    Each answer of the machine is the model's, which recounts the history at every step.
    """
    driver, model = Play(make(options)), ModelPlay(BreakerModel(options))
    for event in trace:
        expected = model.do(event, driver.number(event))
        assert in_words(driver.do(event)) == expected
        assert driver.breaker.state is model.model.phase
        count = driver.breaker.statistics()
        assert (count.failures_in_row, count.probe_successes) == model.model.rows
        assert driver.breaker.generation == model.model.generation


@pytest.mark.law("B3")
@given(option_sets(), traces())
def test_b03_open_admits_nothing_before_its_time_and_the_first_after(
    options: BreakerOptions, trace: list[Event]
) -> None:
    """No call passes while ``t < open_until``; the first to come at ``open_until`` is a probe."""
    driver = Play(make(options))
    latest = opened_at = 0.0
    for event in trace:
        before, mode = driver.breaker.state, driver.breaker.mode
        row = driver.breaker.statistics().opens_in_row
        answer = driver.do(event)
        latest = max(latest, driver.now)
        if event.kind == "acquire" and before is OPEN and mode is Mode.AUTO:
            early = latest < opened_at + options.open_time_s(row)
            assert isinstance(answer, Reject if early else Admit)
            assert early or answer.permit.probe
        moved = getattr(answer, "transition", answer)
        if isinstance(moved, Transition) and moved.target is OPEN:
            opened_at = latest


@pytest.mark.law("B4")
@given(option_sets(), st.integers(0, 2), st.floats(30, 1e6))
def test_b04_one_failed_probe_reopens(options: BreakerOptions, good: int, now: float) -> None:
    """One failure in HALF_OPEN opens the breaker for the time that its row of failures asks."""
    machine = tripped(options)
    permits = [admitted(machine, now)]
    for _ in range(min(good, options.successes - 1)):
        machine.settle(now, permits.pop(), SUCCESS)
        permits.append(admitted(machine, now))
    moved = machine.settle(now, permits.pop(), FAILURE)
    assert (moved.source, moved.target, moved.why) == (HALF_OPEN, OPEN, Why.PROBE_FAILED)
    assert machine.acquire(now) == Reject("open", pytest.approx(options.open_time_s(1)))


@pytest.mark.law("B5")
@given(option_sets(), st.lists(st.booleans(), max_size=6))
def test_b05_enough_successful_probes_close(options: BreakerOptions, neutral: list[bool]) -> None:
    """``successes`` probes of one generation close it, whatever neutral ones lie between."""
    options = evolve(options, rate=None)
    machine = tripped(options)
    for number in range(options.successes):
        for _ in neutral:
            assert machine.settle(40.0, admitted(machine, 40.0), NEUTRAL) is None
            assert machine.state is HALF_OPEN
        moved = machine.settle(40.0, admitted(machine, 40.0), SUCCESS)
        assert (moved is None) is (number < options.successes - 1)
    assert machine.state is CLOSED
    assert machine.statistics().failures_in_row == machine.statistics().opens_in_row == 0
    assert fail(machine, 40.0) == options.failures


@pytest.mark.law("B6")
@given(option_sets(), traces())
def test_b06_each_permit_ends_once(options: BreakerOptions, trace: list[Event]) -> None:
    """Admitted = settled + outstanding; a permit settles once, and then never again."""
    driver = Play(make(options))
    for event in trace:
        driver.do(event)
        count = driver.breaker.statistics()
        assert count.admitted == len(driver.permits)
        assert count.outstanding == driver.breaker.outstanding == len(driver.outstanding)
        settled = count.successes + count.failures + count.neutral + count.late
        assert settled == count.admitted - count.outstanding
    assert len(set(driver.permits)) == len(driver.permits)
    for number in list(driver.outstanding):
        assert not isinstance(
            driver.breaker.settle(driver.now, driver.permits[number], NEUTRAL), Fault
        )
    for permit in driver.permits:
        answer = driver.breaker.settle(driver.now, permit, SUCCESS)
        assert answer == Fault("double_settle", permit)


@pytest.mark.law("B7")
@given(option_sets(), traces())
def test_b07_late_and_false_outcomes_change_nothing(
    options: BreakerOptions, trace: list[Event]
) -> None:
    """Settling a permit of an earlier generation, twice, or of no issue leaves the state."""
    driver = Play(make(options))
    for event in trace:
        number = driver.number(event)
        gen = None if number is None else driver.permits[number].gen
        settled = number is not None and number not in driver.outstanding
        late = gen is not None and gen != driver.breaker.generation
        before = what_decides(driver.breaker)
        answer = driver.do(event)
        if late or settled or event.kind == "forge":
            assert what_decides(driver.breaker) == before
            assert isinstance(answer, Fault) is (settled or event.kind == "forge")


@pytest.mark.law("B8")
@given(option_sets(), traces(), st.integers(0, 60), st.integers(0, 60))
def test_b08_a_neutral_call_in_closed_is_as_if_it_had_not_been(
    options: BreakerOptions, trace: list[Event], start: int, length: int
) -> None:
    """Taking a neutral call out of a trace, begun while CLOSED, changes no phase."""
    plain, richer = Play(make(options)), Play(make(options))
    extra = None
    # A forged permit is named after the last real one, whose number the extra call shifts.
    for place, event in enumerate(event for event in trace if event.kind != "forge"):
        if place == start and richer.breaker.state is CLOSED:
            extra = richer.breaker.acquire(richer.now).permit
        if place == start + length and extra is not None:
            richer.breaker.settle(richer.now, extra, NEUTRAL)
        ours, theirs = in_words(plain.do(event)), in_words(richer.do(event))
        assert ours == theirs
        assert plain.breaker.state is richer.breaker.state


@pytest.mark.law("B9")
@given(option_sets(), traces(), st.sampled_from([1.0, 1024.0, 3.5 * 2**20]))
def test_b09_only_differences_of_time_matter(
    options: BreakerOptions, trace: list[Event], shift: float
) -> None:
    """Shifting all times changes nothing, and a clock that goes back stands still instead."""
    trace = [Event("tick"), *trace]  # the clock is read once before it goes back
    answers = play(make(options), trace, start=1024.0)
    assert play(make(options), trace, start=1024.0 + shift) == answers
    latest = now = 0.0
    steady = []
    for event in trace:
        now += event.dt
        steady.append(evolve(event, dt=max(latest, now) - latest))
        latest = max(latest, now)
    assert play(make(options), steady, start=1024.0) == answers


@pytest.mark.law("B10")
@given(option_sets(), traces(), st.integers(0, 60))
def test_b10_a_snapshot_goes_on_as_the_original(
    options: BreakerOptions, trace: list[Event], cut: int
) -> None:
    """Equal events give equal bytes, also when the state went through JSON on the way."""
    whole, parted = Play(make(options)), Play(make(options))
    answers = [in_words(whole.do(event)) for event in trace]
    again = [in_words(parted.do(event)) for event in trace[:cut]]
    stored = jsontext.canonical(parted.breaker.snapshot())
    parted.breaker = breaker.Breaker.from_snapshot(options, jsontext.decode(stored))
    assert jsontext.canonical(parted.breaker.snapshot()) == stored
    again += [in_words(parted.do(event)) for event in trace[cut:]]
    assert again == answers
    theirs = jsontext.canonical(parted.breaker.snapshot())
    assert theirs == jsontext.canonical(whole.breaker.snapshot())
    assert parted.breaker.statistics() == whole.breaker.statistics()


_any_time = st.one_of(st.floats(), st.sampled_from([nan, inf, -inf, -1.0, 0.0, 1e308]))


@pytest.mark.law("B11")
@given(option_sets(), traces(), st.lists(_any_time, min_size=80, max_size=80))
def test_b11_no_event_raises(
    options: BreakerOptions, trace: list[Event], times: list[float]
) -> None:
    """Whatever the time, the permit and the order: an answer, and a state that can be."""
    driver = Play(make(options))
    for event, now in zip(trace, times, strict=False):
        driver.now = now
        wild = evolve(event, dt=0.0, duration_s=now)
        answer = driver.do(wild)
        assert answer is None or isinstance(answer, Admit | Reject | Transition | Fault)
        refused = driver.breaker.peek(now)
        assert refused is None or refused.retry_after_s is None or refused.retry_after_s >= 0
        assert repr(driver.breaker).startswith("<Breaker '' ")


@pytest.mark.law("B12")
@given(option_sets(), traces(), st.booleans())
def test_b12_it_always_comes_back(
    options: BreakerOptions, trace: list[Event], settle_first: bool
) -> None:
    """From every state that is not forced: wait, call, succeed, and it is CLOSED.

    Also after all probes were cancelled, and when some of them are never settled at all.
    """
    driver = Play(make(options))
    for event in trace:
        driver.do(event)
    machine = driver.breaker
    machine.force(driver.now, Mode.AUTO)
    now = max(driver.now, 0.0) + 400.0
    for number in driver.outstanding if settle_first else ():
        machine.settle(now, driver.permits[number], NEUTRAL)
    if isinstance(answer := machine.acquire(now), Reject):
        now += options.open_max_s  # probes that hung were given up just now
        answer = machine.acquire(now)
    assert isinstance(answer, Admit)
    for _ in range(options.successes):
        machine.settle(now, answer.permit, SUCCESS)
        answer = machine.acquire(now)
    assert machine.state is CLOSED


@pytest.mark.law("B13")
@given(st.floats(0, 1e9), st.floats(0, 29.999), st.sampled_from([0.001, 0.1, 30.0, 77.7]))
def test_b13_coming_back_when_told_is_in_time(now: float, later: float, open_s: float) -> None:
    """Waiting exactly ``retry_after_s`` in OPEN yields a permit: no rounding turns it away."""
    machine = tripped(BreakerOptions(open_s=open_s), now)
    refused = machine.acquire(now + later * open_s / 30)
    if isinstance(refused, Reject):
        assert refused.reason == "open"
        assert refused.retry_after_s is not None
        assert 0 < refused.retry_after_s <= open_s * (1 + 1e-9) + 1e-6
        assert machine.peek(now + later * open_s / 30) == refused
        back = now + later * open_s / 30 + refused.retry_after_s
        assert machine.peek(back) is None
        assert isinstance(machine.acquire(back), Admit)


@pytest.mark.law("B15")
@given(st.sampled_from([rule for rule in RULES if rule is not None]), traces(operator=False))
def test_b15_few_calls_prove_nothing(rule: RateRule, trace: list[Event]) -> None:
    """By rates alone, it never opens before ``min_calls`` calls of the generation are counted."""
    driver = Play(make(BreakerOptions(failures=10_000, rate=rule)))
    counted = 0
    for event in trace:
        number = driver.number(event)
        fresh = number in driver.outstanding
        own = fresh and driver.permits[number].gen == driver.breaker.generation
        counted += own and event.outcome is not NEUTRAL
        moved = driver.do(event)
        if isinstance(moved, Transition) and moved.source is CLOSED:
            assert counted >= rule.min_calls
        moved = getattr(moved, "transition", moved)
        if isinstance(moved, Transition):
            counted = 0


@pytest.mark.law("B16")
@given(
    option_sets(),
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([SUCCESS, FAILURE, NEUTRAL])),
        min_size=20,
        max_size=60,
    ),
    st.lists(st.sampled_from([0.0, 0.5, 31.0]), min_size=60, max_size=60),
)
def test_b16_keys_do_not_know_of_each_other(
    options: BreakerOptions, calls: list[tuple[int, Any]], dts: list[float]
) -> None:
    """A trace over many keys, projected on one, is the trace of that one alone."""
    registry = breakers.BreakerRegistry(options=options)
    alone = {key: breaker.Breaker(options, f"s{key} o") for key in range(4)}
    now = 0.0
    for (key, outcome), dt in zip(calls, dts, strict=False):
        now += dt
        answers = []
        for machine in (registry.get(now, f"s{key}", "o"), alone[key]):
            assert not isinstance(machine, breakers.RegistryFull)
            answer = machine.acquire(now)
            settled = isinstance(answer, Admit) and machine.settle(now, answer.permit, outcome)
            answers.append((answer, settled))
        assert answers[0] == answers[1]
    for key, machine in alone.items():
        held = registry.get(now, f"s{key}", "o")
        assert not isinstance(held, breakers.RegistryFull)
        assert held.statistics() == machine.statistics()
    registry.check_invariants()


@pytest.mark.law("B17")
@given(option_sets(), traces())
def test_b17_only_listed_moves_and_the_generation_grows(
    options: BreakerOptions, trace: list[Event]
) -> None:
    """Every move is an edge of the table and is told; each begins a new, higher generation."""
    driver = Play(make(options))
    edges = {(edge.source, edge.target, edge.why) for edge in TRANSITIONS}
    for event in trace:
        state, gen = driver.breaker.state, driver.breaker.generation
        answer = driver.do(event)
        moved = answer if isinstance(answer, Transition) else getattr(answer, "transition", None)
        if moved is None:
            assert (driver.breaker.state, driver.breaker.generation) == (state, gen)
        else:
            assert (moved.source, moved.target, moved.why) in edges
            assert (moved.source, moved.gen) == (state, gen + 1)
            assert (moved.target, moved.gen) == (driver.breaker.state, driver.breaker.generation)


@pytest.mark.law("B18")
def test_b18_a_thundering_herd_sends_three_probes() -> None:
    """Of 10,000 callers at the moment when the wait ends, 3 probe and 9,997 are turned away."""
    machine = tripped()
    answers = [machine.acquire(30.0) for _ in range(10_000)]
    assert sum(isinstance(answer, Admit) for answer in answers) == 3
    assert sum(answer == Reject("probing", 60.0) for answer in answers) == 9_997
    assert machine.statistics().rejected == 9_997
    assert machine.statistics().state is CircuitState.HALF_OPEN
