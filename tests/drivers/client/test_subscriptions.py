"""Hearing of changes: one stream that comes back, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import anyio
import pytest
import trio
from trio.testing import MockClock

from sark_trio import Change, Decision, GatewayClient
from sark_trio.client.ears import Ears
from sark_trio.client.subscription import CLOSE_S, Subscription
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    CallTimeout,
    ConfigError,
    Denied,
    RemoteError,
    ServerDisconnected,
    UsageError,
)
from sark_trio.mcp.changes import Interest
from sark_trio.mcp.messages import Agreed, Notification
from sark_trio.transports.base import Outgoing
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, open_client, records

ACK = "notifications/subscriptions/acknowledged"
Stream = Callable[[Incoming], Awaitable[Any]]


class Announcer:
    """A server whose streams of changes do as scripted; the last one is every later one."""

    def __init__(self, *streams: Stream) -> None:
        self.streams = list(streams)
        self.asked: list[Any] = []
        self.times: list[float] = []
        self.lists = 0

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        params = incoming.receive()
        if incoming.method == "tools/list":
            self.lists += 1
            return {"tools": []}
        assert incoming.method == "subscriptions/listen"
        self.asked.append(params["notifications"])
        self.times.append(anyio.current_time())
        stream = self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]
        await stream(incoming)
        return {}


async def quiet(incoming: Incoming) -> None:
    incoming.notify(ACK, {"notifications": {"toolsListChanged": True}})
    await anyio.sleep_forever()


def says(*uris: str, then: BaseException | None = None) -> Stream:
    async def stream(incoming: Incoming) -> None:
        incoming.notify(ACK, {"notifications": {}})
        for uri in uris:
            incoming.notify("notifications/resources/updated", {"uri": uri})
        if then is not None:
            raise then
        await anyio.sleep_forever()

    return stream


LOST = ServerDisconnected("gone", delivery="unknown")


@pytest.mark.trio
async def test_changes_come_in_order_and_once(autojump_clock: MockClock) -> None:
    server = Announcer(says("a", "b", "a"))
    async with open_client(server) as client:
        watched = client.subscribe("desk", resources=["a", "b"])
        async with watched as changes:
            assert await anext(changes) == Change("resource", "a")
            assert await anext(changes) == Change("resource", "b")
            assert watched.unheard == ("resourceSubscriptions",)
            with trio.move_on_after(100) as scope:
                await anext(changes)
            assert scope.cancelled_caught
        assert client.statistics().servers["desk"].wire.details["pending"] == 0
    assert server.asked == [{"resourceSubscriptions": ["a", "b"]}]


@pytest.mark.trio
async def test_after_a_break_it_listens_again_and_says_that_something_may_be_missing(
    autojump_clock: MockClock,
) -> None:
    server = Announcer(says("a", then=LOST), says("b", then=LOST), quiet)
    async with open_client(server) as client:
        watched = client.subscribe("desk", resources=["a", "b"], tools_list=True)
        async with watched as changes:
            await client.list_tools("desk")
            kinds = [(await anext(changes)).kind for _ in range(3)]
            assert kinds == ["resource", "gap", "resource"]
            await client.list_tools("desk")
    assert len(server.asked) == 2
    assert server.lists == 2
    assert server.times[1] - server.times[0] >= 0.5


@pytest.mark.trio
async def test_a_server_that_does_not_say_that_it_listens_again_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async def silent(_: Incoming) -> None:
        await anyio.sleep_forever()

    server = Announcer(says("a", then=LOST), silent, says("a"))
    async with (
        open_client(server) as client,
        client.subscribe("desk", resources=["a"]) as changes,
    ):
        assert [(await anext(changes)).kind for _ in range(3)] == ["resource", "gap", "resource"]
    assert len(server.asked) == 3
    assert 30 <= server.times[2] - server.times[1] <= 40


@pytest.mark.trio
async def test_a_stream_that_never_holds_is_given_up(autojump_clock: MockClock) -> None:
    server = Announcer(says(then=LOST))
    async with open_client(server) as client:
        watched = client.subscribe("desk", tools_list=True)
        async with watched as changes:
            with pytest.raises(ServerDisconnected):
                while True:
                    await anext(changes)
            with pytest.raises(StopAsyncIteration):
                await anext(changes)
    assert len(server.asked) == 6


@pytest.mark.trio
async def test_a_stream_that_is_cut_every_minute_is_kept(autojump_clock: MockClock) -> None:
    async def a_minute(incoming: Incoming) -> None:
        incoming.notify(ACK, {})
        await anyio.sleep(60)
        raise LOST

    server = Announcer(a_minute)
    async with open_client(server) as client:
        watched = client.subscribe("desk", tools_list=True)
        async with watched as changes:
            with trio.move_on_after(3_600):
                while True:
                    await anext(changes)
    assert len(server.asked) > 50


@pytest.mark.trio
async def test_a_server_that_has_none_or_hangs_is_an_error_at_once(
    autojump_clock: MockClock,
) -> None:
    async def no(_: Incoming) -> None:
        raise RemoteError("no such method", code=-32601)

    async def silent(_: Incoming) -> None:
        await anyio.sleep_forever()

    async with open_client(Announcer(no)) as client:
        with pytest.raises(RemoteError):
            async with client.subscribe("desk", tools_list=True):
                raise AssertionError
    async with open_client(Announcer(silent)) as client:
        with pytest.raises(CallTimeout):
            async with client.subscribe("desk", tools_list=True):
                raise AssertionError


@pytest.mark.trio
async def test_a_storm_of_changes_is_one_change_or_one_gap(autojump_clock: MockClock) -> None:
    async def storm(incoming: Incoming) -> None:
        incoming.notify(ACK, {})
        for number in range(5_000):
            incoming.notify("notifications/tools/list_changed", {})
            incoming.notify("notifications/resources/updated", {"uri": f"a/{number}"})
        await anyio.sleep_forever()

    async with open_client(Announcer(storm)) as client:
        watched = client.subscribe("desk", tools_list=True, resources=["a"])
        async with watched as changes:
            await trio.testing.wait_all_tasks_blocked()
            assert len(changes._waiting) <= 1_000
            kinds = set()
            with trio.move_on_after(1):
                while True:
                    kinds.add((await anext(changes)).kind)
            assert "gap" in kinds


class No:
    """A policy that denies one resource."""

    revision = "1"

    async def decide(self, question: Any) -> Decision:
        query = question.query
        return Decision(allow=query.arguments.get("uri") != "secret")


@pytest.mark.trio
async def test_policy_is_asked_about_each_resource(autojump_clock: MockClock) -> None:
    disk, server = MemoryDisk(), Announcer(quiet)
    async with open_client(server, disk, policy=No()) as client:
        with pytest.raises(Denied):
            async with client.subscribe("desk", resources=["open", "secret"]):
                raise AssertionError
        async with client.subscribe("desk", resources=["open"], prompts_list=True):
            pass
    assert len(server.asked) == 1
    assert len(audited(disk, "denied")) == 1
    methods = [r["method"] for r in records(disk) if r.get("method")]
    assert methods.count("gateway:resource:subscribe") == 3
    assert methods.count("gateway:server:listen") == 1


@pytest.mark.trio
async def test_the_end_of_the_client_ends_it(autojump_clock: MockClock) -> None:
    async def wait(client: GatewayClient) -> None:
        async with client.subscribe("desk", tools_list=True) as changes:
            opened.set()
            async for _ in changes:
                raise AssertionError
            ended.append(True)

    opened, ended = trio.Event(), list[bool]()
    async with trio.open_nursery() as nursery, open_client(Announcer(quiet)) as client:
        nursery.start_soon(wait, client)
        await opened.wait()
    assert ended == [True]


@pytest.mark.trio
async def test_it_says_what_is_wrong_with_it(autojump_clock: MockClock) -> None:
    async with open_client(Announcer(quiet)) as client:
        with pytest.raises(UsageError, match="say what to hear of"):
            client.subscribe("desk")
        with pytest.raises(ConfigError, match="resources"):
            client.subscribe("desk", resources=[""])
        watched = client.subscribe("desk", tools_list=True)
        async with watched:
            pass
        with pytest.raises(UsageError, match="entered once"):
            async with watched:
                raise AssertionError


class Legacy:
    """As much of a server of 2025-11-25 as a subscription needs."""

    name = "old"

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.ears = Ears()
        self.asked: list[tuple[str, str]] = []
        self.deaf_to: set[str] = set()
        self.refuses: set[str] = set()
        self.busy: anyio.Event | None = None

    def spawn(self, work: Callable[[], Any]) -> None:
        self.tasks.start_soon(work)

    def hear(self, notification: Notification, but: Any = None) -> None:
        self.ears.hear(notification, but)

    async def connect(self) -> Agreed:
        return Agreed(version="2025-11-25", modern=False)

    async def listen(self, outgoing: Outgoing) -> None:
        assert outgoing.on_sent is not None
        outgoing.on_sent()
        await anyio.sleep_forever()

    async def read(self, method: str, params: Mapping[str, Any], _: float) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        if self.busy is not None:
            await self.busy.wait()
        self.asked.append((method, params["uri"]))
        if method in self.refuses:
            raise RemoteError("no", code=-32000)
        if params["uri"] in self.deaf_to:
            await anyio.sleep_forever()
        return {}

    def subscription(self, *uris: str) -> Subscription:
        async def allow() -> None:
            await anyio.lowlevel.checkpoint()

        return Subscription(
            upstream=cast("Upstream", self),
            interest=Interest(resources=uris),
            allow=allow,
            jitter=lambda: 0.5,
        )


@pytest.mark.anyio
async def test_what_nobody_watches_any_more_is_forgotten_even_if_the_server_refuses() -> None:
    async with anyio.create_task_group() as tasks:
        server = Legacy(tasks)
        server.refuses = {"resources/unsubscribe"}
        async with server.subscription("a", "b", "c"), server.subscription("b"):
            pass
        server.refuses.clear()
        server.asked.clear()
        async with server.subscription("b", "c"):
            pass
    gone = {uri for method, uri in server.asked if method == "resources/unsubscribe"}
    assert gone == {"b", "c"}


@pytest.mark.trio
async def test_a_server_is_asked_to_watch_only_when_it_was_told_to_watch_no_more(
    autojump_clock: MockClock,
) -> None:
    """A server may take two requests at once, and the later one first."""
    async with anyio.create_task_group() as tasks:
        server = Legacy(tasks)
        async with server.subscription("a"):
            server.busy = anyio.Event()
        left_at = trio.current_time()
        assert left_at == CLOSE_S, "who leaves does not wait for long"
        async with anyio.create_task_group() as again:

            async def free() -> None:
                await trio.sleep(10)
                assert server.asked[1:] == []
                assert server.busy is not None
                server.busy.set()

            again.start_soon(free)
            async with server.subscription("a"):
                assert trio.current_time() == left_at + 10
                assert [method for method, _ in server.asked] == [
                    "resources/subscribe",
                    "resources/unsubscribe",
                    "resources/subscribe",
                ]


@pytest.mark.trio
async def test_a_resource_that_cannot_be_watched_is_not_taken_for_watched(
    autojump_clock: MockClock,
) -> None:
    async with anyio.create_task_group() as tasks:
        server = Legacy(tasks)
        async with server.subscription("a") as changes:
            server.deaf_to = {"a"}
            server.ears.opened()  # the server has forgotten what it was to watch
            await trio.sleep(31)
            server.deaf_to.clear()
            assert (await anext(changes)).kind == "gap"
            await trio.sleep(10)
            assert server.asked.count(("resources/subscribe", "a")) >= 3, "asked anew"
        server.deaf_to = {"a"}
        with pytest.raises(CallTimeout):
            async with server.subscription("a"):
                raise AssertionError


@pytest.mark.trio
async def test_until_a_server_watches_again_changes_may_be_missed_and_that_is_told(
    autojump_clock: MockClock,
) -> None:
    """What changed after the stream came back, and before the server knew what to tell of."""
    async with anyio.create_task_group() as tasks:
        server = Legacy(tasks)
        async with server.subscription("a") as changes:
            server.busy = anyio.Event()
            server.ears.opened()  # the server has forgotten what it was to watch
            assert (await anext(changes)).kind == "gap"
            with trio.move_on_after(5) as scope:
                await anext(changes)
            assert scope.cancelled_caught
            server.busy.set()
            assert (await anext(changes)).kind == "gap"
            assert server.asked.count(("resources/subscribe", "a")) == 2


@pytest.mark.trio
async def test_every_task_that_waits_for_a_change_hears_of_the_end(
    autojump_clock: MockClock,
) -> None:
    told: list[Change] = []
    with trio.fail_after(100):
        async with (
            open_client(Announcer(quiet)) as client,
            client.subscribe("desk", tools_list=True) as changes,
            trio.open_nursery() as readers,
        ):

            async def read() -> None:
                told.extend([change async for change in changes])

            readers.start_soon(read)
            readers.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await client.disconnect("desk")
    assert told == []
