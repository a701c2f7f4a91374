"""When a call is made again, how far apart, and what is never sent twice; in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import BreakerOptions, Decision, RetryConfig, ToolRule
from sark_trio.errors import (
    ConnectError,
    Denied,
    GatewayError,
    HTTPStatusError,
    OutcomeUnknown,
    ProtocolError,
    RateLimited,
    RemoteError,
    ServerDisconnected,
    TLSError,
)
from sark_trio.governance.obligations import parse_obligations
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import (
    answer,
    audited,
    check_log,
    desk,
    open_client,
    outcomes,
    records,
    tool,
)
from tests.support.governance import Answers

pytestmark = pytest.mark.trio

READING = tool(annotations={"readOnlyHint": True})


def refused() -> ConnectError:
    return ConnectError("refused")


def gone() -> ServerDisconnected:
    return ServerDisconnected("gone", delivery="unknown")


def unavailable() -> HTTPStatusError:
    return HTTPStatusError("unavailable", status=503)


@pytest.mark.row(53)
@pytest.mark.fault(4, 12)
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1 - 2**-53])
async def test_three_attempts_one_and_two_seconds_apart_within_the_jitter(
    autojump_clock: MockClock, jitter: float
) -> None:
    server, disk = desk(*[refused() for _ in range(9)]), MemoryDisk()
    async with open_client(server, disk, jitter=lambda: jitter) as client:
        with pytest.raises(ConnectError) as caught:
            await client.invoke_tool("desk", "echo")
    first, second, third = server.times
    scale = 0.75 + jitter / 2
    assert (second - first, third - second) == pytest.approx((scale, 2 * scale))
    assert caught.value.attempts == 3
    assert caught.value.delivery == "not_sent"
    check_log(disk)
    assert outcomes(disk) == [("not_sent", "not_sent")]
    assert [each["number"] for each in audited(disk, "attempt")] == [2, 3]


@pytest.mark.row(53)
@pytest.mark.fault(12)
async def test_no_wait_exceeds_the_cap(autojump_clock: MockClock) -> None:
    server = desk(*[refused() for _ in range(9)])
    retry = RetryConfig(attempts=9, max_delay_s=4)
    options: dict[str, Any] = {"retry": retry, "jitter": lambda: 1 - 2**-53, "timeout_s": 300.0}
    async with open_client(server, breaker=BreakerOptions(failures=100), **options) as client:
        with pytest.raises(ConnectError):
            await client.invoke_tool("desk", "echo")
    waits = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert len(waits) == 8
    assert max(waits) <= 4 + 1e-9


@pytest.mark.fault(4, 5)
@pytest.mark.parametrize("failure", [gone, unavailable])
async def test_what_may_have_happened_is_sent_once(autojump_clock: MockClock, failure: Any) -> None:
    server, disk = desk(failure()), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(GatewayError) as caught:
            await client.invoke_tool("desk", "echo")
    assert len(server.arrived) == 1
    assert caught.value.attempts == 1
    if caught.value.delivery == "unknown":
        assert isinstance(caught.value, OutcomeUnknown)
        assert isinstance(caught.value.__cause__, ServerDisconnected)
    check_log(disk)


@pytest.mark.fault(4)
@pytest.mark.parametrize("failure", [gone, unavailable, refused])
async def test_a_reading_tool_of_a_trusted_server_is_called_again(
    autojump_clock: MockClock, failure: Any
) -> None:
    server = desk(failure(), failure(), tools=[READING])
    async with open_client(server, server_trusted=True) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "done"
    assert len(server.times) == 3


@pytest.mark.security(16)
@pytest.mark.parametrize(
    ("trusted", "rule", "asked", "attempts"),
    [
        (False, None, None, 1),  # hints of a server that is not trusted say nothing
        (True, None, None, 3),
        (True, None, False, 1),
        (False, None, True, 3),
        (True, False, True, 1),  # the operator outranks server and caller
        (False, True, False, 3),
    ],
)
async def test_whose_word_counts_on_safety(
    autojump_clock: MockClock, trusted: bool, rule: bool | None, asked: bool | None, attempts: int
) -> None:
    server = desk(*[gone() for _ in range(3)], tools=[READING])
    rules = {"*": ToolRule(replay_safe=rule)}
    async with open_client(server, server_trusted=trusted, server_tools=rules) as client:
        with pytest.raises((OutcomeUnknown, ServerDisconnected)):
            await client.invoke_tool("desk", "echo", replay_safe=asked)
    assert len(server.arrived) == attempts


@pytest.mark.fault(2, 4, 31)
@pytest.mark.parametrize(
    "failure",
    [
        RemoteError("bad", code=-32602),
        HTTPStatusError("no", status=404),
        TLSError("certificate"),
        ProtocolError("not JSON"),
    ],
)
async def test_what_asking_again_cannot_change_is_not_asked_again(
    autojump_clock: MockClock, failure: GatewayError
) -> None:
    server = desk(failure)
    async with open_client(server) as client:
        with pytest.raises(type(failure)) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
    assert caught.value is failure
    assert caught.value.attempts == 1
    assert len(server.times) == 1


@pytest.mark.fault(31)
async def test_one_attempt_is_an_error_not_nothing(autojump_clock: MockClock) -> None:
    async with open_client(desk(refused()), retry=RetryConfig(attempts=1)) as client:
        with pytest.raises(ConnectError) as caught:
            await client.invoke_tool("desk", "echo")
    assert caught.value.attempts == 1


@pytest.mark.row(16)
@pytest.mark.fault(12)
async def test_retry_after_is_heeded_and_never_early(autojump_clock: MockClock) -> None:
    later = RateLimited("later", status=429, retry_after_s=7.0)
    server = desk(later)
    async with open_client(server) as client:
        await client.invoke_tool("desk", "echo", replay_safe=True)
    first, second = server.times
    assert 7.0 <= second - first <= 8.0


@pytest.mark.security(33)
@pytest.mark.row(16)
async def test_who_asks_for_more_than_the_deadline_is_told_to_the_caller_at_once(
    autojump_clock: MockClock,
) -> None:
    server = desk(RateLimited("later", status=429, retry_after_s=60.0))
    async with open_client(server) as client:
        began = trio.current_time()
        with pytest.raises(RateLimited) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
        assert trio.current_time() == began
    assert caught.value.retry_after_s == 60.0


@pytest.mark.row(16)
@pytest.mark.parametrize(("declared", "attempts"), [(False, 1), (True, 2)])
async def test_an_unsafe_call_that_was_throttled_is_repeated_on_the_operators_word_only(
    autojump_clock: MockClock, declared: bool, attempts: int
) -> None:
    server = desk(RateLimited("later", status=429, retry_after_s=1.0))
    retry = RetryConfig(throttled_means_not_executed=declared)
    async with open_client(server, retry=retry) as client:
        try:
            await client.invoke_tool("desk", "echo")
        except RateLimited:
            assert not declared
    assert len(server.times) == attempts


@pytest.mark.law("R9")
@pytest.mark.parametrize("at_s", [0.25, 0.999, 2.0])
async def test_r09_a_cancellation_in_a_wait_returns_at_once_and_sends_nothing_after(
    autojump_clock: MockClock, at_s: float
) -> None:
    """R9: cancel during sleep returns in the same tick, sends nothing after."""
    server, disk = desk(refused(), refused(), refused()), MemoryDisk()
    async with open_client(server, disk) as client:
        with trio.move_on_after(at_s) as scope:
            await client.invoke_tool("desk", "echo")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(at_s)
        sent = len(server.times)
        await trio.sleep(60)
        assert len(server.times) == sent
        assert client.statistics().running_calls == 0
    check_log(disk)
    assert outcomes(disk) == [("cancelled", "not_sent")]


@pytest.mark.row(17)
async def test_the_budget_of_a_server_bounds_what_all_its_callers_repeat(
    autojump_clock: MockClock,
) -> None:
    server = desk(*[refused() for _ in range(300)])
    never = BreakerOptions(failures=10_000)
    notes: list[str] = []
    async with open_client(server, breaker=never) as client:

        async def call() -> None:
            with pytest.raises(ConnectError) as caught:
                await client.invoke_tool("desk", "echo")
            notes.extend(getattr(caught.value, "__notes__", []))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(call)
    # 10 to begin with, 0.2 for each first attempt, 1 a second for the three seconds it took.
    assert 100 < len(server.times) <= 100 + 10 + 20 + 3
    assert any("budget" in note for note in notes)


# -- sent again by the transport ------------------------------------------------------------------


async def test_a_transport_may_send_again_once_for_each_reason_and_that_is_recorded(
    autojump_clock: MockClock,
) -> None:
    said: list[bool] = []

    async def stale(incoming: Incoming) -> Any:
        incoming.receive()
        said.append(await incoming.may_resend("stale_connection"))
        said.append(await incoming.may_resend("stale_connection"))
        said.append(await incoming.may_resend("session_renewed"))
        said.append(await incoming.may_resend("on_a_whim"))
        return answer()

    server, disk = desk(stale), MemoryDisk()
    async with open_client(server, disk) as client:
        await client.invoke_tool("desk", "echo")
    assert said == [True, False, True, False]
    reasons = [each["reason"] for each in audited(disk, "attempt")]
    assert reasons == ["stale_connection", "session_renewed"]
    check_log(disk)


# -- the decision under a retry -------------------------------------------------------------------


def allow(**fields: Any) -> Any:
    return Decision(allow=True, ttl_s=0.5, **fields)


async def test_a_decision_that_became_too_old_is_asked_for_again_before_an_attempt(
    autojump_clock: MockClock,
) -> None:
    policy = Answers(allow())
    server = desk(refused(), refused())
    async with open_client(server, policy=policy) as client:
        await client.invoke_tool("desk", "echo", {"x": 1})
    assert len(policy.asked) == 3
    assert server.arrived == [{"x": 1}]


async def test_a_fresh_decision_is_not_asked_for_again(autojump_clock: MockClock) -> None:
    policy = Answers(Decision(allow=True, ttl_s=5))
    async with open_client(desk(refused()), policy=policy) as client:
        await client.invoke_tool("desk", "echo")
    assert len(policy.asked) == 1


async def test_a_right_that_was_taken_away_meanwhile_stops_the_retries(
    autojump_clock: MockClock,
) -> None:
    policy = Answers(allow(), Decision(allow=False, reason="dismissed"))
    server, disk = desk(refused()), MemoryDisk()
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo")
        assert client.statistics().servers["desk"].breaker.outstanding == 0
    assert "dismissed" not in str(caught.value)
    assert len(server.times) == 1
    check_log(disk)
    assert outcomes(disk) == [("denied", "not_sent")]
    assert audited(disk, "attempt") == []


async def test_obligations_are_those_of_the_decision_that_holds_at_last(
    autojump_clock: MockClock,
) -> None:
    masked = parse_obligations([{"type": "redact_result", "patterns": ["email"]}])
    policy = Answers(allow(), allow(obligations=masked))
    server = desk(refused(), answer("ada@example.org"))
    async with open_client(server, policy=policy) as client:
        result = await client.invoke_tool("desk", "echo")
    assert "@" not in result.text


async def test_a_decision_on_other_bytes_stops_the_retries(autojump_clock: MockClock) -> None:
    policy = Answers(allow(), allow(arguments={}))
    server, disk = desk(refused()), MemoryDisk()
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo", {"x": 1})
    assert caught.value.reason == "decision_changed"
    assert len(server.times) == 1
    check_log(disk)


async def test_a_denial_after_a_sending_does_not_claim_that_nothing_was_sent(
    autojump_clock: MockClock,
) -> None:
    policy = Answers(allow(), Decision(allow=False))
    server, disk = desk(gone()), MemoryDisk()
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
    assert server.arrived == [{}]
    assert caught.value.delivery == "unknown"
    (end,) = (each for each in records(disk) if each["kind"] == "outcome")
    assert end["delivery"] == "unknown"
