"""Event streams in virtual time: when they reconnect, for how long, and when they give up."""

from __future__ import annotations

import httpcore
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sark_trio.errors import (
    AuthenticationRequired,
    ConnectError,
    GatewayError,
    HTTPStatusError,
    RateLimited,
    ReadTimeout,
    ServerDisconnected,
    TLSError,
)
from sark_trio.machines.backoff import RetryConfig
from tests.support.event_servers import (
    answering,
    block,
    data_of,
    memory_streams,
    open_streams,
    refused_by_tls,
    refusing,
    saying,
    take,
)
from tests.support.http_servers import SSE_END, SSE_HEAD, Peer, chunk, serve


@pytest.mark.row(2)
@pytest.mark.trio
async def test_a_gateway_that_is_not_there_is_tried_six_times(autojump_clock: MockClock) -> None:
    async with memory_streams(httpcore.ConnectError("refused")) as (streams, network):
        events = streams.stream()
        with pytest.raises(ConnectError) as caught:
            await events.__aenter__()
        assert network.gaps == pytest.approx([1, 2, 4, 8, 16])
        assert caught.value.attempts == 6
        assert caught.value.__notes__ == ["given up after 6 without a new event"]
        assert events.state == "closed"
        assert events.statistics().errors == 6
        assert streams.statistics().active_streams == 0


@pytest.mark.row(20)
@pytest.mark.fault(36)
@pytest.mark.parametrize("then", ["end", "cut"])
@pytest.mark.trio
async def test_accepting_is_no_progress(autojump_clock: MockClock, then: str) -> None:
    async with memory_streams(saying(then=then)) as (streams, network):
        async with streams.stream() as events:
            with pytest.raises(ServerDisconnected) as caught:
                await anext(events)
            assert network.gaps == pytest.approx([1, 2, 4, 8, 16])
            assert caught.value.attempts == 6
            # Told once; then it is over.
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert events.statistics().connections_made == 6
        assert events.statistics().reconnections == 5


@pytest.mark.row(20, 24)
@pytest.mark.trio
async def test_priming_and_old_events_are_no_progress(autojump_clock: MockClock) -> None:
    again = saying(block("a", id="1"), block("", id="p"), block(id="q"), then="end")
    async with memory_streams(again) as (streams, network), streams.stream() as events:
        assert (await anext(events)).data == "a"
        with pytest.raises(ServerDisconnected) as caught:
            await anext(events)
        # The first connection brought something; then five did not, and the sixth was too many.
        assert (len(network.times), caught.value.attempts) == (6, 6)
        assert events.statistics().duplicates == 5
        assert network.resumed_from == [None, *["q"] * 5]


@pytest.mark.trio
async def test_progress_starts_the_count_anew(autojump_clock: MockClock) -> None:
    turns = [saying(then="end")] * 3 + [saying(block("a", id="1"), then="end")]
    turns += [saying(then="end")] * 5
    async with memory_streams(*turns) as (streams, network), streams.stream() as events:
        assert (await anext(events)).data == "a"
        with pytest.raises(ServerDisconnected):
            await anext(events)
        assert network.gaps == pytest.approx([1, 2, 4, 1, 2, 4, 8, 16])


@pytest.mark.row(23)
@pytest.mark.fault(36)
@pytest.mark.parametrize(("asked", "waited"), [("500", 0.5625), ("0", 0.1125), ("9" * 30, 30.0)])
@pytest.mark.trio
async def test_the_delay_that_the_gateway_asks_for_is_kept_within_bounds(
    autojump_clock: MockClock, asked: str, waited: float
) -> None:
    first = saying(f"retry: {asked}\n\n", block("a", id="1"), then="end")
    async with memory_streams(first, saying(block("b", id="2"))) as (streams, network):
        async with streams.stream() as events:
            assert data_of(await take(events, 2)) == ["a", "b"]
        assert network.gaps == pytest.approx([waited])


@pytest.mark.row(53)
@pytest.mark.fault(36)
@pytest.mark.trio
async def test_delays_are_jittered(autojump_clock: MockClock) -> None:
    draws = iter([0.0, 0.999])
    scripts = [saying(block(str(n), id=str(n)), then="end") for n in range(3)]
    async with memory_streams(*scripts, jitter=lambda: next(draws)) as (streams, network):
        async with streams.stream() as events:
            await take(events, 3)
        assert network.gaps == pytest.approx([0.75, 1.25], abs=0.01)


