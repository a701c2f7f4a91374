"""Sockets and TLS: what cancellation, timeouts and refusals leave behind, which is nothing."""

from __future__ import annotations

import gc
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpcore
import pytest
import trustme
from anyio.lowlevel import checkpoint

from sark_trio.errors import ConnectError, ConnectTimeout, TLSError
from sark_trio.net.addresses import ADDRESSES_MAX, Address, public_only
from sark_trio.net.connection import Connection
from sark_trio.net.dial import dial
from sark_trio.net.options import Timeouts
from sark_trio.net.sockets import open_socket
from sark_trio.net.streams import AnyIOBackend, SocketStream
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import Origin, parse_url
from sark_trio.net.watch import DeadlineWatch
from tests.support.http_servers import Peer, modern, no_leaked_descriptors, response, serve

pytestmark = pytest.mark.anyio

LIMITS = Timeouts(connect_s=2.0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> TLSOptions:
    return TLSOptions(ca_data=authority.cert_pem.bytes().decode())


@pytest.fixture
def silent() -> Iterator[Origin]:
    """A listener that accepts (the kernel does) and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Origin("https", "127.0.0.1", listener.getsockname()[1])


def sockets() -> int:
    return sum(each.is_socket() for each in Path("/proc/self/fd").iterdir())


async def connect(origin: Origin, tls: TLSOptions | None = None, **options: Any) -> Connection:
    backend = AnyIOBackend(**options)
    if tls is not None:
        tls.context()  # here, or a worker thread would do it, and outlive the test
    return await dial(origin, backend, tls or TLSOptions(), LIMITS)


async def closed(connection: Connection) -> None:
    await connection.stream.aclose()


async def test_a_tls_connection_is_verified_and_carries_an_exchange(
    server_tls: ssl.SSLContext, trusting: TLSOptions
) -> None:
    async with serve(modern(), tls=server_tls) as server:
        stream = await connect(parse_url(server.url).origin, trusting)
        info = stream.stream.get_extra_info("ssl_object")
        assert info.version() in {"TLSv1.2", "TLSv1.3"}
        assert not stream.is_stale()
        await closed(stream)
        assert stream.is_stale()


@pytest.mark.security(24)
@pytest.mark.row(3)
@pytest.mark.parametrize("case", ["authority", "host", "pin", "plain"])
async def test_a_peer_that_is_not_who_it_should_be_is_refused_and_no_socket_is_left(
    case: str, authority: trustme.CA, server_tls: ssl.SSLContext, trusting: TLSOptions
) -> None:
    tls, context = trusting, server_tls
    if case == "authority":
        tls = TLSOptions(ca_data=trustme.CA().cert_pem.bytes().decode())
    elif case == "host":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("elsewhere.example").configure_cert(context)
    elif case == "pin":
        data = authority.cert_pem.bytes().decode()
        tls = TLSOptions(ca_data=data, pins_sha256=("0" * 64,))

    async def plain(peer: Peer) -> None:
        await peer.stream.receive()
        await peer.send(response())

    script, served = (plain, None) if case == "plain" else (modern(), context)
    async with serve(script, tls=served) as server:
        origin = Origin("https", "127.0.0.1", server.port)
        gc.collect()
        gc.disable()
        before = sockets()
        try:
            with pytest.raises(TLSError) as caught:
                await connect(origin, tls)
            with anyio.fail_after(5):  # the server's end of it goes when ours has gone
                while sockets() > before:
                    await checkpoint()
        finally:
            gc.enable()
        assert caught.value.delivery == "not_sent"
        assert "\n" not in caught.value.message


@pytest.mark.security(24)
async def test_the_right_pin_is_accepted(authority: trustme.CA) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    pem = certificate.cert_chain_pems[0].bytes().decode()
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    tls = TLSOptions(ca_data=authority.cert_pem.bytes().decode(), pins_sha256=(digest,))
    async with serve(modern(), tls=context) as server:
        await closed(await connect(parse_url(server.url).origin, tls))


@pytest.mark.security(24)
@pytest.mark.row(3)
async def test_tls_1_1_is_refused(authority: trustme.CA, trusting: TLSOptions) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serve(modern(), tls=context) as server:
        with pytest.raises(TLSError):
            await connect(parse_url(server.url).origin, trusting)


@pytest.mark.row(3)
async def test_a_handshake_that_is_never_answered_times_out(silent: Origin) -> None:
    with (
        no_leaked_descriptors(),
        pytest.raises(ConnectTimeout),
    ):
        await dial(silent, AnyIOBackend(), TLSOptions(), Timeouts(connect_s=0.05))


@pytest.mark.row(4)
async def test_cancelling_a_handshake_a_thousand_times_leaves_no_descriptor(
    silent: Origin, trusting: TLSOptions
) -> None:
    """Row 4; laws, section 0.3: httpcore leaves all of them to the garbage collector."""
    trusting.context()
    async with anyio.create_task_group() as watching:
        watch = DeadlineWatch()
        await watching.start(watch.run)
        with no_leaked_descriptors():
            for steps in range(1000):
                async with anyio.create_task_group() as group:
                    group.start_soon(connect_and_say, silent, trusting, watch)
                    for _ in range(steps % 40):
                        await checkpoint()
                    if steps % 4 == 0:
                        await anyio.wait_all_tasks_blocked()
                    group.cancel_scope.cancel()
        watching.cancel_scope.cancel()


async def connect_and_say(origin: Origin, tls: TLSOptions, watch: DeadlineWatch) -> None:
    await connect(origin, tls, watch=watch)
    raise AssertionError("nobody answered, and yet there is a connection")


@pytest.mark.row(2)
async def test_a_refused_port_is_a_connect_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with no_leaked_descriptors():
        begun = anyio.current_time()
        with pytest.raises(ConnectError) as caught:
            await connect(Origin("http", "127.0.0.1", port))
        assert type(caught.value) is ConnectError
        assert anyio.current_time() - begun < 0.5


@pytest.mark.row(2)
async def test_a_black_hole_is_a_connect_timeout() -> None:
    # A listener whose queue is full drops SYNs: what a firewall does, without one.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(ConnectTimeout):
            await dial(origin, AnyIOBackend(), TLSOptions(), Timeouts(connect_s=0.1))
        for filler in fillers:
            filler.close()


@pytest.mark.row(1)
async def test_a_name_that_does_not_resolve_is_a_connect_error() -> None:
    for host in ("does-not-exist.invalid", "a" * 63 + "." + "b" * 63 + ".invalid"):
        with pytest.raises(ConnectError) as caught:
            await connect(Origin("http", host, 80))
        assert caught.value.delivery == "not_sent"


async def test_the_first_address_that_answers_wins_and_the_others_are_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dead = [Address(ipaddress.ip_address(f"127.0.0.{n}"), port) for n in (2, 3)]
        alive = Address(ipaddress.ip_address("127.0.0.1"), port)
        with no_leaked_descriptors():
            sock = await open_socket([*dead, alive])
            assert sock.getpeername() == ("127.0.0.1", port)
            sock.close()
            with pytest.raises(OSError, match="refused") as caught:
                await open_socket(dead)
            assert len(caught.value.__notes__) == 2


async def test_cancelling_a_race_of_addresses_leaves_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        both = [Address(ipaddress.ip_address(f"127.0.0.{n}"), port) for n in (2, 1)]
        with no_leaked_descriptors():
            for steps in range(60):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(race_and_close, both)
                        for _ in range(steps):
                            await checkpoint()
                        scope.cancel()


async def race_and_close(addresses: list[Address]) -> None:
    sock = await open_socket(addresses)
    try:
        await checkpoint()
    finally:
        sock.close()


@pytest.mark.security(8)
@pytest.mark.row(1)
async def test_a_thousand_addresses_are_cut_to_sixteen_and_each_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sark_trio.net import addresses

    async def many(host: str, port: int, **_: Any) -> Any:
        v4 = [(socket.AF_INET, 1, 6, "", (f"10.0.{n // 250}.{n % 250}", port)) for n in range(500)]
        v6 = [(socket.AF_INET6, 1, 6, "", (f"fd00::{n:x}", port, 0, 0)) for n in range(500)]
        return [*v4, *v4, *v6]

    monkeypatch.setattr(addresses.anyio, "getaddrinfo", many)
    checked: list[Any] = []
    found = await addresses.resolve("many.example", 1, checked.append)
    assert len(checked) == 1000
    assert len(found) == ADDRESSES_MAX
    assert [each.ip.version for each in found[:4]] == [4, 6, 4, 6]


@pytest.mark.security(8)
@pytest.mark.row(63)
async def test_an_address_that_the_check_refuses_is_never_connected_to() -> None:
    async with serve(modern()) as server:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(ConnectError, match="not a public address"):
                await connect(Origin("http", host, server.port), address_check=public_only)
        assert server.connections == 0


async def test_a_stream_whose_time_is_up_is_closed_with_and_without_a_watch(
    silent: Origin,
) -> None:
    async with anyio.create_task_group() as group:
        watch = DeadlineWatch()
        await group.start(watch.run)
        assert repr(watch) == "<DeadlineWatch running armed=0>"
        for chosen in (watch, None):
            stream = await AnyIOBackend(watch=chosen).connect_tcp(silent.host, silent.port)
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(1, timeout=0.02)
            assert stream.is_readable()
            assert repr(stream) == "<SocketStream closed bytes_written=0>"
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"x")
            with pytest.raises(httpcore.ReadError):
                await stream.read(1)
            stream = await AnyIOBackend(watch=chosen).connect_tcp(silent.host, silent.port)
            with pytest.raises(httpcore.WriteTimeout):
                while True:
                    await stream.write(b"x" * 1_000_000, timeout=0.02)
            assert stream.bytes_written > 0
        group.cancel_scope.cancel()


async def test_httpcore_takes_our_backend_for_one_of_its_own(
    server_tls: ssl.SSLContext, trusting: TLSOptions
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send(response(b"{}"))

    async with serve(script, tls=server_tls) as server:
        pool = httpcore.AsyncConnectionPool(
            ssl_context=trusting.context(), network_backend=AnyIOBackend()
        )
        async with pool:
            for _ in range(3):
                answer = await pool.request("GET", server.url)
                assert (answer.status, answer.content) == (200, b"{}")
        assert server.connections == 1


async def test_a_stream_tells_what_httpcore_asks(
    server_tls: ssl.SSLContext, trusting: TLSOptions
) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"two records")
        await peer.wait_closed()

    async with serve(script, tls=server_tls) as server:
        stream = (await connect(parse_url(server.url).origin, trusting)).stream
        sock = stream.get_extra_info("socket")
        assert stream.get_extra_info("ssl_object") is sock
        assert stream.get_extra_info("client_addr") == sock.getsockname()
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        assert stream.get_extra_info("anything else") is None
        assert await stream.read(3, timeout=5) == b"two"
        assert stream.get_extra_info("is_readable")  # decrypted already, no bytes on the socket
        assert await stream.read(100) == b" records"
        await stream.aclose()


async def test_the_session_tickets_of_tls_are_no_words_of_the_peer(
    server_tls: ssl.SSLContext, trusting: TLSOptions
) -> None:
    said = anyio.Event()

    async def script(peer: Peer) -> None:
        await said.wait()
        await peer.send(b"words")
        await peer.wait_closed()

    async with serve(script, tls=server_tls) as server:
        stream = (await connect(parse_url(server.url).origin, trusting)).stream
        assert isinstance(stream, SocketStream)
        sock = stream.get_extra_info("socket")
        assert sock.version() == "TLSv1.3"
        with anyio.fail_after(5):
            await anyio.wait_readable(sock)  # the tickets
            assert not stream.is_readable()
            said.set()
            while not stream.is_readable():
                await anyio.wait_readable(sock)
        assert stream.is_readable()  # asking takes nothing away
        assert await stream.read(100, timeout=5) + await stream.read(100, timeout=5) == b"words"
        await stream.aclose()


async def test_the_end_of_tls_is_readable(server_tls: ssl.SSLContext, trusting: TLSOptions) -> None:
    async def script(peer: Peer) -> None:
        await peer.reset()

    async with serve(script, tls=server_tls) as server:
        stream = (await connect(parse_url(server.url).origin, trusting)).stream
        assert isinstance(stream, SocketStream)
        with anyio.fail_after(5):
            while not stream.is_readable():
                await checkpoint()
        assert stream.is_readable()
        await stream.aclose()


async def test_tls_that_cannot_even_begin_is_a_connect_error(
    silent: Origin, trusting: TLSOptions
) -> None:
    async def rude(peer: Peer) -> None:
        await peer.reset()

    context = trusting.context()
    async with serve(rude) as server:
        stream = await AnyIOBackend().connect_tcp("127.0.0.1", server.port)
        with anyio.fail_after(5):
            while not stream.is_readable():
                await checkpoint()
        # Were a descriptor left, its ResourceWarning would fail this test.
        with pytest.raises(httpcore.ConnectError):
            await stream.start_tls(context, server_hostname="127.0.0.1")
    with no_leaked_descriptors():
        stream = await AnyIOBackend().connect_tcp("127.0.0.1", silent.port)
        with pytest.raises(httpcore.ConnectError):
            await stream.start_tls(context, server_hostname="a..b")


async def test_what_the_backend_does_not_offer_it_says(silent: Origin) -> None:
    backend = AnyIOBackend()
    with pytest.raises(NotImplementedError):
        await backend.connect_unix_socket("/x")
    with pytest.raises(NotImplementedError):
        await backend.connect_tcp("127.0.0.1", 1, local_address="127.0.0.1")
    await backend.sleep(0)
    with no_leaked_descriptors():
        nodelay = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        stream = await backend.connect_tcp("127.0.0.1", silent.port, socket_options=[nodelay])
        assert stream.get_extra_info("socket").getsockopt(*nodelay[:2]) == 0
        await stream.aclose()
        with pytest.raises(httpcore.ConnectError, match="option"):
            await backend.connect_tcp("127.0.0.1", silent.port, socket_options=[(99, 99, 1)])


async def test_a_socket_that_connected_to_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    real = socket.socket

    def bound(*args: Any, **kwargs: Any) -> socket.socket:
        sock = real(*args, **kwargs)
        sock.bind(("127.0.0.1", port))  # the ephemeral port that chance may choose
        return sock

    monkeypatch.setattr("sark_trio.net.sockets.socket.socket", bound)
    with pytest.raises(ConnectionRefusedError, match="itself"):
        await open_socket([Address(ipaddress.ip_address("127.0.0.1"), port)])


async def test_a_name_without_addresses_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from sark_trio.net import addresses

    async def none(host: str, port: int, **_: Any) -> Any:
        return []

    monkeypatch.setattr(addresses.anyio, "getaddrinfo", none)
    with pytest.raises(httpcore.ConnectError, match="no addresses"):
        await addresses.resolve("empty.example", 1, None)
