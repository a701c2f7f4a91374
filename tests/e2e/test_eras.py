"""Clients and servers of either era or of both: each cell of the compatibility matrix.

MCP 2026-07-28, "Versioning and Compatibility". A client is of one era where its configuration
holds the server to a revision of it, and of both otherwise. That goes for every transport, with
scripted servers, which can be of the newer era only, and with those of the official SDKs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define

from sark_trio import AllowAll, GatewayClient, GatewayError, Http, Server, Stdio, WebSocket
from tests.interop.relay import relay_to
from tests.interop.wire import http_messages, line_messages, websocket_messages
from tests.support.backends import BACKENDS
from tests.support.era_servers import LEGACY, MODERN, command, web_script, web_socket_script
from tests.support.http_servers import serve
from tests.support.peers import http_server, sse_server, stdio_server, websocket_server
from tests.support.websocket_servers import url_of

pytestmark = pytest.mark.anyio

OLDEST = "2024-11-05"
TEE = str(Path(__file__).parents[1] / "interop" / "tee.py")
#: The revision that a client of an era is held to.
CLIENTS = {"modern": MODERN, "dual": None, "legacy": LEGACY}
#: The revision that a client and a server then speak; none where they cannot.
MATRIX = {
    ("modern", "modern"): MODERN,
    ("modern", "legacy"): None,
    ("modern", "dual"): MODERN,
    ("dual", "modern"): MODERN,
    ("dual", "legacy"): LEGACY,
    ("dual", "dual"): MODERN,
    ("legacy", "modern"): None,
    ("legacy", "legacy"): LEGACY,
    ("legacy", "dual"): LEGACY,
}


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Asyncio and trio: nothing here depends on which loop asyncio has."""
    return request.param


@define
class Told:
    """A server, and what it was told so far."""

    server: Callable[..., Server]
    methods: Callable[[], list[str]]


def client_of(server: Server, folder: Path) -> GatewayClient:
    return GatewayClient(servers={"peer": server}, policy=AllowAll(), audit=folder / "audit")


async def check_cell(told: Told, era: str, server_era: str, folder: Path) -> None:
    """They agree as the matrix says, and talk only as two of their eras do."""
    expected = MATRIX[era, server_era]
    server = told.server(protocol_version=CLIENTS[era])
    async with client_of(server, folder) as client:
        if expected is None:
            with pytest.raises(GatewayError, match="pinned to") as caught:
                await client.invoke_tool("peer", "echo", {"text": "hi"})
            assert caught.value.delivery != "unknown"
        else:
            agreed = await client.connect("peer")
            assert (agreed.version, agreed.modern) == (expected, expected == MODERN)
            for _ in range(3):
                result = await client.invoke_tool("peer", "echo", {"text": "hi"})
                assert result.is_error is False
    methods = told.methods()
    # Asked once, whatever came of it, and never in the words of an era that it is not to have.
    assert methods.count("server/discover") == (era != "legacy")
    assert ("initialize" in methods) is (era == "legacy" or expected == LEGACY)
    assert methods.count("tools/call") == (3 if expected else 0)


# -- scripted servers -----------------------------------------------------------------------------


@asynccontextmanager
async def scripted(transport: str, era: str, folder: Path) -> AsyncIterator[Told]:
    """A server of *era* that is written here."""
    if transport == "stdio":
        copy = folder / "told"
        argv = [sys.executable, TEE, str(copy), *command(era)]
        yield Told(partial(Stdio, argv), lambda: methods_in(line_messages(copy.read_bytes())))
    elif transport == "http":
        async with serve(web_script(lambda: era)) as server:
            calls = server.requests
            yield Told(partial(Http, server.url), lambda: [one.rpc for one in calls])
    else:
        seen: list[str] = []
        async with serve(web_socket_script(lambda: era, seen)) as server:
            yield Told(partial(WebSocket, url_of(server.url)), lambda: seen)


def methods_in(messages: list[Any]) -> list[str]:
    return [sent.method or "" for sent in messages]


@pytest.mark.parametrize("transport", ["stdio", "http", "websocket"])
@pytest.mark.parametrize(("era", "server_era"), MATRIX)
async def test_each_cell_of_the_matrix(
    era: str, server_era: str, transport: str, tmp_path: Path
) -> None:
    async with scripted(transport, server_era, tmp_path) as told:
        await check_cell(told, era, server_era, tmp_path)


# -- the official SDKs ----------------------------------------------------------------------------

#: The eras of the servers that there are.
REAL = {
    ("stdio", "mcp2"): "dual",
    ("stdio", "mcp1"): "legacy",
    ("http", "mcp2"): "dual",
    ("http", "mcp1"): "legacy",
    ("websocket", "mcp1"): "legacy",
}


@pytest.fixture(scope="module")
def urls() -> Iterator[Mapping[tuple[str, str], str]]:
    """Those behind URLs, running."""
    with ExitStack() as stack:
        enter = stack.enter_context
        yield {
            ("http", "mcp2"): enter(http_server("everything-mcp2")),
            ("http", "mcp1"): enter(http_server("everything-mcp1")),
            ("websocket", "mcp1"): enter(websocket_server()),
            ("sse", "mcp1"): enter(sse_server("everything-mcp1")),
        }