@pytest.mark.trio
async def test_the_schedule_is_an_option(autojump_clock: MockClock) -> None:
    async with memory_streams(httpcore.ConnectError("refused")) as (streams, network):
        options = {"retry": RetryConfig(initial_delay_s=3, multiplier=1), "reconnects_max": 2}
        with pytest.raises(ConnectError) as caught:
            await streams.stream(**options).__aenter__()
        assert network.gaps == pytest.approx([3, 3])
        assert caught.value.attempts == 3


@pytest.mark.row(10, 22)
@pytest.mark.fault(38)
@pytest.mark.trio
async def test_silence_of_a_minute_and_no_less_is_the_end_of_a_connection(
    autojump_clock: MockClock,
) -> None:
    quiet = saying(59.0, ": still here\n\n", 59.0, block("a", id="1"), 59.0, "da", 3600.0)
    async with memory_streams(quiet, saying(block("b", id="2"))) as (streams, network):
        async with streams.stream() as events:
            assert data_of(await take(events, 2)) == ["a", "b"]
            assert events.statistics().errors == 1
        # 3 x 59 s with a byte in time, 60 s without, and the delay.
        assert network.gaps == pytest.approx([59 * 3 + 60 + 1])
        assert network.resumed_from == [None, "1"]
        assert network.open_max == 1


@pytest.mark.trio
async def test_lasting_silence_is_a_timeout(autojump_clock: MockClock) -> None:
    async with memory_streams(saying()) as (streams, _):
        async with streams.stream(idle_s=5, reconnects_max=1) as events:
            with pytest.raises(ReadTimeout) as caught:
                await anext(events)
        assert "5 s" in str(caught.value)
        assert caught.value.attempts == 2
        assert trio.current_time() == pytest.approx(5 + 1 + 5)


@pytest.mark.trio
async def test_a_stream_may_last_for_days(autojump_clock: MockClock) -> None:
    day = saying(*[part for n in range(2_000) for part in (block(str(n), id=str(n)), 50.0)])
    async with memory_streams(day) as (streams, network), streams.stream() as events:
        assert data_of(await take(events, 2_000)) == [str(n) for n in range(2_000)]
        assert trio.current_time() > 86_400
        assert len(network.times) == 1


@pytest.mark.trio
async def test_a_slow_reader_is_no_silence(autojump_clock: MockClock) -> None:
    """While events wait for their reader nothing is read, so nothing is late."""
    script = saying(block("a", id="1") + block("b", id="2"), 1.0, block("c", id="3"))
    async with memory_streams(script) as (streams, network), streams.stream() as events:
        for expected in "abc":
            await trio.sleep(3600)
            assert (await anext(events)).data == expected
        assert len(network.times) == 1


@pytest.mark.trio
async def test_no_connection_is_replaced_before_what_it_brought_is_taken(
    autojump_clock: MockClock,
) -> None:
    first = saying(block("a", id="1") + block("b", id="2") + "id: 3\ndata: cut of", then="cut")
    async with memory_streams(first, saying(block("c", id="3"))) as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
            assert events.last_event_id == "1"
            await trio.sleep(3600)
            assert (len(network.times), events.statistics().waiting) == (1, 1)
            assert data_of(await take(events, 2)) == ["b", "c"]
        assert network.resumed_from == [None, "2"]


@pytest.mark.row(15)
@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (answering("204 No Content"), HTTPStatusError, 204),
        (answering("400 Bad Request"), HTTPStatusError, 400),
        (answering("401 Unauthorized"), AuthenticationRequired, 401),
        (answering("404 Not Found"), HTTPStatusError, 404),
        (answering("405 Method Not Allowed"), HTTPStatusError, 405),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.trio
async def test_what_would_not_change_is_not_asked_for_again(
    autojump_clock: MockClock,
    script: object,
    error: type[HTTPStatusError],
    status: int,
    begun: bool,
) -> None:
    scripts = [saying(block("a"), then="end")] * begun + [script]
    async with memory_streams(*scripts) as (streams, network):
        with pytest.raises(error) as caught:
            async with streams.stream() as events:
                assert (await anext(events)).data == "a"
                await anext(events)
        assert caught.value.status == status
        assert caught.value.delivery == "answered"
        assert len(network.times) == 1 + begun


