"""A WebSocket under asyncio: the protocol core of websockets on our own stream.

Of that library only the part without I/O is used: its asyncio layer opens and closes sockets in
ways of its own, and would have to be told everything twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, final

import anyio

from sark_trio.errors import ConnectError, ProtocolError
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
    from websockets.client import ClientProtocol
    from websockets.frames import Frame

__all__ = ["converse"]

_INVALID_DATA = 1007


async def converse(pipe: Pipe, upgrade: Upgrade, body: Body) -> None:
    """Open a WebSocket on *pipe* and run *body* on it.

    :raises HTTPStatusError: the server refuses.
    :raises ProtocolError: it does not speak WebSocket, or not ours.
    :raises ConnectError: it hung up instead.
    """
    from websockets.client import ClientProtocol  # noqa: PLC0415 - an extra
    from websockets.typing import Subprotocol  # noqa: PLC0415 - an extra
    from websockets.uri import WebSocketURI  # noqa: PLC0415 - an extra

    origin = upgrade.url.origin
    path, _, query = upgrade.url.target.partition("?")
    protocol = ClientProtocol(
        WebSocketURI(origin.is_tls, origin.host, origin.port, path, query),
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        max_size=upgrade.message_bytes_max,
    )
    request = protocol.connect()
    for name, value in upgrade.headers:
        request.headers[name.decode()] = value.decode()
    protocol.send_request(request)
    channel = _AsyncioChannel(protocol, pipe)
    await channel.open()
    check_subprotocol(protocol.subprotocol)
    await body(channel)


@final
class _AsyncioChannel(Channel):
    def __init__(self, protocol: ClientProtocol, pipe: Pipe) -> None:
        from websockets.frames import Opcode  # noqa: PLC0415 - an extra

        self._opcodes = Opcode
        self._protocol = protocol
        self._pipe = pipe
        # Messages of ours, pings and pongs: each frame goes out whole.
        self._writing = anyio.Lock(fast_acquire=True)
        self._inbox: deque[bytes | None] = deque()
        self._parts = bytearray()
        self._is_text = False
        self._numbers = itertools.count()
        self._pongs: dict[bytes, anyio.Event] = {}

    async def open(self) -> None:
        """Make the opening handshake."""
        from websockets.exceptions import InvalidStatus  # noqa: PLC0415 - an extra
        from websockets.protocol import CONNECTING  # noqa: PLC0415 - an extra

        protocol = self._protocol
        await self._flush()
        while protocol.state is CONNECTING and protocol.handshake_exc is None:
            data = await self._pipe.read()
            if data:
                protocol.receive_data(data)
                continue
            protocol.receive_eof()  # a refusal may end with the connection
            if not isinstance(protocol.handshake_exc, InvalidStatus):
                raise ConnectError("the server hung up during the WebSocket's opening handshake")
        failure = protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            response = failure.response
            pairs = response.headers.raw_items()
            headers = tuple((name.encode(), value.encode("latin-1")) for name, value in pairs)
            raise refusal(response.status_code, headers) from None
        if failure is not None:
            raise ProtocolError(f"no WebSocket: {failure}") from failure
        self._take()  # what came along with the handshake's end

    async def send(self, message: bytes) -> None:
        self._check_open()
        self._protocol.send_text(message)
        await self._flush()

    async def receive(self) -> bytes | None:
        while not self._inbox:
            self._check_open()
            try:
                await self._read()
            except HungUp:
                if not self._inbox:  # its last words may be an answer
                    raise
        return self._inbox.popleft()

    async def ping(self) -> None:
        self._check_open()
        payload = b"%d" % next(self._numbers)
        pong = self._pongs[payload] = anyio.Event()
        self._protocol.send_ping(payload)
        await self._flush()
        await pong.wait()

    async def close(self, code: int) -> None:
        try:
            self._check_open()
            self._protocol.send_close(code)
            await self._flush()
            while self._protocol.close_rcvd is None:
                await self._read()
        except HungUp:
            return

    async def _read(self) -> None:
        data = await self._pipe.read()
        if not data:
            self._protocol.receive_eof()
            raise self._end()
        self._protocol.receive_data(data)
        self._take()
        await self._flush()

    def _take(self) -> None:
        from websockets.frames import Frame  # noqa: PLC0415 - an extra

        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is self._opcodes.PONG:
            pong = self._pongs.pop(bytes(frame.data), None)
            if pong is not None:
                pong.set()
        elif frame.opcode in {self._opcodes.TEXT, self._opcodes.BINARY, self._opcodes.CONT}:
            if frame.opcode is not self._opcodes.CONT:
                self._is_text = frame.opcode is self._opcodes.TEXT
            self._parts += frame.data
            if frame.fin:
                self._take_message(bytes(self._parts))
                self._parts.clear()

    def _take_message(self, message: bytes) -> None:
        if not self._is_text:
            self._inbox.append(None)
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            # RFC 6455, section 8.1: the connection fails. The library leaves that to us.
            self._protocol.fail(_INVALID_DATA)
            return
        self._inbox.append(message)

    async def _flush(self) -> None:
        frames = self._protocol.data_to_send()
        if not frames:
            return  # whoever reads must not wait for whoever writes: the server may do both in turn
        async with self._writing:
            for data in frames:
                # Nothing stands for the end of what we have to say; the socket says that.
                if data and not await self._pipe.write(data):
                    raise HungUp(ABNORMAL)

    def _check_open(self) -> None:
        from websockets.protocol import OPEN  # noqa: PLC0415 - an extra

        if self._protocol.state is not OPEN:
            raise self._end()

    def _end(self) -> HungUp:
        from websockets.exceptions import PayloadTooBig  # noqa: PLC0415 - an extra

        protocol = self._protocol
        if isinstance(protocol.parser_exc, PayloadTooBig):
            self._pipe.fail(self._pipe.too_large)
        close = protocol.close_rcvd or protocol.close_sent
        return HungUp(ABNORMAL) if close is None else HungUp(close.code, close.reason)
