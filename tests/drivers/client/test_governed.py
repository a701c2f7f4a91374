"""Decided bytes are sent bytes, recorded before they leave; what fails on the way fails closed."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AuditLog, Decision, GatewayClient, Principal, ToolRule, jsontext
from sark_trio.client.servers import Memory
from sark_trio.errors import (
    AuditUnavailable,
    ClientClosed,
    Denied,
    InvalidArguments,
    OutcomeUnknown,
    PolicyUnavailable,
    ProcessExited,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
    UnknownTool,
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


@pytest.mark.law("A1")
async def test_a01_no_byte_of_a_call_leaves_before_its_intent_is_durable(
    autojump_clock: MockClock,
) -> None:
    """A1: for all request bytes on the wire there is an earlier durable intent."""
    disk = MemoryDisk()
    server = desk(ServerDisconnected("gone"), journal=disk.journal)
    async with open_client(server, disk) as client:
        for number in range(3):
            with anyio.move_on_after(5):
                await client.invoke_tool("desk", "echo", {"n": number}, replay_safe=True)
    synced, written, waiting = b"", b"", []
    for entry in disk.journal:
        if entry[0] == "write":
            written += entry[2]
        elif entry[0] == "sync":
            synced = written
        elif entry[0] == "arrived":
            digest = client._audit.digest(entry[1]["arguments"])
            assert digest.encode() in synced
            waiting.append(digest)
    assert len(waiting) == 4
    check_log(disk)


@pytest.mark.law("Z2")
@pytest.mark.fault(15)
async def test_z02_the_digest_of_the_intent_is_of_the_bytes_that_arrive(
    autojump_clock: MockClock,
) -> None:
    """Z2: decided bytes = sent bytes."""
    server, disk = desk(), MemoryDisk()
    cases: list[dict[str, Any]] = [
        {},
        {"b": 1, "a": [1.5, None, True], "é": "ü"},
        {"sql": "select 1", "password": "hunter2"},
        {"big": 2**53 - 1, "nested": {"deep": [[[]]]}},
    ]
    rules = {"*": ToolRule(sensitive_params=("password",))}
    async with open_client(server, disk, server_tools=rules) as client:
        for arguments in cases:
            await client.invoke_tool("desk", "echo", arguments)
        digests = [client._audit.digest(each) for each in server.arrived]
    plain = hashlib.sha256(jsontext.canonical(server.arrived[2])).hexdigest()
    assert plain.encode() not in b"".join(bytes(part) for part in disk.contents.values())
    assert [each["args_digest"] for each in audited(disk, "intent")] == digests
    assert server.arrived[2] == {"sql": "select 1"}
    assert b"hunter2" not in b"".join(bytes(part) for part in disk.contents.values())


async def test_arguments_that_change_during_the_call_are_sent_as_they_were_decided(
    autojump_clock: MockClock,
) -> None:
    arguments = {"inner": {"sql": "select 1"}}

    class Meddler:
        revision = "1"

        async def decide(self, question: Any) -> Decision:
            await anyio.lowlevel.checkpoint()
            arguments["inner"]["sql"] = "drop table people"
            return Decision(allow=True)

    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Meddler()) as client:
        await client.invoke_tool("desk", "echo", arguments)
    assert server.arrived == [{"inner": {"sql": "select 1"}}]
    check_log(disk)


@pytest.mark.law("Z4")
@pytest.mark.fault(2, 18)
async def test_z04_a_denied_call_sends_nothing_and_leaves_one_record(
    autojump_clock: MockClock,
) -> None:
    """Z4: denied implies 0 upstream bytes and 1 audit record."""
    policy = Answers(Decision(allow=False, reason="not on my watch"))
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=policy) as client:
        for number in range(7):
            with pytest.raises(Denied) as caught:
                await client.invoke_tool("desk", "echo", {"n": number}, replay_safe=True)
            assert caught.value.attempts == 0
            assert caught.value.delivery == "not_sent"
            assert "watch" not in str(caught.value)
        votes = client.statistics().servers["desk"].breaker
        assert (votes.state, votes.failures, votes.admitted) == ("closed", 0, 1)
    assert len(policy.asked) == 7
    assert server.arrived == []
    assert [each["kind"] for each in records(disk) if "request_id" in each] == ["denied"] * 7
    reasons = {each["reason"] for each in audited(disk, "denied")}
    assert reasons == {"denied: not on my watch"}  # for the auditor, and for nobody else


@pytest.mark.fault(17, 18)
async def test_without_a_policy_everything_is_denied(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=None, principal=None) as client:
        with pytest.raises(PolicyUnavailable) as caught:
            await client.invoke_tool("desk", "echo")
        assert caught.value.reason == "no_policy"
        with pytest.raises(PolicyUnavailable):
            await client.list_tools("desk")
    assert server.arrived == []
    assert [each["principal_id"] for each in audited(disk, "denied")] == ["anonymous"]


@pytest.mark.row(46)
@pytest.mark.parametrize("answered", [RuntimeError("boom"), None, "yes", {"allow": True}])
async def test_a_policy_that_misbehaves_denies(autojump_clock: MockClock, answered: Any) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Answers(answered)) as client:
        with pytest.raises(PolicyUnavailable):
            await client.invoke_tool("desk", "echo")
    assert server.arrived == []
    assert len(audited(disk, "denied")) == 1


@pytest.mark.fault(16)
async def test_a_policy_that_strips_everything_strips_everything(
    autojump_clock: MockClock,
) -> None:
    server = desk()
    policy = Answers(Decision(allow=True, arguments={}))
    async with open_client(server, policy=policy) as client:
        await client.invoke_tool("desk", "echo", {"sql": "select 1", "password": "x"})
    assert server.arrived == [{}]


@pytest.mark.fault(15)
async def test_a_decision_is_kept_for_the_same_question_only(autojump_clock: MockClock) -> None:
    policy = Answers(Decision(allow=True))
    server = desk()
    bob = Principal(id="bob")
    async with open_client(server, policy=policy) as client:
        await client.add_server("other", Memory(desk()))
        asked = []
        for name, who, arguments in (
            ("desk", None, {"x": 1}),
            ("desk", None, {"x": 1}),
            ("desk", None, {"x": 2}),
            ("desk", bob, {"x": 1}),
            ("other", None, {"x": 1}),
        ):
            await client.invoke_tool(name, "echo", arguments, principal=who)
            asked.append(len(policy.asked))
        await client.invoke_tool("desk", "echo", {"x": 1}, context={"purpose": "audit"})
        assert asked == [1, 1, 2, 3, 4]
        assert len(policy.asked) == 5


async def test_a_parameter_that_a_closed_schema_does_not_know_is_refused(
    autojump_clock: MockClock,
) -> None:
    schema = {"type": "object", "properties": {"x": {}}, "additionalProperties": False}
    server = desk(tools=[tool(inputSchema=schema)])
    async with open_client(server) as client:
        with pytest.raises(InvalidArguments, match="no such parameter"):
            await client.invoke_tool("desk", "echo", {"y": 1})
        await client.invoke_tool("desk", "echo", {"x": 1})
    assert server.arrived == [{"x": 1}]


@pytest.mark.parametrize(
    "arguments", [{"x": float("nan")}, {"x": object()}, {"x": {1: 2}}, {"__proto__": 1}]
)
async def test_arguments_that_are_no_json_are_refused(
    autojump_clock: MockClock, arguments: Mapping[str, Any]
) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(InvalidArguments) as caught:
            await client.invoke_tool("desk", "echo", arguments)
    assert caught.value.delivery == "not_sent"
    assert caught.value.server == "desk"
    assert server.arrived == []


async def test_the_operators_word_on_a_tool_reaches_the_policy(autojump_clock: MockClock) -> None:
    policy = Answers(Decision(allow=True))
    rules = {"echo": ToolRule(sensitivity="critical"), "*": ToolRule(sensitivity="low")}
    server = desk(tools=[tool(), tool("other")])
    async with open_client(server, policy=policy, server_tools=rules) as client:
        await client.invoke_tool("desk", "echo", context={"purpose": "test"})
        await client.invoke_tool("desk", "other")
    first, second = map(jsontext.decode, policy.asked)
    assert first["tool"]["sensitivity_level"] == "critical"
    assert first["context"] == {"purpose": "test"}
    assert first["user"]["roles"] == ["analyst"]
    assert second["tool"]["sensitivity_level"] == "low"


async def test_explaining_a_decision_sends_and_records_nothing(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    policy = Answers(Decision(allow=False, reason="closed on Mondays"))
    async with open_client(server, disk, policy=policy) as client:
        verdict = await client.explain("desk", "echo", {"x": 1})
    assert (verdict.allow, verdict.reason) == (False, "closed on Mondays")
    assert (server.arrived, server.lists) == ([], 0)
    assert [each["kind"] for each in records(disk)] == ["open"]


# -- results --------------------------------------------------------------------------------------

MASKED = parse_obligations([{"type": "redact_result", "keys": ["ssn"], "patterns": ["email"]}])


async def test_obligations_hold_for_text_and_for_structured_content_and_for_errors(
    autojump_clock: MockClock,
) -> None:
    told = answer("ada@example.org", structuredContent={"ssn": "1", "mail": "ada@example.org"})
    server, disk = desk(told, {**told, "isError": True}), MemoryDisk()
    policy = Answers(Decision(allow=True, obligations=MASKED))
    async with open_client(server, disk, policy=policy) as client:
        for _ in range(2):
            result = await client.invoke_tool("desk", "echo")
            assert "@" not in str((result.content, result.structured_content, result.raw))
            assert result.structured_content["ssn"] != "1"
    assert [each["redactions"] for each in audited(disk, "outcome")] == [3, 3]
    assert outcomes(disk) == [("ok", "answered"), ("error", "answered")]


async def test_obligations_hold_for_the_words_of_an_error(autojump_clock: MockClock) -> None:
    words = "no such user: ann@example.com"
    refusal = RemoteError(words, code=-32602, data={"mail": "ann@example.com"})
    exited = ProcessExited(words, exit_code=1, stderr_tail=words)
    server, disk = desk(refusal, exited), MemoryDisk()
    policy = Answers(Decision(allow=True, obligations=MASKED))
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(RemoteError) as caught:
            await client.invoke_tool("desk", "echo")
        assert "@" not in f"{caught.value} {caught.value.data}"
        with pytest.raises(OutcomeUnknown) as lost:
            await client.invoke_tool("desk", "echo")
        cause = lost.value.__cause__
        assert isinstance(cause, ProcessExited)
        assert "@" not in f"{lost.value} {cause} {cause.stderr_tail}"
    assert b"ann@" not in b"".join(bytes(content) for content in disk.contents.values())


@pytest.mark.parametrize("kind", ["input_required", "bogus", 5])
async def test_a_result_of_another_type_is_no_success(autojump_clock: MockClock, kind: Any) -> None:
    server, disk = desk(answer(resultType=kind)), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(ProtocolError) as caught:
            await client.invoke_tool("desk", "echo")
    assert caught.value.delivery == "answered"
    assert outcomes(disk) == [("error", "answered")]


@pytest.mark.security(17)
async def test_no_answer_hides_anything_where_the_policy_says_so(
    autojump_clock: MockClock,
) -> None:
    """In a result and in an error; and what hides in a name makes it no result."""
    unseen = parse_obligations([{"type": "strip_controls"}])
    said = "look\u202e \x1b[2Jhere\U000e0041"
    server = desk(
        answer(said),
        RemoteError(said, code=1, data={"why": [said]}),
        answer("x", structuredContent={"a": 1, "a\u200b": 2}),
    )
    disk, policy = MemoryDisk(), Answers(Decision(allow=True, obligations=unseen))
    async with open_client(server, disk, policy=policy) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "look here"
        with pytest.raises(RemoteError) as caught:
            await client.invoke_tool("desk", "echo")
        assert "look here" in caught.value.message
        assert caught.value.data == {"why": ["look here"]}
        with pytest.raises(Denied) as withheld:
            await client.invoke_tool("desk", "echo")
        assert withheld.value.reason == "redaction_failed"
    check_log(disk)


async def test_a_failing_redaction_withholds_the_result(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr("sark_trio.client.redaction.apply_obligations", fail)
    server, disk = desk(answer("secret")), MemoryDisk()
    policy = Answers(Decision(allow=True, obligations=MASKED))
    async with open_client(server, disk, policy=policy) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo")
        assert client.statistics().servers["desk"].breaker.failures == 0
    assert caught.value.reason == "redaction_failed"
    assert caught.value.delivery == "answered"
    assert "secret" not in repr(caught.value)
    check_log(disk)
    assert outcomes(disk) == [("denied", "answered")]


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"content": "text"},
        {"content": [1]},
        {"content": [{"type": "text"}]},
        {"content": [], "isError": "no"},
    ],
)
async def test_a_result_that_is_none_is_the_servers_fault_and_recorded(
    autojump_clock: MockClock, result: dict[str, Any]
) -> None:
    server, disk = desk(result), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(ProtocolError) as caught:
            await client.invoke_tool("desk", "echo", replay_safe=True)
    assert caught.value.delivery == "answered"
    assert len(server.arrived) == 1
    check_log(disk)
    assert outcomes(disk) == [("error", "answered")]


# -- audit ----------------------------------------------------------------------------------------


@pytest.mark.row(49)
async def test_what_cannot_be_recorded_is_not_sent(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    alarms: list[str] = []
    async with open_client(server, disk, on_alarm=alarms.append) as client:
        await client.invoke_tool("desk", "echo")
        disk.errors["sync"] = [OSError(errno.EIO, "input/output error")]
        for _ in range(2):
            with pytest.raises(AuditUnavailable) as caught:
                await client.invoke_tool("desk", "echo")
            assert caught.value.delivery == "not_sent"
            assert caught.value.attempts == 0
        votes = client.statistics().servers["desk"].breaker
        assert (votes.failures, votes.outstanding) == (0, 0)
        assert client.statistics().audit.unavailable is not None
    assert len(server.arrived) == 1
    assert alarms


@pytest.mark.row(49)
async def test_a_full_disk_refuses_within_a_second_and_heals(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk) as client:
        await client.invoke_tool("desk", "echo")
        disk.errors["write"] = [OSError(errno.ENOSPC, "full") for _ in range(1000)]
        began = trio.current_time()
        with pytest.raises(AuditUnavailable):
            await client.invoke_tool("desk", "echo")
        assert trio.current_time() - began <= 1.1
        assert len(server.arrived) == 1
        disk.errors.clear()
        await trio.sleep(5)
        await client.invoke_tool("desk", "echo")
    assert len(server.arrived) == 2
    check_log(disk)


@pytest.mark.row(49)
async def test_a_call_that_succeeded_is_no_failure_because_its_outcome_cannot_be_written(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()

    async def then_break(incoming: Incoming) -> Any:
        incoming.receive()
        disk.errors["sync"] = [OSError(errno.EIO, "input/output error")]
        return answer("it happened")

    async with open_client(desk(then_break), disk) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "it happened"


async def test_an_unknown_tool_reaches_nobody(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk) as client:
        with pytest.raises(UnknownTool, match="no tool 'ecoh'") as caught:
            await client.invoke_tool("desk", "ecoh")
        # Which tools there are is the policy's to tell.
        assert "echo" not in str(caught.value)
    assert server.arrived == []
    assert audited(disk, "intent") == []


async def test_nothing_can_be_asked_of_a_client_that_is_not_open(
    autojump_clock: MockClock,
) -> None:
    client = GatewayClient(
        servers={"desk": Memory(desk())}, audit=AuditLog("log", files=MemoryDisk())
    )
    for call in (
        lambda: client.invoke_tool("desk", "echo"),
        client.list_tools,
        lambda: client.explain("desk", "echo"),
        lambda: client.connect("desk"),
        lambda: client.add_server("more", Memory(desk())),
    ):
        with pytest.raises(ClientClosed, match="not open yet"):
            await call()
    (info,) = await client.list_servers()
    assert (info.transport, info.health_status, info.tools_count) == ("memory", "unknown", None)
