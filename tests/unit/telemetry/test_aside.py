"""A hook that blocks is told in a thread, and whoever tells it never waits."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
from attrs import define, field

from sark_trio.telemetry import aside
from sark_trio.telemetry.aside import Aside, AsideStatistics
from sark_trio.telemetry.events import CallInfo, Event, SessionRenewed

#: Only a test that fails waits so long.
PATIENCE_S = 30.0


def event(n: int) -> Event:
    return SessionRenewed(server=f"s{n}")


@define(eq=False)
class Gate:
    """A hook that comes back from an event when it is let."""

    open: threading.Event = field(factory=threading.Event)
    inside: threading.Event = field(factory=threading.Event)
    told: list[Event] = field(factory=list)
    threads: set[threading.Thread] = field(factory=set)

    def __call__(self, event: Event) -> None:
        self.inside.set()
        assert self.open.wait(PATIENCE_S)
        self.told.append(event)
        self.threads.add(threading.current_thread())


def test_events_come_in_their_order_and_in_another_thread() -> None:
    gate = Gate()
    gate.open.set()
    hook = Aside(gate)
    for n in range(100):
        hook(event(n))
    assert hook.flush(PATIENCE_S)
    assert gate.told == [event(n) for n in range(100)]
    (thread,) = gate.threads
    assert thread is not threading.current_thread()
    assert (thread.name, thread.daemon) == ("sark_trio hook", True)
    assert hook.statistics() == AsideStatistics(told=100, failures=0, dropped=0, waiting=0)
    assert repr(hook) == "<Aside Gate waiting=0>"


def test_the_thread_and_who_waits_for_it_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "IDLE_S", 100 * PATIENCE_S)
    gate = Gate()
    gate.open.set()
    hook = Aside(gate)
    for n in range(100):
        hook(event(n))
        assert hook.flush(100 * PATIENCE_S)
    assert gate.told == [event(n) for n in range(100)]
    assert len(gate.threads) == 1


def test_there_is_nothing_to_wait_for_before_the_first_event() -> None:
    assert Aside(print).flush(0)


def test_times_are_short_where_nothing_else_is_said() -> None:
    assert inspect.signature(Aside.flush).parameters["timeout_s"].default == 5
    assert aside.IDLE_S == 5


@pytest.mark.row(61)
def test_a_hook_that_hangs_costs_events_and_nothing_else() -> None:
    gate = Gate()
    hook = Aside(gate, queue_max=3)
    hook(event(0))
    assert gate.inside.wait(PATIENCE_S)
    assert hook.statistics() == AsideStatistics(told=0, failures=0, dropped=0, waiting=0)
    assert not hook.flush(0)  # nothing waits, and one is not told yet
    for n in range(1, 11):
        hook(event(n))
    assert hook.statistics() == AsideStatistics(told=0, failures=0, dropped=7, waiting=3)
    assert not hook.flush(0)
    gate.open.set()
    assert hook.flush(PATIENCE_S)
    assert gate.told == [event(n) for n in range(4)]
    hook(event(11))
    assert hook.flush(PATIENCE_S)
    assert gate.told[-1] == event(11)


@pytest.mark.row(61)
@pytest.mark.parametrize("exc", [RuntimeError("no"), SystemExit(1)])
def test_what_a_hook_raises_is_counted(exc: BaseException) -> None:
    def broken(_: Event) -> None:
        raise exc

    hook = Aside(broken)
    for n in range(3):
        hook(event(n))
    assert hook.flush(PATIENCE_S)
    assert hook.statistics() == AsideStatistics(told=0, failures=3, dropped=0, waiting=0)


def test_a_thread_that_nobody_needs_ends_and_another_one_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aside, "IDLE_S", 0.0)
    gate = Gate()
    gate.open.set()
    hook = Aside(gate)
    for n in range(3):
        hook(event(n))
        assert hook.flush(PATIENCE_S)
        thread = hook._thread
        if thread is not None:
            thread.join(PATIENCE_S)
        assert hook._thread is None
    assert gate.told == [event(n) for n in range(3)]


def test_without_a_thread_events_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    hook = Aside(print)
    hook(event(0))
    assert hook.statistics().dropped == 1


def test_options_that_cannot_be_are_refused() -> None:
    class Carrying:
        def __call__(self, event: Event) -> None: ...

        def carrier(self, call: CallInfo) -> dict[str, str]:
            return {}

    with pytest.raises(ValueError, match="at once"):
        Aside(Carrying())
    assert Aside(print).queue_max == 1_000
    for value in (1, 1_000_000):
        assert Aside(print, queue_max=value).queue_max == value
    wrong: list[Any] = [0, 1_000_001, 1.5]
    for value in wrong:
        with pytest.raises((ValueError, TypeError), match="queue_max"):
            Aside(print, queue_max=value)
