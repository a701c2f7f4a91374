"""Hooks are told, and whatever they do, it stays with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, field

from sark_trio.telemetry.events import CallInfo, CallStarted, Event, HookDisabled, SessionRenewed
from sark_trio.telemetry.hooks import (
    EVENT_S_MAX,
    FAILURES_MAX,
    HELD_S_MAX,
    HOOKS_MAX,
    Emitter,
    HookStatistics,
    trace_context,
)

CALL = CallInfo(request_id="r1", server="db", tool="query", transport="http")
EVENT = SessionRenewed(server="db")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def emitter(*hooks: Any, **options: Any) -> Emitter:
    made = Emitter.of(hooks, **options)
    assert made is not None
    return made


@define(eq=False)
class Broken:
    """Raises at its first so many events."""

    times: int = 10**9
    told: list[Event] = field(factory=list)

    def __call__(self, event: Event) -> None:
        if self.times > 0:
            self.times -= 1
            raise RuntimeError("secret of the hook")
        self.told.append(event)


@define(eq=False)
class Carrying:
    """Has something to carry, or an error."""

    found: Any

    def __call__(self, event: Event) -> None:
        """Nothing to do."""

    def carrier(self, call: CallInfo) -> Mapping[str, str]:
        if isinstance(self.found, Exception):
            raise self.found
        return {key: value.format(call=call) for key, value in self.found.items()}


def test_without_hooks_there_is_nothing_to_call() -> None:
    assert Emitter.of(()) is None


def test_every_hook_is_told_in_order() -> None:
    told: list[Any] = []
    both = emitter(told.append, lambda event: told.append((2, event)))
    both.emit(EVENT)
    assert told == [EVENT, (2, EVENT)]


def test_a_hook_that_raises_harms_nobody_and_is_counted() -> None:
    told: list[Event] = []
    mixed = emitter(Broken(), told.append)
    mixed.emit(EVENT)
    mixed.emit(EVENT)
    assert told == [EVENT, EVENT]
    assert mixed.statistics() == (
        HookStatistics(hook="Broken", failures=2, disabled=False),
        HookStatistics(hook="list.append", failures=0, disabled=False),
    )


def test_a_hook_that_always_raises_is_told_nothing_any_more_and_the_others_are_told_so() -> None:
    told: list[Event] = []
    broken = Broken(times=FAILURES_MAX)
    mixed = emitter(broken, told.append)
    for _ in range(FAILURES_MAX + 5):
        mixed.emit(EVENT)
    assert broken.told == []
    assert told.count(HookDisabled(hook="Broken", error_type="RuntimeError")) == 1
    assert told.count(EVENT) == FAILURES_MAX + 5
    assert [one.disabled for one in mixed.statistics()] == [True, False]
    assert "secret" not in repr(told)


def test_a_hundred_failures_in_a_row_disable_a_hook_and_no_fewer() -> None:
    alone = emitter(Broken())
    for _ in range(99):
        alone.emit(EVENT)
    assert not alone.statistics()[0].disabled
    alone.emit(EVENT)
    assert alone.statistics() == (HookStatistics(hook="Broken", failures=100, disabled=True),)


def test_a_hook_that_is_disabled_while_an_event_is_told_hears_no_more_of_it() -> None:
    """The last straw is to hear that another hook is disabled, before the event itself."""
    second = Broken(times=FAILURES_MAX)
    both = emitter(Broken(), second)
    for _ in range(FAILURES_MAX):
        both.emit(EVENT)
    assert second.told == []
    assert [one.disabled for one in both.statistics()] == [True, True]


def test_failures_that_are_not_in_a_row_disable_nothing() -> None:
    broken = Broken(times=FAILURES_MAX - 1)
    alone = emitter(broken)
    for _ in range(FAILURES_MAX):
        alone.emit(EVENT)
    broken.times = FAILURES_MAX - 1
    for _ in range(FAILURES_MAX):
        alone.emit(EVENT)
    assert len(broken.told) == 2
    assert not alone.statistics()[0].disabled


def test_two_broken_hooks_are_both_disabled() -> None:
    told: list[Event] = []
    mixed = emitter(Broken(), Broken(), told.append)
    for _ in range(FAILURES_MAX + 1):
        mixed.emit(EVENT)
    assert [one.disabled for one in mixed.statistics()] == [True, True, False]
    assert sum(isinstance(event, HookDisabled) for event in told) == 2


@define(eq=False)
class Slow:
    """Takes a time of its own on a clock that is its own, too."""

    takes_s: list[float]
    now: float = 0.0
    told: int = 0

    def __call__(self, event: Event) -> None:
        self.told += 1
        self.now += self.takes_s.pop(0) if self.takes_s else 0.0

    def carrier(self, call: CallInfo) -> Mapping[str, str]:
        self(EVENT)
        return {}


def timed(*takes_s: float) -> tuple[Slow, Emitter, list[Event]]:
    slow, told = Slow(list(takes_s)), list[Event]()
    return slow, emitter(slow, told.append, clock=lambda: slow.now), told


@pytest.mark.row(61)
def test_a_hook_that_holds_up_the_loop_again_and_again_is_told_nothing_any_more() -> None:
    slow, mixed, told = timed(*[60.0] * 5)
    for _ in range(5):
        mixed.emit(EVENT)
    assert slow.told == 3  # the third time is one too many; no single one is enough
    assert told.count(HookDisabled(hook="Slow", error_type="TooSlow")) == 1
    assert told.count(EVENT) == 5
    assert [one.disabled for one in mixed.statistics()] == [True, False]
    assert [one.slow for one in mixed.statistics()] == [3, 0]


@pytest.mark.row(61)
def test_a_little_too_slow_counts_as_well() -> None:
    slow, mixed, _ = timed(*[2 * EVENT_S_MAX] * 200)
    for _ in range(200):
        mixed.emit(EVENT)
    assert slow.told == pytest.approx(HELD_S_MAX / EVENT_S_MAX, abs=1)


@pytest.mark.row(61)
def test_who_asks_for_a_trace_context_is_timed_as_well() -> None:
    slow, mixed, told = timed(*[60.0] * 5)
    for _ in range(5):
        mixed.carrier(CALL)
    assert slow.told == 3
    assert told == [HookDisabled(hook="Slow", error_type="TooSlow")]


@pytest.mark.row(61)
def test_a_hook_may_take_a_hundredth_of_a_second_and_no_more() -> None:
    slow, mixed, _ = timed(EVENT_S_MAX)
    mixed.emit(EVENT)
    assert mixed.statistics()[0].slow == 0
    slow.takes_s, slow.now = [1.01 * EVENT_S_MAX], 0.0
    mixed.emit(EVENT)
    assert mixed.statistics()[0].slow == 1


@pytest.mark.row(61)
def test_a_hook_that_held_up_the_loop_for_just_the_longest_time_is_disabled() -> None:
    slow, mixed, _ = timed(0.4, 0.4, 0.23)
    for disabled in (False, False, True):
        slow.now = 0.0
        mixed.emit(EVENT)
        assert mixed.statistics()[0].disabled is disabled


@pytest.mark.row(61)
def test_a_quick_event_gives_back_no_more_than_what_it_spared() -> None:
    _, mixed, _ = timed(60.0, 60.0, 0.0, 60.0)
    for _ in range(4):
        mixed.emit(EVENT)
    assert mixed.statistics()[0].disabled


def test_one_long_pause_or_quick_events_in_between_disable_nothing() -> None:
    slow, mixed, told = timed(3600.0)
    mixed.emit(EVENT)
    assert slow.told == 1
    slow.takes_s += [0.4, *[0.0] * 40] * 20
    for _ in range(820):
        mixed.emit(EVENT)
    assert slow.told == 821
    assert told == [EVENT] * 821
    slow.takes_s += [EVENT_S_MAX / 2] * 1000
    for _ in range(1000):
        mixed.emit(EVENT)
    assert not mixed.statistics()[0].disabled


def test_what_the_others_take_to_hear_of_it_is_not_the_next_ones_fault() -> None:
    slow = Slow([60.0] * 3)

    def listens(event: Event) -> None:
        if isinstance(event, HookDisabled):
            slow.now += 60.0

    mixed = emitter(slow, listens, print_nothing, clock=lambda: slow.now)
    for _ in range(3):
        mixed.emit(EVENT)
    assert [one.slow for one in mixed.statistics()] == [3, 1, 0]


def print_nothing(event: Event) -> None:
    """A hook that takes no time."""


def test_what_ends_the_program_goes_through() -> None:
    def interrupted(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emitter(interrupted).emit(EVENT)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a hook is a callable that takes an event, not a str"):
        Emitter.of(["print"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="17 hooks are more than 16"):
        Emitter.of([print] * (HOOKS_MAX + 1))
    assert len(emitter(*[print] * HOOKS_MAX).statistics()) == 16


# -- what is carried --------------------------------------------------------------------------


def test_the_first_hook_with_a_context_is_asked() -> None:
    mixed = emitter(
        print,
        Carrying({}),
        Carrying({"traceparent": PARENT}),
        Carrying({"traceparent": "not asked"}),
    )
    assert mixed.carrier(CALL) == {"traceparent": PARENT}
    assert emitter(print).carrier(CALL) is None


def test_a_carrier_that_raises_is_counted_and_the_next_one_asked() -> None:
    mixed = emitter(Carrying(RuntimeError("no")), Carrying({"traceparent": PARENT}))
    assert mixed.carrier(CALL) == {"traceparent": PARENT}
    assert [one.failures for one in mixed.statistics()] == [1, 0]


def test_a_carrier_that_always_raises_is_disabled() -> None:
    alone = emitter(Carrying(RuntimeError("no")))
    for _ in range(FAILURES_MAX):
        alone.carrier(CALL)
        assert alone.carrier(CALL) is None
    assert alone.statistics()[0].disabled
    alone.emit(CallStarted(call=CALL))


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ({"traceparent": PARENT, "tracestate": "a=1"}, {"traceparent", "tracestate"}),
        ({"traceparent": PARENT, "baggage": "a=1,b=2"}, {"traceparent", "baggage"}),
        ({"baggage": "a=1"}, {"baggage"}),
        ({"tracestate": "a=1"}, set()),
        ({"traceparent": PARENT.replace("00-", "ff-", 1)}, set()),
        ({"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}, set()),
        ({"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"}, set()),
        ({"traceparent": f"{PARENT}\r\nx: y", "tracestate": "a=1"}, set()),
        ({"traceparent": f"{PARENT}\n"}, set()),
        ({"traceparent": 7}, set()),
        ({"traceparent": PARENT, "tracestate": "a" * 512}, {"traceparent", "tracestate"}),
        ({"traceparent": PARENT, "tracestate": "a" * 513}, {"traceparent"}),
        ({"traceparent": PARENT, "baggage": "a=1\r\nb: 2"}, {"traceparent"}),
        ({"traceparent": PARENT, "baggage": ""}, {"traceparent"}),
        ({"traceparent": PARENT, "authorization": "Bearer x"}, {"traceparent"}),
        ({"baggage": "b" * 8_192}, {"baggage"}),
        ({"baggage": "b" * 8_193}, set()),
    ],
)
def test_only_what_the_w3c_lets_pass_is_sent(found: dict[str, Any], kept: set[str]) -> None:
    assert trace_context(found) == {key: found[key] for key in kept}
