"""The laws of event streams that outlive their connections (machines.reconnect)."""

from __future__ import annotations

from collections import deque
from itertools import chain, groupby, product, repeat
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sark_trio.machines import reconnect
from sark_trio.machines.reconnect import (
    Authenticate,
    Connect,
    Deliver,
    Duplicate,
    End,
    Fault,
    Phase,
    ReconnectOptions,
    RenewSession,
    Skip,
    Stop,
    Wait,
)
from sark_trio.machines.sse import SSEParser
from sark_trio.machines.streams import TABLE
from tests.models.reconnect import (
    CUT_AFTER,
    CUT_AND_HANDED_LATE,
    CUT_BEFORE,
    CUT_IN_HAND,
    FINE,
    Reader,
    log_of,
)
from tests.support.traces import traces

TYPES = traces(st.sampled_from("ab"), most=20)
OVERLAPS = st.lists(st.integers(0, 5), max_size=12)
TROUBLE = traces(
    st.sampled_from([FINE, FINE, FINE, CUT_BEFORE, CUT_IN_HAND, CUT_AND_HANDED_LATE, CUT_AFTER]),
    most=60,
)
#: More than any trace here may need, so that only the events decide.
PATIENT = ReconnectOptions(reconnects_max=1_000)
JITTER = st.floats(0, 1, exclude_max=True)


def reader(
    types: list[str],
    overlaps: list[int],
    trouble: list[int],
    wanted: str = "ab",
    options: ReconnectOptions = PATIENT,
) -> Reader:
    return Reader(
        reconnect.Reconnector(options),
        log_of(types),
        wanted.__contains__,
        chain(overlaps, repeat(0)),
        chain(trouble, repeat(FINE)),
    )


@pytest.mark.law("S6")
@pytest.mark.fault(34)
@given(types=TYPES, overlaps=OVERLAPS, trouble=TROUBLE, wanted=st.sampled_from(["ab", "a", ""]))
@example(types=["a", "a"], overlaps=[], trouble=[FINE, CUT_IN_HAND], wanted="ab")
@example(types=["a", "a"], overlaps=[0, 5], trouble=[CUT_AND_HANDED_LATE], wanted="ab")
def test_s06_each_event_once_and_in_order(
    types: list[str], overlaps: list[int], trouble: list[int], wanted: str
) -> None:
    """However connections break and the server replays, the reader gets its log: once, in order."""
    play = reader(types, overlaps, trouble, wanted)
    assert play.read() is None
    assert play.got == [event for event in play.log if event.type in wanted]
    # Nor does it ever go back to where it was before.
    assert play.trail == sorted(play.trail, key=[event.event_id for event in play.log].index)


@pytest.mark.law("S6")
@given(types=TYPES, overlaps=OVERLAPS, trouble=TROUBLE)
def test_s06_up_to_where_it_stops(
    types: list[str], overlaps: list[int], trouble: list[int]
) -> None:
    """A stream that is given up has delivered a beginning of the log, without a gap."""
    play = reader(types, overlaps, trouble, options=ReconnectOptions())
    stop = play.read()
    assert play.got == play.log[: len(play.got)]
    assert stop == Stop("exhausted", End.FAILED) or play.got == play.log


@pytest.mark.law("S6")
@given(rows=traces(st.sampled_from(["", "1", "2", "3"]), most=30))
def test_s06_events_that_inherit_their_id_are_not_lost(rows: list[str]) -> None:
    """Ids persist: of a row of events with one id, as many are new as never came in one row."""
    machine = reconnect.Reconnector()

    def connection() -> list[type]:
        assert isinstance(machine.begin(machine.next_deadline() or 0.0), Connect)
        machine.on_connected(0.0)
        told = []
        for event_id in rows:
            step = machine.on_event(0.0, event_id)
            told.append(type(step))
            if isinstance(step, Deliver):
                machine.on_handed_over(0.0, event_id)
        machine.on_closed(0.0, End.EOF, 0.0)
        return told

    groups = [(event_id, len(list(row))) for event_id, row in groupby(rows)]
    expected: list[type] = []
    for number, (event_id, size) in enumerate(groups):
        before = max((n for other, n in groups[:number] if other == event_id), default=0)
        expected += [Duplicate if event_id and k < before else Deliver for k in range(size)]
    assert connection() == expected
    assert connection() == [Duplicate if event_id else Deliver for event_id in rows]


@pytest.mark.law("S6")
@given(before=st.integers(0, 9), after=st.integers(0, 9))
def test_s06_a_new_session_counts_anew(before: int, after: int) -> None:
    """A new session may use the ids of the old one for other events: all of them are new."""
    machine = reconnect.Reconnector(ReconnectOptions(sessions=True))
    for last, size in enumerate((before, after)):
        assert machine.begin(0.0) == Connect(None)
        machine.on_connected(0.0)
        for number in range(size):
            assert machine.on_event(0.0, f"e{number}") == Deliver(f"e{number}")
            machine.on_handed_over(0.0, f"e{number}")
        assert machine.last_event_id == (f"e{size - 1}" if size else None)
        if not last:
            assert machine.on_closed(0.0, End.NOT_FOUND, 0.0) == RenewSession()