@pytest.mark.row(3)
@pytest.mark.trio
async def test_a_certificate_that_is_not_good_is_not_looked_at_again(
    autojump_clock: MockClock,
) -> None:
    async with memory_streams(refused_by_tls()) as (streams, network):
        with pytest.raises(TLSError):
            await streams.stream().__aenter__()
        assert len(network.times) == 1


@pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway"])
@pytest.mark.trio
async def test_what_may_pass_is_asked_for_again(autojump_clock: MockClock, status: str) -> None:
    async with memory_streams(answering(status), saying(block("a"))) as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
        assert network.gaps == pytest.approx([1])


@pytest.mark.row(16)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.trio
async def test_retry_after_is_waited_for(autojump_clock: MockClock, status: str) -> None:
    busy = answering(status, Retry_After="20")
    async with memory_streams(busy, saying(block("a"))) as (streams, network):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
        assert network.gaps == pytest.approx([20.5])


@pytest.mark.row(16)
@pytest.mark.trio
async def test_nobody_is_put_off_for_an_hour(autojump_clock: MockClock) -> None:
    busy = answering("429 Too Many Requests", Retry_After="3600")
    async with memory_streams(busy) as (streams, _):
        with pytest.raises(RateLimited) as caught:
            await streams.stream().__aenter__()
        assert caught.value.retry_after_s == 3600
        assert trio.current_time() < 1


@pytest.mark.trio
async def test_a_token_is_asked_for_before_each_connection(autojump_clock: MockClock) -> None:
    tokens = iter(["old", "new", "newer"])

    async def token() -> str:
        return next(tokens)

    scripts = [answering("401 Unauthorized"), saying(block("a", id="1"), then="end")]
    async with memory_streams(*scripts, saying(block("b", id="2"))) as (streams, network):
        async with streams.stream(user_token=token) as events:
            assert data_of(await take(events, 2)) == ["a", "b"]
        sent = [request.headers["authorization"] for request in network.requests]
        assert sent == ["Bearer old", "Bearer new", "Bearer newer"]
        assert network.gaps == pytest.approx([0, 1])


@pytest.mark.trio
async def test_new_credentials_that_do_not_help_are_the_last(autojump_clock: MockClock) -> None:
    async def token() -> str:
        return "t"

    async with memory_streams(answering("401 Unauthorized")) as (streams, network):
        with pytest.raises(AuthenticationRequired):
            await streams.stream(user_token=token).__aenter__()
        assert len(network.times) == 2


@pytest.mark.trio
async def test_a_gateway_that_never_answers_is_not_waited_for(autojump_clock: MockClock) -> None:
    async def mute(peer: Peer) -> None:
        await peer.receive()
        await peer.wait_closed()

    async with memory_streams(mute) as (streams, _):
        with pytest.raises(ReadTimeout):
            await streams.stream(reconnects_max=0).__aenter__()
        assert trio.current_time() == pytest.approx(30)


@pytest.mark.row(61)
@pytest.mark.trio
async def test_a_token_that_never_comes_is_not_waited_for(autojump_clock: MockClock) -> None:
    async def token() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with memory_streams(refusing) as (streams, network):
        with pytest.raises(ReadTimeout) as caught:
            await streams.stream(user_token=token, reconnects_max=0).__aenter__()
        assert "no response within 30 s" in str(caught.value)
        assert network.times == []


@pytest.mark.trio
async def test_cancelled_while_it_waits_to_reconnect_it_sends_nothing_more(
    autojump_clock: MockClock,
) -> None:
    async with memory_streams(httpcore.ConnectError("refused")) as (streams, network):
        events = streams.stream()
        with trio.move_on_after(5):
            await events.__aenter__()
        assert (events.state, streams.statistics().active_streams) == ("closed", 0)
        await trio.sleep(3600)
        assert len(network.times) == 3


@pytest.mark.trio
async def test_cancelled_while_it_connects_it_leaves_nothing(autojump_clock: MockClock) -> None:
    async def mute(peer: Peer) -> None:
        await peer.receive()
        await peer.wait_closed()

    async with memory_streams(mute) as (streams, network):
        events = streams.stream()
        with trio.move_on_after(5):
            await events.__aenter__()
        await trio.testing.wait_all_tasks_blocked()
        assert network.open == set()
        assert streams.statistics().active_streams == 0


