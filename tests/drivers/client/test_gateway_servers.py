"""The servers of a gateway: listed page by page, called by name, forgotten when idle."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from sark_trio import GatewayClient, Principal, TransportMode, TransportNotAvailableError
from sark_trio.client import directory, walk
from sark_trio.client.relay import Relay
from sark_trio.client.servers import Memory
from sark_trio.errors import (
    AuthenticationRequired,
    CallTimeout,
    ConfigError,
    ConnectError,
    Overloaded,
    ProtocolError,
    UnknownServer,
    UnknownTool,
    UsageError,
)
from sark_trio.governance.decision import Decision
from sark_trio.governance.query import Question
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, check_log, desk, open_client, outcomes, tool
from tests.support.http_servers import Peer, Received, response
from tests.support.registry import RegistryDesk, client_of, registry, server_record

pytestmark = pytest.mark.anyio


class OnlyEven:
    """Lets servers with an even number be seen, and nothing of the others."""

    revision = "1"

    async def decide(self, question: Question) -> Decision:
        name = question.query.server or ""
        allowed = not name.startswith("server-") or int(name[7:]) % 2 == 0
        return Decision(allow=allowed, reason="parity", revision="1")


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.fault(1)
async def test_a_server_of_the_gateway_is_called_without_being_configured() -> None:
    disk = MemoryDisk()
    async with registry() as (shown, url), client_of(url, disk, api_key="k-1") as client:
        result = await client.invoke_tool("server-1", "echo", {"text": "hi"})
        assert result.structured_content == {"echo": {"text": "hi"}}
        assert shown.invoked == [("server-1", "echo", {"text": "hi"})]
        assert {headers["x-api-key"] for headers in shown.headers} == {"k-1"}
        assert "server-1" in client.statistics().servers
    assert outcomes(disk) == [("ok", "answered")]
    check_log(disk)


async def test_a_name_that_is_configured_here_is_ours() -> None:
    ours = desk()
    async with (
        registry() as (shown, url),
        client_of(url, servers={"server-1": Memory(ours)}) as client,
    ):
        await client.invoke_tool("server-1", "echo", {"a": 1})
        assert (ours.arrived, shown.invoked) == ([{"a": 1}], [])
        names = [info.server_name for info in await client.list_all_servers()]
        assert names == ["server-1", "server-0", "server-2"]
        assert (await client.get_server_info("server-1")).transport == "memory"
        assert (await client.get_server_info("server-2")).transport == "registry"


async def test_a_server_that_is_added_hides_the_one_of_the_gateway() -> None:
    ours = desk()
    async with registry() as (shown, url), client_of(url) as client:
        await client.invoke_tool("server-1", "echo")
        await client.add_server("server-1", Memory(ours))
        assert client._engine.offered is not None
        assert not client._engine.offered.upstreams  # and nothing of it is left
        await client.invoke_tool("server-1", "echo")
        await client.remove_server("server-1")
        await client.invoke_tool("server-1", "echo")
    assert (len(ours.arrived), len(shown.invoked)) == (1, 2)


async def test_an_unknown_name_takes_up_no_room() -> None:
    async with registry() as (_, url), client_of(url) as client:
        for name in ("nobody", "server-99", "../admin?x=1#", "a b"):
            with pytest.raises(UnknownServer, match="no server"):
                await client.invoke_tool(name, "echo")
            with pytest.raises(UnknownServer):
                await client.list_tools(name)
            with pytest.raises(UnknownServer):
                await client.get_server_info(name)
        assert not client.statistics().servers
        with pytest.raises(UnknownTool):
            await client.invoke_tool("server-1", "nothing")


async def test_without_a_gateway_an_unknown_name_is_unknown() -> None:
    client = GatewayClient(servers={"desk": Memory(desk())}, audit="log", policy=None)
    assert [info.server_name for info in await client.list_servers()] == ["desk"]
    assert await client.list_servers(page=2) == ()
    with pytest.raises(UnknownServer, match="configured: desk"):
        await client.get_server_info("other")


async def test_the_least_used_server_is_forgotten_and_none_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory, "UPSTREAMS_MAX", 2)
    arrived, goes_on = anyio.Event(), anyio.Event()

    async def slow(_: Peer, received: Received) -> None:
        assert received.target == "/api/v1/invoke"
        arrived.set()
        await goes_on.wait()

    async with registry(RegistryDesk(servers=9)) as (shown, url), client_of(url) as client:
        for number in (0, 1, 0, 2):
            await client.invoke_tool(f"server-{number}", "echo")
        assert sorted(client.statistics().servers) == ["server-0", "server-2"]

        async def invoke(name: str) -> None:
            await client.invoke_tool(name, "echo")

        async with anyio.create_task_group() as tasks:
            shown.script.append(slow)
            tasks.start_soon(invoke, "server-0")
            await arrived.wait()
            for number in range(3, 9):
                await client.invoke_tool(f"server-{number}", "echo")
            assert "server-0" in client.statistics().servers
            goes_on.set()
        assert len(client.statistics().servers) == 2
    assert len(shown.invoked) == 11


async def test_more_servers_in_use_than_there_may_be_is_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory, "UPSTREAMS_MAX", 1)
    arrived, goes_on = anyio.Event(), anyio.Event()

    async def slow(_: Peer, __: Received) -> None:
        arrived.set()
        await goes_on.wait()

    async with registry() as (shown, url), client_of(url) as client:
        await client.invoke_tool("server-0", "echo")
        async with anyio.create_task_group() as tasks:
            shown.script.append(slow)
            tasks.start_soon(client.invoke_tool, "server-0", "echo")
            await arrived.wait()
            with pytest.raises(Overloaded):
                await client.invoke_tool("server-1", "echo")
            goes_on.set()
        await client.invoke_tool("server-1", "echo")


async def test_a_server_that_was_disconnected_is_made_anew() -> None:
    async with registry() as (shown, url), client_of(url) as client:
        await client.invoke_tool("server-0", "echo")
        await client.disconnect("server-0")
        await client.invoke_tool("server-0", "echo")
        await client.connect("server-0")
        await client.disconnect("server-0")
        await client.connect("server-0")
        await client.invoke_tool("server-0", "echo")
        await client.remove_server("server-0")
        assert not client.statistics().servers
    assert len(shown.invoked) == 3


async def test_finding_a_server_is_within_the_deadline_of_the_call() -> None:
    async def never(peer: Peer, _: Received) -> None:
        await peer.wait_closed()

    shown = RegistryDesk(script=[never])
    async with registry(shown) as (_, url), client_of(url) as client:
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("server-0", "echo", timeout_s=0.05)
        assert (caught.value.delivery, caught.value.phase) == ("not_sent", "connect")
        await client.invoke_tool("server-0", "echo")
    others: list[Callable[[GatewayClient], Awaitable[object]]] = [
        lambda client: client.get_prompt("server-0", "p", timeout_s=0.05),
        lambda client: client.read_resource("server-0", "file:///a", timeout_s=0.05),
        lambda client: client.ping("server-0", timeout_s=0.05),
        lambda client: client.set_log_level("server-0", "debug", timeout_s=0.05),
        lambda client: client.forward(
            "server-0", "tools/call", {"name": "echo"}, relay=Relay(), timeout_s=0.05
        ),
    ]
    for ask in others:
        shown = RegistryDesk(script=[never])
        async with registry(shown) as (_, url), client_of(url) as client:
            with pytest.raises(CallTimeout, match=r"whether it knows it within 0\.05 s") as caught:
                await ask(client)
            assert caught.value.delivery == "not_sent"


# -- lists ----------------------------------------------------------------------------------------


@pytest.mark.fault(29)
@pytest.mark.parametrize("page_max", [1000, 7])
async def test_all_servers_and_tools_whatever_the_page(page_max: int) -> None:
    shown = RegistryDesk(servers=25, page_max=page_max)
    async with registry(shown) as (_, url), client_of(url) as client:
        servers = await client.list_all_servers(page_size=10)
        assert [info.server_name for info in servers] == [f"server-{n}" for n in range(25)]
        streamed = [info async for info in client.stream_servers(page_size=9)]
        assert tuple(streamed) == servers
        tools = await client.list_all_tools(page_size=10)
        assert len(tools) == 50
        assert tools.failures == {}
        walked = [info.tool_name async for info in client.stream_tools("server-3", page_size=1)]
        assert walked == ["echo", "read"]
        only = await client.list_all_tools("server-24")
        assert {info.server_name for info in only} == {"server-24"}
        assert only[0].input_schema["properties"] == {"text": {"type": "string"}}


async def test_pages_are_the_gateways_and_ours_come_first() -> None:
    async with (
        registry(RegistryDesk(servers=5)) as (_, url),
        client_of(url, servers={"desk": Memory(desk(tools=[tool(), tool("b")]))}) as client,
    ):
        pages = [await client.list_servers(page, page_size=2) for page in (1, 2, 3, 4)]
        names = [[info.server_name for info in page] for page in pages]
        assert names == [
            ["desk", "server-0", "server-1"],
            ["server-2", "server-3"],
            ["server-4"],
            [],
        ]
        first = await client.list_tools(page_size=1)
        assert [info.server_name for info in first] == ["desk", "desk", "server-0"]
        second = await client.list_tools(page=2, page_size=1)
        assert [(info.server_name, info.tool_name) for info in second] == [("server-0", "read")]
        assert len(await client.list_tools("desk")) == 2
        assert len(await client.list_tools("desk", page=2)) == 0
        for size in (0, -1):
            with pytest.raises(UsageError, match="page_size"):
                await client.list_servers(page_size=size)


@pytest.mark.fault(29)
async def test_a_gateway_that_repeats_itself_is_found_out() -> None:
    shown = RegistryDesk(servers=30, ignores_offset=True)
    async with registry(shown) as (_, url), client_of(url) as client:
        with pytest.raises(ProtocolError, match="repeats itself"):
            await client.list_all_servers(page_size=10)
        with pytest.raises(ProtocolError, match="repeats itself"):
            await client.list_all_tools(page_size=10)
        assert sum(shown.asked.values()) < 12


async def test_policy_is_asked_about_each_batch() -> None:
    async with (
        registry(RegistryDesk(servers=10)) as (_, url),
        client_of(url, policy=OnlyEven()) as client,
    ):
        who = Principal(id="bob")
        seen = await client.list_all_servers(page_size=3, principal=who)
        assert [int(info.server_name[7:]) for info in seen] == [0, 2, 4, 6, 8]
        assert len(await client.list_all_servers()) == 10
        tools = await client.list_all_tools(page_size=4, principal=who)
        assert {int(info.server_name[7:]) % 2 for info in tools} == {0}
        assert len(tools) == 10
        assert len(await client.list_tools("server-1")) == 0


async def test_more_than_can_be_collected_is_iterated_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "ITEMS_MAX", 20)
    async with registry(RegistryDesk(servers=21)) as (_, url), client_of(url) as client:
        with pytest.raises(UsageError, match="iterate"):
            await client.list_all_servers(page_size=5)
        assert len([info async for info in client.stream_servers(page_size=5)]) == 21


async def test_a_dead_gateway_costs_its_own_tools() -> None:
    async with client_of(
        "http://127.0.0.1:1", servers={"desk": Memory(desk())}, enable_error_handling=False
    ) as client:
        for listing in (await client.list_tools(), await client.list_all_tools()):
            assert [info.server_name for info in listing] == ["desk"]
            assert isinstance(listing.failures["http://127.0.0.1:1"], ConnectError)
        walked = client.stream_tools()
        assert len([info async for info in walked]) == 1
        assert "http://127.0.0.1:1" in walked.failures
        with pytest.raises(ConnectError):
            await client.list_servers()
    async with client_of("http://127.0.0.1:1", enable_error_handling=False) as alone:
        with pytest.raises(ConnectError):
            await alone.list_tools()


async def test_a_record_of_an_odd_server_is_read_with_care() -> None:
    odd = server_record(0, health_status="on fire", sensitivity_level="low")
    strict = server_record(1, health_status="unhealthy", sensitivity_level="critical")

    async def servers(_: Peer, __: Received) -> bytes:
        return response(json.dumps({"servers": [odd, strict]}).encode())

    async with registry(RegistryDesk(script=[servers])) as (_, url), client_of(url) as client:
        first, second = await client.list_servers()
    # Whoever runs the gateway may make us stricter, and not less strict.
    assert (first.health_status, first.sensitivity_level) == ("unknown", "medium")
    assert (second.health_status, second.sensitivity_level) == ("unhealthy", "critical")


@pytest.mark.fault(29)
async def test_ten_thousand_servers_are_streamed_in_the_memory_of_a_page() -> None:
    async with (
        registry(RegistryDesk(servers=10_000)) as (_, url),
        client_of(url, cache=None) as client,
    ):
        peaks = {}
        for page_size in (100, 1000):
            count = 0
            gc.collect()
            tracemalloc.start()
            async for info in client.stream_servers(page_size=page_size):
                count += info.tools_count == 2
                if count == 2_000:  # warm by now: connections, parsers, the first pages
                    tracemalloc.reset_peak()
                    begun = tracemalloc.get_traced_memory()[0]
            peaks[page_size] = tracemalloc.get_traced_memory()[1] - begun
            tracemalloc.stop()
            assert count == 10_000
    # A page in flight is here twice, as JSON and as records, since the registry is in this
    # process; all of them would be ten times the larger bound.
    for page_size, peak in peaks.items():
        assert peak < 300_000 + page_size * 2_500


# -- modes and options ----------------------------------------------------------------------------


async def test_a_mode_that_forbids_a_transport_sends_nothing_over_it() -> None:
    async with registry() as (shown, url):
        for mode in (TransportMode.SSE_ONLY, "stdio_only"):
            async with client_of(
                url, transport_mode=mode, servers={"desk": Memory(desk())}
            ) as client:
                with pytest.raises(TransportNotAvailableError, match=r"registry.*'auto'") as caught:
                    await client.invoke_tool("server-0", "echo")
                assert caught.value.delivery == "not_sent"
                with pytest.raises(TransportNotAvailableError):
                    await client.list_servers()
                listing = await client.list_tools()
                assert isinstance(listing.failures[url], TransportNotAvailableError)
                assert (await client.invoke_tool("desk", "echo")).text == "done"
        assert not shown.asked
        async with client_of(url, transport_mode="http_only") as client:
            assert len(await client.list_servers()) == 3
            with pytest.raises(TransportNotAvailableError):
                client.stream_events()
            with pytest.raises(TransportNotAvailableError):
                await client.connect_local_server(["true"])


async def test_a_server_behind_a_forbidden_transport_is_never_contacted() -> None:
    async with client_of(
        "http://127.0.0.1:1",
        transport_mode="http_only",
        servers={"local": ["/nonexistent/program"]},
    ) as client:
        with pytest.raises(TransportNotAvailableError, match="local"):
            await client.invoke_tool("local", "echo")
        with pytest.raises(TransportNotAvailableError):
            await client.connect("local")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gateway_url": "ftp://x"}, "gateway_url"),
        ({"gateway_url": "http://x/?a=b"}, "query"),
        ({"gateway_url": "http://x", "api_key": "a\nb"}, "api_key"),
        ({"gateway_url": "http://x", "api_key": ""}, "api_key"),
        ({"api_key": "k"}, "gateway_url"),
        ({"transport_mode": "carrier_pigeon"}, "auto, http_only, sse_only, stdio_only"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_connections": True}, "max_connections"),
    ],
)
async def test_an_option_that_cannot_be_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        GatewayClient(audit="log", **options)
    assert "a\nb" not in str(caught.value)


async def test_what_needs_a_gateway_says_so() -> None:
    async with open_client(desk()) as client:
        with pytest.raises(ConfigError, match="gateway_url="):
            client.stream_events()


async def test_a_wrong_key_is_the_gateways_word() -> None:
    async with registry(RegistryDesk(api_key="right")) as (shown, url):
        async with client_of(url, api_key="wrong") as client:
            with pytest.raises(AuthenticationRequired) as caught:
                await client.list_servers()
        assert sum(shown.asked.values()) == 1  # and it is not asked again
        assert "wrong" not in str(caught.value)


async def test_without_error_handling_a_call_is_one_attempt_and_no_breaker_refuses() -> None:
    async def broken(_: Peer, __: Received) -> bytes:
        return response(b"{}", "500 Internal Server Error")

    disk = MemoryDisk()
    async with (
        registry() as (shown, url),
        client_of(url, disk, enable_error_handling=False) as client,
    ):
        await client.list_tools("server-0")
        before = sum(shown.asked.values())
        shown.script = [broken] * 8
        for _ in range(8):
            with pytest.raises(Exception, match="500"):
                await client.list_tools("server-0", page=2)
        assert sum(shown.asked.values()) - before == 8
        assert client.get_metrics().error_handler is None
        assert len(await client.list_tools("server-0", page=3)) == 0
    assert audited(disk, "outcome") == []
