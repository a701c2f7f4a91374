"""Law B20: the breaker of 2/2/2, in every state that it can reach. No sampling."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from attrs import evolve

from sark_trio.machines import breaker
from sark_trio.machines.circuit import TRANSITIONS, Admit, BreakerOptions, Mode, Transition, Why
from tests.models.breaker import (
    CLOSED,
    FAILURE,
    NEUTRAL,
    SUCCESS,
    BreakerModel,
    Event,
    ModelPlay,
    Play,
    in_words,
)

OPTIONS = BreakerOptions(failures=2, open_s=2.0, probes=2, successes=2, probe_max_age_s=2.0)
PERMITS_MAX = 4
TICKS = (0.0, 1.0, 2.0)

Path = tuple[Event, ...]


def canonical(driver: Play) -> tuple[Any, ...]:
    """The state up to what cannot matter: absolute time, the names of permits, old metrics."""
    machine = driver.breaker
    held = [driver.permits[number] for number in driver.outstanding]
    own = [permit for permit in held if permit.gen == machine.generation]
    count = machine.statistics()
    ages = sorted(min(driver.now - p.admitted_at, 2.0) for p in own if p.probe)
    left = 0.0 if count.open_until is None else max(0.0, count.open_until - driver.now)
    plain = sum(not permit.probe for permit in own)
    numbers = (count.failures_in_row, count.probe_successes, left, plain, len(held) - len(own))
    return (machine.mode, machine.state, *numbers, *ages)


def events(driver: Play) -> list[Event]:
    """Everything that can happen next."""
    found = [Event("tick"), Event("reset"), Event("forge")]
    found += [Event("force", mode=mode) for mode in Mode]
    settled = set(range(len(driver.permits))) - set(driver.outstanding)
    found += [Event("again", pick=number) for number in settled]
    found += [Event("acquire")] if len(driver.outstanding) < PERMITS_MAX else []
    for pick in range(len(driver.outstanding)):
        found += [Event("settle", pick=pick, outcome=o) for o in (SUCCESS, FAILURE, NEUTRAL)]
    return [evolve(event, dt=dt) for event in found for dt in TICKS]


def replay(path: Path) -> tuple[Play, ModelPlay]:
    """A machine and a model in the state that *path* leads to."""
    driver = Play(breaker.Breaker(OPTIONS))
    model = ModelPlay(BreakerModel(OPTIONS))
    for event in path:
        model.do(event, driver.number(event))
        driver.do(event)
    return driver, model


def step(path: Path, event: Event) -> tuple[Play, Any]:
    """Do *event* after *path*, on both, and hold the machine to the model and to the table."""
    driver, model = replay(path)
    before = driver.breaker.state, driver.breaker.generation
    expected = model.do(event, driver.number(event))
    peeked = driver.breaker.peek(driver.now + event.dt)
    answer = driver.do(event)
    assert in_words(answer) == expected
    machine = driver.breaker
    assert (machine.state, machine.generation) == (model.model.phase, model.model.generation)
    if event.kind == "acquire":
        assert (peeked is None) is isinstance(answer, Admit)
        assert peeked is None or peeked == evolve(answer, transition=None)
    moved = answer if isinstance(answer, Transition) else getattr(answer, "transition", None)
    assert (moved is not None) is (machine.generation != before[1])
    assert moved is None or moved.source is before[0]
    # The search goes on from a state only once: so the model has to be in the same one.
    assert rows(driver) == model.model.rows
    return driver, moved


def rows(driver: Play) -> tuple[int, int]:
    """Failures of a closed machine, and successes of one that is half open, in a row."""
    count = driver.breaker.statistics()
    return count.failures_in_row, count.probe_successes


def recovers(path: Path) -> bool:
    """Whether waiting and two good calls close it (B12)."""
    driver, _ = replay(path)
    driver.breaker.force(driver.now, Mode.AUTO)
    driver.breaker.tick(now := driver.now + 2.0)
    for _ in range(2):
        admitted = driver.breaker.acquire(now + 2.0)
        if isinstance(admitted, Admit):
            driver.breaker.settle(now + 2.0, admitted.permit, SUCCESS)
    state: object = driver.breaker.state
    return state is CLOSED


@pytest.mark.law("B20", "B1", "B3", "B4", "B5", "B6", "B7", "B11", "B12", "B13", "B17")
def test_b20_every_reachable_state_obeys() -> None:
    """In each reachable state, each event is answered as the table says, and it can recover.

    Thresholds 2/2/2, at most 4 permits out, 3 ticks of time, all modes and operators.
    """
    seen: dict[tuple[Any, ...], Path] = {canonical(replay(())[0]): ()}
    frontier: deque[Path] = deque([()])
    moves: set[tuple[Any, ...]] = set()
    steps = 0
    while frontier:
        path = frontier.popleft()
        assert recovers(path)
        for event in events(replay(path)[0]):
            driver, moved = step(path, event)
            steps += 1
            if moved is not None:
                moves.add((moved.source, moved.target, moved.why))
            if (state := canonical(driver)) not in seen:
                seen[state] = (*path, event)
                frontier.append(seen[state])
    # Written down, so that a search which stops early does not pass for a complete one.
    assert len(seen) == 126
    assert steps > 6_000
    rates = {Why.FAILURE_RATE, Why.SLOW_RATE, Why.PROBE_SLOW}
    table = {(edge.source, edge.target, edge.why) for edge in TRANSITIONS}
    assert moves == {edge for edge in table if edge[2] not in rates}