@pytest.mark.trio
async def test_closing_the_group_ends_the_iteration(autojump_clock: MockClock) -> None:
    """As closing a client does: whoever reads is not torn, the loop just ends."""
    got: list[str] = []
    async with trio.open_nursery() as readers:
        async with memory_streams(saying(block("a"))) as (streams, _):
            events = await streams.stream().__aenter__()

            async def read() -> None:
                got.extend([event.data async for event in events])
                got.append("end")

            readers.start_soon(read)
            await trio.sleep(1)
        assert events.state == "closed"
    assert got == ["a", "end"]


@pytest.mark.trio
async def test_a_pool_that_is_shut_down_ends_the_iteration(autojump_clock: MockClock) -> None:
    async with memory_streams(saying(block("a"))) as (streams, _):
        async with streams.stream() as events:
            assert (await anext(events)).data == "a"
            streams.pool.shutdown()
            # Its connection is closed after the pool's grace, and there is no other one.
            assert [event async for event in events] == []
        assert trio.current_time() == pytest.approx(6)


@pytest.mark.trio
async def test_whatever_goes_wrong_in_a_stream_stays_in_it(autojump_clock: MockClock) -> None:
    def broken() -> float:
        raise ZeroDivisionError

    async with memory_streams(saying(then="end"), jitter=broken) as (streams, _):
        async with streams.stream() as events:
            with pytest.raises(ZeroDivisionError):
                await anext(events)
        assert (events.state, streams.statistics().active_streams) == ("closed", 0)


@pytest.mark.trio
async def test_an_error_without_reconnections_is_the_connections_own(
    autojump_clock: MockClock,
) -> None:
    async with memory_streams(saying(block("a"), then="cut")) as (streams, network):
        async with streams.stream(reconnects_max=0) as events:
            assert (await anext(events)).data == "a"
            with pytest.raises(ServerDisconnected) as caught:
                await anext(events)
        assert isinstance(caught.value, GatewayError)
        assert caught.value.attempts == 1
        assert len(network.times) == 1


@pytest.mark.row(24)
@pytest.mark.law("S6", "S8", "S10")
@given(
    types=st.lists(st.sampled_from("ab"), max_size=12),
    cuts=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), max_size=8),
    wanted=st.sampled_from(["ab", "a"]),
)
def test_the_reader_gets_the_servers_log_once_and_in_order(
    types: list[str], cuts: list[tuple[int, int]], wanted: str
) -> None:
    """Wherever connections break, and however much is replayed: no loss, no doubles, in order."""
    log = [block(f"{n}{kind}", kind=kind, id=str(n)) for n, kind in enumerate(types)]
    troubles = iter(cuts)

    async def replaying(peer: Peer) -> None:
        received = await peer.receive()
        cut, overlap = next(troubles, (None, 0))
        start = int(received.headers.get("last-event-id", "-1")) + 1
        said = "".join(log[max(0, start - overlap) :]).encode()[:cut]
        await peer.send(SSE_HEAD + b"".join(chunk(said[n : n + 7]) for n in range(0, len(said), 7)))
        if cut is None:
            await peer.send(SSE_END)

    async def read() -> None:
        got = []
        scripts = [replaying] * (len(cuts) + 1)
        async with memory_streams(*scripts, answering("204 No Content")) as (streams, network):
            async with streams.stream(event_types=set(wanted), reconnects_max=100) as events:
                with pytest.raises(HTTPStatusError):
                    while True:
                        event = await anext(events)
                        assert events.last_event_id == event.event_id
                        got.append(event.data)
            assert network.open_max == 1
        assert got == [f"{n}{kind}" for n, kind in enumerate(types) if kind in wanted]

    trio.run(read, clock=MockClock(autojump_threshold=0))


@pytest.mark.trio
async def test_a_socket_may_be_silent_as_long_as_its_reader_likes(
    autojump_clock: MockClock,
) -> None:
    said = [part for n in range(5) for part in (block(str(n)), 3600.0)]
    async with (
        serve(saying(*said)) as server,
        open_streams(server.url) as streams,
        streams.stream(idle_s=7200) as events,
    ):
        assert data_of(await take(events, 5)) == ["0", "1", "2", "3", "4"]
        assert events.statistics().connections_made == 1
    assert trio.current_time() >= 4 * 3600
