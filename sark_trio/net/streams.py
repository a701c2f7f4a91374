"""httpcore's network interface on non-blocking sockets, with the cleanup that it lacks.

Any httpcore backend can stand in for :class:`AnyIOBackend` (its mock, its trio backend, a
simulated network), and this one can stand in for any of them. What it adds:

- :meth:`SocketStream.close` is synchronous and complete: when it returns, the descriptor is
  gone. Cancelling a dial or a TLS handshake does that, in the same step.
- Reading and writing first try, then wait: no transport, no buffer, no task between the
  caller and the kernel. ``bytes_written`` counts what the kernel took, on which
  ``delivery="not_sent"`` rests.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, final

import anyio
import httpcore
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from sark_trio.net.addresses import AddressCheck, resolve
from sark_trio.net.sockets import open_socket
from sark_trio.net.tls import close_orphan
from sark_trio.net.watch import DeadlineWatch

__all__ = ["AnyIOBackend", "SocketStream"]

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")
_SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@final
class SocketStream(httpcore.AsyncNetworkStream):
    """A connected stream socket, with or without TLS. One reader and one writer at a time."""

    __slots__ = (
        *("_closed", "_early", "_expired", "_poll", "_socket", "_watch"),
        "bytes_written",
    )

    def __init__(self, sock: socket.socket, watch: DeadlineWatch | None = None) -> None:
        self._socket = sock
        self._watch = watch
        self._poll: select.poll | None = None
        #: Read by :meth:`is_readable`, and due to the next reader.
        self._early = b""
        self._closed = False
        self._expired = False
        #: Bytes that the kernel took. Never too few: a TLS record that is not through counts.
        self.bytes_written = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most *max_bytes*, ``b""`` at the end of the stream.

        :raises httpcore.ReadTimeout: nothing came for *timeout* seconds; the stream is closed.
        :raises httpcore.ReadError: the connection is broken, or closed by us.
        """
        data, self._early = self._early, b""
        try:
            data = data or self._socket.recv(max_bytes)
        except _NOT_NOW as exc:
            return await self._when_ready(
                self._socket.recv, max_bytes, exc, timeout, httpcore.ReadTimeout, httpcore.ReadError
            )
        except OSError as exc:
            raise httpcore.ReadError(str(exc)) from exc
        # There may always be more at once: a fast peer must not starve other tasks. Shielded,
        # because what was taken from the kernel must not be lost.
        await cancel_shielded_checkpoint()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hand all of *buffer* to the kernel.

        :raises httpcore.WriteTimeout: it did not take all within *timeout* seconds; closed.
        :raises httpcore.WriteError: the connection is broken, or closed by us.
        """
        # A caller who is cancelled already sends nothing.
        await checkpoint_if_cancelled()
        view = memoryview(buffer)
        while view:
            try:
                sent = self._socket.send(view)
            except _NOT_NOW as exc:
                # Part of a TLS record may be on its way.
                self.bytes_written += isinstance(self._socket, ssl.SSLSocket)
                sent = await self._when_ready(
                    self._socket.send,
                    view,
                    exc,
                    timeout,
                    httpcore.WriteTimeout,
                    httpcore.WriteError,
                )
            except OSError as exc:
                raise httpcore.WriteError(str(exc)) from exc
            self.bytes_written += sent
            view = view[sent:]

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> SocketStream:
        """The same connection with TLS; this object is not to be used any more.

        :raises httpcore.ConnectTimeout: no handshake within *timeout* seconds.
        :raises httpcore.ConnectError: it failed; ``ssl.SSLError`` is its cause where TLS
            refused. However it ends badly, the socket is closed.
        """
        try:
            sock = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
        except (OSError, ValueError) as exc:
            self.close()
            close_orphan(exc)
            raise httpcore.ConnectError(str(exc)) from exc
        stream = SocketStream(sock, self._watch)
        try:
            await stream.handshake(timeout)
        except BaseException:
            stream.close()
            raise
        return stream

    async def handshake(self, timeout: float | None = None) -> None:
        """Agree on keys with the peer, and check who it is. The same errors as ``start_tls``."""
        sock = self._socket
        assert isinstance(sock, ssl.SSLSocket)
        await checkpoint_if_cancelled()
        try:
            sock.do_handshake()
        except _NOT_NOW as exc:
            await self._when_ready(
                sock.do_handshake,
                False,  # do_handshake(block=False): the socket never blocks anyway
                exc,
                timeout,
                httpcore.ConnectTimeout,
                httpcore.ConnectError,
            )
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc

    async def _when_ready(
        self,
        operation: Callable[[_Argument], _Result],
        argument: _Argument,
        reason: OSError,
        timeout: float | None,
        late: type[Exception],
        broken: type[Exception],
    ) -> _Result:
        """Wait as *reason* says, then try *operation* again, until it is done or too late."""
        writing = broken is httpcore.WriteError
        watch = self._watch
        if timeout is None:
            return await self._retry(operation, argument, reason, broken, writing=writing)
        deadline = anyio.current_time() + timeout
        if watch is None or not watch.running:
            with anyio.CancelScope(deadline=deadline) as scope:
                return await self._retry(operation, argument, reason, broken, writing=writing)
            if scope.cancelled_caught:
                self._expire()
            raise late(f"{timeout:g} s passed")
        key = (self, writing)
        watch.arm(key, deadline, self._expire)
        try:
            return await self._retry(operation, argument, reason, broken, writing=writing)
        except broken:
            if self._expired:
                raise late(f"{timeout:g} s passed") from None
            raise
        finally:
            watch.disarm(key)

    async def _retry(
        self,
        operation: Callable[[_Argument], _Result],
        argument: _Argument,
        reason: OSError,
        broken: type[Exception],
        *,
        writing: bool,
    ) -> _Result:
        while True:
            # TLS may have to write before it can read, and the other way round.
            to_write = isinstance(reason, ssl.SSLWantWriteError) or (
                writing and not isinstance(reason, ssl.SSLWantReadError)
            )
            try:
                await (anyio.wait_writable if to_write else anyio.wait_readable)(self._socket)
                return operation(argument)
            except _NOT_NOW as exc:
                reason = exc
            except (anyio.ClosedResourceError, ValueError) as exc:
                # ValueError: asyncio, told to wait for a socket without a descriptor.
                raise broken("closed by us") from exc
            except (OSError, anyio.BusyResourceError) as exc:
                raise broken(str(exc)) from exc

    def _expire(self) -> None:
        self._expired = True
        self.close()

    def close(self) -> None:
        """Close the socket, now. Whoever waits on it gets an error. Idempotent."""
        if not self._closed:
            self._closed = True
            if self._socket.fileno() >= 0:
                anyio.notify_closing(self._socket)
                self._socket.close()

    async def aclose(self) -> None:
        """As :meth:`close`, which it calls before anything else; then a checkpoint."""
        self.close()
        await checkpoint()

    def is_readable(self) -> bool:
        """Whether a read would not wait: there are bytes, the end, or an error."""
        if self._closed:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        if isinstance(self._socket, ssl.SSLSocket):
            return self._has_plaintext(self._socket, self._poll)
        return bool(self._poll.poll(0))

    def _has_plaintext(self, sock: ssl.SSLSocket, poll: select.poll) -> bool:
        """TLS has words of its own, such as the session tickets after a handshake (RFC 8446,
        4.6.1): only a read tells them from what the peer says.
        """
        if self._early or sock.pending():
            return True
        if not poll.poll(0):
            return False
        try:
            self._early = sock.recv(1)
        except _NOT_NOW:
            return False
        except OSError:
            pass  # whoever reads next is told
        return True

    def get_extra_info(self, info: str) -> Any:
        """What httpcore's streams know, and ``bytes_written``; ``None`` for anything else."""
        sock = self._socket
        match info:
            case "is_readable":
                return self.is_readable()
            case "bytes_written":
                return self.bytes_written
            case "ssl_object":
                return sock if isinstance(sock, ssl.SSLSocket) else None
            case "socket":
                return sock
            case "client_addr":
                return sock.getsockname()
            case "server_addr":
                return sock.getpeername()
        return None

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._socket.fileno()}"
        return f"<SocketStream {state} bytes_written={self.bytes_written}>"


