"""A URL that is not trusted leads to public addresses only (security, lines 8 and 9).

What is connected to is the address that was checked: the name server of these tests gives another
one each time it is asked.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, ClientCredentials, GatewayClient, Http, Registry, Stdio, WebSocket
from sark_trio.client.authorizing.authorizer import authorizer_of
from sark_trio.errors import AuthenticationRequired, ConfigError, ConnectError, GatewayError
from sark_trio.net import addresses
from sark_trio.net.addresses import IPAddress
from sark_trio.net.streams import AnyIOBackend
from sark_trio.transports.base import Outgoing
from tests.support.http_servers import DISCOVERY, Peer, modern, open_transport, result, serve

pytestmark = [pytest.mark.anyio, pytest.mark.security(8)]

LOOPBACK = ipaddress.ip_address("127.0.0.1")
#: Where inner things are, in the ways in which a URL can say it.
INNER = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "169.254.169.254",
    "10.1.2.3",
    "100.64.0.1",
    "[fd00::1]",
    "[64:ff9b::a9fe:a9fe]",
    "0.0.0.0",
]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the name server says, each time that it is asked; the last answer stays."""
    said: list[list[str]] = []

    async def resolve(host: str, port: int, **_: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        found = said.pop(0) if len(said) > 1 else said[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(addresses.anyio, "getaddrinfo", resolve)
    return said


def make(kind: str, place: str) -> Any:
    return {
        "http": lambda: Http(f"https://{place}/mcp", addresses="public"),
        "sse": lambda: Http(
            f"https://{place}/mcp", addresses="public", protocol_version="2024-11-05"
        ),
        "websocket": lambda: WebSocket(f"wss://{place}/mcp", addresses="public"),
        "registry": lambda: Registry(f"https://{place}", "crm", addresses="public"),
    }[kind]()


async def fails(server: Any, folder: Path) -> GatewayError:
    """The error of a call of *server*."""
    options: dict[str, Any] = {"policy": AllowAll(), "audit": folder / "audit"}
    async with GatewayClient(servers={"x": server}, jitter=lambda: 0.0, **options) as client:
        with pytest.raises(GatewayError) as caught:
            await client.connect("x")
    return caught.value


@pytest.mark.row(63)
@pytest.mark.parametrize("kind", ["http", "sse", "websocket", "registry"])
async def test_an_untrusted_url_cannot_lead_inside(kind: str, tmp_path: Path) -> None:
    async with serve(modern()) as server:
        for number, host in enumerate(INNER if kind == "http" else INNER[:2]):
            folder = tmp_path / str(number)
            error = await fails(make(kind, f"{host}:{server.port}"), folder)
            assert isinstance(error, ConnectError), host
            assert "is not a public address" in str(error)
            assert error.delivery == "not_sent"
        assert server.connections == 0


@pytest.mark.row(63)
@pytest.mark.parametrize("kind", ["http", "sse", "websocket", "registry"])
async def test_a_name_that_leads_inside_is_refused(
    kind: str, answers: list[list[str]], tmp_path: Path
) -> None:
    """Also where only one of its addresses is inner: that is how rebinding looks."""
    for number, found in enumerate((["127.0.0.1"], ["93.184.216.34", "127.0.0.1"])):
        answers[:] = [found]
        async with serve(modern()) as server:
            place = f"rebinding.example:{server.port}"
            error = await fails(make(kind, place), tmp_path / str(number))
            assert "is not a public address" in str(error)
            assert server.connections == 0


@pytest.mark.row(63)
async def test_the_address_that_was_checked_is_connected_to(answers: list[list[str]]) -> None:
    """The name leads elsewhere whenever it is asked; one answer is checked and used."""
    answers[:] = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.3"]]
    checked: list[IPAddress] = []
    async with serve(modern()) as server:
        backend = AnyIOBackend(address_check=checked.append)
        stream = await backend.connect_tcp("rebinding.example", server.port)
        peer = stream.get_extra_info("socket").getpeername()[0]
        await stream.aclose()
        assert [str(ip) for ip in checked] == [peer] == ["127.0.0.1"]
        assert answers == [["127.0.0.2"], ["127.0.0.3"]]


def only(allowed: str) -> Callable[[IPAddress], None]:
    def check(ip: IPAddress) -> None:
        if str(ip) != allowed:
            raise ValueError(f"{ip} is not {allowed}")

    return check


@pytest.mark.row(63)
async def test_every_new_connection_is_checked_again(answers: list[list[str]]) -> None:
    """A server that closes its connections gains no unchecked one by it."""
    answers[:] = [["127.0.0.1"], ["127.0.0.2"]]

    async def once(peer: Peer) -> None:
        await peer.send(result(await peer.receive(), DISCOVERY))
        await peer.stream.aclose()

    async with serve(once) as server:
        url = f"http://rebinding.example:{server.port}/mcp"
        async with open_transport(url, address_check=only("127.0.0.1")) as transport:
            assert (await transport.connect()).modern
            with pytest.raises(ConnectError, match=r"127\.0\.0\.2 is not 127\.0\.0\.1"):
                await transport.request(Outgoing(method="tools/list", replay_safe=True))
        assert server.connections == 1


async def test_what_the_server_says_of_itself_is_fetched_under_the_same_rule(
    answers: list[list[str]],
) -> None:
    """The metadata of an untrusted server's authorization are at the same place."""
    answers[:] = [["127.0.0.1"]]
    async with serve(modern()) as server:
        auth = ClientCredentials(client_id="a", client_secret="b")
        url = f"https://rebinding.example:{server.port}/mcp"
        authorizer = authorizer_of(Http(url, auth=auth, addresses="public"))
        assert authorizer is not None
        async with anyio.create_task_group() as group:
            await group.start(authorizer._network.run)
            with pytest.raises(AuthenticationRequired, match="ConnectError"):
                await authorizer._network.ask("GET", f"{url}/metadata")
            group.cancel_scope.cancel()
        assert server.connections == 0


@pytest.mark.parametrize(
    ("make_it", "why"),
    [
        (lambda: Http("http://h.example/", addresses="public"), "has to be https"),
        (lambda: WebSocket("ws://h.example/", addresses="public"), "has to be https"),
        (lambda: Registry("http://h.example/", "x", addresses="public"), "has to be https"),
        (lambda: Http("https://h.example/", addresses="inner"), "is not one of any, public"),
        (
            lambda: Http("https://h.example/", addresses="public", network=AnyIOBackend()),
            "others resolve the name",
        ),
    ],
)
async def test_an_option_that_would_mean_nothing_is_refused(make_it: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=f"addresses: .*{why}"):
        make_it()


@pytest.mark.security(9)
async def test_no_variable_of_the_environment_sends_us_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serve(modern()) as server, serve(modern()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        options: dict[str, Any] = {"policy": AllowAll(), "audit": tmp_path / "audit"}
        async with GatewayClient(servers={"x": Http(server.url)}, **options) as client:
            assert (await client.connect("x")).modern
        assert (server.connections, proxy.connections) == (1, 0)


@pytest.mark.security(18)
async def test_nothing_that_a_registry_says_is_a_command_or_a_url_for_us() -> None:
    """Commands and addresses come from the operator: a registry's server is asked through it."""
    registered = Registry("https://gateway.example", "sh -c id")
    assert not isinstance(registered, Stdio)
    assert registered.address == "https://gateway.example sh -c id"
