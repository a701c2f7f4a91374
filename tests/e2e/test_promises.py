"""Lines of the original's integration report that no subject's own test holds."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient, Http, Memory, Opa, Stdio
from sark_trio.errors import Denied
from tests.support.audit_disk import MemoryDisk
from tests.support.client import desk
from tests.support.http_servers import modern, serve
from tests.support.registry import HUNG_S, RegistryDesk, base_of, client_of, registry

pytestmark = pytest.mark.anyio


async def test_a_transport_is_opened_when_it_is_first_needed(tmp_path: Path) -> None:
    """Neither opening a client nor closing it contacts anybody, and each call opens its own."""
    shown, started = RegistryDesk(), tmp_path / "started"
    program = ["sh", "-c", f"touch {started}; exit 1"]
    with anyio.fail_after(HUNG_S):
        async with serve(shown) as gateway, serve(modern()) as remote:
            servers = {
                "remote": Http(remote.url),
                "local": Stdio(program),
                "inside": Memory(desk()),
            }
            url = base_of(gateway)
            policy = Opa("http://127.0.0.1:1")
            async with client_of(url, servers=servers, policy=policy) as client:
                await client.list_servers(page=2)  # a page of the gateway's, and nobody else's
                assert (gateway.connections, remote.connections) == (1, 0)
                assert client.get_metrics().active_transports == ("registry",)
                await client.connect("remote")
                assert (gateway.connections, remote.connections) == (1, 1)
            async with client_of(url, servers=servers, policy=policy):
                pass
            assert (gateway.connections, remote.connections) == (1, 1)
    assert not started.exists()


async def test_policy_and_error_handling_are_handed_in_and_may_be_left_out() -> None:
    """Without a policy everything is denied; without error handling there is one attempt."""
    async with registry() as (shown, url):
        async with client_of(url, policy=None) as client:
            with pytest.raises(Denied):
                await client.invoke_tool("server-0", "echo")
            assert (await client.health_check()).error_handler is not None
        assert shown.invoked == []
        async with client_of(url, policy=AllowAll(), enable_error_handling=False) as client:
            await client.invoke_tool("server-0", "echo")
            assert client.get_metrics().error_handler is None
    assert len(shown.invoked) == 1


async def test_forty_tasks_use_one_client_in_any_order() -> None:
    """Any task may do anything at any time; nothing is left, and nothing is mixed up."""
    answers: dict[int, object] = {}
    async with registry() as (shown, url), client_of(url, MemoryDisk()) as client:

        async def work(number: int) -> None:
            server = f"server-{number % 3}"
            if number % 4 == 0:
                await client.list_tools(server)
            if number % 7 == 0:
                with anyio.move_on_after(0):
                    await client.invoke_tool(server, "read", {"n": -1})
            found = await client.invoke_tool(server, "echo", {"n": number})
            answers[number] = found.structured_content

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(work, number)
        assert client.statistics().running_calls == 0
        assert isinstance(client, GatewayClient)
    assert answers == {number: {"echo": {"n": number}} for number in range(40)}
    assert {call[2]["n"] for call in shown.invoked} - {-1} == set(range(40))
