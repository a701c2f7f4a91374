"""Local servers: each message through one is decided and recorded, whatever its method."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from sark_trio import AuditLog, Decision, GatewayClient, Principal, Question
from sark_trio.client import redaction
from sark_trio.client.chapters.local import LocalServerClient
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ClientClosed,
    ConfigError,
    Denied,
    GatewayError,
    InvalidArguments,
    OutcomeUnknown,
    ProcessExited,
    ProcessStartError,
    ProtocolError,
    RemoteError,
    ServerDown,
    TransportNotAvailableError,
    UnknownServer,
    UsageError,
)
from sark_trio.governance.obligations import parse_obligations
from sark_trio.governance.query import INVOKE, NOTIFY, REQUEST
from sark_trio.machines.breaker import Mode
from sark_trio.machines.supervise import Down, Phase
from sark_trio.telemetry.events import CallFinished, Event
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, audited, check_log, records
from tests.support.stdio import SCRIPTED, baseline

pytestmark = pytest.mark.anyio
PLAIN = [sys.executable, "-S", "-I", str(Path(SCRIPTED[-1]).with_name("plain.py"))]
HUNG_S = 30.0


@define
class Book:
    """A policy that writes down what it is asked, and allows what is not in its list."""

    denied: set[str] = field(factory=set)
    obligations: tuple[Any, ...] = ()
    asked: list[tuple[str, Any, dict[str, Any], Any]] = field(factory=list)
    revision: str = "book"

    async def decide(self, question: Question) -> Decision:
        query = question.query
        self.asked.append((query.action, query.tool, query.arguments, query.context.get("method")))
        keys = {query.action, query.tool, query.context.get("method")}
        if keys & self.denied:
            return Decision(allow=False, reason="in the list")
        return Decision(allow=True, reason="ok", obligations=self.obligations, ttl_s=0)


@asynccontextmanager
async def started(
    book: Book | None = None, disk: MemoryDisk | None = None, command: Any = None, **options: Any
) -> AsyncIterator[tuple[GatewayClient, LocalServerClient]]:
    """A client with one local server."""
    client = GatewayClient(
        policy=book or Book(),
        audit=AuditLog("log", files=disk or MemoryDisk()),
        principal=ALICE,
        **options,
    )
    with anyio.fail_after(HUNG_S):
        async with client:
            yield client, await client.connect_local_server(command or PLAIN)


@pytest.mark.fault(18)
async def test_a_tool_call_by_hand_is_one_by_name():
    book, disk = Book(), MemoryDisk()
    async with started(book, disk) as (client, server):
        params = {"name": "echo", "arguments": {"text": "hi"}}
        by_hand = await server.send_request("tools/call", params)
        by_name = await client.invoke_tool(server.server_id, "echo", {"text": "hi"})
        assert by_hand == by_name.raw
        assert by_hand["structuredContent"] == {"text": "hi"}
    assert book.asked == [(INVOKE, "echo", {"text": "hi"}, None)] * 2
    intents = audited(disk, "intent")
    assert len(intents) == 2
    changing = {"seq", "prev", "ts", "request_id"}
    first, second = ({k: v for k, v in one.items() if k not in changing} for one in intents)
    assert first == second
    assert (first["tool"], first["method"]) == ("echo", "tools/call")
    check_log(disk)


@pytest.mark.fault(18)
@pytest.mark.law("Z4")
@pytest.mark.parametrize(
    ("method", "params", "denied"),
    [
        ("tools/call", {"name": "crash", "arguments": {}}, "crash"),
        ("tools/list", {}, REQUEST),
        ("resources/read", {"uri": "file:///etc/passwd"}, "resources/read"),
    ],
)
async def test_z04_what_is_denied_sends_nothing_and_is_recorded_once(
    method: str, params: dict[str, Any], denied: str
):
    """A denied request sends no byte to the server, and leaves one record."""
    disk = MemoryDisk()
    async with started(Book({denied}), disk) as (client, server):
        sent = server.statistics().wire.requests
        if method == "tools/call":
            await client.list_tools(server.server_id)  # the list is the client's own request
            sent = server.statistics().wire.requests
        with pytest.raises(Denied) as caught:
            await server.send_request(method, params)
        assert caught.value.delivery == "not_sent"
        assert "in the list" not in str(caught.value)
        assert server.statistics().wire.requests == sent
    (record,) = audited(disk, "denied")
    assert (record["method"], record["principal_id"]) == (method, "alice")
    assert audited(disk, "intent", "outcome") == []


async def test_every_other_request_is_decided_by_its_method_and_recorded():
    book, disk, bob = Book(), MemoryDisk(), Principal(id="bob")
    async with started(book, disk) as (_, server):
        listed = await server.send_request("tools/list", principal=bob)
        assert {one["name"] for one in listed["tools"]} == {"echo", "hold", "crash", "told"}
    assert book.asked == [(REQUEST, None, {}, "tools/list")]
    intent, outcome = audited(disk, "intent", "outcome")
    assert (intent["method"], intent["principal_id"]) == ("tools/list", "bob")
    assert "tool" not in intent
    assert (outcome["outcome"], outcome["delivery"]) == ("ok", "answered")
    check_log(disk)


async def test_what_policy_hides_is_hidden_in_every_answer():
    hide = parse_obligations([{"type": "redact_result", "keys": ["name"]}])
    disk = MemoryDisk()
    async with started(Book(obligations=hide), disk) as (_, server):
        listed = await server.send_request("tools/list")
        assert {one["name"] for one in listed["tools"]} == {"[redacted:key]"}
    assert audited(disk, "outcome")[0]["redactions"] == 4


async def test_an_error_of_the_server_is_an_answer():
    disk = MemoryDisk()
    async with started(disk=disk, command=SCRIPTED) as (_, server):
        with pytest.raises(RemoteError, match="Unknown method no/such") as caught:
            await server.send_request("no/such")
        assert (caught.value.code, caught.value.delivery) == (-32601, "answered")
        assert caught.value.server == server.server_id
    assert audited(disk, "outcome")[0]["outcome"] == "error"
    check_log(disk)


@pytest.mark.parametrize(
    ("method", "params", "why"),
    [
        ("Tools/Call", {"name": "crash"}, "some servers would take it so"),
        ("tools/CALL", {"name": "crash"}, "some servers would take it so"),
        ("tools/call ", {"name": "crash"}, "no name of a method"),
        ("tools/call\n", {"name": "crash"}, "no name of a method"),
        ("", {}, "no name of a method"),
        ("x" * 129, {}, "no name of a method"),
        (7, {}, "no name of a method"),
        ("initialize", {}, "said by the transport"),
        ("notifications/progress", {}, "does not begin with 'notifications/'"),
        ("tools/call", {"name": "echo", "_meta": {}, "task": {}}, "_meta, task cannot be given"),
        ("tools/call", {"arguments": {}}, "needs a name"),
        ("tools/call", {"name": "echo", "arguments": [1]}, "needs a name"),
        ("tools/list", [1], "give a mapping"),
        ("tools/list", {"_meta": {"progressToken": 1}}, "reserved"),
    ],
)
async def test_there_is_no_way_around_the_decision_on_tools(method: Any, params: Any, why: str):
    disk = MemoryDisk()
    async with started(Book({"crash"}), disk) as (_, server):
        sent = server.statistics().wire.requests
        with pytest.raises(InvalidArguments, match=why) as caught:
            await server.send_request(method, params)
        assert caught.value.delivery == "not_sent"
        assert server.statistics().wire.requests == sent
        assert server.is_running
    check_log(disk)


async def test_a_notification_is_decided_recorded_and_sent():
    book, disk = Book({"notifications/secret"}), MemoryDisk()
    async with started(book, disk) as (_, server):
        await server.send_notification("notifications/roots/list_changed", {"n": 1})
        with pytest.raises(Denied):
            await server.send_notification("notifications/secret")
        for method in ("tools/call", "notifications/cancelled", "notifications/initialized"):
            with pytest.raises(InvalidArguments):
                await server.send_notification(method, {"name": "exit"})
        result = await server.send_request("tools/call", {"name": "told"})
        (told,) = result["structuredContent"]["told"]
        assert (told["method"], told["params"]) == ("notifications/roots/list_changed", {"n": 1})
    assert [(action, method) for action, _, _, method in book.asked] == [
        (NOTIFY, "notifications/roots/list_changed"),
        (NOTIFY, "notifications/secret"),
        (INVOKE, None),  # of the tool's own
    ]
    outcome = audited(disk, "outcome")[0]
    assert (outcome["outcome"], outcome["delivery"]) == ("ok", "unknown")
    check_log(disk)


@pytest.mark.fault(45)
@pytest.mark.parametrize("timeout_s", [0.1, None])
async def test_nothing_waits_for_ever(timeout_s: float | None):
    disk = MemoryDisk()
    options = {"timeout_s": 0.1} if timeout_s is None else {}
    async with started(disk=disk, command=SCRIPTED, **options) as (_, server):
        with pytest.raises(CallTimeout, match=r"no answer within 0\.1 s") as caught:
            await server.send_request("subscriptions/listen", timeout_s=timeout_s)
        assert (caught.value.phase, caught.value.delivery) == ("answer", "unknown")
        for odd in (-1, float("nan")):
            with pytest.raises(UsageError, match="no number of seconds"):
                await server.send_request("tools/list", timeout_s=odd)
    assert audited(disk, "outcome")[0]["outcome"] == "unknown"


async def test_a_request_under_way_when_the_client_closes_is_told_and_recorded():
    disk, outcomes = MemoryDisk(), []
    async with anyio.create_task_group() as tasks:
        async with started(disk=disk, command=SCRIPTED, grace_s=0) as (client, server):

            async def listen() -> None:
                try:
                    await server.send_request("subscriptions/listen")
                except GatewayError as exc:
                    outcomes.append(exc)

            tasks.start_soon(listen)
            while not server.statistics().wire.requests:
                await anyio.lowlevel.checkpoint()
            await client.close()
        with pytest.raises(ClientClosed):
            await server.send_request("tools/list")
    assert isinstance(outcomes[0], ClientClosed)
    check_log(disk)


@pytest.mark.fault(46)
async def test_ids_are_readable_and_never_given_twice():
    with baseline():
        async with started() as (client, first):
            program = Path(sys.executable).name
            second = await client.connect_local_server(PLAIN)
            assert [first.server_id, second.server_id] == [f"{program}-1", f"{program}-2"]
            assert first.pid != second.pid
            await second.stop()
            await client.add_server(f"{program}-3", PLAIN)
            third = await client.connect_local_server(PLAIN)
            assert third.server_id == f"{program}-4"
            named = await client.connect_local_server(PLAIN, server_id="mine")
            with pytest.raises(ConfigError, match="already"):
                await client.connect_local_server(PLAIN, server_id="mine")
            with pytest.raises(ConfigError, match="use 1 to 64"):
                await client.connect_local_server(PLAIN, server_id="no name")
            assert named.is_running


async def test_what_was_stopped_stays_stopped():
    async with started() as (client, first):
        name = first.server_id
        await client.disconnect_local_server(name)
        assert (first.is_running, first.pid, first.stopped) == (False, None, True)
        await first.stop()
        with pytest.raises(ClientClosed, match="it was stopped"):
            await first.send_request("tools/list")
        with pytest.raises(UnknownServer, match="no local server"):
            await client.disconnect_local_server(name)
        second = await client.connect_local_server(PLAIN, server_id=name)
        await first.stop()  # of another life: it does not touch the new one
        assert second.is_running
        with pytest.raises(ClientClosed):
            await first.send_notification("notifications/x")


async def test_a_configured_server_is_no_local_one():
    async with started() as (client, _):
        await client.add_server("other", PLAIN)
        with pytest.raises(UnknownServer):
            await client.disconnect_local_server("other")


async def test_a_start_that_fails_leaves_no_server():
    async with started() as (client, first):
        with baseline(), pytest.raises(ProcessStartError):
            await client.connect_local_server(["sh", "-c", "exit 3"], server_id="broken")
        names = [one.server_name for one in await client.list_servers()]
        assert names == [first.server_id]
        assert (await client.connect_local_server(PLAIN, server_id="broken")).is_running


@pytest.mark.security(18)
async def test_the_log_tells_which_programs_were_started_and_not_their_arguments():
    disk = MemoryDisk()
    async with started(disk=disk, command=[*SCRIPTED, "--stderr", "canary"]) as (_, server):
        await server.stop()
    events = [one for one in audited(disk, "event") if one["name"].startswith("local_server_")]
    assert [one["name"] for one in events] == [
        "local_server_connected",
        "local_server_disconnected",
    ]
    assert all(one["details"]["program"] == sys.executable for one in events)
    assert events[0]["details"]["command"].startswith("hmac-sha256:")
    assert "canary" not in str(records(disk))


async def test_the_transport_mode_counts():
    with pytest.raises(TransportNotAvailableError, match="connect_local_server"):
        async with started(transport_mode="http_only"):
            raise AssertionError


async def test_a_server_that_is_down_is_up_again_at_an_operators_word():
    disk = MemoryDisk()
    async with started(disk=disk) as (client, server):
        with pytest.raises(OutcomeUnknown) as caught:
            await server.send_request("tools/call", {"name": "crash"})
        assert isinstance(caught.value.__cause__, ProcessExited)
        assert not server.is_running
        await server.send_request("tools/list")
        now = anyio.current_time()
        supervisor = server.upstream._transport._supervisor  # type: ignore[attr-defined]
        with pytest.raises(OutcomeUnknown):
            await server.send_request("tools/call", {"name": "crash"})
        while supervisor.phase is not Phase.IDLE:
            await anyio.lowlevel.checkpoint()  # until the old one is buried
        while not isinstance(step := supervisor.start(now), Down):
            now += getattr(step, "seconds", 0.0)
            supervisor.ended(now, 0.5)
        with pytest.raises(ServerDown) as refused:
            await server.send_request("tools/list")
        assert refused.value.retry_after_s == pytest.approx(300, abs=60)
        supervision = server.statistics().wire.supervision
        assert supervision is not None
        assert supervision.down_until is not None
        client.reset_server(server.server_id)
        assert (await server.send_request("tools/list"))["tools"]
        with pytest.raises(UnknownServer):
            client.reset_server("nobody")
    assert [one["outcome"] for one in audited(disk, "outcome")][-2:] == ["not_sent", "ok"]
    check_log(disk)


async def test_the_breaker_of_the_server_counts_here_too():
    disk = MemoryDisk()
    async with started(disk=disk) as (_, server):
        server.upstream.breaker.force(anyio.current_time(), Mode.FORCED_OPEN)
        with pytest.raises(CircuitOpen):
            await server.send_request("tools/list")
        await server.send_notification("notifications/x")  # it asks nothing of the server
    assert [one["method"] for one in audited(disk, "denied")] == ["tools/list"]
    check_log(disk)


async def test_what_cannot_be_redacted_is_withheld(monkeypatch: Any):
    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(redaction, "apply_obligations", fail)
    hide = parse_obligations([{"type": "redact_result", "keys": ["name"]}])
    disk = MemoryDisk()
    async with started(Book(obligations=hide), disk) as (_, server):
        with pytest.raises(Denied) as caught:
            await server.send_request("tools/list")
        assert (caught.value.reason, caught.value.delivery) == ("redaction_failed", "answered")
    check_log(disk)


async def test_a_server_that_asks_back_is_told_that_nobody_answers():
    disk = MemoryDisk()
    async with started(disk=disk) as (_, server):
        with pytest.raises(ProtocolError, match="asks for input first") as caught:
            await server.send_request("prompts/get")
        assert caught.value.delivery == "answered"
    assert audited(disk, "outcome")[0]["outcome"] == "error"


async def test_hooks_are_told_of_these_requests_as_of_every_call():
    told: list[Event] = []
    async with started(Book({"no/such"}), hooks=[told.append]) as (_, server):
        await server.send_request("tools/list")
        await server.send_notification("notifications/x")
        with pytest.raises(Denied):
            await server.send_request("no/such")
        with pytest.raises(ProtocolError, match="asks for input"):
            await server.send_request("prompts/get")
    names = [one.name for one in told if one.name.startswith(("call.", "attempt."))]
    attempt = ["attempt.started", "attempt.finished"]
    well = ["call.started", "call.decided", *attempt, "call.finished"]
    denied = ["call.started", "call.decided", "call.finished"]
    assert names == [*well, *well, *denied, *well]
    ends = [one for one in told if isinstance(one, CallFinished)]
    assert [(one.call.method, one.call.tool) for one in ends] == [
        ("tools/list", None),
        ("notifications/x", None),
        ("no/such", None),
        ("prompts/get", None),
    ]
    assert [(one.outcome, one.delivery) for one in ends] == [
        ("ok", "answered"),
        ("ok", "unknown"),
        ("denied", "not_sent"),
        ("error", "answered"),
    ]


async def test_a_server_that_was_removed_can_be_stopped():
    async with started() as (client, server):
        await client.remove_server(server.server_id)
        await server.stop()
        assert server.stopped
        await client.add_server(server.server_id, PLAIN)
        await server.stop()
        assert [one.server_name for one in await client.list_servers()] == [server.server_id]


async def test_the_next_server_of_that_name_is_not_the_one_that_was_started():
    async with started() as (client, server):
        name = server.server_id
        await client.remove_server(name)
        await client.add_server(name, PLAIN)
        await server.stop()
        assert server.stopped
        assert [one.server_name for one in await client.list_servers()] == [name]
        assert (await client.invoke_tool(name, "echo", {"text": "hi"})).raw


async def test_a_server_that_is_removed_while_it_starts_was_closed():
    mute = [sys.executable, "-S", "-I", "-c", "import sys; sys.stdin.read()"]
    async with started() as (client, _), anyio.create_task_group() as tasks:

        async def start() -> None:
            with pytest.raises(ClientClosed):
                await client.connect_local_server(mute, server_id="mute")

        tasks.start_soon(start)
        while "mute" not in [one.server_name for one in await client.list_servers()]:
            await anyio.lowlevel.checkpoint()
        await client.remove_server("mute")


LISTING = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    result = {"prompts": [{"name": sys.argv[1]}], "ttlMs": 60000}
    if asked["method"] == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"prompts": {}}}
    result = {"resultType": "complete", **result}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


async def test_what_a_stopped_server_answered_is_no_answer_of_the_next_one():
    async with started() as (client, _):
        for name in ("first", "second"):
            command = [sys.executable, "-S", "-I", "-c", LISTING, name]
            server = await client.connect_local_server(command, server_id="desk")
            assert [one.name for one in await client.list_prompts("desk")] == [name]
            await server.stop()
