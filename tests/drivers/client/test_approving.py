"""Calls that the policy allows only with a person's word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from trio.testing import MockClock

from sark_trio import ApprovalRequest, Decision, RetryConfig, ToolRule
from sark_trio.errors import CallTimeout, ConnectError, Denied
from sark_trio.governance.obligations import parse_obligations
from sark_trio.governance.query import Question
from tests.support.audit_disk import MemoryDisk
from tests.support.client import (
    ALICE,
    answer,
    audited,
    check_log,
    desk,
    hang,
    open_client,
    outcomes,
    tool,
)

WANTED = parse_obligations(
    [
        {"type": "require_approval", "message": "moves money"},
        {"type": "strip_parameters", "paths": ["/note"]},
    ]
)
ARGUMENTS = {"to": "bob", "amounts": [1, 2], "note": "x"}
SENT = {"to": "bob", "amounts": [1, 2]}


class Careful:
    """A policy that wants a person's word; kept decisions are valid for a second."""

    def __init__(self, revision: str = "1", *, allow: bool = True, wanted: Any = WANTED) -> None:
        self.revision = revision
        self.allow = allow
        self.wanted = wanted

    async def decide(self, question: Question) -> Decision:
        return Decision(
            allow=self.allow, obligations=self.wanted, ttl_s=1.0, revision=self.revision
        )


