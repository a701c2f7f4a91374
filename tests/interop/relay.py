"""A port in front of a server that copies what goes through it, in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import ByteStream, TaskGroup
from attrs import define, field

__all__ = ["Copied", "Relay", "relay_to"]

_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@define(eq=False)
class Copied:
    """What went over one connection so far."""

    asked: bytearray = field(factory=bytearray)
    answered: bytearray = field(factory=bytearray)


@define(eq=False)
class Relay:
    """Made by :func:`relay_to`. While it is shut, nobody listens at :attr:`url`."""

    _tasks: TaskGroup
    connections: list[Copied] = field(factory=list, init=False)
    #: Where clients find it; the same for as long as it lives.
    url: str = field(default="", init=False)
    _port: int = field(default=0, init=False)
    _target: tuple[str, int] = field(default=("", 0), init=False)
    _open: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _shut: anyio.Event = field(factory=anyio.Event, init=False)

    async def lead_to(self, url: str) -> None:
        """Listen, and pass on to the server at *url*."""
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 0))
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
        self._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._port}"))
        self._open, self._shut = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._serve, listener, self._open, self._shut)

    async def shut(self) -> None:
        """Hang up on everybody, and listen no more."""
        self._open.cancel()
        await self._shut.wait()

    async def _serve(
        self, listener: anyio.abc.Listener[ByteStream], scope: anyio.CancelScope, shut: anyio.Event
    ) -> None:
        try:
            with scope:
                async with listener:
                    await listener.serve(self._handle)
        finally:
            shut.set()

    async def _handle(self, client: ByteStream) -> None:
        copied = Copied()
        self.connections.append(copied)
        async with client:
            with suppress(*_ENDS):
                server = await anyio.connect_tcp(*self._target)
                async with server, anyio.create_task_group() as tasks:
                    tasks.start_soon(_pass_on, client, server, copied.asked)
                    await _pass_on(server, client, copied.answered)
                    tasks.cancel_scope.cancel()  # the server has hung up


async def _pass_on(source: ByteStream, sink: ByteStream, copy: bytearray) -> None:
    with suppress(*_ENDS):
        async for data in source:
            copy.extend(data)
            await sink.send(data)
        await sink.send_eof()


@asynccontextmanager
async def relay_to(urls: Sequence[str] = ()) -> AsyncIterator[Relay]:
    """A relay, shut until it is told where to lead; it leads to the first of *urls* at once."""
    async with anyio.create_task_group() as tasks:
        relay = Relay(tasks)
        for url in urls[:1]:
            await relay.lead_to(url)
        try:
            yield relay
        finally:
            tasks.cancel_scope.cancel()