@pytest.mark.law("S6")
def test_s06_a_thousand_ids_are_remembered() -> None:
    """A replay of the latest 1,024 ids is all duplicates, and no more than those are held."""
    machine = reconnect.Reconnector()
    ids = [str(number) for number in range(1_500)]
    machine.begin(0.0)
    machine.on_connected(0.0)
    for each in ids:
        assert machine.on_event(0.0, each) == Deliver(each)
        machine.on_handed_over(0.0, each)
        machine.check_invariants()
    assert machine.last_event_id == "1499"
    assert all(machine.on_event(0.0, each) == Duplicate(each) for each in ids[-1_024:])
    assert machine.on_event(0.0, ids[-1_025]) == Deliver(ids[-1_025])


#: What a connection may bring without being of any use.
FRUITLESS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(["old", "p1", "p2"]), st.booleans()), max_size=3),
        st.sampled_from([*End, End.EOF, End.FAILED]),
    ),
    min_size=12,
    max_size=12,
)


def fruitless_connection(machine: Any, now: float, turn: Any, jitter: float) -> Any:
    connected, events, end = turn
    if connected:
        machine.on_connected(now)
        for event_id, cut in events:
            if event_id != "old":
                assert machine.on_event(now, event_id, "priming") == Skip(event_id)
            elif isinstance(machine.on_event(now, "old"), Deliver) or cut:
                break  # it is in the reader's hand, and never handed over
    got = machine.on_closed(now, end, jitter)
    machine.check_invariants()
    return got


@pytest.mark.law("S7")
@pytest.mark.fault(36)
@given(turns=FRUITLESS, progress=st.booleans(), sessions=st.booleans(), jitter=JITTER)
@example(turns=[(True, [], End.EOF)] * 12, progress=False, sessions=False, jitter=0.5)
@example(turns=[(True, [("p1", True)], End.EOF)] * 12, progress=False, sessions=False, jitter=0.5)
@example(turns=[(True, [("old", False)], End.EOF)] * 12, progress=True, sessions=False, jitter=0.5)
@example(turns=[(False, [], End.UNAUTHORIZED)] * 12, progress=False, sessions=True, jitter=0.5)
def test_s07_no_more_than_six_connects_without_progress(
    turns: list[Any], progress: bool, sessions: bool, jitter: float
) -> None:
    """Whatever it does instead, a server that sends nothing new is connected to six times at most.

    Connecting, priming events, duplicates, new sessions and new credentials are no progress.
    """
    machine, now, connects = reconnect.Reconnector(ReconnectOptions(sessions=sessions)), 0.0, 0
    if progress:
        machine.begin(now)
        machine.on_connected(now)
        assert machine.on_event(now, "old") == Deliver("old")
        machine.on_handed_over(now, "old")
        machine.on_closed(now, End.EOF, jitter)
    for turn in turns:
        now = machine.next_deadline() or now
        step = machine.begin(now)
        if isinstance(step, Stop):
            break
        assert isinstance(step, Connect)
        connects += 1
        got = fruitless_connection(machine, now, turn, jitter)
        assert isinstance(got, Wait | Stop | RenewSession | Authenticate)
    assert connects <= 6 - progress
    assert machine.phase is Phase.CLOSED


@pytest.mark.law("S7")
@given(turns=traces(st.sampled_from(["new", "filtered", "nothing"]), most=40))
def test_s07_progress_and_only_progress_starts_the_count_anew(turns: list[str]) -> None:
    """A stream stops at the sixth connection in a row without progress, and at no other."""
    machine, now, fruitless = reconnect.Reconnector(), 0.0, -1
    for number, turn in enumerate(turns):
        assert isinstance(machine.begin(now), Connect)
        machine.on_connected(now)
        fruitless += 1
        if turn != "nothing":
            fruitless = 0
            kind = "message" if turn == "new" else "filtered"
            machine.on_event(now, str(number), kind)
            machine.on_handed_over(now, str(number))
        step = machine.on_closed(now, End.EOF, 0.0)
        assert isinstance(step, Stop) == (fruitless == 5)
        if isinstance(step, Stop):
            break
        now = machine.next_deadline() or now


CALLS: dict[str, tuple[Any, ...]] = {
    "begin": ("begin",),
    "opened": ("on_connected",),
    "lost": ("on_closed", End.EOF, 0.0),
    "stop": ("stop",),
    "event": ("on_event", "1"),
    "filtered": ("on_event", "2", "filtered"),
    "handed": ("on_handed_over", "1"),
    "bytes": ("on_bytes",),
    "later": ("tick",),
}


def call(machine: Any, name: str, now: float) -> Any:
    method, *arguments = CALLS[name]
    return getattr(machine, method)(now, *arguments)


