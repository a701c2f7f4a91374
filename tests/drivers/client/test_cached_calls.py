"""Answers to calls are given again only where the operator says so, and never unasked-for."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import Denied, Principal, ToolRule
from sark_trio.client.servers import Memory
from sark_trio.errors import AuditUnavailable, RemoteError
from sark_trio.governance.decision import Decision
from sark_trio.governance.obligations import parse_obligations
from sark_trio.governance.query import Question
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, Desk, answer, audited, desk, open_client, tool

BOB = Principal(id="bob")
READ_ONLY = tool(annotations={"readOnlyHint": True})
RULES = {"echo": ToolRule(cache_ttl_s=60)}
TRUSTED = {"server_trusted": True, "server_tools": RULES}


def reader(*script: Any, **fields: Any) -> Desk:
    """A server with one tool that says that it only reads."""
    return desk(*script, **{"tools": [READ_ONLY], **fields})


@pytest.mark.anyio
async def test_an_answer_is_given_again_decided_and_recorded() -> None:
    disk, server = MemoryDisk(), reader(answer("one"), answer("two"))
    async with open_client(server, disk, **TRUSTED) as client:
        texts = [(await client.invoke_tool("desk", "echo", {"a": 1})).text for _ in range(3)]
        assert texts == ["one"] * 3
        assert (await client.invoke_tool("desk", "echo", {"a": 2})).text == "two"
        cache = client.statistics().cache
        assert (cache.hits, cache.misses) == (2, 2)
    assert len(server.arrived) == 2
    served = audited(disk, "served")
    assert [record["source"] for record in served] == ["cache", "cache"]
    assert len({record["request_id"] for record in served}) == 2
    assert len(audited(disk, "intent")) == len(audited(disk, "outcome")) == 2


@pytest.mark.parametrize(
    ("options", "annotations"),
    [
        ({"server_trusted": True}, {"readOnlyHint": True}),
        ({"server_tools": RULES}, {"readOnlyHint": True}),
        (TRUSTED, {}),
        (TRUSTED, {"readOnlyHint": False, "idempotentHint": True}),
        ({**TRUSTED, "cache": None}, {"readOnlyHint": True}),
    ],
    ids=["no rule", "not trusted", "says nothing", "writes", "no cache"],
)
@pytest.mark.anyio
async def test_every_condition_is_needed(
    options: dict[str, Any], annotations: dict[str, bool]
) -> None:
    server = desk(tools=[tool(annotations=annotations)])
    async with open_client(server, **options) as client:
        for _ in range(2):
            await client.invoke_tool("desk", "echo")
    assert len(server.arrived) == 2


@pytest.mark.law("C1")
@pytest.mark.anyio
async def test_c01_an_answer_is_given_again_to_the_same_principal_only() -> None:
    """No value crosses partitions: what one was told is not told another."""
    server = reader(answer("for alice"), answer("for bob"), answer("for admin"))
    async with open_client(server, **TRUSTED) as client:
        for who, text in (
            (ALICE, "for alice"),
            (BOB, "for bob"),
            (Principal(id="alice", roles=("admin",)), "for admin"),
            (ALICE, "for alice"),
            (BOB, "for bob"),
        ):
            assert (await client.invoke_tool("desk", "echo", principal=who)).text == text


@pytest.mark.parametrize("step", [answer("failed", isError=True), RemoteError("no", code=-32000)])
@pytest.mark.anyio
async def test_a_failure_is_not_given_again(step: Any) -> None:
    server = reader(step, answer("well"))
    async with open_client(server, **TRUSTED) as client:
        try:
            assert (await client.invoke_tool("desk", "echo")).is_error
        except RemoteError as exc:
            assert exc.code == -32000
        assert (await client.invoke_tool("desk", "echo")).text == "well"


class Fickle:
    """Decides anew each time, as told."""

    revision = "1"

    def __init__(self) -> None:
        self.allow = True
        self.obligations: tuple[Any, ...] = ()
        self.asked = 0

    async def decide(self, question: Question) -> Decision:
        self.asked += 1
        return Decision(
            allow=self.allow, reason="", obligations=self.obligations, ttl_s=0, revision="1"
        )


@pytest.mark.anyio
async def test_a_decision_is_never_skipped() -> None:
    policy, server, disk = Fickle(), reader(answer("mail to bob@example.org")), MemoryDisk()
    async with open_client(server, disk, policy=policy, **TRUSTED) as client:
        await client.invoke_tool("desk", "echo")
        policy.allow = False
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo")
        policy.allow = True
        policy.obligations = parse_obligations([{"type": "redact_result", "patterns": ["email"]}])
        shown = await client.invoke_tool("desk", "echo")
        assert "bob@example.org" not in shown.text
        policy.obligations = ()
        assert "bob@example.org" in (await client.invoke_tool("desk", "echo")).text
    assert policy.asked == 4
    assert len(server.arrived) == 1
    assert [record["kind"] for record in audited(disk, "denied", "served")] == [
        "denied",
        "served",
        "served",
    ]


@pytest.mark.anyio
async def test_a_changed_tool_is_called_anew() -> None:
    async def announces(incoming: Incoming) -> dict[str, Any]:
        incoming.receive()
        incoming.announce("notifications/tools/list_changed")
        return answer("other")

    server = reader(answer("one"), announces)
    async with open_client(server, **TRUSTED) as client:
        for arguments, text in (({"a": 1}, "one"), ({"a": 1}, "one"), ({"a": 2}, "other")):
            assert (await client.invoke_tool("desk", "echo", arguments)).text == text
        assert (await client.invoke_tool("desk", "echo", {"a": 1})).text == "done"


@pytest.mark.anyio
async def test_an_answer_that_cannot_be_recorded_is_not_given() -> None:
    disk, server = MemoryDisk(), reader(answer("one"))
    async with open_client(server, disk, **TRUSTED) as client:
        await client.invoke_tool("desk", "echo")
        await client._audit.aclose()
        with pytest.raises(AuditUnavailable):
            await client.invoke_tool("desk", "echo")


@pytest.mark.anyio
async def test_calls_at_once_are_each_their_own() -> None:
    goes_on = anyio.Event()

    async def slow(incoming: Incoming) -> dict[str, Any]:
        incoming.receive()
        await goes_on.wait()
        return answer("slow")

    server = reader(slow, answer("quick"))
    async with open_client(server, **TRUSTED) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.invoke_tool, "desk", "echo")
            await anyio.wait_all_tasks_blocked()
            assert (await client.invoke_tool("desk", "echo")).text == "quick"
            goes_on.set()
        assert (await client.invoke_tool("desk", "echo")).text == "slow"
    assert len(server.times) == 2


@pytest.mark.trio
async def test_an_answer_is_given_for_as_long_as_the_rule_says(autojump_clock: MockClock) -> None:
    server = reader(answer("one"), answer("two"))
    async with open_client(server, **TRUSTED) as client:
        for wait_s, text in ((0, "one"), (50, "one"), (10, "two")):
            await trio.sleep(wait_s)
            assert (await client.invoke_tool("desk", "echo")).text == text


@pytest.mark.anyio
async def test_a_server_that_was_replaced_answers_for_itself() -> None:
    first, second = reader(answer("old")), reader(answer("new"))
    async with open_client(first, **TRUSTED) as client:
        assert (await client.invoke_tool("desk", "echo")).text == "old"
        await client.remove_server("desk")
        await client.add_server("desk", Memory(second, trusted=True, tools=RULES))
        assert (await client.invoke_tool("desk", "echo")).text == "new"


class TakesAway:
    """Lets a request pass without its subject."""

    revision = "1"

    async def decide(self, question: Question) -> Decision:
        return Decision(allow=True, arguments={}, reason="", revision="1")


@pytest.mark.anyio
async def test_what_can_not_be_looked_for_is_refused_on_record() -> None:
    disk, server = MemoryDisk(), desk()
    async with open_client(server, disk, policy=TakesAway()) as client:
        with pytest.raises(Denied) as caught:
            await client.read_resource("desk", "file:///a")
        assert caught.value.reason == "subject_changed"
        assert client.statistics().cache.flights == 0
    assert len(audited(disk, "denied")) == 1
    assert server.times == []


@pytest.mark.anyio
async def test_what_was_read_before_the_first_connection_is_at_hand_after_it() -> None:
    read: list[str] = []

    async def library(incoming: Incoming) -> dict[str, Any]:
        uri = incoming.receive()["uri"]
        read.append(uri)
        if uri == "file:///changing":  # as the server knows while it answers
            incoming.announce("notifications/resources/updated", {"uri": uri})
        return {"contents": [{"uri": uri, "text": f"{len(read)}"}], "ttlMs": 60_000}

    async with open_client(library) as client:
        for _ in range(3):
            (content,) = (await client.read_resource("desk", "file:///a")).contents
            assert content.text == "1"
        assert read == ["file:///a"]
        assert client.statistics().cache.faults == 0
    read.clear()
    async with open_client(library) as client:
        for _ in range(2):
            await client.read_resource("desk", "file:///changing")
        assert read == ["file:///changing"] * 2
        assert client.statistics().cache.flights == 0