@asynccontextmanager
async def real(
    transport: str, name: str, urls: Mapping[tuple[str, str], str], folder: Path
) -> AsyncIterator[Told]:
    if transport == "stdio":
        copy = folder / "told"
        argv = [sys.executable, TEE, str(copy), *stdio_server(f"everything-{name}")]
        yield Told(partial(Stdio, argv), lambda: methods_in(line_messages(copy.read_bytes())))
        return
    async with relay_to([urls[transport, name]]) as relay:
        kind, read = (
            (WebSocket, websocket_messages) if transport == "websocket" else (Http, http_messages)
        )
        yield Told(partial(kind, relay.url), lambda: methods_in(read(relay.connections)))


@pytest.mark.parametrize("era", CLIENTS)
@pytest.mark.parametrize(("transport", "name"), REAL)
async def test_each_cell_with_the_official_sdks(
    era: str, transport: str, name: str, urls: Mapping[tuple[str, str], str], tmp_path: Path
) -> None:
    async with real(transport, name, urls, tmp_path) as told:
        await check_cell(told, era, REAL[transport, name], tmp_path)


@pytest.mark.parametrize(
    ("held_to", "expected"), [(None, OLDEST), (OLDEST, OLDEST), (LEGACY, None), (MODERN, None)]
)
async def test_a_server_of_http_and_sse(
    held_to: str | None,
    expected: str | None,
    urls: Mapping[tuple[str, str], str],
    tmp_path: Path,
) -> None:
    server = Http(urls["sse", "mcp1"], protocol_version=held_to)
    async with client_of(server, tmp_path) as client:
        if expected is None:
            with pytest.raises(GatewayError):
                await client.connect("peer")
            return
        assert (await client.connect("peer")).version == expected
        result = await client.invoke_tool("peer", "echo", {"text": "hi"})
        assert result.text == "hi"


@pytest.mark.parametrize("server_era", ["modern", "dual"])
async def test_a_client_of_http_and_sse_has_no_way_forward(server_era: str, tmp_path: Path) -> None:
    async with (
        scripted("http", server_era, tmp_path) as told,
        client_of(told.server(protocol_version=OLDEST), tmp_path) as client,
    ):
        with pytest.raises(GatewayError):
            await client.connect("peer")


# -- what was found is kept, and found anew -------------------------------------------------------


@pytest.mark.parametrize("transport", ["stdio", "http", "websocket"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_what_was_found_holds_for_all_calls(transport: str, era: str, tmp_path: Path) -> None:
    async with scripted(transport, era, tmp_path) as told:
        async with client_of(told.server(), tmp_path) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(client.invoke_tool, "peer", "echo", {})
            await client.invoke_tool("peer", "echo", {})
        methods = told.methods()
    assert methods.count("server/discover") == 1
    assert methods.count("initialize") == (era == "legacy")
    assert methods.count("tools/call") == 11


CHANGES = [("legacy", "modern"), ("modern", "legacy"), ("legacy", "dual"), ("dual", "legacy")]


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_a_process_of_another_era_is_asked_anew(
    before: str, after: str, tmp_path: Path
) -> None:
    named = tmp_path / "era"
    named.write_text(before)
    async with client_of(Stdio(command(named)), tmp_path) as client:
        first = await client.connect("peer")
        await client.invoke_tool("peer", "echo", {})
        named.write_text(after)
        os.kill(client.statistics().servers["peer"].wire.details["pid"], signal.SIGKILL)
        await called_in_the_end(client)
        second = client.statistics().servers["peer"].protocol_version
    assert (first.version, second) == (MATRIX["dual", before], MATRIX["dual", after])


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_an_origin_of_another_era_is_asked_anew(
    before: str, after: str, tmp_path: Path
) -> None:
    present = [before]
    async with (
        serve(web_script(lambda: present[0])) as server,
        client_of(Http(server.url), tmp_path) as client,
    ):
        await client.invoke_tool("peer", "echo", {})
        present[0] = after
        await called_in_the_end(client)
        version = client.statistics().servers["peer"].protocol_version
    stays = before == "legacy" and after == "dual"  # it still answers as before: nothing is wrong
    assert version == (LEGACY if stays else MATRIX["dual", after])


@pytest.mark.parametrize(("before", "after"), [("mcp1", "mcp2"), ("mcp2", "mcp1")])
async def test_an_official_sdk_of_another_era_is_found_at_the_same_origin(
    before: str, after: str, urls: Mapping[tuple[str, str], str], tmp_path: Path
) -> None:
    async with (
        relay_to([urls["http", before]]) as relay,
        client_of(Http(relay.url), tmp_path) as client,
    ):
        await client.invoke_tool("peer", "add", {"a": 1, "b": 1})
        await relay.shut()
        await relay.lead_to(urls["http", after])
        await called_in_the_end(client, "add", {"a": 1, "b": 1})
        info = await client.connect("peer")
        assert info.server_info["name"] == f"everything-{after}"


async def called_in_the_end(
    client: GatewayClient, tool: str = "echo", arguments: Mapping[str, Any] | None = None
) -> None:
    """A call works, at the latest the second: one may be lost in finding out."""
    try:
        result = await client.invoke_tool("peer", tool, arguments)
    except GatewayError as exc:
        lost = exc
    else:
        assert not result.is_error
        return
    assert not (await client.invoke_tool("peer", tool, arguments)).is_error, lost
