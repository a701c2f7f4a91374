"""The HTTP transport's fifteen subjects of the original's integration report, one test each.

The names begin with the report's words. A gateway here is ``sark serve``'s own application where
it is well, and a scripted registry on a real socket where it has to be ill.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from sark_trio import CallTimeout, Opa, Principal, RetryConfig
from sark_trio.client.servers import Memory
from sark_trio.errors import (
    AuthenticationRequired,
    Denied,
    HTTPStatusError,
    UnknownServer,
    UnknownTool,
)
from tests.support.audit_disk import MemoryDisk
from tests.support.client import Desk, answer, audited, check_log, desk, open_client, outcomes, tool
from tests.support.gateway import serving
from tests.support.governance import POLICIES
from tests.support.http_servers import Peer, Received, response
from tests.support.peers import opa_server
from tests.support.registry import RegistryDesk, client_of, registry

pytestmark = pytest.mark.anyio

#: No waiting between attempts that are meant to fail.
AT_ONCE = RetryConfig(initial_delay_s=0.001)


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    with opa_server(POLICIES / "gateway.rego") as url:
        yield url


@asynccontextmanager
async def gateway(*servers: Desk) -> AsyncIterator[str]:
    """A gateway of ours, with *servers* under the names ``desk-0``, ``desk-1``, ..."""
    async with open_client(servers[0]) as client:
        await client.remove_server("desk")
        for number, server in enumerate(servers):
            await client.add_server(f"desk-{number}", Memory(server))
        async with serving(client) as served:
            yield served.url


async def failing(_: Peer, __: Received) -> bytes:
    return response(b"{}", "503 Service Unavailable")


async def test_server_listing() -> None:
    async with gateway(desk(), desk()) as url, client_of(url) as client:
        servers = await client.list_servers()
        assert [info.server_name for info in servers] == ["desk-0", "desk-1"]
        assert {info.transport for info in servers} == {"registry"}


async def test_server_listing_with_pagination() -> None:
    async with gateway(*(desk() for _ in range(7))) as url, client_of(url) as client:
        pages = [await client.list_servers(page, page_size=3) for page in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [3, 3, 1, 0]
        everything = tuple(info for page in pages for info in page)
        assert await client.list_all_servers(page_size=2) == everything
        assert len({info.server_name for info in everything}) == 7


async def test_server_info() -> None:
    async with gateway(desk()) as url, client_of(url) as client:
        info = await client.get_server_info("desk-0")
        assert (info.server_name, info.sensitivity_level) == ("desk-0", "medium")
        assert info == (await client.list_servers())[0]


async def test_tool_discovery() -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    server = desk(tools=[tool("echo", description="Says it again.", inputSchema=schema)])
    async with gateway(server, desk()) as url, client_of(url) as client:
        (found,) = await client.list_tools("desk-0")
        assert (found.tool_name, found.description) == ("echo", "Says it again.")
        assert found.input_schema == schema
        names = {info.server_name for info in await client.list_tools()}
        assert names == {"desk-0", "desk-1"}


async def test_tool_discovery_with_pagination() -> None:
    server = desk(tools=[tool(f"tool_{number:02}") for number in range(25)])
    async with gateway(server) as url, client_of(url) as client:
        sizes = [len(await client.list_tools("desk-0", page, 10)) for page in (1, 2, 3, 4)]
        assert sizes == [10, 10, 5, 0]
        assert len(await client.list_all_tools(page_size=7)) == 25


async def test_tool_invocation() -> None:
    server, disk = desk(answer("42", structuredContent={"n": 42})), MemoryDisk()
    async with gateway(server) as url, client_of(url, disk) as client:
        result = await client.invoke_tool("desk-0", "echo", {"q": "6 x 7"})
        assert (result.text, result.structured_content) == ("42", {"n": 42})
        with pytest.raises(UnknownTool):
            await client.invoke_tool("desk-0", "nothing")
    assert server.arrived == [{"q": "6 x 7"}]
    assert outcomes(disk) == [("ok", "answered")]
    check_log(disk)


async def test_caching_of_repeated_lists() -> None:
    async with registry() as (shown, url), client_of(url) as client:
        first = await client.list_servers()
        for _ in range(9):
            assert await client.list_servers() == first
            assert len(await client.list_tools()) == 6
        assert shown.asked == {"/api/v1/servers": 1, "/api/v1/tools": 1}
        for _ in range(3):  # calls are never answered for, unless the operator says so
            await client.invoke_tool("server-0", "echo")
        assert len(shown.invoked) == 3


async def test_caching_metrics() -> None:
    async with registry() as (_, url), client_of(url) as client:
        for _ in range(10):
            await client.list_servers()
        metrics = client.get_metrics().to_dict()
        assert metrics["http_cache_hit_rate"] == 0.9
        assert metrics["cache"]["cache_enabled"]
        assert metrics["cache"]["cache_size"] == 1
        assert metrics["cache"]["total_requests"] == 10
        report = await client.health_check()
        assert report.http.cache_hit_rate == 0.9


async def test_connection_pooling() -> None:
    async with registry() as (shown, url), client_of(url, max_connections=4) as client:

        async def invoke(number: int) -> None:
            await client.invoke_tool(f"server-{number % 3}", "echo", {"n": number})

        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(invoke, number)
        pool = client._gateway.pool.statistics()
        assert pool.dials <= 4
        assert pool.leased == pool.waiting == 0
    assert sorted(call[2]["n"] for call in shown.invoked) == list(range(60))


async def test_error_handling_401() -> None:
    shown = RegistryDesk(api_key="right")
    async with registry(shown) as (_, url):
        async with client_of(url, api_key="wrong") as client:
            with pytest.raises(AuthenticationRequired) as caught:
                await client.list_servers()
            assert caught.value.delivery == "answered"
            assert not (await client.health_check()).healthy
        async with client_of(url, api_key="right") as client:
            assert len(await client.list_servers()) == 3


@pytest.mark.fault(3)
async def test_error_handling_404() -> None:
    async with registry() as (shown, url), client_of(url) as client:
        for _ in range(6):
            with pytest.raises(UnknownServer):
                await client.get_server_info("nobody")
        assert shown.asked["/api/v1/servers/nobody"] == 6  # each asked once, and no breaker opens
        assert (await client.get_server_info("server-0")).server_name == "server-0"


@pytest.mark.fault(45)
async def test_error_handling_timeout() -> None:
    async def never(peer: Peer, _: Received) -> None:
        await peer.wait_closed()

    disk = MemoryDisk()
    async with registry() as (shown, url), client_of(url, disk) as client:
        await client.invoke_tool("server-0", "echo")
        shown.script = [never]
        with pytest.raises(CallTimeout) as caught:
            await client.invoke_tool("server-0", "echo", timeout_s=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.delivery == "unknown"
        assert len(shown.invoked) == 1  # and it is not sent again
        assert (await client.invoke_tool("server-0", "echo")).structured_content == {"echo": {}}
    assert outcomes(disk)[1] == ("unknown", "unknown")


@pytest.mark.fault(2)
async def test_opa_authorization(opa_url: str) -> None:
    analyst = Principal(id="ana", roles=("analyst",))
    server, disk = desk(tools=[tool("query")]), MemoryDisk()
    async with open_client(server) as inner:
        await inner.add_server("db", Memory(server))
        async with (
            serving(inner) as served,
            client_of(served.url, disk, policy=Opa(opa_url, timeout_s=10)) as client,
        ):
            sql = {"sql": "select 1", "password": "hunter2"}
            await client.invoke_tool("db", "query", sql, principal=analyst)
            for who, statement in (
                (Principal(id="vic", roles=("viewer",)), "select 1"),
                (analyst, "drop table users"),
            ):
                for _ in range(6):  # denials are no failures: no breaker opens
                    with pytest.raises(Denied):
                        await client.invoke_tool("db", "query", {"sql": statement}, principal=who)
            await client.invoke_tool("db", "query", {"sql": "select 2"}, principal=analyst)
    assert server.arrived == [{"sql": "select 1"}, {"sql": "select 2"}]
    assert len(audited(disk, "denied")) == 12


async def test_retry_on_transient_errors() -> None:
    async with registry() as (shown, url), client_of(url, retry=AT_ONCE) as client:
        shown.script = [failing, failing]
        assert len(await client.list_servers()) == 3
        assert shown.asked["/api/v1/servers"] == 3
        shown.script = [failing] * 3
        with pytest.raises(HTTPStatusError) as caught:
            await client.list_servers(page=2)
        assert (caught.value.status, shown.asked["/api/v1/servers"]) == (503, 6)
        # A call that may have run is not made again by itself: 503 says nothing about that.
        await client.invoke_tool("server-0", "echo")
        shown.script = [failing] * 3
        with pytest.raises(HTTPStatusError):
            await client.invoke_tool("server-0", "echo")
        assert shown.asked["/api/v1/invoke"] == 2


async def test_health_of_the_gateway() -> None:
    async with gateway(desk()) as url, client_of(url) as client:
        report = await client.health_check()
        assert report.to_dict()["http"]["status"] == "healthy"
        assert report.gateway is not None
        assert report.gateway.latency_s is not None