class Boss:
    """Whoever is asked: says what is scripted, and yes to everything after."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[ApprovalRequest] = []
        self.then: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint

    async def __call__(self, request: ApprovalRequest) -> str | None:
        self.asked.append(request)
        await self.then()
        step = self.script.pop(0) if self.script else "boss"
        if isinstance(step, Exception):
            raise step
        return step  # type: ignore[no-any-return]


def denials(disk: MemoryDisk) -> list[str]:
    return [record["reason"].partition(":")[0] for record in audited(disk, "denied")]


@pytest.mark.anyio
async def test_what_was_shown_is_what_is_sent_and_who_said_so_is_recorded() -> None:
    boss, server, disk = Boss(), desk(), MemoryDisk()
    async with open_client(server, disk, policy=Careful(), approve=boss) as client:
        await client.invoke_tool("desk", "echo", ARGUMENTS)
        (request,) = boss.asked
        (intent,) = audited(disk, "intent")
        assert intent["args_digest"] == client._audit.reference(request.digest)
    assert (request.server, request.tool, request.method) == ("desk", "echo", "tools/call")
    assert (request.principal, request.message) == (ALICE, "moves money")
    assert (request.policy_revision, request.request_id) == ("1", intent["request_id"])
    assert server.arrived == [request.arguments] == [SENT]
    assert intent["labels"] == {"approved_by": "boss"}
    assert outcomes(disk) == [("ok", "answered")]
    check_log(disk)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "approval_refused"),
        ("", "approval_refused"),
        (True, "approval_refused"),  # who?
        (OSError("no such desk"), "approval_failed"),
    ],
)
async def test_without_a_name_there_is_no_approval(said: Any, reason: str) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Careful(), approve=Boss(said)) as client:
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert (caught.value.reason, caught.value.delivery) == (reason, "not_sent")
    assert "no such desk" not in caught.value.message
    assert (server.arrived, denials(disk), audited(disk, "intent")) == ([], [reason], [])


@pytest.mark.anyio
async def test_with_nobody_to_ask_the_answer_is_no() -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Careful()) as client:
        with pytest.raises(Denied, match="nobody to ask") as caught:
            await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert caught.value.reason == "approval_missing"
    assert (server.arrived, denials(disk)) == ([], ["approval_missing"])


@pytest.mark.anyio
async def test_whoever_is_asked_cannot_change_what_is_sent() -> None:
    server = desk()

    async def meddle(request: ApprovalRequest) -> str:
        request.arguments["amounts"].append(1_000_000)
        return "mallory"

    async with open_client(server, policy=Careful(), approve=meddle) as client:
        await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert server.arrived == [SENT]


@pytest.mark.anyio
async def test_a_word_is_for_one_call_even_where_the_decision_is_kept() -> None:
    boss, server = Boss("boss", None), desk()
    async with open_client(server, policy=Careful(), approve=boss) as client:
        await client.invoke_tool("desk", "echo", ARGUMENTS)
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert len(boss.asked) == 2
    assert len(server.arrived) == 1


@pytest.mark.anyio
async def test_an_answer_that_is_kept_needs_a_word_too() -> None:
    boss, disk = Boss("boss", None), MemoryDisk()
    server = desk(tools=[tool(annotations={"readOnlyHint": True})])
    kept = {"server_trusted": True, "server_tools": {"*": ToolRule(cache_ttl_s=60)}}
    async with open_client(server, disk, policy=Careful(), approve=boss, **kept) as client:
        await client.invoke_tool("desk", "echo", ARGUMENTS)
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo", ARGUMENTS)
        await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert len(server.arrived) == 1
    (served,) = audited(disk, "served")
    assert served["labels"] == {"approved_by": "boss"}


@pytest.mark.trio
async def test_a_call_that_nobody_approves_in_time_ends_and_is_recorded(
    autojump_clock: MockClock,
) -> None:
    boss, server, disk = Boss(), desk(), MemoryDisk()
    boss.then = trio.sleep_forever
    async with open_client(server, disk, policy=Careful(), approve=boss) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", ARGUMENTS, timeout_s=60)
        assert (caught.value.phase, caught.value.delivery) == ("approval", "not_sent")
        assert client.statistics().servers["desk"].breaker.failures == 0
    assert (server.arrived, denials(disk)) == ([], ["approval_missing"])


@pytest.mark.trio
@pytest.mark.parametrize("allow", [True, False])
async def test_a_policy_that_is_another_one_by_then_decides_again(
    allow: bool, autojump_clock: MockClock
) -> None:
    boss, server, disk = Boss(), desk(), MemoryDisk()
    async with open_client(server, disk, policy=Careful(), approve=boss) as client:

        async def replace() -> None:
            boss.then = anyio.lowlevel.checkpoint
            client.reload_policy(Careful("2", allow=allow))

        boss.then = replace
        if allow:
            await client.invoke_tool("desk", "echo", ARGUMENTS)
        else:
            with pytest.raises(Denied):
                await client.invoke_tool("desk", "echo", ARGUMENTS)
    revisions = [request.policy_revision for request in boss.asked]
    assert revisions == (["1", "2"] if allow else ["1"])
    assert server.arrived == ([SENT] if allow else [])
    assert len(audited(disk, "denied")) == (0 if allow else 1)


@pytest.mark.anyio
async def test_what_is_switched_off_meanwhile_stays_off() -> None:
    boss, server, disk = Boss(), desk(), MemoryDisk()
    async with open_client(server, disk, policy=Careful(), approve=boss) as client:

        async def block() -> None:
            client.block("desk", "echo", reason="incident")

        boss.then = block
        with pytest.raises(Denied) as caught:
            await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert caught.value.reason == "blocked"
    assert server.arrived == []


@pytest.mark.trio
@pytest.mark.parametrize("becomes", ["1", "2"])
async def test_a_further_attempt_needs_a_new_word_under_a_new_policy_only(
    becomes: str, autojump_clock: MockClock
) -> None:
    policy, boss, disk = Careful(), Boss(), MemoryDisk()
    server = desk(ConnectError("refused"), answer("done"))
    retry = RetryConfig(initial_delay_s=10, max_delay_s=10)  # longer than a decision is kept
    async with open_client(server, disk, policy=policy, approve=boss, retry=retry) as client:

        async def later() -> None:
            await trio.sleep(5)
            policy.revision = becomes

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            await client.invoke_tool("desk", "echo", ARGUMENTS)
    assert len(boss.asked) == int(becomes)
    assert outcomes(disk) == [("ok", "answered")]


@pytest.mark.trio
async def test_a_person_who_took_their_time_is_not_the_servers_fault(
    autojump_clock: MockClock,
) -> None:
    boss, server = Boss(), desk(hang)

    async def dawdle() -> None:
        await trio.sleep(29)

    boss.then = dawdle
    async with open_client(server, policy=Careful(), approve=boss) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo", ARGUMENTS)
        assert (caught.value.phase, caught.value.delivery) == ("answer", "unknown")
        assert client.statistics().servers["desk"].breaker.failures == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wanted", "allow", "reason"),
    [
        (WANTED, False, "obligations"),
        (parse_obligations([{"type": "limit_result", "bytes_max": 10}]), False, "obligations"),
        (WANTED[1:], True, "allowed"),
    ],
)
async def test_a_call_of_somebody_else_is_allowed_only_if_nothing_more_is_owed(
    wanted: Any, allow: bool, reason: str
) -> None:
    disk = MemoryDisk()
    policy = Careful(wanted=wanted)
    async with open_client(desk(), disk, policy=policy, approve=Boss()) as client:
        said = await client.authorize(
            "gateway:tool:invoke", server_name="desk", tool_name="echo", parameters=ARGUMENTS
        )
    assert (said.allow, said.reason) == (allow, reason)
    assert said.parameters == (SENT if allow else None)
    assert [record["kind"] for record in audited(disk, "allowed", "denied")] == [
        "allowed" if allow else "denied"
    ]
