"""The cache at work: one fetch for all who ask, and never somebody else's answer.

The machine's own laws are in ``tests/laws/test_freshness.py``; those that a driver can break as
well are stated here again, over tasks and a clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from trio.testing import MockClock

from sark_trio import BreakerOptions, CacheOptions, Principal, RetryConfig
from sark_trio.client.answers import Answer
from sark_trio.client.cached import FETCH_TIMEOUT_S, Cache
from sark_trio.client.servers import Http, Memory, Registry, Server
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ClientClosed,
    ConnectError,
    Denied,
    Overloaded,
    RemoteError,
    ServerDisconnected,
    status_error,
)
from sark_trio.mcp.messages import Notification
from tests.support.client import ALICE, desk, open_client, tool
from tests.support.http_servers import Peer, Received, legacy, modern, result, serve

READ = "resources/read"
BOB = Principal(id="bob", roles=("analyst",))
#: An answer that is fresh for ten seconds.
TEN_S = {"ttlMs": 10_000}


@define(eq=False)
class Source:
    """A server's answers: counted, and given, raised or waited for as a script says."""

    answers: list[Any] = field(factory=list)
    fetches: int = 0
    cancelled: int = 0
    running: int = 0
    goes_on: anyio.Event | None = None

    async def __call__(self) -> dict[str, Any]:
        self.fetches += 1
        number = self.fetches
        self.running += 1
        try:
            await anyio.lowlevel.checkpoint()
            if self.goes_on is not None:
                await self.goes_on.wait()
        except BaseException:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        said = self.answers.pop(0) if self.answers else TEN_S
        if isinstance(said, BaseException):
            raise said
        return {"number": number, **said}


@define(eq=False)
class Bench:
    """A cache, and what it caches for."""

    cache: Cache
    upstream: Upstream
    stale: list[tuple[str, str]]
    revision: str = "1"

    async def read(
        self, source: Callable[[], Any], who: Principal | None = ALICE, **params: Any
    ) -> Answer:
        return await self.cache.fetch(self.upstream, READ, params, source, principal=who)


@asynccontextmanager
async def bench(
    options: CacheOptions | None = CacheOptions(),  # noqa: B008 - it is frozen
    server: Server | None = None,
) -> AsyncIterator[Bench]:
    upstream = Upstream.of(
        "desk", server or Memory(desk()), breaker=BreakerOptions(), retry=RetryConfig()
    )
    stale: list[tuple[str, str]] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(upstream.run)

        def spawn(work: Any) -> None:
            tasks.start_soon(work)

        cache = Cache(
            options=options,
            spawn=spawn,
            revision=lambda: made.revision,
            jitter=lambda: 0.999,
            on_stale=lambda server, method: stale.append((server, method)),
        )
        made = Bench(cache, upstream, stale)
        yield made
        await upstream.aclose()
        tasks.cancel_scope.cancel()
    cache._machine.check_invariants()
    assert cache._flights == {}
    assert (cache.statistics().flights, cache.statistics().waiting) == (0, 0)


# -- whose answer it is ---------------------------------------------------------------------------


@pytest.mark.security(11)
@pytest.mark.law("C1")
@pytest.mark.anyio
async def test_c01_no_answer_crosses_partitions() -> None:
    """No value crosses partitions: each combination of who, what and which policy is its own."""
    people = [
        ALICE,
        BOB,
        Principal(id="alice", roles=("admin",)),
        evolve(ALICE, credential_hash="a" * 64),
        evolve(ALICE, credential_hash="b" * 64),
        evolve(ALICE, kind="service"),
        None,
    ]
    async with bench() as made:
        source, seen = Source(answers=[{**TEN_S, "cacheScope": "public"}] * 99), {}
        for who, revision, uri in product(people, ("1", "2"), ("a", "b")):
            made.revision = revision
            answer = await made.read(source, who, uri=uri)
            assert not answer.cached
            seen[str(who), repr(who and who.credential_hash), revision, uri] = answer.value
        for who, revision, uri in product(people, ("1", "2"), ("a", "b")):
            made.revision = revision
            answer = await made.read(source, who, uri=uri)
            assert answer.cached
        assert source.fetches == len(people) * 4
        keys = "".join(str(key) for key in made.cache._machine._shelf.entries)
        assert "alice" not in keys
        assert "a" * 64 not in keys


