"""What an operator does to a running client: the kill switch, a new policy, a look at the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from sark_trio import AllowAll, Rego
from sark_trio.errors import (
    AuditUnavailable,
    ConfigError,
    Denied,
    ServerDisconnected,
    UnknownServer,
    UsageError,
)
from sark_trio.governance.decision import Decision
from sark_trio.governance.principal import Principal
from tests.support.audit_disk import MemoryDisk
from tests.support.client import (
    ALICE,
    Desk,
    answer,
    audited,
    check_log,
    desk,
    open_client,
    records,
    tool,
)

pytestmark = pytest.mark.trio

BOB = Principal(id="bob", roles=("analyst",))


class Only:
    """A policy that allows what a function says; ``revision`` never changes."""

    revision = "only"

    def __init__(self, allows: Callable[[Any], bool]) -> None:
        self._allows = allows

    async def decide(self, question: Any) -> Decision:
        await anyio.lowlevel.checkpoint()
        return Decision(allow=self._allows(question.query), revision=self.revision)


# -- the kill switch ------------------------------------------------------------------------------


@pytest.mark.security(37)
@pytest.mark.parametrize(
    ("scope", "stopped"),
    [
        ({"server": "desk"}, {"alice echo", "alice other", "bob echo", "bob other"}),
        ({"server": "desk", "tool": "echo"}, {"alice echo", "bob echo"}),
        ({"principal": "bob"}, {"bob echo", "bob other"}),
        ({"server": "desk", "tool": "other", "principal": "alice"}, {"alice other"}),
        ({}, {"alice echo", "alice other", "bob echo", "bob other"}),
        ({"server": "elsewhere"}, set()),
    ],
)
async def test_what_is_blocked_sends_nothing_and_is_recorded(
    autojump_clock: MockClock, scope: dict[str, str], stopped: set[str]
) -> None:
    server, disk = desk(tools=[tool("echo"), tool("other")]), MemoryDisk()
    async with open_client(server, disk) as client:
        client.block(**scope, reason="incident 7")
        assert len(client.blocked()) == 1
        refused = set()
        for who in (ALICE, BOB):
            for name in ("echo", "other"):
                try:
                    await client.invoke_tool("desk", name, principal=who)
                except Denied as exc:
                    assert (exc.reason, exc.delivery) == ("blocked", "not_sent")
                    assert "incident 7" not in str(exc)
                    refused.add(f"{who.id} {name}")
        assert refused == stopped
        assert len(server.arrived) == 4 - len(stopped)
        listed = {each.tool_name for each in await client.list_tools(principal=BOB)}
        assert listed == {name for name in ("echo", "other") if f"bob {name}" not in stopped}
        assert client.unblock(**scope)
        assert not client.unblock(**scope)
        assert (await client.invoke_tool("desk", "echo", principal=BOB)).text == "done"
        votes = client.statistics().servers["desk"].breaker
        assert (votes.failures, votes.state) == (0, "closed")
    check_log(disk)
    assert len(audited(disk, "denied")) == len(stopped)
    events = {each["name"]: each["details"] for each in audited(disk, "event")}
    assert events["blocked"]["reason"] == "incident 7"
    assert events["unblocked"]["server"] == scope.get("server")


async def test_a_blocked_server_is_not_even_asked_for_its_list(autojump_clock: MockClock) -> None:
    server = desk()
    async with open_client(server) as client:
        client.block("desk", reason="r")
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo")
        assert (await client.list_tools("desk")).tools == ()
        assert (await client.list_tools()).tools == ()
    assert server.lists == 0


async def test_a_block_stops_the_next_attempt_of_a_running_call(autojump_clock: MockClock) -> None:
    """Forced open: 0 admitted after; what was sent before is not said to be unsent."""
    disk = MemoryDisk()
    server = desk(ServerDisconnected("gone"), answer("never"))
    async with open_client(server, disk) as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(Denied) as caught:
                await client.invoke_tool("desk", "echo", replay_safe=True)
            assert (caught.value.reason, caught.value.delivery) == ("blocked", "unknown")

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert len(server.arrived) == 1
        client.block("desk", "echo", reason="r")
    assert len(server.arrived) == 1
    check_log(disk)
    (outcome,) = audited(disk, "outcome")
    assert (outcome["outcome"], outcome["delivery"]) == ("denied", "unknown")


@pytest.mark.security(37)
async def test_a_block_counts_also_while_the_intent_is_being_written(
    autojump_clock: MockClock,
) -> None:
    server = desk()

    async def decide_and_block(_: Any) -> None:
        client.block("desk", reason="r")

    class Late(Only):
        async def decide(self, question: Any) -> Decision:
            decision = await super().decide(question)
            await decide_and_block(question)
            return decision

    async with open_client(server, policy=Late(lambda _: True)) as client:
        with pytest.raises(Denied, match="blocked"):
            await client.invoke_tool("desk", "echo")
    assert server.arrived == []


async def test_a_tool_is_blocked_with_its_server(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        with pytest.raises(UsageError, match="server"):
            client.block(tool="echo", reason="r")


# -- the policy -----------------------------------------------------------------------------------

OPEN = "package mcp.gateway\nallow := true\n"
SHUT = "package mcp.gateway\nallow := false\n"


async def test_a_policy_is_replaced_between_two_calls(autojump_clock: MockClock) -> None:
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Rego(texts={"p": OPEN})) as client:
        await client.invoke_tool("desk", "echo")
        revision = client.reload_policy(Rego(texts={"p": SHUT}))
        assert revision is not None
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo")
        client.reload_policy(None)
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo")
        client.reload_policy(AllowAll())
        await client.invoke_tool("desk", "echo")
    assert len(server.arrived) == 2
    events = [each["details"] for each in audited(disk, "event")]
    assert [each["after"] for each in events] == [revision, None, "allow-all"]
    assert events[1]["before"] == revision


@pytest.mark.security(38)
@pytest.mark.fault(50)
async def test_a_policy_that_is_wrong_changes_nothing(autojump_clock: MockClock) -> None:
    """Reload is atomic: the old one or the new one, and which of them is on record."""
    server, disk = desk(), MemoryDisk()
    async with open_client(server, disk, policy=Rego(texts={"p": SHUT})) as client:
        for broken in (Rego(texts={"p": "package mcp.gateway\nallow :="}), Rego("not-there.rego")):
            with pytest.raises(ConfigError):
                client.reload_policy(broken)
            with pytest.raises(Denied):
                await client.invoke_tool("desk", "echo")
    assert server.arrived == []
    names = [each["name"] for each in audited(disk, "event")]
    assert names == ["policy_kept", "policy_kept"]


@pytest.mark.row(47)
async def test_what_is_being_asked_keeps_the_old_policy_and_its_answer_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    asked, goes_on = anyio.Event(), anyio.Event()

    class Slow:
        revision = "slow"

        async def decide(self, question: Any) -> Decision:
            asked.set()
            await goes_on.wait()
            return Decision(allow=True, revision="slow", ttl_s=300)

    server = desk()
    async with open_client(server, policy=Slow()) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.invoke_tool, "desk", "echo", {"n": 1})
        await asked.wait()
        client.reload_policy(None)
        goes_on.set()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Denied):
            await client.invoke_tool("desk", "echo", {"n": 1})
    assert server.arrived == [{"n": 1}]


# -- the log --------------------------------------------------------------------------------------


async def test_the_log_is_followed_as_it_is_written(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_client(desk(), disk) as client:
        await client.invoke_tool("desk", "echo")
        await client.record("before", {})
        follower = await client.follow_audit(after=-1)
        seen = [seq for seq, _ in await follower.next()]
        assert seen == list(range(seen[-1] + 1))
        audit_id = await client.record("deployed", {"version": 3})
        found = await follower.next()
        assert [seq for seq, _ in found] == list(range(seen[-1] + 1, found[-1].seq + 1))
        assert audit_id.encode() in found[-1].data
        assert follower.next_seq == found[-1].seq + 1
        fresh = await client.follow_audit()
        assert fresh.next_seq >= follower.next_seq
        with pytest.raises(UsageError):
            await client.follow_audit(after=10_000)
        with pytest.raises(UsageError):
            await client.follow_audit(after=-2)
    assert await follower.next() != []  # that it was read
    while await follower.next():
        pass
    assert {each["name"] for each in audited(disk, "event")} >= {"audit_read", "deployed"}


async def test_reading_the_log_and_others_events_is_for_those_whom_policy_lets(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    policy = Only(lambda query: query.principal.id == "alice")
    async with open_client(desk(), disk, policy=policy) as client:
        await client.follow_audit(principal=ALICE)
        with pytest.raises(Denied):
            await client.follow_audit(principal=BOB)
        assert await client.sees_all_events(ALICE)
        assert not await client.sees_all_events(BOB)
        assert client.principal is ALICE
        client.reload_policy(None)
        assert not await client.sees_all_events(ALICE)
        with pytest.raises(Denied):
            await client.follow_audit(principal=ALICE)
    refused = [e["details"] for e in audited(disk, "event") if e["name"] == "audit_refused"]
    assert [each["principal_id"] for each in refused] == ["bob", "alice"]


async def test_an_observer_is_told_and_cannot_harm(autojump_clock: MockClock) -> None:
    seen: list[tuple[int, str]] = []

    def observe(seq: int, record: Any) -> None:
        seen.append((seq, record["kind"]))
        raise RuntimeError("an observer's own mistake")

    disk = MemoryDisk()
    async with open_client(desk(), disk) as client:
        client.observe(observe)
        await client.invoke_tool("desk", "echo")
    kinds = [kind for _, kind in seen]
    assert kinds == ["intent", "outcome"]
    assert [seq for seq, _ in seen] == [r["seq"] for r in records(disk) if r["kind"] in kinds]


async def test_what_cannot_be_recorded_is_not_said_to_be(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_client(desk(), disk) as client:
        disk.errors["sync"] = [OSError(5, "I/O error")]
        with pytest.raises(AuditUnavailable):
            await client.record("deployed", {})


# -- servers --------------------------------------------------------------------------------------


async def test_servers_are_shown_to_those_who_may_see_them(autojump_clock: MockClock) -> None:
    def allows(query: Any) -> bool:
        return query.action.startswith("gateway:server") and query.server != "hidden"

    disk = MemoryDisk()
    async with open_client(Desk(), disk, policy=Only(allows)) as client:
        await client.add_server("hidden", ["nothing"])
        assert [one.server_name for one in await client.list_servers()] == ["desk", "hidden"]
        shown = await client.list_servers(principal=BOB)
        assert [one.server_name for one in shown] == ["desk"]
        assert (await client.get_server_info("desk", principal=BOB)).server_name == "desk"
        for name in ("hidden", "nobody"):
            with pytest.raises(UnknownServer):
                await client.get_server_info(name, principal=BOB)
        assert client.health_of("desk") == "unknown"
        assert client.health_of("nobody") is None
        await client.remove_server("hidden")
        client.reload_policy(None)
        with pytest.raises(Denied):
            await client.list_servers(principal=BOB)
        with pytest.raises(Denied):
            await client.get_server_info("desk", principal=BOB)
    names = [each["name"] for each in audited(disk, "event")]
    assert names[:2] == ["server_registered", "server_removed"]


@pytest.mark.fault(23)
async def test_a_decision_that_has_passed_is_asked_anew_and_whole(
    autojump_clock: MockClock,
) -> None:
    """Never renewed by halves, for another caller, or on the strength of the old one."""
    asked: list[bytes] = []
    fails = False

    class Policy:
        revision = "1"

        async def decide(self, question: Any) -> Decision:
            asked.append(question.encoded)
            if fails:
                raise OSError("the policy's server is gone")
            return Decision(allow=True, revision="1", ttl_s=300)

    server = desk()
    async with open_client(server, policy=Policy()) as client:
        for who in (ALICE, BOB):
            await client.invoke_tool("desk", "echo", {"sql": "select 1"}, principal=who)
        await client.invoke_tool("desk", "echo", {"sql": "select 1"})
        assert len(asked) == 2
        await anyio.sleep(6)  # an allow is kept for five seconds
        await client.invoke_tool("desk", "echo", {"sql": "select 1"})
        assert asked[2] == asked[0]
        assert asked[2] != asked[1]
        fails = True
        await anyio.sleep(6)
        for _ in range(2):
            with pytest.raises(Denied):
                await client.invoke_tool("desk", "echo", {"sql": "select 1"})
        assert asked[3] == asked[4] == asked[0]
    assert len(server.arrived) == 4
