"""The laws of supervision (machines.supervise): D2, and what of the others is pure."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.machines import supervise
from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.supervise import (
    TABLE,
    Down,
    Phase,
    Start,
    SuperviseOptions,
    Wait,
)
from tests.models.supervise import SupervisorModel, crowded
from tests.support.traces import traces

#: No jitter, and times that floats hold exactly: the model adds in another order.
EXACT = RetryConfig(initial_delay_s=0.25, max_delay_s=4.0, jitter=0.0)
SMALL = SuperviseOptions(
    restarts_max=2, window_s=4.0, cool_off_s=8.0, timeouts_max=2, probe_s=1.0, backoff=EXACT
)
OPTIONS = [
    SMALL,
    SuperviseOptions(backoff=EXACT),
    SuperviseOptions(restarts_max=0, backoff=EXACT),
    SuperviseOptions(restarts_max=1, timeouts_max=1, backoff=EXACT),
]
EVENTS = ["start", "ended", "answered", "heard", "timed_out", "tick", "reset", "close"]
#: Mostly the events of a life, and seldom its end.
LIKELY = [*EVENTS[:6] * 4, "start", "start", "ended", "reset", "close"]


def play(machine: Any, model: SupervisorModel, event: str, now: float) -> None:
    """One event to both: the same answer, and a state that can be."""
    arguments = (now, 0.5) if event == "ended" else (now,)
    before = machine.phase
    got = getattr(machine, event)(*arguments)
    assert type(got).__name__.replace("NoneType", "None") == getattr(model, event)(*arguments)
    machine.check_invariants()
    assert machine.statistics().recent <= machine.options.restarts_max
    later = machine.phase
    assert before is later or (before, later) in _MOVES
    if isinstance(got, Wait):
        assert model.now + got.seconds >= model.not_before
    if isinstance(got, Down):
        assert model.down_since is not None
        assert model.now + got.retry_after_s >= model.down_since + model.options.cool_off_s


# A step of the clock may cool off first; what is asked then moves on from there.
_EDGES = {(before, after) for (before, _), after in TABLE.items()}
_MOVES = _EDGES | {(Phase.DOWN, after) for before, after in _EDGES if before is Phase.IDLE}


PROGRAMS = traces(st.tuples(st.sampled_from(LIKELY), st.integers(-64, 256)), most=120)


@pytest.mark.law("D2")
@given(st.sampled_from(OPTIONS), PROGRAMS)
def test_d02_it_does_what_a_perfect_memory_would(
    options: SuperviseOptions, program: list[tuple[str, int]]
) -> None:
    """Restarts in any 30 s window are at most 5, whatever happens, and no fewer than may be."""
    machine, model, now = supervise.Supervisor(options), SupervisorModel(options), 0.0
    for event, step in program:
        now = max(0.0, now + step / 64)
        play(machine, model, event, now)
        for restarts in model.restarts:
            assert crowded(restarts, options.window_s) <= options.restarts_max
    assert machine.statistics().restarts == sum(map(len, model.restarts))


@pytest.mark.law("D2")
def test_d02_every_short_program_is_played() -> None:
    """The bound holds in every program of seven events with every gap that matters."""
    steps = [(event, gap) for event in [*EVENTS[:2], "answered", "reset"] for gap in (0.0, 2.0)]
    for program in product(steps, repeat=5):
        machine, model, now = supervise.Supervisor(SMALL), SupervisorModel(SMALL), 0.0
        play(machine, model, "start", now)
        play(machine, model, "ended", now)
        for event, gap in program:
            now += gap
            play(machine, model, event, now)
        for restarts in model.restarts:
            assert crowded(restarts, SMALL.window_s) <= SMALL.restarts_max


@pytest.mark.law("D2")
def test_d02_every_short_life_is_played() -> None:
    """Of a running process, too: every program of what it may say, leave unsaid, and be asked."""
    steps = [(event, gap) for event in EVENTS[2:6] for gap in (0.0, 1.0)]
    for program in product(steps, repeat=4):
        machine, model, now = supervise.Supervisor(SMALL), SupervisorModel(SMALL), 0.0
        play(machine, model, "start", now)
        for event, gap in program:
            now += gap
            play(machine, model, event, now)
        play(machine, model, "ended", now)
        play(machine, model, "answered", now)


@pytest.mark.law("D2")
@given(st.floats(0, 60), st.floats(0, 1, exclude_max=True), st.integers(0, 40))
def test_d02_one_that_never_works_is_down_after_five_restarts(
    begin: float, jitter: float, deaths: int
) -> None:
    """A driver that always asks again starts six processes, and none more until the cool-off."""
    machine, now, starts = supervise.Supervisor(), begin, []
    for _ in range(deaths):
        step = machine.start(now)
        while isinstance(step, Wait):
            now += step.seconds
            step = machine.start(now)
        if isinstance(step, Down):
            assert len(starts) == 6
            assert step.retry_after_s == pytest.approx(300.0)
            assert now - starts[0] < 30
            now += step.retry_after_s
            starts.clear()
            continue
        assert isinstance(step, Start)
        starts.append(now)
        machine.ended(now, jitter)
    assert machine.statistics().downs == deaths // 7


@pytest.mark.law("D2")
@given(traces(st.tuples(st.sampled_from(EVENTS[:6]), st.integers(0, 64)), most=60))
def test_d02_a_clock_that_goes_back_stands_still(program: list[tuple[str, int]]) -> None:
    """An older time, or none at all, counts as the last one: no window is cut short by it."""
    steady, shaken, now = supervise.Supervisor(SMALL), supervise.Supervisor(SMALL), 0.0
    for event, step in program:
        now += step / 64
        extra = (0.5,) if event == "ended" else ()
        assert getattr(shaken, event)(now, *extra) == getattr(steady, event)(now, *extra)
        for odd in (0.0, -1e300, float("nan"), float("inf")):
            assert shaken.tick(odd) == steady.tick(now)
        assert shaken.statistics() == steady.statistics()
        assert shaken.next_deadline() == steady.next_deadline()


@pytest.mark.law("D2")
@given(PROGRAMS)
def test_d02_waiting_as_long_as_told_is_enough(program: list[tuple[str, int]]) -> None:
    """After exactly the wait that was asked for, a process may be started, or it is down."""
    machine, now = supervise.Supervisor(SMALL), 0.0
    for event, step in program:
        now = max(now, now + step / 64)
        if event != "close":
            getattr(machine, event)(now, *((0.5,) if event == "ended" else ()))
    asked = machine.start(now)
    if isinstance(asked, Wait):
        assert isinstance(machine.start(now + asked.seconds), Start)
    elif isinstance(asked, Down):
        assert machine.refusal(now) == asked
        assert machine.refusal(now + asked.retry_after_s) is None
        assert isinstance(machine.start(now + asked.retry_after_s), Start)
