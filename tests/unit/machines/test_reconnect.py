"""Event streams that outlive their connections, by example."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.reconnect import (
    Authenticate,
    Connect,
    Deliver,
    Duplicate,
    End,
    Fault,
    Hangup,
    Phase,
    ReconnectOptions,
    Reconnector,
    RenewSession,
    Skip,
    Stop,
    Wait,
)
from sark_trio.machines.streams import SEEN_MAX


def connected(options: ReconnectOptions | None = None, now: float = 0.0) -> Reconnector:
    stream = Reconnector(ReconnectOptions() if options is None else options)
    again(stream, now)
    return stream


def again(stream: Reconnector, now: float) -> str | None:
    step = stream.begin(now)
    assert isinstance(step, Connect)
    assert stream.on_connected(now) is None
    stream.check_invariants()
    return step.last_event_id


def read(stream: Reconnector, now: float, event_id: str) -> None:
    assert stream.on_event(now, event_id) == Deliver(event_id)
    assert stream.on_handed_over(now, event_id) is None
    stream.check_invariants()


def test_the_way_round() -> None:
    stream = Reconnector()
    assert stream.phase == "disconnected"
    assert stream.begin(0.0) == Connect(None)
    assert stream.phase == "connecting"
    assert stream.next_deadline() is None
    stream.on_connected(1.0)
    assert stream.phase == "connected"
    read(stream, 2.0, "1")
    assert stream.on_closed(3.0, End.EOF, 0.5) == Wait(1.0)
    assert stream.phase == "reconnecting"
    assert stream.next_deadline() == 4.0
    assert stream.begin(3.25) == Wait(0.75)
    assert stream.begin(4.0) == Connect("1")
    assert repr(stream) == "<Reconnector connecting last_id='1' fruitless=1/5>"
    assert stream.stop(5.0) == Stop("closed")
    assert stream.phase == "closed"
    assert stream.begin(6.0) == stream.on_closed(6.0, End.EOF, 0.0) == Stop("closed")


@pytest.mark.fault(34)
def test_an_event_counts_when_it_was_handed_over() -> None:
    stream = connected()
    read(stream, 0.0, "1")
    assert stream.on_event(0.0, "2") == Deliver("2")
    assert stream.last_event_id == "1"
    assert isinstance(stream.on_closed(0.0, End.FAILED, 0.0), Wait)
    assert again(stream, 9.0) == "1"
    assert stream.on_event(9.0, "1") == Duplicate("1")
    assert stream.on_handed_over(9.0, "2") == Fault("on_handed_over", "the stream is connected")
    read(stream, 9.0, "2")
    assert stream.last_event_id == "2"


def test_what_is_handed_over_late_is_not_delivered_again() -> None:
    stream = connected()
    stream.on_event(0.0, "1")
    stream.on_closed(0.0, End.FAILED, 0.0)
    assert stream.on_handed_over(0.5, "1") is None
    assert again(stream, 9.0) == "1"
    assert stream.on_event(9.0, "1") == Duplicate("1")


def test_one_event_at_a_time_is_in_the_readers_hand() -> None:
    stream = connected()
    stream.on_event(0.0, "1")
    handing = "the stream is connected, handing over '1'"
    assert stream.on_event(0.0, "2") == Fault("on_event", handing)
    assert stream.on_handed_over(0.0, "2") == Fault("on_handed_over", handing)
    assert stream.statistics().faults == 2


def test_what_is_handed_over_late_is_nothing_to_a_new_session() -> None:
    stream = connected(ReconnectOptions(sessions=True))
    stream.on_event(0.0, "1")
    assert stream.on_closed(0.0, End.NOT_FOUND, 0.0) == RenewSession()
    late = Fault("on_handed_over", "the stream is reconnecting")
    assert stream.on_handed_over(0.5, "1") == late
    assert again(stream, 1.0) is None
    read(stream, 1.0, "1")


@pytest.mark.fault(34)
def test_streams_know_nothing_of_each_other() -> None:
    one, other = connected(), connected()
    read(one, 0.0, "1")
    assert other.last_event_id is None
    assert other.on_event(0.0, "1") == Deliver("1")


def test_ids_come_and_go_as_the_standard_has_it() -> None:
    stream = connected()
    read(stream, 0.0, "")
    assert stream.last_event_id is None
    read(stream, 0.0, "1")
    stream.on_closed(0.0, End.EOF, 0.0)
    assert again(stream, 9.0) == "1"
    read(stream, 9.0, "")  # a new parser knows no id yet: we are where we were
    assert stream.last_event_id == "1"
    read(stream, 9.0, "2")
    read(stream, 9.0, "")  # the server set it to nothing
    assert stream.last_event_id is None


def test_priming_events_and_filtered_ones_are_committed_at_once() -> None:
    stream = connected()
    assert stream.on_event(0.0, "1", "priming") == Skip("1")
    assert stream.on_event(0.0, "2", "filtered") == Skip("2")
    assert stream.last_event_id == "2"
    stream.on_closed(0.0, End.EOF, 0.0)
    again(stream, 9.0)
    assert stream.on_event(9.0, "2", "filtered") == Duplicate("2")
    read(stream, 9.0, "1")  # a server may prime with the id of the event that follows


def test_a_priming_event_is_not_one_of_a_row() -> None:
    stream = connected()
    read(stream, 0.0, "1")
    stream.on_closed(0.0, End.EOF, 0.0)
    again(stream, 9.0)
    assert stream.on_event(9.0, "1", "priming") == Skip("1")
    assert stream.on_event(9.0, "1") == Duplicate("1")
    assert stream.statistics().duplicates == 1


@pytest.mark.fault(36)
def test_a_server_that_accepts_and_closes_is_given_up() -> None:
    stream, now, waits = Reconnector(), 0.0, []
    for _ in range(5):
        again(stream, now)
        step = stream.on_closed(now, End.EOF, 0.5)
        assert isinstance(step, Wait)
        waits.append(step.seconds)
        now += step.seconds
    again(stream, now)
    assert stream.on_closed(now, End.EOF, 0.5) == Stop("exhausted", End.EOF)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.fault(36)
def test_no_reconnecting_is_no_reconnecting() -> None:
    stream = connected(ReconnectOptions(reconnects_max=0))
    read(stream, 0.0, "1")
    assert stream.on_closed(0.0, End.EOF, 0.0) == Stop("exhausted", End.EOF)


@pytest.mark.fault(36, 38)
@pytest.mark.parametrize("end", [End.NO_CONTENT, End.NOT_A_STREAM, End.REFUSED, End.TOO_LARGE])
def test_some_ends_are_final(end: End) -> None:
    stream = Reconnector()
    stream.begin(0.0)
    assert stream.on_closed(0.0, end, 0.0) == Stop("final", end)
    assert stream.stop(1.0) == Stop("final", end)


def test_a_lost_session_is_renewed_once() -> None:
    stream = connected(ReconnectOptions(sessions=True))
    read(stream, 0.0, "1")
    assert stream.on_closed(1.0, End.NOT_FOUND, 0.0) == RenewSession()
    assert again(stream, 1.0) is None
    read(stream, 1.0, "1")  # of the new session
    assert stream.on_closed(2.0, End.NOT_FOUND, 0.0) == RenewSession()
    stream.begin(2.0)
    assert stream.on_closed(2.0, End.NOT_FOUND, 0.0) == Stop("repeated", End.NOT_FOUND)


def test_without_sessions_404_is_final() -> None:
    stream = Reconnector()
    stream.begin(0.0)
    assert stream.on_closed(0.0, End.NOT_FOUND, 0.0) == Stop("final", End.NOT_FOUND)


def test_new_credentials_are_asked_for_once() -> None:
    stream = connected()
    read(stream, 0.0, "1")
    assert stream.on_closed(1.0, End.UNAUTHORIZED, 0.0) == Authenticate()
    assert stream.begin(1.0) == Connect("1")
    assert stream.on_closed(1.0, End.UNAUTHORIZED, 0.0) == Stop("repeated", End.UNAUTHORIZED)


def test_the_response_to_a_request_needs_an_id_to_be_resumed() -> None:
    options = ReconnectOptions(resume_only=True, sessions=True)
    stream = connected(options)
    stream.on_event(0.0, "")
    assert stream.on_closed(0.0, End.EOF, 0.0) == Stop("no_id", End.EOF)
    stream = connected(options)
    stream.on_event(0.0, "1", "priming")
    assert stream.on_closed(0.0, End.EOF, 0.0) == Wait(0.75)
    stream.begin(0.75)
    assert stream.on_closed(0.75, End.NOT_FOUND, 0.0) == Stop("no_id", End.NOT_FOUND)


@pytest.mark.parametrize(
    ("retry_ms", "jitter", "wait_s"),
    [(0, 0.0, 0.1), (10**12, 0.0, 30.0), (2_000, 0.5, 2.25), (28_000, 0.5, 29.0)],
)
def test_the_servers_word_counts_within_bounds(retry_ms: int, jitter: float, wait_s: float) -> None:
    stream = connected()
    stream.on_retry_field(retry_ms)
    stream.on_retry_field(None)
    assert stream.on_closed(0.0, End.EOF, jitter) == Wait(wait_s)
    assert stream.statistics().retry_ms == retry_ms


def test_a_server_that_stays_away_is_asked_less_often() -> None:
    stream, now, waits = Reconnector(), 0.0, []
    stream.on_retry_field(1_500)
    for _ in range(5):
        stream.begin(now)
        step = stream.on_closed(now, End.FAILED, 0.5)
        assert isinstance(step, Wait)
        waits.append(step.seconds)
        now += step.seconds
    assert waits == [1.6875, 1.6875, 2.0, 4.0, 8.0]


def test_a_short_word_of_the_server_counts_once() -> None:
    stream, waits = Reconnector(), []
    stream.on_retry_field(100)
    for now in (0.0, 10.0, 20.0):
        stream.begin(now)
        waits.append(stream.on_closed(now, End.FAILED, 0.5))
    assert waits == [Wait(0.1125), Wait(1.0), Wait(2.0)]


def test_retry_after_is_waited_for_or_not_at_all() -> None:
    stream = Reconnector()
    stream.begin(0.0)
    assert stream.on_closed(0.0, End.THROTTLED, 0.5, 20.0) == Wait(20.5)
    stream.begin(20.5)
    assert stream.on_closed(20.5, End.SERVER_ERROR, 0.5, 1.0) == Wait(2.0)
    stream.begin(22.5)
    assert stream.on_closed(22.5, End.THROTTLED, 0.0, 300.0) == Wait(300.0)
    stream.begin(322.5)
    assert stream.on_closed(322.5, End.THROTTLED, 0.0, 300.1) == Stop("retry_after", End.THROTTLED)


def test_who_was_told_a_second_comes_back_within_a_tenth_of_it() -> None:
    stream = Reconnector(ReconnectOptions(schedule=RetryConfig(initial_delay_s=0.5, jitter=0)))
    stream.begin(0.0)
    assert stream.on_closed(0.0, End.THROTTLED, 0.5, 1.0) == Wait(1.05)


@pytest.mark.fault(38)
def test_a_silent_connection_is_hung_up_on_and_comments_are_no_silence() -> None:
    stream = connected(now=1.0)
    assert stream.next_deadline() == 61.0
    assert stream.on_bytes(30.0) is None
    assert stream.tick(89.0) is None
    assert stream.tick(90.0) == stream.tick(91.0) == Hangup()
    assert stream.on_closed(91.0, End.IDLE, 0.0) == Wait(0.75)
    assert stream.tick(1e6) is None


def test_silence_begins_with_the_response_and_with_whatever_comes() -> None:
    stream = Reconnector()
    stream.begin(1.0)
    stream.on_connected(7.0)
    assert stream.next_deadline() == 67.0
    assert stream.on_event(30.0, "1", "filtered") == Skip("1")
    assert stream.next_deadline() == 90.0


def test_time_goes_on_with_every_event() -> None:
    stream = connected()
    stream.on_event(40.0, "1")
    stream.on_handed_over(50.0, "1")
    assert stream.on_closed(45.0, End.EOF, 0.5) == Wait(1.0)
    assert stream.next_deadline() == 51.0


def test_a_slow_reader_is_no_silence() -> None:
    stream = connected()
    stream.on_event(1.0, "1")
    assert stream.next_deadline() is None
    assert stream.tick(500.0) is None
    stream.on_handed_over(500.0, "1")
    assert stream.next_deadline() == 560.0


@pytest.mark.parametrize("call", ["on_connected", "on_bytes", "on_event", "on_closed", "begin"])
def test_calls_out_of_turn_change_nothing(call: str) -> None:
    stream = connected() if call in {"on_connected", "begin"} else Reconnector()
    more: dict[str, tuple[Any, ...]] = {"on_event": ("1",), "on_closed": (End.EOF, 0.0)}
    before = stream.phase
    got = getattr(stream, call)(1.0, *more.get(call, ()))
    assert got == Fault(call, f"the stream is {before}")
    assert stream.phase is before


def test_old_ids_are_forgotten() -> None:
    stream = connected()
    for number in range(1_025):
        read(stream, 0.0, str(number))
    assert stream.on_event(0.0, "1") == Duplicate("1")
    assert stream.on_event(0.0, "0") == Deliver("0")


def test_an_id_that_comes_again_is_remembered_longer() -> None:
    stream = connected()
    for number in range(SEEN_MAX):
        read(stream, 0.0, str(number))
    stream.on_closed(0.0, End.EOF, 0.0)
    again(stream, 9.0)
    assert stream.on_event(9.0, "0") == Duplicate("0")
    # A second event with the id "1", behind the one that was there: it is new.
    assert stream.on_event(9.0, "1") == Duplicate("1")
    read(stream, 9.0, "1")
    for number in range(SEEN_MAX - 2):
        read(stream, 9.0, f"new {number}")
    stream.on_closed(9.0, End.EOF, 0.0)
    again(stream, 99.0)
    assert stream.on_event(99.0, "0") == Duplicate("0")
    assert stream.on_event(99.0, "1") == Duplicate("1")
    assert stream.on_event(99.0, "2") == Deliver("2")


def test_what_happened_is_counted() -> None:
    stream = connected()
    read(stream, 0.0, "1")
    stream.on_event(0.0, "2", "filtered")
    stream.on_closed(0.0, End.EOF, 0.0)
    again(stream, 9.0)
    stream.on_event(9.0, "2", "filtered")
    now = stream.statistics()
    assert (now.phase, now.last_event_id, now.fruitless) == (Phase.CONNECTED, "2", 1)
    assert (now.connects, now.reconnects) == (2, 1)
    assert (now.delivered, now.duplicates, now.skipped, now.faults) == (1, 1, 1, 0)


def test_time_never_goes_back() -> None:
    stream = connected(now=100.0)
    for now in (5.0, float("nan"), float("inf")):
        assert stream.on_bytes(now) is None
        assert stream.next_deadline() == 160.0


@pytest.mark.parametrize(
    "options",
    [
        {"reconnects_max": -1},
        {"reconnects_max": 1.5},
        {"idle_s": 0},
        {"schedule": None},
        {"sessions": 1},
        {"resume_only": "no"},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        ReconnectOptions(**options)


def test_the_schedule_may_be_another() -> None:
    stream = connected(ReconnectOptions(schedule=RetryConfig(initial_delay_s=0.5, jitter=0)))
    assert stream.on_closed(0.0, End.EOF, 0.9) == Wait(0.5)


def test_another_reader_goes_on_where_one_ended() -> None:
    stream = Reconnector(last_event_id="41")
    assert stream.last_event_id == "41"
    assert stream.begin(0.0) == Connect("41")
    stream.on_connected(0.0)
    read(stream, 0.0, "42")
    assert stream.last_event_id == "42"


def test_where_it_goes_on_is_no_event_that_came() -> None:
    """The server is believed: should it send that event again, it is handed over again."""
    stream = Reconnector(last_event_id="41")
    again(stream, 0.0)
    read(stream, 0.0, "41")


def test_what_was_there_before_it_began_is_not_new() -> None:
    stream = Reconnector(last_event_id="b", seen=["a", "", "b", "b"])
    assert again(stream, 0.0) == "b"
    assert stream.on_event(0.0, "a") == Duplicate("a")
    for _ in range(2):
        assert stream.on_event(0.0, "b") == Duplicate("b")
    # A third one in a row with that id is one that was not there.
    assert stream.on_event(0.0, "b") == Deliver("b")
    assert stream.on_handed_over(0.0, "b") is None
    assert stream.on_event(0.0, "c") == Deliver("c")


def test_of_what_was_there_before_the_latest_ids_are_remembered() -> None:
    stream = Reconnector(last_event_id="x", seen=[str(n) for n in range(SEEN_MAX + 1)])
    stream.check_invariants()
    again(stream, 0.0)
    assert stream.on_event(0.0, "0") == Deliver("0")
    assert stream.on_handed_over(0.0, "0") is None
    assert stream.on_event(0.0, str(SEEN_MAX)) == Duplicate(str(SEEN_MAX))