@pytest.mark.security(28)
@pytest.mark.law("C1")
@pytest.mark.anyio
@pytest.mark.parametrize("believed", [False, True])
async def test_c01_a_public_answer_is_shared_only_if_the_operator_says_so(believed: bool) -> None:
    """What a server labels public stays partitioned unless its operator believes it."""
    async with bench(server=Memory(desk(), cache_public=believed)) as made:
        source = Source(answers=[{**TEN_S, "cacheScope": "public"}, {**TEN_S}, {**TEN_S}])
        first = await made.read(source, ALICE)
        second = await made.read(source, BOB)
        assert second.cached is believed
        assert (second.value == first.value) is believed
        private = await made.read(source, ALICE, uri="private")
        assert (await made.read(source, BOB, uri="private")).value != private.value


@pytest.mark.security(7)
@pytest.mark.anyio
async def test_a_credential_of_ours_is_part_of_the_key_and_not_readable() -> None:
    keys = []
    async with bench() as made:
        for server in (
            Http("https://x/mcp"),
            Http("https://x/mcp", headers={"Authorization": "Bearer s3cret"}),
            Registry("https://x", "a", api_key="s3cret"),
        ):
            made.upstream.server = server
            keys.append(made.cache.key(made.upstream, READ, {}, ALICE))
    assert len({key.partition for key in keys}) == 3
    assert "s3cret" not in repr(keys)


@pytest.mark.fault(30)
@pytest.mark.anyio
async def test_nobody_can_change_what_another_one_gets() -> None:
    async with bench() as made:
        source = Source(answers=[{"list": [1], **TEN_S}])
        answers = []

        async def read() -> None:
            answers.append((await made.read(source)).value)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
        answers[0]["list"].append("mine")
        answers.append((await made.read(source)).value)
        assert [one["list"] for one in answers[1:]] == [[1], [1], [1]]


# -- for how long ---------------------------------------------------------------------------------


@pytest.mark.law("C2")
@pytest.mark.trio
@pytest.mark.parametrize(
    ("said", "fresh_s"),
    [({"ttlMs": 10_000}, 10), ({"ttlMs": 0}, 0), ({"ttlMs": -1}, 0), ({"ttlMs": "9"}, 0), ({}, 0)],
)
async def test_c02_an_answer_is_given_for_as_long_as_the_server_says(
    autojump_clock: MockClock, said: dict[str, Any], fresh_s: int
) -> None:
    """Never served at t >= t_recv + ttl, and where the server says nothing, never at all."""
    async with bench() as made:
        source = Source(answers=[said, said, said])
        await made.read(source)
        if fresh_s:
            await trio.sleep(fresh_s - 1.5)  # before the last tenth, in which it may be renewed
            assert (await made.read(source)).age_s == pytest.approx(fresh_s - 1.5)
            await trio.sleep(1.5)
        assert not (await made.read(source)).cached
        assert source.fetches == 2


@pytest.mark.trio
async def test_a_list_of_a_server_that_cannot_say_is_believed_for_five_minutes(
    autojump_clock: MockClock,
) -> None:
    async with bench() as made:
        source = Source(answers=[{}, {}, {}])

        async def ask(method: str) -> Answer:
            return await made.cache.fetch(made.upstream, method, {}, source, principal=ALICE)

        assert not (await ask("prompts/list")).cached
        await trio.sleep(269)
        assert (await ask("prompts/list")).cached
        await trio.sleep(31)
        assert not (await ask("prompts/list")).cached


