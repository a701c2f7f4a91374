"""How a client, and each of its servers, ends: within its grace, with every outcome written."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, Decision, GatewayClient, Question
from sark_trio.client.servers import Memory
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    ClientClosed,
    ConfigError,
    GatewayError,
    TransportError,
    UnknownServer,
    UsageError,
)
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.transports.memory import Incoming, MemoryTransport
from tests.support.audit_disk import MemoryDisk
from tests.support.client import (
    ALICE,
    answer,
    check_log,
    desk,
    hang,
    open_client,
    outcomes,
    records,
)

pytestmark = pytest.mark.trio


def lasting(seconds: float) -> Any:
    async def work(incoming: Incoming) -> Any:
        incoming.receive()
        await trio.sleep(seconds)
        return answer("finished")

    return work


async def test_running_calls_end_within_the_grace_and_new_ones_are_refused(
    autojump_clock: MockClock,
) -> None:
    disk, ends = MemoryDisk(), []
    async with trio.open_nursery() as nursery:
        async with open_client(desk(lasting(3)), disk) as client:

            async def call() -> None:
                ends.append((await client.invoke_tool("desk", "echo")).text)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.close)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ClientClosed):
                await client.invoke_tool("desk", "echo")
            assert client.statistics().state == "closing"
        assert ends == ["finished"]
        assert trio.current_time() == pytest.approx(3)
    check_log(disk)
    assert outcomes(disk) == [("ok", "answered")]


@pytest.mark.parametrize("grace_s", [0.0, 2.0, 5.0])
async def test_after_the_grace_calls_are_cut_off_and_told_so(
    autojump_clock: MockClock, grace_s: float
) -> None:
    disk = MemoryDisk()
    caught: list[ClientClosed] = []
    async with trio.open_nursery() as nursery:
        async with open_client(desk(hang), disk, grace_s=grace_s) as client:

            async def call() -> None:
                with pytest.raises(ClientClosed) as info:
                    await client.invoke_tool("desk", "echo")
                caught.append(info.value)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == pytest.approx(grace_s)
    assert [each.delivery for each in caught] == ["unknown"]
    check_log(disk)
    assert outcomes(disk) == [("unknown", "unknown")]


async def test_closing_votes_for_nothing(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_client(desk(hang), grace_s=0) as client:

            async def call() -> None:
                with suppress(ClientClosed):
                    await client.invoke_tool("desk", "echo")

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
        votes = client.statistics().servers["desk"].breaker
        assert (votes.failures, votes.neutral, votes.outstanding) == (0, 1, 0)


@pytest.mark.fault(47)
async def test_a_closed_client_stays_closed(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        await client.close()
        await client.close()
        for call in (
            lambda: client.invoke_tool("desk", "echo"),
            client.list_tools,
            lambda: client.connect("desk"),
            lambda: client.add_server("more", Memory(desk())),
        ):
            with pytest.raises(ClientClosed):
                await call()
    assert client.statistics().state == "closed"
    with pytest.raises(UsageError, match="runs once"):
        await client.run()


async def test_closing_before_opening_makes_it_a_closed_one(autojump_clock: MockClock) -> None:
    client = GatewayClient(audit=AuditLog("log", files=MemoryDisk()))
    await client.close()
    with pytest.raises(UsageError):
        async with client:
            raise AssertionError
    assert client.statistics().state == "closed"


async def test_many_tasks_may_close_at_once(autojump_clock: MockClock) -> None:
    client = GatewayClient(
        servers={"desk": Memory(desk())}, policy=AllowAll(), audit=AuditLog("x", files=MemoryDisk())
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await client.invoke_tool("desk", "echo", principal=ALICE)
        for _ in range(5):
            nursery.start_soon(client.close)
    assert client.statistics().state == "closed"


async def test_a_server_that_is_disconnected_can_be_connected_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_client(desk()) as client:
        for _ in range(50):
            await client.connect("desk")
            await client.invoke_tool("desk", "echo")
            await client.disconnect("desk")
        await client.disconnect("desk")


async def test_tasks_may_connect_and_disconnect_in_any_order(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:

        async def jostle(number: int) -> None:
            for turn in range(20):
                await (client.connect, client.disconnect)[(turn + number) % 2]("desk")

        def only_closed(exc: BaseException) -> bool:
            return isinstance(exc, ClientClosed)

        async def tolerant(number: int) -> None:
            for _ in range(20):
                with suppress(ClientClosed):
                    await jostle(number)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(tolerant, number)
        await client.connect("desk")
        assert (await client.invoke_tool("desk", "echo")).text == "done"


async def test_tasks_that_reconnect_at_once_share_the_new_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = MemoryTransport.run, []

    async def counted(self: MemoryTransport, *, task_status: Any) -> None:
        begun.append(self)
        await real(self, task_status=task_status)

    monkeypatch.setattr(MemoryTransport, "run", counted)
    async with open_client(desk()) as client:
        await client.disconnect("desk")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.connect, "desk")
        await client.invoke_tool("desk", "echo")
    assert len(begun) == 2


async def test_disconnecting_fails_running_calls_of_that_server_only(
    autojump_clock: MockClock,
) -> None:
    disk, ends = MemoryDisk(), []
    async with open_client(desk(lasting(50)), disk) as client:
        await client.add_server("other", Memory(desk(lasting(5))))

        async def call(name: str) -> None:
            try:
                ends.append((name, (await client.invoke_tool(name, "echo")).text))
            except GatewayError as exc:
                ends.append((name, type(exc).__name__))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "desk")
            nursery.start_soon(call, "other")
            await trio.testing.wait_all_tasks_blocked()
            await client.disconnect("desk")
            assert trio.current_time() < 1
    assert ends == [("desk", "ClientClosed"), ("other", "finished")]
    check_log(disk)


async def test_servers_come_and_go(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        with pytest.raises(ConfigError, match="there is a server 'desk' already"):
            await client.add_server("desk", Memory(desk()))
        with pytest.raises(ConfigError, match="server name"):
            await client.add_server("../desk", Memory(desk()))
        await client.add_server("more", Memory(desk()))
        await client.invoke_tool("more", "echo")
        await client.remove_server("more")
        with pytest.raises(UnknownServer):
            await client.invoke_tool("more", "echo")
        await client.add_server("more", Memory(desk()))
        await client.invoke_tool("more", "echo")
        assert [one.server_name for one in await client.list_servers()] == ["desk", "more"]
        assert (await client.get_server_info("more")).tools_count == 1


async def test_a_transport_that_crashes_takes_no_other_server_along(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, crash = MemoryTransport.run, trio.Event()

    async def crashing(self: MemoryTransport, *, task_status: Any) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda *, task_status: real(self, task_status=task_status))
            task_status.started()
            await crash.wait()
            raise ZeroDivisionError

    async with open_client(desk()) as client:
        monkeypatch.setattr(MemoryTransport, "run", crashing)
        await client.add_server("weak", Memory(desk()))
        monkeypatch.undo()
        await client.invoke_tool("weak", "echo")
        crash.set()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(TransportError, match="ZeroDivisionError") as caught:
                await client.invoke_tool("weak", "echo")
            assert caught.value.delivery == "not_sent"
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        info = await client.get_server_info("weak")
        assert info.health_status == "unhealthy"
        await client.invoke_tool("desk", "echo")
        await client.connect("weak")
        await client.invoke_tool("weak", "echo")


async def test_a_decision_for_others_ends_with_the_client(autojump_clock: MockClock) -> None:
    """And what is being decided has the grace that calls have."""

    class Slow:
        revision = "1"

        def __init__(self, takes_s: float) -> None:
            self.takes_s = takes_s

        async def decide(self, _: Question) -> Decision:
            await trio.sleep(self.takes_s)
            return Decision(allow=True)

    async def authorize(client: GatewayClient, found: list[object]) -> None:
        try:
            found.append((await client.authorize("gateway:tool:invoke", tool_name="echo")).allow)
        except ClientClosed as exc:
            found.append(str(exc))

    for takes_s, expected in ((3, True), (20, "the client was closed meanwhile")):
        found: list[object] = []
        async with (
            trio.open_nursery() as nursery,
            open_client(desk(), policy=Slow(takes_s), grace_s=5) as client,
        ):
            nursery.start_soon(authorize, client, found)
            await trio.sleep(1)
        assert found == [expected]


async def test_a_server_that_cannot_begin_is_one_whose_calls_fail(
    autojump_clock: MockClock,
) -> None:
    servers = {"desk": Memory(desk()), "left": "http://127.0.0.1:1/mcp"}
    log = AuditLog("log", files=MemoryDisk())
    client = GatewayClient(servers=servers, policy=AllowAll(), audit=log)
    await client.disconnect("left")  # before it ran: this transport never will
    async with client:
        await client.invoke_tool("desk", "echo")
        with pytest.raises(TransportError, match="disconnect and connect") as caught:
            await client.invoke_tool("left", "echo")
        assert caught.value.delivery == "not_sent"


@pytest.mark.parametrize("steps", range(8))
async def test_at_every_step_of_its_end_a_server_takes_work_or_says_that_it_takes_none(
    steps: int,
) -> None:
    upstream = Upstream.of("desk", Memory(desk()), breaker=BreakerOptions(), retry=RetryConfig())
    async with trio.open_nursery() as nursery:
        await nursery.start(_to_its_end, upstream)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            with suppress(ClientClosed):
                upstream.spawn(trio.lowlevel.checkpoint)
    assert upstream.state == "closed"
    with pytest.raises(ClientClosed):
        upstream.spawn(trio.lowlevel.checkpoint)


async def _to_its_end(upstream: Upstream, *, task_status: Any) -> None:
    await upstream.run(task_status=task_status)


async def test_what_a_removed_server_answered_is_forgotten_even_by_who_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    """Else the next server of that name would be asked through the answers of the old one."""

    def offering(name: str) -> Any:
        async def serve(incoming: Incoming) -> Any:
            incoming.receive()
            if incoming.method == "resources/read":
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)  # so long does its end take
            return {"prompts": [{"name": name}], "ttlMs": 60_000}

        return serve

    disk = MemoryDisk()
    async with open_client(offering("old"), disk) as client, trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(GatewayError):
                await client.read_resource("desk", "file:///a")

        for leave in (client.disconnect, client.remove_server):
            await client.connect("desk")
            assert [one.name for one in await client.list_prompts("desk")] == ["old"]
            assert client.statistics().cache.entries == 1
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.1) as scope:
                await leave("desk")
            assert scope.cancelled_caught
            await trio.sleep(1)
        await client.add_server("desk", Memory(offering("new")))
        assert [one.name for one in await client.list_prompts("desk")] == ["new"]
    assert [one["name"] for one in records(disk) if one["kind"] == "event"].count(
        "server_removed"
    ) == 1
