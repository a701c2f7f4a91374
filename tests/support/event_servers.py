"""Servers of event streams, to the byte, and streams to read them with.

The same scripts run on loopback sockets (``http_servers.serve``) and in memory: there waiting
takes no real time, so that on trio's mock clock a minute of silence is over at once.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio.machines.slots import PoolOptions
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.transports.events import EventStream, EventStreams, ServerEvent
from tests.support.http_servers import (
    SSE_END,
    SSE_HEAD,
    Peer,
    RawServer,
    Received,
    Script,
    chunk,
    response,
)

__all__ = [
    "MemoryNetwork",
    "answering",
    "block",
    "data_of",
    "memory_streams",
    "open_streams",
    "refused_by_tls",
    "refusing",
    "saying",
    "take",
]

BASE = "http://gateway.test"


# What servers say.


def block(data: str | None = None, *, kind: str | None = None, id: str | None = None) -> str:  # noqa: A002
    """One block of a stream: an event, unless it has no data."""
    lines = [] if kind is None else [f"event: {kind}"]
    lines += [] if id is None else [f"id: {id}"]
    lines += [] if data is None else [f"data: {data}"]
    return "".join(f"{line}\n" for line in lines) + "\n"


def saying(*parts: str | bytes | float, then: str = "wait") -> Script:
    """Begin a stream and say *parts*, each in a chunk of its own; numbers are seconds of silence.

    :param then: ``wait`` for the client to go, ``end`` the response as one does, or ``cut`` it.
    """

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(SSE_HEAD)
        for part in parts:
            if isinstance(part, int | float):
                await _silence(part)
            else:
                await peer.send(chunk(part.encode() if isinstance(part, str) else part))
        if then == "end":
            await peer.send(SSE_END)
        elif then == "wait":
            await peer.wait_closed()

    return script


async def _silence(seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await anyio.sleep_forever()


def answering(status: str, content_type: str = "text/plain", **headers: str) -> Script:
    """Answer every request with the same whole response."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send(response(b"no", status, content_type, **headers))

    return script


async def refusing(peer: Peer) -> None:
    """Take the request and close without a word."""
    await peer.receive()


# A network in memory.


@define(eq=False)
class _Pipe:
    """One end of a connection in memory: what a peer's script, and httpcore, need of a stream."""

    incoming: Any
    outgoing: Any

    async def receive(self) -> bytes:
        return await self.incoming.receive()  # type: ignore[no-any-return]

    async def send(self, data: bytes) -> None:
        await self.outgoing.send(data)

    def close(self) -> None:
        self.incoming.close()
        self.outgoing.close()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()


@define(eq=False)
class _Stream(httpcore.AsyncNetworkStream):
    """The client's end, as httpcore's interface has it."""

    pipe: _Pipe
    network: MemoryNetwork
    rest: bytes = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            if not self.rest:
                with anyio.fail_after(timeout):
                    self.rest = await self.pipe.receive()
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        except anyio.EndOfStream:
            return b""
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
            raise httpcore.ReadError from exc
        data, self.rest = self.rest[:max_bytes], self.rest[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with anyio.fail_after(timeout):
                await self.pipe.send(buffer)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
            raise httpcore.WriteError from exc

    async def aclose(self) -> None:
        self.network.open.discard(self)
        self.pipe.close()

    def get_extra_info(self, info: str) -> Any:
        return None


@define(eq=False)
class MemoryNetwork(httpcore.AsyncNetworkBackend):
    """A network with one server in it: the n-th connection gets the n-th script or error.

    All later connections get the last one.
    """

    scripts: tuple[Script | Exception, ...]
    group: TaskGroup
    server: RawServer = field(factory=RawServer)
    #: When each connection was asked for.
    times: list[float] = field(factory=list)
    #: Connections that the client has not closed, and most of them at one time.
    open: set[_Stream] = field(factory=set)
    open_max: int = 0

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        number = len(self.times)
        self.times.append(anyio.current_time())
        await anyio.lowlevel.checkpoint()
        script = self.scripts[min(number, len(self.scripts) - 1)]
        if isinstance(script, Exception):
            raise script
        # As sockets do, it holds a little, and then makes the sender wait.
        there, here = (anyio.create_memory_object_stream[bytes](4) for _ in range(2))
        self.group.start_soon(self._run, script, number, _Pipe(here[1], there[0]))
        stream = _Stream(_Pipe(there[1], here[0]), self)
        self.open.add(stream)
        self.open_max = max(self.open_max, len(self.open))
        return stream

    async def _run(self, script: Script, number: int, pipe: _Pipe) -> None:
        try:
            await script(Peer(number, self.server, pipe))  # type: ignore[arg-type]
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            pipe.close()

    @property
    def requests(self) -> list[Received]:
        return self.server.requests

    @property
    def resumed_from(self) -> list[str | None]:
        """The Last-Event-ID of each request."""
        return [each.headers.get("last-event-id") for each in self.requests]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one connection and the next."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


# Streams.


@asynccontextmanager
async def open_streams(
    url: str = BASE,
    *,
    backend: httpcore.AsyncNetworkBackend | None = None,
    limits: PoolOptions | None = None,
    **options: Any,
) -> AsyncIterator[EventStreams]:
    """Streams of the gateway at *url*; what is left of them is cancelled at the end.

    Jitter is ½, so that delays are what the schedule names.
    """
    pool = ConnectionPool(
        backend=backend or AnyIOBackend(),
        options=limits or PoolOptions(per_origin=50),
    )
    async with anyio.create_task_group() as group:
        await group.start(pool.run)
        given = {"tasks": lambda: group, "jitter": lambda: 0.5, **options}
        yield EventStreams(url=url, pool=pool, **given)
        group.cancel_scope.cancel()


@asynccontextmanager
async def memory_streams(
    *scripts: Script | Exception, **options: Any
) -> AsyncIterator[tuple[EventStreams, MemoryNetwork]]:
    """Streams of a gateway in memory, and the network that it is in."""
    async with anyio.create_task_group() as group:
        network = MemoryNetwork(scripts, group)
        async with open_streams(backend=network, **options) as streams:
            yield streams, network
        group.cancel_scope.cancel()


async def take(events: EventStream, count: int) -> list[ServerEvent]:
    """The next *count* events."""
    return [await anext(events) for _ in range(count)]


def data_of(events: Iterable[ServerEvent]) -> list[str]:
    """What they say."""
    return [event.data for event in events]


def refused_by_tls() -> httpcore.ConnectError:
    """What a dial fails with where the certificate is not good."""
    error = httpcore.ConnectError("certificate")
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    error.__cause__ = cause
    return error
