"""The laws of the response cache (machines.freshness)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any
from weakref import WeakSet

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines import freshness
from sark_trio.machines.freshness import (
    CacheFull,
    CacheOptions,
    Failed,
    Follow,
    Hit,
    Lead,
    Serve,
)
from tests.models.freshness import (
    EVENTS,
    KEYS,
    Answer,
    CacheModel,
    Play,
    Served,
    concerns,
    covers,
)
from tests.support.traces import traces

ROOMY = CacheOptions()
OPTIONS = st.one_of(
    st.just(ROOMY),
    st.builds(
        CacheOptions,
        entries_max=st.integers(0, 3),
        bytes_max=st.sampled_from([0, 100, 1000]),
        waiters_max=st.integers(1, 6),
        stale_s=st.sampled_from([0.0, 5.0, 300.0]),
        early=st.sampled_from([0.0, 0.1, 0.5]),
    ),
)
NUMBER = st.integers(0, 23)
STEP = st.tuples(st.sampled_from(EVENTS), NUMBER, NUMBER)
#: Waits by their places in the model's list: into an entry's last tenth, and to its end.
EARLY, OVER = 4, 5
#: Few keys, each of them used often, in turns of events after which something is at stake.
SCENES = [
    ("fill",),
    ("lookup",),
    ("store",),
    ("fail",),
    ("deny",),
    ("abandon",),
    ("invalidate",),
    ("tick",),
    (EARLY, "lookup"),
    ("fill", EARLY, "lookup", "lookup"),
    ("fill", OVER, "lookup"),
    ("fill", OVER, "lookup", "fail"),
    ("fill", OVER, "lookup", "deny"),
]
TURN = st.builds(
    lambda scene, key, b: [
        (event, key, b) if isinstance(event, str) else ("wait", event, 0) for event in scene
    ],
    st.sampled_from(SCENES),
    st.sampled_from([0, 4, 0, 4, 1, 2, 3]),
    NUMBER,
)
STEPS = st.one_of(
    traces(STEP, most=60),
    st.lists(TURN, min_size=4, max_size=30).map(lambda turns: [*chain.from_iterable(turns)]),
)
Step = tuple[str, int, int]


def run(options: CacheOptions, steps: list[Step], **how: Any) -> Play:
    play = Play(freshness.ResponseCache(options), **how)
    for step in steps:
        play.do(*step)
        play.cache.check_invariants()  # type: ignore[union-attr]
    return play


def each_served(options: CacheOptions, steps: list[Step], check: Callable[..., None]) -> None:
    play = run(options, steps)
    for served in play.served:
        check(play, served, served.answer)


@pytest.mark.security(11)
@pytest.mark.law("C1")
@pytest.mark.fault(30)
@given(options=OPTIONS, steps=STEPS)
@example(options=ROOMY, steps=[("lookup", 0, 2), ("store", 0, 3), ("lookup", 4, 0)])
@example(options=ROOMY, steps=[("lookup", 0, 2), ("store", 0, 18), ("lookup", 4, 2)])
@example(
    options=ROOMY,
    # Ann's fetch may use what is shared, and so might she; who joins her later may not.
    steps=[
        *[("lookup", 4, 2), ("store", 0, 21), ("wait", 5, 0), ("wait", 5, 0), ("lookup", 0, 2)],
        *[("lookup", 0, 0), ("fail", 0, 0)],
    ],
)
def test_c01_a_secret_stays_in_its_partition(options: CacheOptions, steps: list[Step]) -> None:
    """A caller gets what was fetched for its own partition, or what is public and asked as such."""

    def check(_: Play, served: Served, answer: Answer) -> None:
        caller = served.caller
        assert answer.key[:4] == caller.key[:4]
        own = answer.key.partition == caller.key.partition
        assert own or (answer.public and caller.shared)

    each_served(options, steps, check)


@pytest.mark.law("C1")
@given(steps=STEPS)
def test_c01_others_cannot_be_noticed(steps: list[Step]) -> None:
    """Where nothing is shared and room is ample, what others do changes nothing for a caller."""

    def story(*, alone: bool) -> list[Any]:
        cache = freshness.ResponseCache[Any]()
        now, told, flights = 0.0, [], dict[int, list[int]]()
        for event, a, b in steps:
            key = KEYS[a % len(KEYS)]
            ann = key.partition == "ann"
            if event == "wait":
                now += b / 2
            elif ann or not alone:
                got = _turn(cache, now, key, event, b, flights.setdefault(a % len(KEYS), []))
                told += [got] if ann else []
        return told

    assert story(alone=True) == story(alone=False)


def _turn(cache: Any, now: float, key: Any, event: str, b: int, flights: list[int]) -> Any:
    if event == "lookup":
        got = cache.lookup(now, key, b / 24)
        flights += [got.flight] if isinstance(got, Lead) else []
        return got if isinstance(got, Hit) else type(got)
    if not flights:
        return None
    if event == "store":
        return cache.store(now, flights.pop(), (key, b), size_bytes=b, ttl_s=float(b)).value
    if event in {"fail", "deny"}:
        got = cache.fail(now, flights.pop(), allow_stale=event == "fail")
        return (got.value, got.stale) if isinstance(got, Serve) else type(got)
    return None


@pytest.mark.law("C2")
@pytest.mark.fault(30)
@given(options=OPTIONS, steps=STEPS)
@example(
    options=CacheOptions(early=0.0),
    steps=[("lookup", 0, 0), ("store", 0, 0), ("wait", 5, 0), ("lookup", 0, 0)],
)
@example(
    options=ROOMY,
    steps=[
        *[("fill", 0, 0), ("wait", OVER, 0)],
        *[("lookup", 0, 0), ("fail", 0, 0), ("wait", 6, 0), ("lookup", 0, 0), ("fail", 0, 0)],
    ],
)
def test_c02_what_is_over_is_not_served_but_as_stale(
    options: CacheOptions, steps: list[Step]
) -> None:
    """From the cache, nothing is served at t >= received + ttl unless flagged, nor 300 s later."""

    def check(_: Play, served: Served, answer: Answer) -> None:
        if served.live:
            assert (served.now, served.stale) == (answer.received_at, False)
            return
        ends_at = answer.received_at + min(answer.ttl_s, 86_400.0)
        assert served.stale == (served.now >= ends_at)
        assert served.now < ends_at + options.stale_s <= ends_at + 300 or not served.stale

    each_served(options, steps, check)


@pytest.mark.law("C2")
@given(options=OPTIONS, steps=STEPS)
@example(
    options=ROOMY,
    steps=[("fill", 0, 0), ("wait", EARLY, 0), ("lookup", 0, 1), ("deny", 0, 0), ("lookup", 0, 0)],
)
def test_c02_what_the_server_disowned_is_not_served(
    options: CacheOptions, steps: list[Step]
) -> None:
    """After a denial, or an answer that is an error, nothing fetched before is served there."""
    play = Play(freshness.ResponseCache(options))
    denied: dict[Any, int] = {}
    for event, a, b in steps:
        before = {flight: key for flight, (key, _) in play.fetches.items()}
        current = {f for f, (key, begun) in play.fetches.items() if not _cut(play, key, begun)}
        seen = len(play.served)
        play.do(event, a, b)
        for served in play.served[seen:]:
            own = served.answer.key == served.caller.key
            assert served.live or not own or served.answer.flight > denied.get(served.caller.key, 0)
        for flight in before.keys() - play.fetches.keys():
            if event == "deny" and flight in current:
                denied[before[flight]] = flight


def _cut(play: Play, key: Any, begun: int) -> bool:
    # Coarser than the machine for flights that may store shared: they may be cut by less.
    return any(covers(pattern, key) for pattern in play.patterns[begun:])


@pytest.mark.law("C3")
@pytest.mark.fault(30)
@given(options=OPTIONS, steps=STEPS)
def test_c03_misses_of_one_key_share_one_fetch(options: CacheOptions, steps: list[Step]) -> None:
    """A key has one fetch under way at most, not counting those that an invalidation cut off."""
    play = Play(freshness.ResponseCache(options))
    for event, a, b in steps:
        got = play.do(event, a, b)
        under_way = Counter(
            key for key, begun in play.fetches.values() if not _cut(play, key, begun)
        )
        assert max(under_way.values(), default=0) <= 1
        if isinstance(got, Follow):
            key, begun = play.fetches[got.flight]
            assert key == KEYS[a % len(KEYS)]
            assert not _cut(play, key, begun)


@pytest.mark.law("C3")
@given(
    callers=st.integers(1, 300),
    quitters=st.sets(st.integers(0, 299)),
    ttl_s=st.sampled_from([0.0, 60.0]),
)
def test_c03_a_thousand_misses_are_one_fetch(
    callers: int, quitters: set[int], ttl_s: float
) -> None:
    """Of k concurrent misses one leads; its answer is for all that have not gone meanwhile."""
    cache = freshness.ResponseCache[str]()
    got = [cache.lookup(0.0, KEYS[0], 0.0) for _ in range(callers)]
    assert [type(each) for each in got] == [Lead] + [Follow] * (callers - 1)
    waiters = [each.waiter for each in got if isinstance(each, Lead | Follow)]
    gone = [waiters[index] for index in sorted(quitters) if index < callers]
    ends = [cache.abandon(got[0].flight, waiter) for waiter in gone]  # type: ignore[union-attr]
    stay = [waiter for waiter in waiters if waiter not in gone]
    cancelled = [freshness.Cancel(got[0].flight)] if not stay else []  # type: ignore[union-attr]
    assert [end for end in ends if end is not None] == cancelled
    if stay:
        served = cache.store(1.0, got[0].flight, "v", size_bytes=1, ttl_s=ttl_s)  # type: ignore[union-attr]
        assert served == Serve(tuple(stay), "v", kept=ttl_s > 0)


@pytest.mark.law("C4")
@pytest.mark.fault(30)
@given(options=OPTIONS, steps=STEPS)
@example(
    options=ROOMY,
    steps=[("lookup", 0, 0), ("invalidate", 0, 0), ("store", 0, 0), ("lookup", 0, 0)],
)
@example(options=ROOMY, steps=[("lookup", 0, 0), ("invalidate", 0, 0), ("lookup", 0, 0)])
@example(
    options=ROOMY,
    steps=[
        *[("lookup", 0, 0), ("store", 0, 0), ("wait", 5, 0), ("lookup", 0, 0)],
        *[("invalidate", 0, 0), ("lookup", 0, 0), ("fail", 1, 0), ("fail", 0, 0)],
    ],
)
def test_c04_nothing_older_than_the_invalidation(options: CacheOptions, steps: list[Step]) -> None:
    """Whoever asks after an invalidation gets nothing whose fetch began before it."""

    def check(play: Play, served: Served, answer: Answer) -> None:
        between = play.patterns[answer.begun : served.caller.asked]
        assert not any(concerns(pattern, answer) for pattern in between)

    each_served(options, steps, check)


@pytest.mark.law("C4")
@given(steps=STEPS)
def test_c04_nobody_reads_backwards(steps: list[Step]) -> None:
    """What a caller is served of the cache is never of an earlier fetch than what it had of it."""
    latest: dict[Any, int] = {}

    def check(_: Play, served: Served, answer: Answer) -> None:
        reader = (served.caller.key, served.caller.shared)
        if not served.live:
            assert answer.flight >= latest.get(reader, 0)
            latest[reader] = answer.flight

    each_served(ROOMY, steps, check)


@pytest.mark.law("C5")
@pytest.mark.fault(30)
@given(options=OPTIONS, steps=STEPS)
def test_c05_what_is_held_is_within_bounds(options: CacheOptions, steps: list[Step]) -> None:
    """Values that are alive because of the cache: few enough, small enough, at every step."""
    cache = freshness.ResponseCache[Answer](options)
    play, alive = Play(cache), WeakSet[Answer]()
    for step in steps:
        got = play.do(*step)
        alive.update(served.answer for served in play.served)
        if isinstance(got, Serve):
            alive.add(got.value)
        play.served.clear()
        del got
        held = [answer.size_bytes for answer in alive]
        assert len(held) == cache.statistics().entries <= options.entries_max
        assert sum(held) == cache.statistics().bytes <= options.bytes_max
        assert cache.statistics().waiting <= options.waiters_max


@pytest.mark.law("C5")
def test_c05_the_defaults_hold_a_thousand_entries_and_64_mib() -> None:
    """With defaults, 1,024 entries and 64 MiB are the most, whatever is stored."""
    cache = freshness.ResponseCache[object]()
    assert (cache.options.entries_max, cache.options.bytes_max) == (1_024, 64 * 2**20)
    for size in (1, 2**20, 64 * 2**20, 64 * 2**20 + 1):
        for number in range(1_100 if size == 1 else 70):
            lead = cache.lookup(0.0, KEYS[0]._replace(params=(size, number)), 0.0)
            assert isinstance(lead, Lead)
            cache.store(0.0, lead.flight, object(), size_bytes=size, ttl_s=60.0)
            assert cache.statistics().entries <= 1_024
            assert cache.statistics().bytes <= 64 * 2**20
    assert cache.statistics().entries == 1


@pytest.mark.law("C5", "C2", "C3", "C4")
@given(options=OPTIONS, steps=STEPS)
@example(  # Of two fetches that may be shared, the later one is answered first.
    options=ROOMY,
    steps=[("lookup", 0, 3), ("lookup", 4, 3), ("store", 1, 3), ("store", 0, 3), ("lookup", 4, 3)],
)
@example(  # Her own answer is older than the one that all may see.
    options=ROOMY,
    steps=[("fill", 0, 0), ("fill", 4, 3), ("lookup", 0, 3)],
)
@example(  # One refreshes early what is shared; the others are served.
    options=ROOMY,
    steps=[("fill", 0, 3), ("wait", EARLY, 0), ("lookup", 0, 7), ("lookup", 4, 7)],
)
@example(  # The first was used since, so the second has to go.
    options=CacheOptions(entries_max=2),
    steps=[
        *[("fill", 0, 0), ("fill", 1, 0), ("lookup", 0, 0), ("fill", 2, 0)],
        *[("lookup", 0, 0), ("lookup", 1, 0)],
    ],
)
def test_c05_is_the_naive_cache(options: CacheOptions, steps: list[Step]) -> None:
    """Any trace gets the answers of a cache that is told in lists, without care for cost."""
    real, model = Play(freshness.ResponseCache(options)), Play(CacheModel(options))
    for step in steps:
        got, expected = real.do(*step), model.do(*step)
        if isinstance(got, Hit | Serve):
            assert (got.value.flight, got.value.key) == (expected.value.flight, expected.value.key)
            expected = evolve(expected, value=got.value)
        assert got == expected
        real.cache.check_invariants()  # type: ignore[union-attr]


@pytest.mark.law("C6")
@given(steps=STEPS, ttl_s=st.sampled_from([0.0, -1.0, float("nan")]))
def test_c06_without_a_ttl_it_is_no_cache(steps: list[Step], ttl_s: float) -> None:
    """With ttl 0 each value comes from a fetch that was under way when it was asked for."""
    play = Play(freshness.ResponseCache(), ttls=(ttl_s,))
    for event, a, b in steps:
        under_way = set(play.fetches)
        got = play.do(event, a, b)
        assert not isinstance(got, Hit)
        if isinstance(got, Follow):
            assert got.flight in under_way
        if event in {"fail", "deny"} and under_way:
            assert isinstance(got, Failed)
        assert play.cache.statistics().entries == 0  # type: ignore[union-attr]
    assert all(served.live for served in play.served)


@pytest.mark.law("C7")
@given(
    options=OPTIONS,
    steps=STEPS,
    jumps=st.lists(
        st.one_of(
            st.floats(-1e6, 0), st.sampled_from([float("nan"), float("inf"), -float("inf"), 2e12])
        ),
        min_size=1,
        max_size=9,
    ),
)
def test_c07_a_clock_that_goes_back_stands_still(
    options: CacheOptions, steps: list[Step], jumps: list[float]
) -> None:
    """Times before the last one, and what is no time, count as the last one."""
    straight, crooked = [Play(freshness.ResponseCache(options)) for _ in range(2)]
    for number, step in enumerate(steps):
        crooked.now = straight.now
        if step[0] != "wait":
            # The real time once, so that both have heard of it; then a false one.
            straight.cache.tick(straight.now)
            crooked.cache.tick(crooked.now)
            crooked.now += jumps[number % len(jumps)]
        got, expected = crooked.do(*step), straight.do(*step)
        if isinstance(got, Hit | Serve):
            expected = evolve(expected, value=got.value)
        assert got == expected
    assert crooked.cache.statistics() == straight.cache.statistics()  # type: ignore[union-attr]


@pytest.mark.law("C2")
@given(
    ttl_s=st.floats(0.01, 1e6),
    age=st.floats(0, 0.999),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_c02_refreshed_early_by_one_with_rising_probability(
    ttl_s: float, age: float, jitter: float
) -> None:
    """In the first nine tenths of its life an entry is served; then one caller is sent, by luck."""
    cache = freshness.ResponseCache[str]()
    lead = cache.lookup(0.0, KEYS[0], jitter)
    assert isinstance(lead, Lead)
    cache.store(0.0, lead.flight, "v", size_bytes=1, ttl_s=ttl_s)
    life = min(ttl_s, 86_400.0)
    got = cache.lookup(age * life, KEYS[0], jitter)
    chance = (age - 0.9) / 0.1
    if abs(jitter - chance) > 1e-9:
        assert isinstance(got, Lead) == (jitter < chance)
    again = cache.lookup(age * life, KEYS[0], 0.0)
    assert isinstance(got, Hit) or isinstance(again, Hit)


@pytest.mark.law("C5")
def test_c05_callers_that_wait_are_bounded() -> None:
    """As many callers wait as may; one more is turned away, and nothing is begun for it."""
    cache = freshness.ResponseCache[str](CacheOptions(waiters_max=100))
    for number in range(100):
        got = cache.lookup(0.0, KEYS[number % len(KEYS)], 0.0)
        assert isinstance(got, Lead | Follow)
    assert cache.lookup(0.0, KEYS[0], 0.0) == CacheFull(100)
    assert cache.lookup(0.0, KEYS[0]._replace(params="new"), 0.0) == CacheFull(100)
    assert cache.statistics().flights == len(KEYS)
