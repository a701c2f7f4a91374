"""The laws of the connection pool (machines.pool)."""

from __future__ import annotations

import heapq
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sark_trio.machines import ledger as ledger_module
from sark_trio.machines.pool import Close, Dial, Fail, Fault, Grant, Pool, PoolOptions
from tests.models.pool import EVENTS, PoolShell
from tests.support.traces import traces

OPTIONS = st.builds(
    PoolOptions,
    total=st.integers(1, 4),
    per_origin=st.integers(1, 3),
    idle_max=st.integers(0, 3),
    waiters_max=st.integers(2, 8),
    idle_s=st.just(30.0),
    age_max_s=st.sampled_from([20.0, 70.0, 3600.0]),
    streams_max=st.integers(0, 3),
)
STEPS = traces(
    st.tuples(st.sampled_from([*EVENTS, "want", "dialed", "give_back"]), st.integers(0, 9)),
    most=60,
)

Check = Callable[[PoolShell, tuple[Any, ...]], None]


def run(options: PoolOptions, steps: list[tuple[str, int]], check: Check) -> PoolShell:
    shell = PoolShell(options)
    for event, choice in steps:
        effects = shell.do(event, choice)
        shell.pool.check_invariants()
        check(shell, effects)
    return shell


@pytest.mark.law("P1")
@given(options=OPTIONS, steps=STEPS)
def test_p01_slots_never_exceed_the_limits(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """Slots are at most ``total``, and at most ``per_origin`` for each origin, at every step."""

    def check(shell: PoolShell, _: object) -> None:
        assert len(shell.owner) <= options.total
        counts = Counter(shell.origin_of.values())
        assert max(counts.values(), default=0) <= options.per_origin
        assert len(shell.owned("pool")) <= options.idle_max

    run(options, steps, check)


@pytest.mark.law("P1")
@given(options=OPTIONS, steps=STEPS)
def test_p01_streams_never_take_the_last_connection(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """Streams, held or waited for, leave one connection for calls; and no more are refused."""
    most = min(options.streams_max, max(1, options.total - 1))
    most_here = max(1, options.per_origin - 1)
    shell = PoolShell(options)
    for event, choice in steps:
        before = Counter(shell.streams.values())
        full = before.total() >= most or before["ab"[choice % 2]] >= most_here
        reasons = [e.reason for e in shell.do(event, choice) if isinstance(e, Fail)]
        assert ("streams_full" in reasons) == (event == "want_stream" and full)
        after = Counter(shell.streams.values())
        assert after.total() == shell.pool.statistics().streams <= most
        assert max(after.values(), default=0) <= most_here
        if full and event == "try_lease_stream":
            assert after == before


@pytest.mark.law("P2")
@given(options=OPTIONS, steps=STEPS)
def test_p02_every_slot_has_one_owner_and_all_come_home(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """Each slot has one owner; once everybody is done, none is leased, connecting or closing."""

    def check(shell: PoolShell, _: object) -> None:
        # The shell's books (which assert each change of owner) and the machine's agree.
        now, owners = shell.pool.statistics(), Counter(shell.owner.values())
        books = [owners[name] for name in ("dial", "pool", "ticket", "lessee", "closer")]
        assert [now.connecting, now.idle, now.granted, now.leased, now.closing] == books
        assert now.waiting == len(shell.waiting)

    shell = run(options, steps, check)
    shell.quiesce()
    shell.pool.check_invariants()
    now = shell.pool.statistics()
    assert (now.connecting, now.granted, now.leased, now.closing, now.waiting) == (0,) * 5
    assert now.idle == len(shell.owned("pool")) == len(shell.owner)


@pytest.mark.law("P3")
@given(options=OPTIONS, steps=STEPS)
def test_p03_an_origin_is_served_in_order(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """Of one origin, no ticket is granted or failed by a dial while an older one waits."""
    shell = PoolShell(options)
    for event, choice in steps:
        before = dict(shell.waiting)
        for effect in shell.do(event, choice):
            if isinstance(effect, Grant) or (
                isinstance(effect, Fail) and effect.reason == "dial_failed"
            ):
                mine = before.pop(effect.ticket, None)
                assert mine is None or not [
                    t for t, origin in before.items() if origin == mine and t < effect.ticket
                ]


@pytest.mark.law("P3")
@given(options=OPTIONS, steps=STEPS)
def test_p03_an_older_ticket_is_passed_only_while_its_origin_is_full(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """No dial and no returned connection goes to a ticket while an older one lacks capacity."""
    shell = PoolShell(options)
    for event, choice in steps:
        for effect in shell.do(event, choice):
            if not isinstance(effect, Dial):
                continue
            other = "b" if effect.origin == "a" else "a"
            ours = undialed(shell, effect.origin, besides=effect.slot)
            theirs = undialed(shell, other)
            if theirs and ours and theirs[0] < ours[0]:
                full = list(shell.origin_of.values()).count(other) == options.per_origin
                assert full


def undialed(shell: PoolShell, origin: str, besides: int = 0) -> list[int]:
    """Tickets of *origin* that are not covered by a dial (*besides* not counted)."""
    dials = [s for s in shell.owned("dial") if shell.origin_of[s] == origin and s != besides]
    return [ticket for ticket, where in shell.waiting.items() if where == origin][len(dials) :]


@pytest.mark.law("P3")
@pytest.mark.parametrize("quiet_first", [True, False])
def test_p03_a_busy_origin_does_not_starve_a_quiet_one(*, quiet_first: bool) -> None:
    """A ticket is granted after finitely many returns, however many others keep coming."""
    pool = Pool(PoolOptions(total=2, per_origin=2))
    leased = []
    for _ in range(2):
        ticket, (dial,) = pool.want(0.0, "busy")
        assert pool.dialed(0.0, dial.slot) == (Grant(ticket, dial.slot),)
        leased.append(pool.start(0.0, ticket))
    if not quiet_first:
        pool.want(0.0, "busy")
    quiet, _ = pool.want(0.0, "quiet")
    pool.want(0.0, "busy")
    effects = [e for _ in range(3) for e in cycle(pool, leased.pop(0), leased)]
    granted = [effect.ticket for effect in effects if isinstance(effect, Grant)]
    assert quiet in granted


def cycle(pool: Pool, slot: int, leased: list[int]) -> Iterator[Any]:
    """Give *slot* back, see through what follows, and let a new ticket want the busy origin."""
    work = list(pool.give_back(0.0, slot, clean=True))
    while work:
        effect = work.pop(0)
        yield effect
        match effect:
            case Close(gone):
                work += pool.closed(0.0, gone)
            case Dial(dialing):
                work += pool.dialed(0.0, dialing)
            case Grant(ticket):
                started = pool.start(0.0, ticket)
                assert not isinstance(started, Fault)
                leased.append(started)
    pool.want(0.0, "busy")


@pytest.mark.law("P4")
@given(options=OPTIONS, steps=STEPS)
def test_p04_nobody_waits_for_what_is_free(
    options: PoolOptions, steps: list[tuple[str, int]]
) -> None:
    """A waiter and capacity that it could use never coexist after a step."""

    def check(shell: PoolShell, _: object) -> None:
        unmet = 0
        for origin in "ab":
            waits = undialed(shell, origin)
            idle = [s for s in shell.owned("pool") if shell.origin_of[s] == origin]
            assert not (origin in shell.waiting.values() and idle)
            room = options.per_origin - list(shell.origin_of.values()).count(origin)
            unmet += min(len(waits), room)
        assert not (unmet and len(shell.owner) < options.total)
        assert unmet <= len(shell.owned("closer")) or not shell.owned("pool")

    run(options, steps, check)


@pytest.mark.law("P6")
@given(options=OPTIONS, steps=STEPS)
def test_p06_nothing_unfit_is_granted(options: PoolOptions, steps: list[tuple[str, int]]) -> None:
    """No grant or lease of a connection that is expired, too old, dirty, or closed by its peer."""
    shell = PoolShell(options)
    for event, choice in steps:
        unfit, shell.log = set(shell.unfit), []
        shell.do(event, choice)
        taken = [e.slot for e in shell.log if isinstance(e, Grant)]
        taken += [e[1] for e in shell.log if isinstance(e, tuple)]
        for slot in taken:
            assert slot not in unfit
            assert slot not in shell.unfit
            assert shell.now < shell.used_at[slot] + options.idle_s
            assert shell.now < shell.born[slot] + options.age_max_s


class Tally:
    """Counts operations on containers."""

    def __init__(self) -> None:
        self.operations = 0

    def counting(self, base: type) -> type:
        tally = self

        def counted(name: str) -> Callable[..., Any]:
            plain = getattr(base, name)

            def operation(*args: Any, **kwargs: Any) -> Any:
                tally.operations += 1
                return plain(*args, **kwargs)

            return operation

        names = ["__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__"]
        names += ["get", "pop", "popitem", "values", "items", "keys", "clear"]
        return type(f"Counting{base.__name__}", (base,), {name: counted(name) for name in names})

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any) -> Any:
            self.operations += 1
            return function(*args)

        return operation


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Tally:
    """Every container of pools made from now on counts what is done to it."""
    made = Tally()
    plain, ordered = made.counting(dict), made.counting(OrderedDict)
    real_origin, real_init = ledger_module.Origin, ledger_module.Ledger.__init__

    def origin(key: str) -> Any:
        return real_origin(key, idle=plain(), covered=ordered(), uncovered=ordered())

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        real_init(self, *args, **kwargs)
        self.origins, self.slots, self.tickets, self.idle = plain(), plain(), plain(), ordered()

    monkeypatch.setattr("sark_trio.machines.pool.Origin", origin)
    monkeypatch.setattr(ledger_module.Ledger, "__init__", init)
    for name in ("heappush", "heappop", "heapreplace"):
        monkeypatch.setattr(heapq, name, made.counted(getattr(heapq, name)))
    return made


def costs(tally: Tally, waiters: int, origins: int) -> dict[str, list[int]]:
    """How many operations the events of each kind took, while that many waited."""
    pool = Pool(PoolOptions(total=50, per_origin=10, waiters_max=20_000))
    taken: dict[str, list[int]] = {}
    live: list[int] = []

    def call(event: str, *args: Any, **kwargs: Any) -> Any:
        tally.operations = 0
        got = getattr(pool, event)(0.0, *args, **kwargs)
        taken.setdefault(event, []).append(tally.operations)
        return got

    def carry_out(effects: tuple[Any, ...]) -> None:
        for effect in effects:
            match effect:
                case Dial(slot):
                    carry_out(call("dialed", slot))
                case Grant(ticket):
                    live.append(call("start", ticket))
                case Close(slot):
                    carry_out(call("closed", slot))

    tickets = []
    for number in range(waiters + 50):
        ticket, effects = call("want", number % origins)
        tickets.append(ticket)
        carry_out(effects)
    taken.clear()
    for number in range(400):
        carry_out(call("give_back", live.pop(0), clean=number % 3 > 0))
        call("cancel", tickets.pop(-(number % 7) - 1))
        tickets.append(call("want", number % origins)[0])
    pool.check_invariants()
    assert waiters - 400 <= pool.statistics().waiting <= waiters + 50
    return taken


@pytest.mark.law("P7")
@pytest.mark.parametrize("origins", [1, 7, 500])
def test_p07_an_event_costs_the_same_however_many_wait(tally: Tally, origins: int) -> None:
    """At 10,000 waiters an event takes at most 8 container operations, and what it takes at 500."""
    few, many = costs(tally, 500, origins), costs(tally, 10_000, origins)
    assert set(many) == {"want", "dialed", "start", "give_back", "closed", "cancel"}
    for event, operations in many.items():
        assert max(operations) <= 8, (event, max(operations))
        assert fmean(operations) <= 1.5 * fmean(few[event]), event


@pytest.mark.law("P7")
def test_p07_the_ranking_of_demand_stays_small() -> None:
    """Origins that come, cancel and never return leave nothing behind."""
    pool = Pool(PoolOptions(total=1, waiters_max=100))
    pool.want(0.0, "first")
    pool.want(0.0, "second")
    for number in range(5000):
        ticket, _ = pool.want(0.0, number)
        pool.cancel(0.0, ticket)
        pool.check_invariants()
    assert len(pool._ledger.ranking) <= 2 * 2 + 64
    assert len(pool._ledger.origins) == 2


@pytest.mark.law("P9")
@given(options=OPTIONS, steps=STEPS, polite=st.booleans())
def test_p09_shutdown_is_bounded(
    options: PoolOptions, steps: list[tuple[str, int]], *, polite: bool
) -> None:
    """After shutdown nobody waits, nothing is granted, and after the grace nothing is open."""
    shell = run(options, steps, lambda *_: None)
    shell.do("shutdown", 0) if shell.choices("shutdown") else None
    assert not shell.waiting
    assert not shell.owned("dial", "pool")
    ticket, effects = shell.pool.want(shell.now, "a")
    assert effects == (Fail(ticket, "shutdown"),)
    assert shell.pool.try_lease(shell.now, "a") is None
    shell.log.clear()
    if polite:
        shell.quiesce()
        assert shell.pool.drained
        assert not shell.owner
    else:
        assert shell.pool.next_deadline() == shell.now + options.grace_s
        shell.now += options.grace_s
        shell.do("tick", 0)
        assert set(shell.owner.values()) <= {"closer"}
        assert not shell.granted
        assert shell.pool.next_deadline() is None
        while shell.owned("closer"):
            shell.do("closed", 0)
        assert shell.pool.drained
    assert not [effect for effect in shell.log if isinstance(effect, Dial | Grant)]
    shell.pool.check_invariants()


class PoolAgainstModel(RuleBasedStateMachine):
    """Any program of events gets the same effects, in the same order, from pool and model."""

    @initialize(options=OPTIONS)
    def begin(self, options: PoolOptions) -> None:
        self.shell = PoolShell(options, with_model=True)

    @rule(event=st.sampled_from(EVENTS[:2]), origin=st.integers(0, 1))
    def want(self, event: str, origin: int) -> None:
        self.shell.do(event, origin)

    @rule(event=st.sampled_from(EVENTS[2:4]), origin=st.integers(0, 1))
    def try_lease(self, event: str, origin: int) -> None:
        self.shell.do(event, origin)

    @rule(event=st.sampled_from(EVENTS[4:]), choice=st.integers(0, 20))
    def something_happens(self, event: str, choice: int) -> None:
        self.shell.do(event, choice)

    @rule(seconds=st.floats(-5.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        # Backwards, too: the machine's clock must not follow.
        self.shell.now += seconds

    @precondition(lambda self: not self.shell.shut)
    @rule(really=st.integers(0, 9))
    def shutdown(self, really: int) -> None:
        if really == 0:
            self.shell.do("shutdown", 0)

    @rule(event=st.sampled_from(["dialed", "closed", "start", "cancel", "peer_closed"]))
    def nonsense(self, event: str) -> None:
        before = repr(self.shell.pool)
        got = getattr(self.shell.pool, event)(self.shell.now, 10**9)
        assert isinstance(got, Fault) or [type(e) for e in got] == [Fault]
        assert repr(self.shell.pool) == before

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "shell"):
            self.shell.pool.check_invariants()


@pytest.mark.law("P10")
class TestPoolAgainstModel(PoolAgainstModel.TestCase):  # type: ignore[misc, name-defined]
    """The pool and a naive list-based model agree on every effect of every program."""


@pytest.mark.law("P10")
@pytest.mark.parametrize("per_origin", [1, 2])
@pytest.mark.parametrize(
    ("streams", "depth"),
    [
        (False, 6),
        (True, 6),  # and to its end in the deep run
        pytest.param(False, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_p10_every_reachable_state_of_a_small_pool_agrees(
    per_origin: int, streams: bool, depth: int
) -> None:
    """Two origins, two slots, three tickets: model and pool agree in every reachable state.

    With streams there are two tickets, or there would be too many states.
    """
    options = PoolOptions(total=2, per_origin=per_origin, waiters_max=3, idle_max=2)
    tickets = 2 if streams else 3
    events = [event for event in EVENTS if streams or "stream" not in event]
    seen: set[Any] = set()
    frontier = [PoolShell(options, with_model=True)]
    while frontier and depth:
        depth -= 1
        following = []
        for shell in frontier:
            image = pickle.dumps(shell)
            for event in events:
                if event in EVENTS[:2] and len(shell.waiting) + len(shell.granted) >= tickets:
                    continue
                for choice in range(shell.choices(event)):
                    fork = pickle.loads(image)
                    fork.do(event, choice)
                    fork.pool.check_invariants()
                    if (state := canonical(fork)) not in seen:
                        seen.add(state)
                        following.append(fork)
        frontier = following
    # The deep run ends by itself: no state is left that was not seen.
    assert depth == 0 or not frontier
    assert len(seen) > (500 if depth == 0 else 4000)


def canonical(shell: PoolShell) -> Any:
    """The state but for the names of ids and the time of day."""
    assert shell.model is not None
    model = shell.model
    tickets = sorted([*shell.waiting, *shell.granted])
    conns = tuple(
        (
            c.origin,
            c.state,
            c.dead,
            c.stream,
            c.usable_until <= shell.now,
            None if c.ticket is None else tickets.index(c.ticket),
            model.shelf.index(c) if c in model.shelf else None,
        )
        for c in model.conns
    )
    queue = tuple((tickets.index(t), origin, t in model.long) for t, origin in model.queue)
    return conns, queue
