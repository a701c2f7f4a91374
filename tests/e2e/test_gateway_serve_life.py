"""How serving begins, and how it ends: nothing cut that need not be, nothing left."""

from __future__ import annotations

import builtins
import socket
import sys
from typing import Any

import anyio
import pytest

from sark_trio import Principal
from sark_trio.errors import ConfigError, TransportNotAvailableError
from sark_trio.gateway import create_app, serve
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, check_log, desk, open_client
from tests.support.gateway import Answer, Served, Stuck, connected, head, read, serving
from tests.support.http_servers import no_leaked_descriptors

pytestmark = pytest.mark.anyio

CALL = {"server": "desk", "tool": "echo"}


async def call_under_way(served: Served, tasks: Any, stuck: Stuck) -> list[Answer]:
    """Begin a call, and wait until it runs."""
    found: list[Answer] = []

    async def call() -> None:
        found.append(await served.ask("POST", "/api/v1/invoke", CALL))

    tasks.start_soon(call)
    await stuck.arrived.wait()
    return found


async def test_running_requests_end_within_the_grace() -> None:
    stuck = Stuck()
    async with open_client(desk(stuck)) as client, serving(client, grace_s=20) as served:
        async with anyio.create_task_group() as tasks:
            found = await call_under_way(served, tasks, stuck)
            served.scope.cancel()
            while await connects(served):
                assert not served.ended.is_set()
            assert not served.ended.is_set()
            stuck.goes_on.set()
            await served.ended.wait()
        assert found[0].json["result"]["content"][0]["text"] == "late"


async def connects(served: Served) -> bool:
    try:
        async with connected(served.url):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("idle", [True, False])
async def test_requests_that_do_not_end_are_cut_and_told_so(idle: bool) -> None:
    disk, stuck = MemoryDisk(), Stuck()
    async with open_client(desk(stuck), disk) as client, serving(client, grace_s=0.1) as served:
        async with anyio.create_task_group() as tasks, connected(served.url) as stream:
            if idle:
                # A connection that is kept alive, and says nothing more.
                keep = {"Connection": "keep-alive"}
                await stream.send(head(served.url, "GET", "/health", b"", keep))
                assert (await read(stream)).status == 200
            found = await call_under_way(served, tasks, stuck)
            began = anyio.current_time()
            await served.stop()
            assert anyio.current_time() - began < 3
        assert (found[0].status, found[0].error["type"]) == (503, "closing")
    (ended,) = audited(disk, "outcome")
    assert ended["outcome"] == "cancelled"
    check_log(disk)


async def test_nothing_is_left_open() -> None:
    async with open_client(desk()) as client:
        async with serving(client) as served:  # whatever is imported or made once
            await served.ask("GET", "/health")
        with no_leaked_descriptors():
            async with serving(client, grace_s=0.1) as served, connected(served.url):
                await served.ask("POST", "/api/v1/invoke", CALL)
                await served.stop()


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    async with open_client(desk()) as client:
        app = create_app(client)
        taken = socket.create_server(("127.0.0.1", 0))
        with taken, pytest.raises(ConfigError, match=r"cannot listen on '127\.0\.0\.1'"):
            await serve(app, port=taken.getsockname()[1])
        for host, port in (("not an address", 0), ("127.0.0.1", 70_000)):
            with pytest.raises(ConfigError, match="cannot listen"):
                await serve(app, host=host, port=port)


@pytest.mark.security(32)
async def test_strangers_are_not_let_in_unasked() -> None:
    async with open_client(desk()) as client, anyio.create_task_group() as tasks:
        with pytest.raises(ConfigError, match="can be reached from outside"):
            await serve(create_app(client), host="0.0.0.0", port=0)
        keyed = create_app(client, api_keys={"a-key-of-enough-length": Principal(id="a")})

        async def run(*, task_status: Any) -> None:
            await serve(keyed, host="0.0.0.0", port=0, task_status=task_status)

        url = await tasks.start(run)
        assert url.startswith("http://0.0.0.0:")
        tasks.cancel_scope.cancel()


async def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("hypercorn"):
            raise ImportError(name)
        return real(name, *rest)

    async with open_client(desk()) as client:
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(TransportNotAvailableError, match=r"sark_trio\[serve\]"):
            await serve(create_app(client), port=0)


async def test_a_websocket_is_turned_away_and_life_spans_are_acknowledged() -> None:
    async with open_client(desk()) as client:
        app = create_app(client)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def connect() -> Any:
            return {"type": "websocket.connect"}

        await app({"type": "websocket"}, connect, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
        phases = iter(["lifespan.startup", "lifespan.shutdown"])

        async def live() -> Any:
            return {"type": next(phases)}

        sent.clear()
        await app({"type": "lifespan"}, live, send)
        assert [one["type"] for one in sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]


async def test_a_server_that_breaks_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: Any, **__: Any) -> None:
        raise OSError("broken")

    async with open_client(desk()) as client:
        monkeypatch.setattr(sys.modules["sark_trio.gateway.serve"], "_runner", lambda: breaks)
        with pytest.raises(OSError, match=r"^broken$"):
            await serve(create_app(client), port=0)