@pytest.mark.law("C6")
@pytest.mark.anyio
@pytest.mark.parametrize("options", [None, CacheOptions(entries_max=0), CacheOptions()])
async def test_c06_without_a_time_every_ask_is_a_fetch(options: CacheOptions | None) -> None:
    """With ttl = 0 the answers are those of no cache at all."""
    async with bench(options) as made:
        source = Source(answers=[{"ttlMs": 0}] * 4)
        numbers = [(await made.read(source)).value["number"] for _ in range(4)]
        assert numbers == [1, 2, 3, 4]
        for params in ({"requestState": "x"}, {"inputResponses": {}}):
            assert not (await made.read(source, **params)).cached
            assert not (await made.read(source, **params)).cached


@pytest.mark.anyio
async def test_an_answer_that_is_a_question_is_not_kept() -> None:
    async with bench() as made:
        source = Source(answers=[{**TEN_S, "resultType": "input_required"}])
        await made.read(source)
        assert not (await made.read(source)).cached


# -- one fetch ------------------------------------------------------------------------------------


@pytest.mark.law("C3")
@pytest.mark.fault(30)
@pytest.mark.anyio
async def test_c03_many_who_ask_at_once_are_one_fetch() -> None:
    """However many miss at once: k concurrent misses are one fetch."""
    async with bench() as made:
        source, answers = Source(goes_on=anyio.Event()), []

        async def read() -> None:
            answers.append(await made.read(source))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            assert made.cache.statistics().waiting == 50
            assert source.goes_on is not None
            source.goes_on.set()
        assert source.fetches == 1
        assert [answer.value["number"] for answer in answers] == [1] * 50
        counted = made.cache.statistics()
        assert (counted.misses, counted.joined, counted.hits) == (1, 49, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_cancelling_one_who_waits_costs_the_others_nothing(victim: int) -> None:
    async with bench() as made:
        source = Source(goes_on=anyio.Event())
        scopes, answers = [anyio.CancelScope() for _ in range(3)], []

        async def read(number: int) -> None:
            with scopes[number]:
                answers.append((number, (await made.read(source)).value["number"]))

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(read, number)
            await anyio.wait_all_tasks_blocked()
            scopes[victim].cancel()
            await anyio.wait_all_tasks_blocked()
            assert (source.running, source.cancelled) == (1, 0)
            assert source.goes_on is not None
            source.goes_on.set()
        assert sorted(answers) == [(number, 1) for number in range(3) if number != victim]
        assert (await made.read(source)).cached


@pytest.mark.anyio
async def test_the_last_one_who_goes_away_takes_the_fetch_along() -> None:
    async with bench() as made:
        source = Source(goes_on=anyio.Event())
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(made.read, source)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert (source.fetches, source.cancelled, source.running) == (1, 1, 0)
        source.goes_on = None
        assert not (await made.read(source)).cached
        assert source.fetches == 2


@pytest.mark.anyio
async def test_who_is_cancelled_before_the_fetch_began_sends_nothing() -> None:
    async with bench() as made:
        source = Source()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.read(source)
        await anyio.wait_all_tasks_blocked()
        assert source.cancelled == source.fetches
        assert source.running == 0


@pytest.mark.anyio
async def test_a_failure_is_told_to_each_and_not_kept() -> None:
    async with bench() as made:
        source, errors = Source(goes_on=anyio.Event(), answers=[RemoteError("no", code=-1)]), []

        async def read() -> None:
            try:
                await made.read(source)
            except RemoteError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            assert source.goes_on is not None
            source.goes_on.set()
        assert len({id(error) for error in errors}) == 3
        assert {(str(error), error.code, error.delivery) for error in errors} == {
            ("no", -1, "answered")
        }
        assert (await made.read(source)).value["number"] == 2


@pytest.mark.anyio
async def test_a_bug_in_a_fetch_is_its_askers_alone() -> None:
    async with bench() as made:
        source = Source(answers=[ZeroDivisionError("a bug"), {"answer": object()}])
        with pytest.raises(ZeroDivisionError):
            await made.read(source)
        with pytest.raises(Exception, match="object"):
            await made.read(source)  # what is no JSON can not be kept
        assert (await made.read(source)).value["number"] == 3


@pytest.mark.trio
async def test_a_fetch_that_never_ends_ends(autojump_clock: MockClock) -> None:
    async with bench() as made:
        source = Source(goes_on=anyio.Event())
        began = trio.current_time()
        with pytest.raises(CallTimeout, match="30 s"):
            await made.read(source)
        assert trio.current_time() - began == pytest.approx(FETCH_TIMEOUT_S)
        assert source.cancelled == 1


@pytest.mark.anyio
async def test_no_more_may_wait_than_the_limit_says() -> None:
    async with bench(CacheOptions(waiters_max=2)) as made:
        source = Source(goes_on=anyio.Event())
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(made.read, source)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await made.read(source)
            assert made.cache.look(made.upstream, READ, {}, BOB) is None
            assert source.goes_on is not None
            source.goes_on.set()


@pytest.mark.anyio
async def test_those_who_wait_are_told_when_the_client_ends() -> None:
    errors = []
    upstream = Upstream.of("desk", Memory(desk()), breaker=BreakerOptions(), retry=RetryConfig())
    async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
        await inner.start(upstream.run)

        def spawn(work: Any) -> None:
            inner.start_soon(work)

        cache = Cache(
            options=CacheOptions(),
            spawn=spawn,
            revision=lambda: None,
            jitter=lambda: 0.5,
            on_stale=lambda *_: None,
        )

        async def read() -> None:
            source = Source(goes_on=anyio.Event())
            try:
                await cache.fetch(upstream, READ, {}, source, principal=ALICE)
            except ClientClosed as exc:
                errors.append(exc)

        outer.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert len(errors) == 1
    assert cache.statistics().waiting == 0


@pytest.mark.anyio
async def test_a_client_that_is_closing_begins_no_fetch() -> None:
    async with bench() as made:

        def refuse(_: Any) -> None:
            raise ClientClosed("the client is closed")

        made.cache.spawn = refuse
        with pytest.raises(ClientClosed):
            await made.read(Source())


# -- invalidation ---------------------------------------------------------------------------------


@pytest.mark.law("C4")
@pytest.mark.anyio
async def test_c04_after_an_invalidation_nothing_older_is_given() -> None:
    """After invalidation no older value is given, one that is being fetched included."""
    async with bench() as made:
        source, early = Source(goes_on=anyio.Event()), []

        async def read() -> None:
            early.append((await made.read(source)).value["number"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            made.cache.invalidate("desk", READ)
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            assert source.fetches == 2
            assert source.goes_on is not None
            source.goes_on.set()
        assert sorted(early) == [1, 2]
        assert (await made.read(source)).value["number"] == 2
        made.cache.invalidate("other")
        assert (await made.read(source)).cached
        made.cache.invalidate("desk")
        assert not (await made.read(source)).cached


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("announced", "method", "gone"),
    [
        ("notifications/resources/updated", "resources/read", True),
        ("notifications/resources/list_changed", "resources/list", True),
        ("notifications/resources/list_changed", "resources/templates/list", True),
        ("notifications/resources/list_changed", "resources/read", False),
        ("notifications/prompts/list_changed", "prompts/list", True),
        ("notifications/tools/list_changed", "tools/call", True),
        ("notifications/progress", "tools/list", False),
    ],
)
async def test_what_a_server_announces_is_looked_for_anew(
    announced: str, method: str, gone: bool
) -> None:
    async with bench() as made:
        source = Source()

        async def ask() -> Answer:
            return await made.cache.fetch(made.upstream, method, {}, source, principal=ALICE)

        await ask()
        made.cache.on_notice("desk", Notification(announced, {}))
        assert (await ask()).cached is not gone


# -- when the server cannot be asked --------------------------------------------------------------


@pytest.mark.law("C2")
@pytest.mark.trio
@pytest.mark.parametrize(
    ("error", "covered"),
    [
        (ConnectError("down"), True),
        (ServerDisconnected("gone"), True),
        (CallTimeout("late"), True),
        (CircuitOpen("sick"), True),
        (status_error(503, "sick"), True),
        (status_error(404, "gone"), False),
        (status_error(401, "who"), False),
        (Denied("no"), False),
        (RemoteError("no", code=-1), False),
        (ServerDisconnected("said", delivery="answered"), False),
        (ValueError("a bug"), False),
    ],
)
async def test_c02_an_old_answer_stands_in_and_says_so(
    autojump_clock: MockClock, error: Exception, covered: bool
) -> None:
    """Past its time an answer is given only if it is flagged, where nobody could be asked."""
    async with bench() as made:
        source = Source(answers=[TEN_S, error])
        await made.read(source)
        await trio.sleep(60)
        if covered:
            answer = await made.read(source)
            assert (answer.stale, answer.cached, answer.value["number"]) == (True, False, 1)
            assert made.stale == [("desk", READ)]
            await trio.sleep(300)
            source.answers = [error]
        with pytest.raises(type(error)):
            await made.read(source)
        if not covered:  # what the server disowned is served no more
            source.answers = [ConnectError("down")]
            with pytest.raises(ConnectError):
                await made.read(source)


# -- limits and counters --------------------------------------------------------------------------


@pytest.mark.law("C5")
@pytest.mark.anyio
async def test_c05_the_cache_holds_no_more_than_its_limits() -> None:
    """Entries and bytes stay within their bounds, whatever is fetched."""
    limits = CacheOptions(entries_max=10, bytes_max=20_000)
    async with bench(limits) as made:
        source = Source()
        for number in range(60):
            source.answers = [{"text": "x" * (number * 100), **TEN_S}]
            await made.read(source, uri=f"file:///{number}" + "y" * number)
            counted = made.cache.statistics()
            assert counted.entries <= 10
            assert counted.bytes <= 20_000
        assert made.cache.statistics().evictions > 20


@pytest.mark.anyio
async def test_a_ticket_is_settled_once() -> None:
    async with bench() as made:
        params: Mapping[str, Any] = {"name": "t"}
        # Nobody knows yet of which revision the answer will be.
        assert made.cache.look(made.upstream, "tools/call", params, ALICE) is None
        await made.upstream.connect()
        ticket = made.cache.look(made.upstream, "tools/call", params, ALICE)
        assert ticket is not None
        assert not isinstance(ticket, Answer)
        # Whoever asks meanwhile makes a call of their own.
        assert made.cache.look(made.upstream, "tools/call", params, ALICE) is None
        ticket.keep({"a": 1}, 10)
        ticket.keep({"a": 2}, 10)
        ticket.drop()
        found = made.cache.look(made.upstream, "tools/call", params, ALICE)
        assert isinstance(found, Answer)
        assert found.value == {"a": 1}
        other = made.cache.look(made.upstream, "tools/call", params, BOB)
        assert other is not None
        assert not isinstance(other, Answer)
        other.drop()
        assert made.cache.statistics().flights == 0
        assert made.cache.statistics().faults == 0


@pytest.mark.anyio
@pytest.mark.parametrize(("script", "lists"), [(modern, 3), (legacy, 1)])
async def test_silence_means_five_minutes_only_where_a_server_cannot_speak(
    script: Any, lists: int
) -> None:
    """MCP 2026-07-28, "Caching": a modern server that gives no ``ttlMs`` is asked each time."""

    async def answers(peer: Peer, received: Received) -> None:
        await peer.send(result(received, {"tools": [tool()]}))

    async with serve(script(answers)) as server, open_client(desk()) as client:
        await client.add_server("remote", server.url)
        for _ in range(3):
            assert len(await client.list_tools("remote")) == 1
        assert server.calls.count("tools/list") == lists
