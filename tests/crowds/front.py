"""A relay on real sockets that stands before a server and takes its connections away."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import anyio
import anyio.abc
from attrs import define, field

__all__ = ["Front"]

_BROKEN = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@define(eq=False)
class Front:
    """Passes bytes on to *target*, until it is told otherwise.

    :param port: where it listens; the same one each time it is opened.
    """

    port: int
    target: int
    tasks: anyio.abc.TaskGroup
    #: Connections that it passes on now, and at most.
    open: int = 0
    open_max: int = 0
    _flowing: anyio.Event = field(factory=anyio.Event)
    _listening: anyio.CancelScope | None = None
    _relays: dict[anyio.CancelScope, anyio.abc.SocketStream] = field(factory=dict)

    async def listen(self) -> None:
        """Accept connections, and let bytes through."""
        self._flowing.set()
        if self._listening is None:
            await self.tasks.start(self._serve)

    def refuse(self) -> None:
        """Nobody listens from now on."""
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def stall(self) -> None:
        """Swallow bytes of either side; nobody is told."""
        self._flowing = anyio.Event()

    def flow(self) -> None:
        """Let bytes through again."""
        self._flowing.set()

    def reset(self) -> None:
        """End each connection with an RST."""
        for scope, stream in self._relays.items():
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            if raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            scope.cancel()

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
        with anyio.CancelScope() as scope:
            self._listening = scope
            async with listener:
                task_status.started()
                await listener.serve(self._relay, self.tasks)

    async def _relay(self, client: anyio.abc.SocketStream) -> None:
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            with anyio.CancelScope() as scope, suppress(*_BROKEN):
                self._relays[scope] = client
                async with (
                    client,
                    await anyio.connect_tcp("127.0.0.1", self.target) as server,
                    anyio.create_task_group() as tasks,
                ):
                    tasks.start_soon(self._pass, client, server, tasks.cancel_scope)
                    tasks.start_soon(self._pass, server, client, tasks.cancel_scope)
        finally:
            self._relays.pop(scope, None)
            self.open -= 1

    async def _pass(
        self,
        source: anyio.abc.SocketStream,
        sink: anyio.abc.SocketStream,
        both: anyio.CancelScope,
    ) -> None:
        with suppress(*_BROKEN):
            while True:
                data = await source.receive()
                await self._flowing.wait()
                await sink.send(data)
        # Whoever of the two ends, ends both.
        both.cancel()