@final
class AnyIOBackend(httpcore.AsyncNetworkBackend):
    """Connections through anyio, on trio and asyncio.

    :param address_check: asked about every address before one is connected to.
    :param watch: keeps the timeouts of the streams while it runs; cancel scopes do otherwise.
    """

    __slots__ = ("_address_check", "_watch")

    def __init__(
        self, *, address_check: AddressCheck | None = None, watch: DeadlineWatch | None = None
    ) -> None:
        self._address_check = address_check
        self._watch = watch

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> SocketStream:
        """Resolve, check and connect.

        :raises httpcore.ConnectError, httpcore.ConnectTimeout: no connection.
        :raises ConnectError: the address check refused.
        """
        if local_address is not None:
            raise NotImplementedError("a local address cannot be chosen")
        deadline = anyio.current_time() + timeout if timeout is not None else None
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline) as scope:
            addresses = await resolve(host, port, self._address_check)
            try:
                sock = await open_socket(addresses)
            except OSError as exc:
                raise httpcore.ConnectError(exc.strerror or str(exc)) from exc
            stream = SocketStream(sock, self._watch)
            try:
                for option in socket_options or ():
                    sock.setsockopt(*option)
            except OSError as exc:
                stream.close()
                raise httpcore.ConnectError(f"socket option refused: {exc}") from exc
            return stream
        assert scope.cancelled_caught
        raise httpcore.ConnectTimeout(f"{timeout:g} s passed")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> SocketStream:
        """Not offered: an upstream has a URL."""
        raise NotImplementedError("Unix sockets are not offered")

    async def sleep(self, seconds: float) -> None:
        """As ``anyio.sleep``."""
        await anyio.sleep(seconds)
