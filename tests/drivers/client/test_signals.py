"""What hooks are told of each way that a call can go, in order, and what they are never told."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from attrs import define, field
from trio.testing import MockClock

from sark_trio import (
    AllowAll,
    AuditLog,
    BreakerOptions,
    Decision,
    GatewayClient,
    Memory,
    RetryConfig,
    ToolRule,
)
from sark_trio.errors import (
    AuditUnavailable,
    CallTimeout,
    CircuitOpen,
    ClientClosed,
    ConfigError,
    ConnectError,
    Denied,
    HTTPStatusError,
    OutcomeUnknown,
    RemoteError,
    ServerDisconnected,
    UnknownTool,
    status_error,
)
from sark_trio.governance.decision import no_decision
from sark_trio.mcp.faults import HeaderMismatch
from sark_trio.telemetry import events
from sark_trio.telemetry.aside import Aside
from sark_trio.telemetry.events import CallFinished, CallInfo, Event, fields_of
from sark_trio.telemetry.hooks import FAILURES_MAX, Reporter
from sark_trio.telemetry.prometheus import Prometheus
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, desk, hang, open_client, outcomes, tool
from tests.support.event_servers import block, memory_streams, saying, take

pytestmark = pytest.mark.trio

CANARY = "canary-7f3a"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@define(eq=False)
class Told:
    """A hook that keeps what it is told."""

    events: list[Event] = field(factory=list)
    carried: dict[str, str] = field(factory=dict)
    asked: int = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def carrier(self, call: CallInfo) -> Mapping[str, str]:
        self.asked += 1
        return self.carried

    @property
    def names(self) -> list[str]:
        """Names of the events that are about calls."""
        wanted = ("call.", "attempt.")
        return [event.name for event in self.events if event.name.startswith(wanted)]

    def only(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @property
    def end(self) -> CallFinished:
        (end,) = self.only(CallFinished)
        return end


ATTEMPT = ["attempt.started", "attempt.finished"]


async def test_a_call_that_goes_well(autojump_clock: MockClock) -> None:
    async def slow(incoming: Any) -> dict[str, Any]:
        incoming.receive()
        await anyio.sleep(2)
        return answer()

    told = Told()
    async with open_client(desk(slow), hooks=[told]) as client:
        await client.invoke_tool("desk", "echo")
    assert told.names == ["call.started", "call.decided", *ATTEMPT, "call.finished"]
    started, decided = told.only(events.CallStarted)[0], told.only(events.CallDecided)[0]
    # Nobody had asked for the list yet, so nobody knew whether there is such a tool.
    assert (started.call.tool, started.call.protocol_version) == ("_other", None)
    assert (decided.call.tool, decided.allow, decided.cached) == ("echo", True, False)
    assert decided.call == told.end.call
    assert told.end.call.protocol_version == "2026-07-28"
    assert told.end.call.transport == "memory"
    assert (told.end.outcome, told.end.delivery, told.end.attempts) == ("ok", "answered", 1)
    assert told.end.seconds == pytest.approx(2)
    assert told.only(events.AttemptFinished)[0].seconds == pytest.approx(2)
    assert [event.name for event in told.events if event.name not in told.names] == [
        "cache.looked_up",
        "server.connected",
        "list.fetched",
    ]
    assert told.only(events.ListFetched)[0].items == 1


async def test_a_second_call_finds_list_and_decision_at_hand(autojump_clock: MockClock) -> None:
    class Engine:
        revision = "1"

        async def decide(self, question: Any) -> Decision:
            return Decision(allow=True, ttl_s=5, revision=self.revision)

    told = Told()
    async with open_client(desk(), policy=Engine(), hooks=[told]) as client:
        await client.invoke_tool("desk", "echo")
        await client.invoke_tool("desk", "echo")
        await client.list_tools("desk")
    assert [event.call.tool for event in told.only(events.CallStarted)] == ["_other", "echo"]
    assert [event.cached for event in told.only(events.CallDecided)] == [False, True]
    assert [event.hit for event in told.only(events.CacheLookedUp)] == [False, True, True]
    assert len(told.only(events.ServerConnected)) == 1


async def test_a_tool_that_fails_is_no_failed_attempt(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(answer(isError=True)), hooks=[told]) as client:
        await client.invoke_tool("desk", "echo")
    assert told.end.outcome == "tool_error"
    assert told.only(events.AttemptFinished)[0].error_type is None


async def test_a_denied_call_has_no_attempt(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(), policy=None, hooks=[told]) as client:
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo")
    assert told.names == ["call.started", "call.decided", "call.finished"]
    decided = told.only(events.CallDecided)[0]
    assert (decided.allow, decided.reason) == (False, "no_policy")
    assert (told.end.outcome, told.end.delivery) == ("denied", "not_sent")
    assert (told.end.reason, told.end.error_type) == ("no_policy", "PolicyUnavailable")


async def test_a_call_that_is_retried(autojump_clock: MockClock) -> None:
    told = Told()
    server = desk(ConnectError("no"), ServerDisconnected("gone"))
    async with open_client(server, hooks=[told]) as client:
        await client.invoke_tool("desk", "echo", replay_safe=True)
    again = ["call.retried", *ATTEMPT]
    assert told.names == [
        *("call.started", "call.decided", *ATTEMPT, *again, *again, "call.finished")
    ]
    ends = told.only(events.AttemptFinished)
    assert [(end.number, end.error_type) for end in ends] == [
        (1, "ConnectError"),
        (2, "ServerDisconnected"),
        (3, None),
    ]
    retried = told.only(events.CallRetried)
    assert [(event.number, event.reason, event.wait_s) for event in retried] == [
        (1, "ConnectError", 1.0),
        (2, "ServerDisconnected", 2.0),
    ]
    assert (told.end.outcome, told.end.attempts) == ("ok", 3)
    assert told.end.seconds == pytest.approx(3)


async def test_a_call_that_the_transport_sends_again(autojump_clock: MockClock) -> None:
    async def stale(incoming: Any) -> dict[str, Any]:
        assert await incoming.may_resend("stale_connection")
        incoming.receive()
        return answer()

    told = Told()
    async with open_client(desk(stale), hooks=[told]) as client:
        await client.invoke_tool("desk", "echo", replay_safe=True)
    (event,) = told.only(events.CallRetried)
    assert (event.number, event.reason, event.wait_s) == (1, "stale_connection", 0)


async def test_the_servers_own_error_has_its_code(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(RemoteError(CANARY, code=-32602)), hooks=[told]) as client:
        with pytest.raises(RemoteError):
            await client.invoke_tool("desk", "echo")
    assert (told.end.outcome, told.end.status, told.end.error_type) == (
        *("error", -32602, "RemoteError"),
    )
    assert told.only(events.AttemptFinished)[0].status == -32602


async def test_a_servers_http_error_has_its_status(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(status_error(404, CANARY)), hooks=[told]) as client:
        with pytest.raises(HTTPStatusError):
            await client.invoke_tool("desk", "echo")
    assert (told.end.outcome, told.end.status) == ("error", 404)


async def test_a_call_whose_headers_are_made_anew_is_told_as_retried(
    autojump_clock: MockClock,
) -> None:
    told = Told(carried={"traceparent": PARENT})
    server = desk(HeaderMismatch("stale", code=-32001))
    async with open_client(server, hooks=[told]) as client:
        await client.invoke_tool("desk", "echo")
    (again,) = told.only(events.CallRetried)
    assert (again.reason, again.wait_s) == ("HeaderMismatch", 0)
    assert [end.error_type for end in told.only(events.AttemptFinished)] == [
        *("HeaderMismatch", None),
    ]
    # Decided again, but still one call, and one span.
    assert len(told.only(events.CallDecided)) == 2
    assert (told.asked, told.end.outcome, told.end.attempts) == (1, "ok", 2)
    assert {str(meta) for meta in meta_of(server)} == {str({"traceparent": PARENT})}


async def test_a_call_that_its_caller_gives_up(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(hang), hooks=[told]) as client:
        with anyio.move_on_after(3):
            await client.invoke_tool("desk", "echo")
    assert told.names == ["call.started", "call.decided", *ATTEMPT, "call.finished"]
    assert (told.end.outcome, told.end.delivery) == ("cancelled", "unknown")
    assert told.end.seconds == pytest.approx(3)
    # What is no error of ours is not counted as one.
    assert told.end.error_type is None


async def test_a_call_that_takes_too_long(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(hang), timeout_s=4, hooks=[told]) as client:
        with pytest.raises(CallTimeout):
            await client.invoke_tool("desk", "echo")
    assert told.names[-2:] == ["attempt.finished", "call.finished"]
    assert (told.end.outcome, told.end.delivery) == ("timeout", "unknown")


async def test_a_call_whose_outcome_is_unknown(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(ServerDisconnected("gone")), hooks=[told]) as client:
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("desk", "echo")
    assert (told.end.outcome, told.end.delivery) == ("unknown", "unknown")


async def test_calls_of_a_client_that_closes_are_cancelled(autojump_clock: MockClock) -> None:
    told = Told()

    async def call() -> None:
        with pytest.raises(ClientClosed):
            await client.invoke_tool("desk", "echo")

    async with (
        open_client(desk(hang), grace_s=0, hooks=[told]) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(call)
        await anyio.sleep(1)
        await client.close()
    assert told.end.outcome == "cancelled"


async def test_an_open_breaker_is_told_once_and_its_refusals_have_no_attempt(
    autojump_clock: MockClock,
) -> None:
    told = Told()
    server = desk(*[ServerDisconnected("gone")] * 2)
    options = {
        "breaker": BreakerOptions(failures=2, successes=1),
        "retry": RetryConfig(attempts=1),
        "hooks": [told],
    }
    async with open_client(server, **options) as client:
        await client.list_tools("desk")
        for kind in (OutcomeUnknown, OutcomeUnknown, CircuitOpen):
            with pytest.raises(kind):
                await client.invoke_tool("desk", "echo")
        assert told.names[-2:] == ["call.started", "call.finished"]
        refused = told.only(CallFinished)[-1]
        assert (refused.outcome, refused.reason, refused.attempts) == ("rejected", "open", 0)
        # Known before: the name needs no new look at the list.
        assert refused.call.tool == "echo"
        await anyio.sleep(31)
        await client.invoke_tool("desk", "echo")
    moves = [(move.source, move.target, move.why) for move in told.only(events.BreakerChanged)]
    assert moves == [
        ("closed", "open", "failures"),
        ("open", "half_open", "elapsed"),
        ("half_open", "closed", "recovered"),
    ]


async def test_a_list_that_cannot_be_fetched_is_told(autojump_clock: MockClock) -> None:
    told = Told()
    server = desk(list_script=[RemoteError("no", code=-1)])
    async with open_client(server, hooks=[told]) as client:
        with pytest.raises(RemoteError):
            await client.invoke_tool("desk", "echo")
    (listed,) = told.only(events.ListFetched)
    assert (listed.items, listed.error_type) == (None, "RemoteError")
    assert told.end.delivery == "not_sent"


@pytest.mark.fault(51)
async def test_names_that_models_make_up_are_one_name(autojump_clock: MockClock) -> None:
    told, metrics = Told(), Prometheus()
    async with open_client(desk(), hooks=[told, metrics]) as client:
        await client.list_tools("desk")
        for number in range(100):
            with pytest.raises(UnknownTool):
                await client.invoke_tool("desk", f"{CANARY}{number}")
    assert {end.call.tool for end in told.only(CallFinished)} == {"_other"}
    assert {end.outcome for end in told.only(CallFinished)} == {"rejected"}
    assert CANARY not in repr(told.events)
    samples = [line for line in metrics.text().splitlines() if "invocations_total{" in line]
    assert samples == [
        'sark_gateway_tool_invocations_total{tool="_other",server="desk",status="rejected"} 100'
    ]


@pytest.mark.security(7)
async def test_no_secret_is_in_any_event(autojump_clock: MockClock) -> None:
    """Arguments, results, errors, reasons of the policy, progress: none of it is told."""

    class Engine:
        revision = "1"

        async def decide(self, question: Any) -> Decision:
            if question.query.arguments.get("deny"):
                return no_decision(CANARY, reason=f"because of {CANARY}")
            return Decision(allow=True, reason=CANARY)

    async def talk(incoming: Any) -> dict[str, Any]:
        incoming.receive()
        incoming.notify("notifications/progress", {"progress": 1, "message": CANARY})
        return answer(CANARY, structuredContent={"x": CANARY})

    told, disk = Told(), MemoryDisk()
    script = [talk, answer(CANARY, isError=True), RemoteError(CANARY, code=1, data=CANARY)]
    rules = {"*": ToolRule(sensitive_params=("password",))}
    server = desk(*script, tools=[tool(description=CANARY)])
    async with open_client(
        server, disk, policy=Engine(), hooks=[told], server_tools=rules
    ) as client:
        secret = {"sql": CANARY, "password": CANARY}
        await client.invoke_tool("desk", "echo", secret, on_progress=lambda _: None)
        await client.invoke_tool("desk", "echo", secret, context={"purpose": CANARY})
        with pytest.raises(RemoteError):
            await client.invoke_tool("desk", "echo", secret)
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo", {"deny": True})
    assert len(outcomes(disk)) == 3
    assert len(told.only(CallFinished)) == 4
    for event in told.events:
        assert CANARY not in repr(event)
        assert CANARY not in repr(fields_of(event))
    assert told.only(CallFinished)[-1].reason == "_other"


# -- hooks that misbehave ---------------------------------------------------------------------


@pytest.mark.row(61)
async def test_a_hook_that_raises_harms_no_call(autojump_clock: MockClock) -> None:
    class Broken:
        def __call__(self, event: Event) -> None:
            raise RuntimeError(event.name)

        def carrier(self, call: CallInfo) -> Mapping[str, str]:
            raise RuntimeError(call.tool)

    told, disk = Told(), MemoryDisk()
    server = desk(ConnectError("no"))
    async with open_client(server, disk, hooks=[Broken(), told]) as client:
        for _ in range(30):
            await client.invoke_tool("desk", "echo")
        broken, fine = client.statistics().hooks
    assert outcomes(disk) == [("ok", "answered")] * 30
    assert broken.failures >= FAILURES_MAX
    assert (broken.disabled, fine.failures, fine.disabled) == (True, 0, False)
    assert len(told.only(events.HookDisabled)) == 1


@pytest.mark.row(61)
async def test_a_hook_that_takes_its_time_is_told_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [0.0]

    class Sluggish:
        def __call__(self, event: Event) -> None:
            passed[0] += 0.9

    monkeypatch.setattr("sark_trio.client.wiring.time.perf_counter", lambda: passed[0])
    told, disk = Told(), MemoryDisk()
    async with open_client(desk(), disk, hooks=[Sluggish(), told]) as client:
        for _ in range(5):
            await client.invoke_tool("desk", "echo")
        slow, fine = client.statistics().hooks
    assert (slow.disabled, slow.failures, fine.disabled, fine.slow) == (True, 0, False, 0)
    assert passed[0] == pytest.approx(slow.slow * 0.9)
    (disabled,) = told.only(events.HookDisabled)
    assert (disabled.hook.rpartition(".")[2], disabled.error_type) == ("Sluggish", "TooSlow")
    assert outcomes(disk) == [("ok", "answered")] * 5


@pytest.mark.row(61)
async def test_a_hook_that_hangs_in_its_own_thread_holds_up_nobody(
    autojump_clock: MockClock,
) -> None:
    let_go, told = threading.Event(), list[Event]()

    def hangs(event: Event) -> None:
        let_go.wait()
        told.append(event)

    hook, other = Aside(hangs, queue_max=10), Told()
    try:
        async with open_client(desk(), hooks=[hook, other]) as client:
            for _ in range(10):
                await client.invoke_tool("desk", "echo")
            assert not any(one.disabled for one in client.statistics().hooks)
        statistics = hook.statistics()
        assert told == []
        assert statistics.dropped >= len(other.events) - 11 > 0
    finally:
        let_go.set()
    assert hook.flush(60)
    left = iter(other.events)
    assert all(one in left for one in told)  # in their order
    assert len(told) == len(other.events) - statistics.dropped


async def test_hooks_that_cannot_be_called_are_refused() -> None:
    with pytest.raises(ConfigError, match="hooks: a hook is a callable"):
        async with open_client(desk(), hooks=["print"]):
            raise AssertionError


async def test_without_hooks_there_is_nothing_to_count(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        await client.invoke_tool("desk", "echo")
        assert client.statistics().hooks == ()


# -- the log, and streams ---------------------------------------------------------------------


@pytest.mark.row(49, 51)
@pytest.mark.fault(49)
async def test_a_log_that_fails_is_told_and_so_is_each_checkpoint(
    autojump_clock: MockClock,
) -> None:
    kept: list[int] = []

    async def sink(checkpoint: Any) -> None:
        if not kept:
            kept.append(0)
            raise OSError(f"https://token:{CANARY}@store.example")
        kept.append(checkpoint.size)

    told, alarms, disk = Told(), list[str](), MemoryDisk()
    log = AuditLog(
        "log", files=disk, checkpoint_sink=sink, checkpoint_records=1, on_alarm=alarms.append
    )
    servers = {"desk": Memory(desk())}
    async with GatewayClient(servers=servers, policy=AllowAll(), audit=log, hooks=[told]) as client:
        await client.invoke_tool("desk", "echo")
        await anyio.sleep(1)
        disk.errors["sync"] = [OSError(errno.EIO, "broken")]
        with pytest.raises(AuditUnavailable):
            await client.invoke_tool("desk", "echo")
    failed, *taken = told.only(events.CheckpointTaken)
    assert failed.error_type == "OSError"
    assert [one.records for one in taken] == kept[1:]
    (problem,) = [one.problem for one in told.only(events.AuditFailed)]
    assert "broken" in problem
    assert problem in alarms
    # A sink's error may hold anything: the operator's own alarm has it, and no hook.
    assert CANARY in "".join(alarms)
    assert CANARY not in repr(told.events)
    end = told.only(CallFinished)[-1]
    assert (end.outcome, end.reason, end.delivery) == (
        *("rejected", "audit_unavailable", "not_sent"),
    )


async def test_a_stream_that_breaks_is_told_with_its_wait_and_its_return(
    autojump_clock: MockClock,
) -> None:
    told = Told()
    first = saying(block("a", id="1"), then="end")
    async with (
        memory_streams(first, saying(block("b", id="2")), report=Reporter("_gateway", told)) as (
            streams,
            _,
        ),
        streams.stream() as stream,
    ):
        await take(stream, 2)
    assert told.events == [
        events.StreamConnected(server="_gateway"),
        events.StreamReconnecting(server="_gateway", attempt=1, wait_s=1.0),
        events.StreamConnected(server="_gateway", resumed=True),
    ]


# -- what travels -----------------------------------------------------------------------------


def meta_of(server: Any) -> list[Any]:
    """``_meta`` of each call that arrived."""
    return [params.get("_meta") for kind, params in server.journal if kind == "arrived"]


async def test_the_context_of_a_hook_travels_and_is_asked_for_once(
    autojump_clock: MockClock,
) -> None:
    told = Told(carried={"traceparent": PARENT, "baggage": "a=1", "authorization": CANARY})
    server = desk(ConnectError("no"), ServerDisconnected("gone"))
    async with open_client(server, hooks=[told]) as client:
        await client.invoke_tool("desk", "echo", replay_safe=True)
    assert told.asked == 1
    assert meta_of(server) == [{"traceparent": PARENT, "baggage": "a=1"}] * 2


async def test_a_callers_parent_travels_where_no_hook_knows_better(
    autojump_clock: MockClock,
) -> None:
    told, server = Told(), desk()
    async with open_client(server) as client:
        await client.invoke_tool("desk", "echo", traceparent=PARENT)
        await client.invoke_tool("desk", "echo", traceparent="nonsense")
        await client.invoke_tool("desk", "echo")
    async with open_client(server, hooks=[told]) as client:
        await client.invoke_tool("desk", "echo", traceparent=PARENT)
        await client.invoke_tool("desk", "echo", traceparent="nonsense")
    given = {"traceparent": PARENT}
    assert [meta or None for meta in meta_of(server)] == [given, None, None, given, None]
    assert [event.traceparent for event in told.only(events.CallStarted)] == [PARENT, None]


async def test_a_token_that_is_checked_is_told_but_not_shown(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_client(desk(), hooks=[told], identity=Verifier()) as client:
        with pytest.raises(Denied):
            await client.authenticate(f"{CANARY}.bad")
        await client.authenticate(f"{CANARY}.good")
    bad, good = told.only(events.TokenChecked)
    assert (bad.ok, bad.reason) == (False, "expired")
    assert (good.ok, good.reason) == (True, None)
    assert CANARY not in repr(told.events)


class Verifier:
    """Knows a good token by its end."""

    keys: Any = None

    async def verify(self, token: str, now: float) -> Any:
        if token.endswith("bad"):
            raise Denied("no", reason="expired")
        return "somebody"
