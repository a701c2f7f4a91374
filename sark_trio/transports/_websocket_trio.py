"""A WebSocket under trio: trio-websocket on our own stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import h11
import trio

from sark_trio.errors import ConnectError, GatewayError, ProtocolError
from sark_trio.transports._websocket_pipe import (
    ABNORMAL,
    SUBPROTOCOL,
    Body,
    Channel,
    HungUp,
    Pipe,
    Upgrade,
    check_subprotocol,
    refusal,
)

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

__all__ = ["converse"]

#: Bytes for each time that the library reads.
_READ_BYTES = 64 * 1024


async def converse(pipe: Pipe, upgrade: Upgrade, body: Body) -> None:
    """Open a WebSocket on *pipe* and run *body* on it.

    :raises HTTPStatusError: the server refuses.
    :raises ProtocolError: it does not speak WebSocket, or not ours.
    :raises ConnectError: it hung up instead.
    """
    from trio_websocket import ConnectionRejected, wrap_client_stream  # noqa: PLC0415 - an extra
    from wsproto.utilities import ProtocolError as Breach  # noqa: PLC0415 - comes along with it

    refused: GatewayError | None = None
    # The library waits without end for a server that hangs up instead of answering.
    opening = trio.CancelScope()
    pipe.on_end = opening.cancel
    try:
        async with trio.open_nursery() as nursery:
            with opening:
                socket = await wrap_client_stream(
                    nursery,
                    _Stream(pipe),  # type: ignore[arg-type] # it needs no more of a stream
                    upgrade.url.origin.authority,
                    upgrade.url.target,
                    subprotocols=[SUBPROTOCOL],
                    extra_headers=list(upgrade.headers),
                    max_message_size=upgrade.message_bytes_max,
                    receive_buffer_size=_READ_BYTES,
                )
            pipe.on_end = None
            if opening.cancelled_caught:
                raise ConnectError("the server hung up during the WebSocket's opening handshake")
            check_subprotocol(socket.subprotocol)
            await body(_TrioChannel(socket, pipe, upgrade.message_bytes_max))
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as group:
        rejected = group.exceptions[0]
        assert isinstance(rejected, ConnectionRejected)
        refused = refusal(rejected.status_code, rejected.headers)
    except* (Breach, h11.ProtocolError) as group:
        # The library's reader stumbled; what that means for calls, the body has seen as an end.
        refused = ProtocolError(f"no WebSocket: {group.exceptions[0]}")
    except* GatewayError as group:
        one = group.exceptions[0]
        assert isinstance(one, GatewayError)
        refused = one
    if refused is not None:
        raise refused


@final
class _Stream:
    """:class:`Pipe` as a stream of trio's."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def send_all(self, data: bytes) -> None:
        if not await self._pipe.write(data):
            raise trio.BrokenResourceError

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        return await self._pipe.read()

    async def aclose(self) -> None:
        await self._pipe.close()


@final
class _TrioChannel(Channel):
    def __init__(self, socket: WebSocketConnection, pipe: Pipe, message_bytes_max: int) -> None:
        from trio_websocket import ConnectionClosed  # noqa: PLC0415 - an extra

        self._socket = socket
        self._pipe = pipe
        self._too_large = f"Exceeded maximum message size: {message_bytes_max} bytes"
        self._closed = ConnectionClosed

    async def send(self, message: bytes) -> None:
        try:
            await self._socket.send_message(message.decode())
        except self._closed:
            raise self._end() from None

    async def receive(self) -> bytes | None:
        try:
            message = await self._socket.get_message()
        except self._closed:
            raise self._end() from None
        return message.encode() if isinstance(message, str) else None

    async def ping(self) -> None:
        try:
            await self._socket.ping()
        except self._closed:
            raise self._end() from None

    async def close(self, code: int) -> None:
        await self._socket.aclose(code)

    def _end(self) -> HungUp:
        closed = self._socket.closed
        if closed is None:
            return HungUp(ABNORMAL)
        reason = closed.reason or ""
        if reason == self._too_large:
            self._pipe.fail(self._pipe.too_large)  # found by the library, on our behalf
        return HungUp(closed.code, reason)