@pytest.mark.law("S8", "S6")
def test_s08_one_connection_at_a_time() -> None:
    """In every program of few calls: at most one connection lives, whatever the driver does.

    And every move is one of the table; every event is of a connection that lives, and looked
    at when the one before it is not in the reader's hand any more.
    """
    moves = set()
    begun = (("begin", *program) for program in product(CALLS, repeat=4))
    for program in chain(begun, product(CALLS, repeat=3)):
        machine, now, live, in_hand = reconnect.Reconnector(), 0.0, False, False
        for name in program:
            now += 100.0 if name == "later" else 0.0
            before = machine.phase
            got = call(machine, name, now)
            machine.check_invariants()
            if isinstance(got, Connect):
                assert not live
                live, in_hand = True, False
            elif name in {"lost", "stop"} and not isinstance(got, Fault):
                live = False
            elif name == "handed":
                assert (got is None) == in_hand
                in_hand = False
            elif name in {"event", "filtered"} and not isinstance(got, Fault):
                assert live
                assert not in_hand
                in_hand = isinstance(got, Deliver)
            assert live == (machine.phase in {Phase.CONNECTING, Phase.CONNECTED})
            if machine.phase is not before:
                moves.add((before, machine.phase))
    assert moves == {(source, target) for (source, _), target in TABLE.items()}


@pytest.mark.law("S8")
@given(traces(st.sampled_from(sorted(CALLS)), most=60))
def test_s08_any_program_has_one_connection_at_most(program: list[str]) -> None:
    """Between two ``Connect`` there is always the word that the first one is closed."""
    machine, now, open_since = reconnect.Reconnector(), 0.0, deque[int]()
    for number, name in enumerate(program):
        now += 7.0
        got = call(machine, name, now)
        if isinstance(got, Connect):
            open_since.append(number)
        elif name in {"lost", "stop"} and not isinstance(got, Fault):
            open_since.clear()
        assert len(open_since) <= 1


@pytest.mark.security(33)
@pytest.mark.law("S9")
@pytest.mark.fault(36)
@given(
    digits=st.one_of(
        st.from_regex(r"\A[0-9]{1,30}\Z"),
        st.integers(0, 10**6).map(str),
        st.sampled_from(["0", "99999999999", "9" * 5_000, "000100", "24000", "29999", "30000"]),
    ),
    jitter=JITTER,
)
def test_s09_what_the_server_asks_for_is_bounded(digits: str, jitter: float) -> None:
    """``retry`` of any digits: never less than 100 ms or what is asked, never more than 30 s."""
    parser = SSEParser()
    parser.feed(b"retry: " + digits.encode() + b"\n")
    machine, now = reconnect.Reconnector(), 0.0
    machine.on_retry_field(parser.retry_ms)
    asked_s = min(max(int(digits[-4_000:]) if len(digits) < 4_000 else 10**9, 100), 30_000) / 1000
    for turn in range(5):
        assert isinstance(machine.begin(now), Connect)
        step = machine.on_closed(now, End.FAILED, jitter)
        assert isinstance(step, Wait)
        assert asked_s <= step.seconds <= 30.0
        if turn == 0:
            assert step.seconds <= asked_s * 1.25 + 1e-9
        early = machine.begin(now)
        assert isinstance(early, Wait)
        assert early.seconds == pytest.approx(step.seconds)
        now += step.seconds


@pytest.mark.law("S9")
@given(jitter=JITTER, fields=st.lists(st.sampled_from([None, -1, True, 1.5, "7"]), max_size=3))
def test_s09_without_a_word_the_schedule_decides(jitter: float, fields: list[Any]) -> None:
    """Where the server asks for nothing: 1, 2, 4, 8, 16 s, each with jitter, within 30 s."""
    machine, now = reconnect.Reconnector(), 0.0
    for value in fields:
        machine.on_retry_field(value)
    for turn in range(5):
        machine.begin(now)
        step = machine.on_closed(now, End.EOF, jitter)
        assert isinstance(step, Wait)
        assert 0.75 * 2**turn <= step.seconds <= 1.25 * 2**turn
        now = machine.next_deadline() or now
    machine.begin(now)
    assert machine.on_closed(now, End.EOF, jitter) == Stop("exhausted", End.EOF)


@pytest.mark.law("S10")
@given(types=TYPES, overlaps=OVERLAPS, trouble=st.lists(st.sampled_from([FINE, FINE, CUT_AFTER])))
def test_s10_a_filter_changes_nothing_but_what_is_read(
    types: list[str], overlaps: list[int], trouble: list[int]
) -> None:
    """Ids, connections and waits are the same whatever the reader wants to see."""
    stories = []
    for wanted in ("ab", "a", "b", ""):
        play = reader(types, overlaps, trouble, wanted, ReconnectOptions())
        stop = play.read()
        stories.append((stop, play.trail, play.connects, play.waits, play.machine.last_event_id))
    assert all(story == stories[0] for story in stories)
