"""Calls that a server refuses until a person has visited a page (MCP 2025-11-25)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sark_trio import GatewayClient, HandlerFailed, Handlers, UrlElicitation
from sark_trio.client.relay import Relay
from sark_trio.errors import CallTimeout, ClientClosed, RemoteError
from sark_trio.mcp.faults import UrlElicitationRequired
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import Desk, answer, audited, check_log, desk, open_client, outcomes

DONE = "notifications/elicitation/complete"


def refusal(*ids: str, **members: Any) -> UrlElicitationRequired:
    pages = [
        {"mode": "url", "elicitationId": one, "url": f"https://auth.example/{one}", "message": "!"}
        for one in ids
    ]
    data = {"elicitations": [{**page, **members} for page in pages]}
    return UrlElicitationRequired("visit first", code=-32042, data=data)


class Pages:
    """A server that refuses until told otherwise, and a person who goes where it sends them."""

    def __init__(self, *script: Any, action: Any = "accept") -> None:
        self.desk: Desk = desk(*script)
        self.action = action
        self.visited: list[str] = []
        self.announce: Callable[[str, Mapping[str, Any]], None] = lambda *_: None
        #: Awaited with each page, once the person has agreed.
        self.then: Callable[[str], Awaitable[None]] = self.done

    async def __call__(self, incoming: Incoming) -> Mapping[str, Any]:
        self.announce = incoming.announce
        return await self.desk(incoming)

    async def visit(self, asked: UrlElicitation) -> Any:
        assert asked.server == "desk"
        assert asked.elicitation_id is not None
        self.visited.append(asked.elicitation_id)
        if isinstance(self.action, Exception):
            raise self.action
        await self.then(asked.elicitation_id)
        return self.action

    async def done(self, page: str) -> None:
        self.announce(DONE, {"elicitationId": "of somebody else"})
        self.announce(DONE, {"elicitationId": page})

    @property
    def handlers(self) -> Handlers:
        return Handlers(visit=self.visit)


async def silence(_: str) -> None:
    """The person goes there, and the server does not tell when they are done."""


@pytest.mark.anyio
async def test_the_call_is_made_again_once_the_person_is_done() -> None:
    disk, server = MemoryDisk(), Pages(refusal("one", "two"), answer("in"))
    async with open_client(server, disk, handlers=server.handlers) as client:
        assert (await client.invoke_tool("desk", "echo", {"x": 1})).text == "in"
    assert sorted(server.visited) == ["one", "two"]
    assert server.desk.arrived[-1] == {"x": 1}
    assert [one["reason"] for one in audited(disk, "attempt")] == ["input"]
    assert outcomes(disk) == [("ok", "answered")]
    check_log(disk)


@pytest.mark.trio
async def test_it_waits_for_the_word_of_the_server(autojump_clock: MockClock) -> None:
    server = Pages(refusal("one"), answer("in"))

    async with trio.open_nursery() as nursery:

        async def later(page: str) -> None:
            async def tell() -> None:
                await trio.sleep(7)
                await server.done(page)

            nursery.start_soon(tell)

        server.then = later
        async with open_client(server, handlers=server.handlers) as client:
            began = trio.current_time()
            assert (await client.invoke_tool("desk", "echo")).text == "in"
            assert trio.current_time() - began == pytest.approx(7)


@pytest.mark.trio
@pytest.mark.parametrize(("timeout_s", "waits_s"), [(20, 10), (300, 60)])
async def test_a_server_that_never_tells_is_asked_once_more_and_no_person_is(
    autojump_clock: MockClock, timeout_s: float, waits_s: float
) -> None:
    server = Pages(refusal("one"), answer("in"))
    server.then = silence
    async with open_client(server, handlers=server.handlers) as client:
        began = trio.current_time()
        assert (await client.invoke_tool("desk", "echo", timeout_s=timeout_s)).text == "in"
        assert trio.current_time() - began == pytest.approx(waits_s)
    server = Pages(refusal("one"), refusal("another"))
    server.then = silence
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(UrlElicitationRequired) as caught:
            await client.invoke_tool("desk", "echo", timeout_s=timeout_s)
        assert (caught.value.delivery, caught.value.attempts) == ("answered", 2)
    assert server.visited == ["one"]


@pytest.mark.anyio
async def test_it_does_not_go_on_for_ever() -> None:
    server = Pages(*[refusal(str(number)) for number in range(9)])
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(UrlElicitationRequired) as caught:
            await client.invoke_tool("desk", "echo")
        assert [page["elicitationId"] for page in caught.value.elicitations] == ["3"]
        assert client.statistics().servers["desk"].breaker.failures == 0
    assert server.visited == ["0", "1", "2"]
    server = Pages(refusal("same"), refusal("same"))
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(UrlElicitationRequired):
            await client.invoke_tool("desk", "echo")
    assert server.visited == ["same"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "refused",
    [
        refusal(),
        refusal("one", mode="form"),
        refusal("one", elicitationId=7),
        refusal(*map(str, range(9))),
        UrlElicitationRequired("no pages at all", code=-32042),
    ],
    ids=["none", "a form", "an id that is none", "too many", "no data"],
)
async def test_a_refusal_that_is_malformed_is_the_answer(refused: UrlElicitationRequired) -> None:
    server = Pages(refused)
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(UrlElicitationRequired):
            await client.invoke_tool("desk", "echo")
    assert server.visited == []


@pytest.mark.anyio
async def test_a_person_who_declines_gets_the_servers_own_error() -> None:
    disk, server = MemoryDisk(), Pages(refusal("one"), answer(), action="decline")
    async with open_client(server, disk, handlers=server.handlers) as client:
        with pytest.raises(UrlElicitationRequired, match="visit first"):
            await client.invoke_tool("desk", "echo")
    assert outcomes(disk) == [("error", "answered")]
    server = Pages(refusal("one"), answer(), action=RuntimeError("secret"))
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(HandlerFailed, match="RuntimeError"):
            await client.invoke_tool("desk", "echo")


@pytest.mark.anyio
async def test_without_a_handler_it_is_an_error_at_once() -> None:
    server = Pages(refusal("one"), answer())
    async with open_client(server) as client:
        with pytest.raises(UrlElicitationRequired):
            await client.invoke_tool("desk", "echo")
    assert server.visited == []


@pytest.mark.anyio
async def test_whoever_a_call_is_made_for_reads_it_themselves() -> None:
    async def ask(_: str, __: Mapping[str, Any]) -> Mapping[str, Any]:
        raise AssertionError

    server = Pages(refusal("one"), answer())
    offers = {"elicitation": {"url": {}}}
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(RemoteError) as caught:
            await client.forward(
                "desk", "tools/call", {"name": "echo"}, relay=Relay(offers=offers, ask=ask)
            )
        assert caught.value.code == -32042
    assert server.visited == []


@pytest.mark.trio
async def test_the_deadline_and_the_end_of_the_client_end_the_wait(
    autojump_clock: MockClock,
) -> None:
    async def never(_: str) -> None:
        await trio.sleep_forever()

    server = Pages(refusal("one"))
    server.then = never
    async with open_client(server, handlers=server.handlers) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("desk", "echo")
        assert (caught.value.phase, caught.value.delivery) == ("input", "unknown")
        assert client.statistics().servers["desk"].breaker.failures == 0

    ended: list[BaseException] = []

    async def call(client: GatewayClient) -> None:
        try:
            await client.invoke_tool("desk", "echo")
        except ClientClosed as exc:
            ended.append(exc)

    server = Pages(refusal("one"))
    server.then = silence
    async with open_client(server, handlers=server.handlers) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, client)
            await trio.sleep(1)
            await client.disconnect("desk")
        assert [type(one) for one in ended] == [ClientClosed]
