"""Laws of the legacy session: one renewal for each generation, whoever sees it die and when."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sark_trio.mcp.messages import Fault
from sark_trio.mcp.session import (
    GiveUp,
    Join,
    Phase,
    Renew,
    SessionLifecycle,
    Use,
)
from tests.support.traces import traces

VERSION = "2025-11-25"


class Calls(RuleBasedStateMachine):
    """Many calls over one lifecycle, each at its own place, and a server that forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = SessionLifecycle()
        self.leading: list[tuple[int, bool]] = []  # generation, retried
        self.waiting: list[bool] = []  # retried
        self.sending: list[tuple[int, bool]] = []  # generation, retried
        self.alive: int | None = None  # the generation that the server remembers
        self.begun: Counter[int] = Counter()
        self.renewals_after_404: Counter[int] = Counter()
        self.lost = 0

    def follow(self, outcome: object, retried: bool) -> None:
        if isinstance(outcome, Use):
            self.sending.append((outcome.session.generation, retried))
        elif isinstance(outcome, Renew):
            self.begun[outcome.generation] += 1
            self.leading.append((outcome.generation, retried))
        else:
            assert isinstance(outcome, Join)
            self.waiting.append(retried)

    @rule()
    def arrive(self) -> None:
        self.follow(self.machine.acquire(), retried=False)

    @precondition(lambda self: self.leading)
    @rule(named=st.just("id"), data=st.data())
    def initialize_succeeds(self, named: str, data: st.DataObject) -> None:
        generation, retried = self.leading.pop(data.draw(st.integers(0, len(self.leading) - 1)))
        outcome = self.machine.on_ready(generation, f"{named}-{generation}", VERSION)
        assert isinstance(outcome, Use)
        self.alive = generation
        self.follow(outcome, retried)
        self.wake()

    @precondition(lambda self: self.leading)
    @rule()
    def the_leader_is_cancelled(self) -> None:
        generation, _ = self.leading.pop()
        assert self.machine.on_failed(generation) is None
        self.wake()

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for retried in waiting:
            self.follow(self.machine.acquire(), retried)

    @rule()
    def the_server_forgets(self) -> None:
        self.alive = None

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def an_answer_comes(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.sending) - 1))
        generation, retried = self.sending.pop(at)
        if generation == self.alive:
            return
        outcome = self.machine.on_404(generation, retried=retried)
        if retried:
            assert outcome == GiveUp("retried")
            self.lost += 1
        else:
            if isinstance(outcome, Renew):
                self.renewals_after_404[generation] += 1
            self.follow(outcome, retried=True)

    @invariant()
    def the_machine_is_sound(self) -> None:
        self.machine.check_invariants()
        assert len(self.leading) <= 1
        assert (self.machine.statistics().phase is Phase.INITIALIZING) == bool(self.leading)
        assert not self.waiting or self.leading
        assert all(count == 1 for count in self.begun.values())
        assert self.machine.statistics().lost == self.lost


TestCalls = Calls.TestCase


@given(st.integers(1, 200), st.data())
def test_row_18_concurrent_404s_cost_one_renewal(calls: int, data: st.DataObject) -> None:
    """A session dies under many calls: one leads, the rest share, each tries once more."""
    machine = SessionLifecycle()
    machine.acquire()
    machine.on_ready(1, "s1", VERSION)
    made_after = data.draw(st.integers(1, calls))
    outcomes = []
    for number in range(1, calls + 1):
        outcomes.append(machine.on_404(1))
        if number == made_after:
            machine.on_ready(2, "s2", VERSION)
        machine.check_invariants()
    assert Counter(map(type, outcomes)) == +Counter(
        {Renew: 1, Join: made_after - 1, Use: calls - made_after}
    )
    assert machine.statistics().renewals == 1


@given(st.integers(1, 50), st.integers(1, 5))
def test_row_18_a_server_that_always_forgets_ends_every_call(calls: int, rounds: int) -> None:
    """404 for ever: each call has one session more than it was sent with, and then none."""
    machine = SessionLifecycle()
    for _ in range(rounds):
        first = machine.acquire()
        if isinstance(first, Renew):
            machine.on_ready(first.generation, "s", VERSION)
        session = machine.acquire()
        assert isinstance(session, Use)
        generation = session.session.generation
        before = machine.statistics().generation
        for _ in range(calls):
            machine.on_404(generation)
        machine.on_ready(generation + 1, "s", VERSION)
        for _ in range(calls):
            assert machine.on_404(generation + 1, retried=True) == GiveUp("retried")
        assert machine.statistics().generation == before + 1
    assert machine.statistics().lost == calls * rounds


OPERATIONS = st.one_of(
    st.tuples(st.just("acquire")),
    st.tuples(st.just("ready"), st.integers(-1, 5), st.sampled_from([None, "s", "", "\n"])),
    st.tuples(st.just("failed"), st.integers(-1, 5)),
    st.tuples(st.just("404"), st.integers(-1, 5), st.booleans()),
    st.tuples(st.just("close")),
)


@given(traces(OPERATIONS, most=40))
def test_any_misuse_is_a_fault_and_changes_nothing(operations: list[tuple[object, ...]]) -> None:
    """Reports in any order are answered; a Fault leaves the machine as it was."""
    machine = SessionLifecycle()
    for name, *arguments in operations:
        before = machine.statistics()
        outcome = {
            "acquire": machine.acquire,
            "ready": lambda: machine.on_ready(arguments[0], arguments[1], VERSION),  # noqa: B023
            "failed": lambda: machine.on_failed(arguments[0]),  # noqa: B023
            "404": lambda: machine.on_404(arguments[0], retried=arguments[1]),  # noqa: B023
            "close": machine.on_close,
        }[name]()
        machine.check_invariants()
        if isinstance(outcome, Fault):
            assert machine.statistics() == before
