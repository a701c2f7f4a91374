"""Health and metrics: asked and counted, within a bound, and never an exception."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import httpcore
import pytest
import trio
from trio.testing import MockClock

from sark_trio import RetryConfig
from sark_trio.client.servers import Http, Memory, Stdio
from sark_trio.errors import GatewayError, HTTPStatusError, UsageError, status_error
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, desk, open_client
from tests.support.http_servers import (
    Peer,
    Received,
    error,
    legacy,
    modern,
    response,
    result,
    serve,
)
from tests.support.registry import RegistryDesk, base_of, client_of, registry
from tests.support.stdio import SCRIPTED

KEYS = {"http", "sse", "stdio", "error_handler"}
METRICS = {
    "transport_mode",
    "active_transports",
    "http_cache_hit_rate",
    "stdio_servers_count",
    "error_handler",
}
BREAKER = {
    "state",
    "failure_count",
    "success_count",
    "total_calls",
    "total_failures",
    "total_successes",
    "failure_rate",
    "state_changes",
}


@pytest.mark.fault(1)
@pytest.mark.fault(47)
@pytest.mark.anyio
async def test_the_report_has_the_originals_shape_and_says_what_was_asked() -> None:
    async with registry() as (shown, url), client_of(url) as client:
        report = await client.health_check()
        assert report.healthy
        said = report.to_dict()
        assert set(said) >= KEYS
        assert said["http"] == {"status": "healthy", "cache_hit_rate": 0.0}
        assert said["sse"] == {"status": "unknown", "connection_state": "disconnected"}
        assert said["stdio"] == {}
        handler = said["error_handler"]
        assert set(handler["circuit_breaker"]) == BREAKER
        assert handler["retry_config"] == {
            "max_attempts": 3,
            "initial_delay": 1.0,
            "max_delay": 30.0,
        }
        assert handler["default_timeout"] == 30.0
        assert shown.asked["/health"] == 1
        shown.health = {"status": "degraded"}
        report = await client.health_check()
        assert (report.healthy, report.http.status) == (False, "unhealthy")


@pytest.mark.fault(47)
@pytest.mark.anyio
async def test_a_gateway_that_is_not_there_is_not_healthy() -> None:
    async with client_of("http://127.0.0.1:1") as client:
        report = await client.health_check()
        assert report.gateway is not None
        assert report.gateway.status == report.http.status == "unhealthy"
        assert report.gateway.error
        assert report.gateway.latency_s is None
        # Asking how it is says nothing to the breaker.
        assert (
            client.get_metrics().to_dict()["error_handler"]["circuit_breaker"]["total_failures"]
            == 0
        )


@pytest.mark.anyio
async def test_each_server_is_asked_as_its_era_lets_it_be() -> None:
    async def ok(peer: Peer, received: Received) -> None:
        await peer.send(result(received, {"ok": True}))

    async def sick(peer: Peer, received: Received) -> None:
        await peer.send(error(received, -32603))

    async with (
        serve(modern(ok)) as new,
        serve(legacy(ok)) as old,
        serve(legacy(sick)) as ill,
        open_client(desk()) as client,
    ):
        for name, server in (("new", new), ("old", old), ("ill", ill)):
            await client.add_server(name, Http(server.url))
        report = await client.health_check()
        assert {name: one.status for name, one in report.servers.items()} == {
            "desk": "healthy",
            "new": "healthy",
            "old": "healthy",
            "ill": "unhealthy",
        }
        assert "ping" in old.calls
        assert "server/discover" in new.calls
        assert report.http.status == "unhealthy"
        assert report.servers["new"].latency_s is not None


class Nowhere(httpcore.AsyncNetworkBackend):
    """A network on which no connection is ever made."""

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.trio
async def test_all_are_asked_at_once_within_a_bound(autojump_clock: MockClock) -> None:
    async with open_client(desk()) as client:
        for number in range(5):
            server = Http(f"http://stuck-{number}.example/mcp", network=Nowhere())
            await client.add_server(f"stuck-{number}", server)
        began = trio.current_time()
        report = await client.health_check(timeout_s=2)
        assert trio.current_time() - began == pytest.approx(2)
        errors = {name: one.error for name, one in report.servers.items()}
        assert errors.pop("desk") is None
        assert set(errors.values()) == {"no answer within 2 s"}


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
@pytest.mark.anyio
async def test_a_bound_that_is_none_is_refused(timeout_s: float) -> None:
    async with open_client(desk()) as client:
        with pytest.raises(UsageError):
            await client.health_check(timeout_s=timeout_s)


@pytest.mark.anyio
async def test_processes_are_looked_at_and_not_started() -> None:
    async with open_client(desk()) as client:
        await client.add_server("local", Stdio(SCRIPTED))
        report = await client.health_check()
        assert report.servers["local"].status == "unknown"
        assert report.to_dict()["stdio"] == {"local": {"status": "stopped", "pid": None}}
        assert client.get_metrics().stdio_servers_count == 0
        await client.connect("local")
        report = await client.health_check()
        process = report.stdio["local"]
        assert (process.status, report.servers["local"].status) == ("running", "healthy")
        assert process.pid is not None
        assert client.get_metrics().stdio_servers_count == 1
        os.kill(process.pid, signal.SIGKILL)
        with anyio.fail_after(20):
            while (await client.health_check()).stdio["local"].pid == process.pid:
                await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_metrics_have_the_originals_keys_and_count() -> None:
    async with registry() as (shown, url), client_of(url, transport_mode="http_only") as client:
        before = client.get_metrics().to_dict()
        assert set(before) >= METRICS
        assert (before["active_transports"], before["http_cache_hit_rate"]) == ([], 0.0)
        for _ in range(10):
            await client.list_servers()
        after = client.get_metrics().to_dict()
        assert after["transport_mode"] == "http_only"
        assert after["active_transports"] == ["registry"]
        assert after["http_cache_hit_rate"] == after["cache"]["hit_rate"] == 0.9
        assert (after["cache"]["cache_hits"], after["cache"]["cache_misses"]) == (9, 1)
        assert after["error_handler"]["circuit_breaker"]["total_successes"] == 1
        assert shown.asked["/api/v1/servers"] == 1


@pytest.mark.anyio
async def test_of_many_breakers_the_worst_is_told() -> None:
    sick = [status_error(500, "sick")] * 5
    server = desk(*sick)
    async with open_client(server, retry=RetryConfig(attempts=1)) as client:
        await client.add_server("well", Memory(desk(answer("fine"))))
        await client.invoke_tool("well", "echo")
        for _ in sick:
            with pytest.raises(GatewayError):
                await client.invoke_tool("desk", "echo")
        handler = client.get_metrics().error_handler
        assert handler is not None
        assert handler["circuit_breaker"]["state"] == "open"
        assert handler["circuit_breaker"]["total_failures"] == 5
        singles = handler["circuit_breakers"]
        assert (singles["desk"]["state"], singles["well"]["state"]) == ("open", "closed")
        report = await client.health_check()
        assert report.to_dict()["error_handler"]["circuit_breaker"]["state"] == "open"


@pytest.mark.anyio
async def test_lists_that_are_kept_beside_the_cache_count_as_well() -> None:
    async with open_client(desk()) as client:
        for _ in range(10):
            await client.invoke_tool("desk", "echo")
        assert client.get_metrics().http_cache_hit_rate == 0.9


@pytest.mark.trio
async def test_a_list_that_stands_in_for_a_sick_gateway_says_so(mock_clock: MockClock) -> None:
    async def sick(_: Peer, __: Received) -> bytes:
        return response(b"{}", "500 Internal Server Error")

    disk, shown = MemoryDisk(), RegistryDesk()
    async with (
        serve(shown) as server,
        client_of(base_of(server), disk, enable_error_handling=False) as client,
    ):
        assert {info.stale for info in await client.list_servers()} == {False}
        assert not (await client.list_tools()).stale
        mock_clock.jump(301)
        shown.script = [sick, sick, sick]
        assert {info.stale for info in await client.list_servers()} == {True}
        listing = await client.list_tools()
        assert (listing.stale, len(listing)) == (True, 6)
        with pytest.raises(HTTPStatusError):
            await client.list_servers(page_size=7)  # which nobody has seen before
        assert {info.stale for info in await client.list_servers()} == {False}
    events = [record for record in audited(disk, "event") if record["name"] == "served_stale"]
    assert [record["details"]["method"] for record in events] == ["servers/list", "tools/list"]
