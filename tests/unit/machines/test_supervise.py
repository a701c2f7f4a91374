"""Supervision step by step: what its laws leave to examples."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.supervise import (
    TABLE,
    Down,
    Event,
    Fault,
    Kill,
    Phase,
    Probe,
    Start,
    SuperviseOptions,
    Supervisor,
    Wait,
)


def running(**options: Any) -> Supervisor:
    supervisor = Supervisor(SuperviseOptions(**options))
    assert supervisor.start(0.0) == Start(restart=False)
    return supervisor


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"restarts_max": -1}, ValueError),
        ({"restarts_max": 1.0}, TypeError),
        ({"window_s": 0}, ValueError),
        ({"cool_off_s": 29.9}, ValueError),
        ({"timeouts_max": 0}, ValueError),
        ({"probe_s": float("inf")}, ValueError),
        ({"backoff": 1.0}, TypeError),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        SuperviseOptions(**options)


def test_the_defaults_are_those_of_the_laws() -> None:
    options = SuperviseOptions()
    assert (options.restarts_max, options.window_s, options.cool_off_s) == (5, 30.0, 300.0)
    assert (options.timeouts_max, options.probe_s) == (3, 10.0)


def test_the_first_restart_is_immediate_and_the_next_fruitless_ones_wait() -> None:
    supervisor = Supervisor(SuperviseOptions(backoff=RetryConfig(initial_delay_s=1, jitter=0)))
    waits = []
    now = 0.0
    for _ in range(5):
        step = supervisor.start(now)
        if isinstance(step, Wait):
            waits.append(step.seconds)
            assert supervisor.next_deadline() == now + step.seconds
            now += step.seconds
            assert isinstance(supervisor.start(now), Start)
        supervisor.ended(now, 0.5)
    assert waits == [1.0, 2.0, 4.0]


def test_a_process_that_answered_is_replaced_at_once() -> None:
    supervisor = running()
    for now in range(1, 5):
        supervisor.answered(now)
        supervisor.ended(now, 0.9)
        assert supervisor.start(now) == Start(restart=True)
    assert supervisor.statistics().restarts == 4


def test_one_process_in_vain_after_a_good_one_is_no_row_of_them() -> None:
    supervisor = running(backoff=RetryConfig(initial_delay_s=0.25))
    supervisor.answered(1.0)
    supervisor.ended(1.0, 0.5)
    for now, step in ((1.0, Start(restart=True)), (2.0, Start(restart=True)), (3.0, Wait(0.25))):
        assert supervisor.start(now) == step
        if isinstance(step, Start):
            supervisor.ended(now + 1.0, 0.5)


def test_before_the_first_process_there_is_nothing_to_wait_for() -> None:
    supervisor = Supervisor()
    assert supervisor.next_deadline() is None
    assert supervisor.statistics().timeouts == supervisor.statistics().recent == 0
    supervisor.start(1.0)
    supervisor.ended(2.0, 0.5)
    assert supervisor.next_deadline() is None


def test_nothing_is_waited_for_once_it_is_closed() -> None:
    supervisor = running()
    supervisor.ended(0.0, 0.5)
    supervisor.start(0.0)
    supervisor.ended(0.0, 0.5)
    assert supervisor.next_deadline() == 0.2
    supervisor.close(0.1)
    assert supervisor.next_deadline() is None


def test_one_restart_too_many_takes_it_down_until_it_cooled_off() -> None:
    supervisor = running(restarts_max=1)
    supervisor.ended(1.0, 0.5)
    supervisor.start(1.0)
    supervisor.answered(1.0)
    supervisor.ended(2.0, 0.5)
    assert supervisor.refusal(2.0) is None
    assert supervisor.start(2.0) == Down(300.0)
    assert supervisor.refusal(3.0) == Down(299.0)
    for no_time in (2.0**40, float("inf"), float("nan"), 1.0):
        assert supervisor.refusal(no_time) == supervisor.start(no_time) == Down(300.0)
    assert supervisor.statistics().down_until == supervisor.next_deadline() == 302.0
    assert supervisor.start(301.0) == Down(1.0)
    assert supervisor.refusal(302.0) is None
    assert supervisor.start(302.0) == Start(restart=False)
    assert supervisor.statistics().downs == 1


def test_an_operators_word_takes_it_up_again() -> None:
    supervisor = running(restarts_max=0)
    supervisor.ended(1.0, 0.5)
    assert supervisor.start(1.0) == Down(300.0)
    supervisor.reset(2.0)
    assert supervisor.phase is Phase.IDLE
    assert supervisor.start(2.0) == Start(restart=False)


def test_an_operators_word_gives_back_every_restart() -> None:
    supervisor = running(restarts_max=1)
    for _ in range(2):
        supervisor.answered(1.0)
        supervisor.ended(1.0, 0.5)
        assert supervisor.start(1.0) == Start(restart=True)
        supervisor.answered(1.0)
        supervisor.ended(1.0, 0.5)
        supervisor.reset(1.0)
        assert supervisor.statistics().recent == 0
        assert supervisor.start(1.0) == Start(restart=False)


@pytest.mark.fault(39)
def test_a_process_that_nobody_calls_is_asked_nothing_for_ever() -> None:
    supervisor = running()
    assert supervisor.next_deadline() is None
    assert supervisor.tick(1e9) is None
    assert supervisor.phase is Phase.RUNNING


def test_a_call_in_vain_makes_us_ask_and_silence_ends_it() -> None:
    supervisor = running()
    assert supervisor.timed_out(30.0) == Probe()
    assert supervisor.next_deadline() == 40.0
    supervisor.heard(35.0)  # it writes: it is not stuck
    assert supervisor.tick(44.9) is None
    assert supervisor.timed_out(44.9) is None
    assert supervisor.tick(45.0) == Kill("silent")
    assert supervisor.phase is Phase.SICK
    assert supervisor.timed_out(46.0) is supervisor.answered(46.0) is supervisor.tick(99.0) is None
    supervisor.ended(46.0, 0.5)
    assert supervisor.statistics().kills == 1


def test_an_answer_forgives_and_three_calls_in_a_row_without_one_do_not() -> None:
    supervisor = running()
    for now in (1.0, 2.0, 3.0):
        assert supervisor.timed_out(now) == Probe()
        supervisor.answered(now)
    assert supervisor.timed_out(4.0) == Probe()
    assert supervisor.timed_out(4.0) is None
    supervisor.heard(4.0)
    assert supervisor.timed_out(4.0) == Kill("timeouts")


def test_its_end_after_the_close_is_no_failure() -> None:
    supervisor = running()
    supervisor.close(1.0)
    supervisor.close(1.0)
    assert supervisor.ended(1.0, 0.5) is None
    assert supervisor.start(2.0) == Fault("start", Phase.CLOSED)
    assert supervisor.statistics().restarts == 0


def test_misuse_is_a_fault_and_changes_nothing() -> None:
    supervisor = Supervisor()
    assert supervisor.ended(0.0, 0.5) == Fault("ended", Phase.IDLE)
    assert supervisor.answered(0.0) == Fault("answered", Phase.IDLE)
    assert supervisor.timed_out(0.0) == Fault("timed_out", Phase.IDLE)
    assert supervisor.statistics().faults == 3
    assert supervisor.start(0.0) == Start(restart=False)
    assert supervisor.start(0.0) == Fault("start", Phase.RUNNING)


def test_the_table_can_be_closed_from_anywhere_and_left_from_nowhere_else() -> None:
    assert {phase for phase, event in TABLE if event is Event.CLOSED} == {*Phase} - {Phase.CLOSED}
    assert not [event for phase, event in TABLE if phase is Phase.CLOSED]


def test_a_repr_is_one_line() -> None:
    assert repr(running()) == "<Supervisor running restarts=0 recent=0 timeouts=0>"
