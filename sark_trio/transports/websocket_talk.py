"""One WebSocket and the conversation on it, from dial to farewell.

Three tasks serve it: one reads, one writes what callers queued, one pings a server that may be
gone without a word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Final, final

import anyio
import httpcore
from attrs import define, field

from sark_trio.errors import (
    ConnectError,
    ConnectTimeout,
    Delivery,
    GatewayError,
    ProtocolError,
    ServerDisconnected,
    TransportNotAvailableError,
)
from sark_trio.net.dial import close_stream, dial
from sark_trio.net.options import Timeouts
from sark_trio.net.tls import TLSOptions
from sark_trio.transports._websocket_pipe import (
    Body,
    Channel,
    HungUp,
    Pipe,
    Upgrade,
    error_for,
)
from sark_trio.transports.conversation import Conversation

__all__ = ["WebSocketTalk"]

#: For saying goodbye.
FAREWELL_S: Final = 1.0
#: RFC 6455, section 7.4.1.
_NORMAL: Final = 1000
_TOO_BIG: Final = 1009

Converse = Callable[[Pipe, Upgrade, Body], Awaitable[None]]


@final
@define(eq=False, repr=False, kw_only=True)
class WebSocketTalk(Conversation):
    """The conversation on one WebSocket."""

    upgrade: Upgrade
    tls: TLSOptions
    timeouts: Timeouts
    backend: httpcore.AsyncNetworkBackend
    ping_interval_s: float
    pong_timeout_s: float
    _pipe: Pipe = field(init=False)
    _close_code: int = field(default=_NORMAL, init=False)

    async def run(self, handshake: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`Conversation.run`."""
        converse = _library()
        limit_s = self.timeouts.connect_s
        self._opening.deadline = anyio.current_time() + limit_s
        try:
            with self._opening as opening:
                await self._connect(converse, handshake)
            if opening.cancelled_caught and self._verdict is None:
                raise ConnectTimeout(f"{self.name}: no WebSocket within {limit_s:g} s")
        finally:
            self.condemn(self._stopped)

    async def _connect(self, converse: Converse, handshake: Callable[[], Awaitable[None]]) -> None:
        origin = self.upgrade.url.origin
        stream = (await dial(origin, self.backend, self.tls, self.timeouts)).stream
        try:
            pipe = Pipe(stream, self.message_bytes_max, self.timeouts.write_s)
            self._pipe = pipe
            await converse(pipe, self.upgrade, partial(self._talk, handshake))
        finally:
            await close_stream(stream)

    async def _talk(self, handshake: Callable[[], Awaitable[None]], channel: Channel) -> None:
        self._opened()
        async with anyio.create_task_group() as tasks:
            self.answer_in(tasks)
            for body in (self._read, self._write, self._ping):
                tasks.start_soon(body, channel)
            await handshake()
            await self._condemned.wait()
            tasks.cancel_scope.cancel()
        with anyio.move_on_after(FAREWELL_S):
            await channel.close(self._close_code)

    async def _read(self, channel: Channel) -> None:
        try:
            while self.alive:
                message = await channel.receive()
                self._pipe.on_message()
                self._take(message)
        except HungUp as end:
            self._hang_up(end)

    def _take(self, message: bytes | None) -> None:
        now = anyio.current_time()
        if message is None:  # binary: JSON-RPC is text
            fine = self._board.count_garbage(now)
        elif len(message) > self.message_bytes_max:
            self._close_code = _TOO_BIG
            self.condemn(self._pipe.too_large)
            return
        else:
            fine = self._board.receive(message, now)
        if not fine:
            self.condemn(self._not_mcp)

    async def _write(self, channel: Channel) -> None:
        while self.alive:
            if not self._outbox:
                await self._outbox.wait_entry()
                continue  # condemned meanwhile, perhaps
            entry = self._outbox.first()
            before = self._pipe.bytes_written
            entry.begin()  # it cannot be taken back: the library has it
            self._pipe.on_message()
            try:
                await channel.send(bytes(entry.data))
            except HungUp as end:
                entry.begun = self._pipe.bytes_written > before
                self._hang_up(end)
                return
            self._outbox.advance(len(entry.data))

    async def _ping(self, channel: Channel) -> None:
        try:
            while True:
                await anyio.sleep(self.ping_interval_s)
                with anyio.fail_after(self.pong_timeout_s):
                    await channel.ping()
        except TimeoutError:
            self.condemn(self._silent)
        except HungUp as end:
            self._hang_up(end)

    def _opened(self) -> None:
        self._opening.deadline = inf
        # From here on a farewell is due, which a cancelled scope would not let us say.
        self._opening = anyio.CancelScope()

    def _hang_up(self, end: HungUp) -> None:
        self.condemn(self._pipe.verdict or partial(error_for, self.name, end))

    def _not_mcp(self, delivery: Delivery) -> GatewayError:
        return ProtocolError(f"{self.name} sends what is no MCP", delivery=delivery)

    def _silent(self, delivery: Delivery) -> GatewayError:
        return ServerDisconnected(
            f"{self.name} did not answer a ping for {self.pong_timeout_s:g} s", delivery=delivery
        )


def _library() -> Converse:
    """The library for the event loop that runs us."""
    trio = anyio.get_cancelled_exc_class().__module__.startswith("trio")
    try:
        if trio:
            import trio_websocket  # noqa: F401, PLC0415 - an optional extra

            from sark_trio.transports import _websocket_trio  # noqa: PLC0415 - needs it

            return _websocket_trio.converse
        import websockets  # noqa: F401, PLC0415 - an optional extra

        from sark_trio.transports import _websocket_asyncio  # noqa: PLC0415 - needs it
    except ImportError as exc:
        raise TransportNotAvailableError(
            "ws:// and wss:// need libraries: pip install 'sark_trio[websocket]'"
        ) from exc
    except OSError as exc:
        # No descriptor is left to read the module with; for now.
        raise ConnectError(f"the library for WebSockets cannot be loaded: {exc.strerror}") from exc
    return _websocket_asyncio.converse
