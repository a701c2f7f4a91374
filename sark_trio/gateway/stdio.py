"""The MCP endpoint on standard input and output: for the host that started this process.

One host, one principal, both eras on one pipe: a request that names 2026-07-28 in its ``_meta``
is answered as that revision wants, and ``initialize`` opens the session of the older ones.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from sark_trio import GatewayClient, Principal
from sark_trio.errors import ProtocolError
from sark_trio.gateway.envelope import check_meta, is_modern_call
from sark_trio.gateway.host import Host
from sark_trio.gateway.listening import listen, saying
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcRefused,
    no_method,
)
from sark_trio.gateway.roof import only_server
from sark_trio.gateway.rpc import Made, answer, made_by, malformed, refusal
from sark_trio.gateway.visitor import Put, Tell, Visitor
from sark_trio.machines.lines import LineSplitter, TooLong
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.codec import decode, encode_result, readable_id
from sark_trio.mcp.messages import Failure, Request, RequestId, Success
from sark_trio.mcp.versions import LEGACY

__all__ = ["serve_stdio"]

#: Requests at once; each holds a task.
CALLS_MAX: Final = 100
#: Messages that wait for a host that does not read. Answers wait for room; progress, which later
#: progress supersedes, is left out.
MESSAGES_MAX: Final = 64
_READ_BYTES: Final = 64 * 1024
#: A pipe that is writable takes so many bytes without blocking (POSIX, PIPE_BUF on Linux), so
#: that its descriptor can stay as it is: other programs may hold it, too.
_WRITE_BYTES: Final = 4_096
#: JSON-RPC has no code for it; ours is that of HTTP.
_OVERLOADED: Final = 503


async def serve_stdio(
    client: GatewayClient,
    *,
    reading: int,
    writing: int,
    principal: Principal | None = None,
    instructions: str | None = None,
    grace_s: float = 5.0,
    stop: anyio.Event | None = None,
    passthrough: bool = False,
) -> None:
    """Serve one host until it closes its end, or until *stop*.

    Then requests under way get *grace_s* to end, and are cancelled after that.

    :param reading, writing: descriptors; nothing else may read from or write to them meanwhile.
        They are not closed.
    :param principal: who the host is; default: the client's principal.
    :param instructions: what models are told about this gateway.
    :param passthrough: the client has one server only, and its own names are shown.
    :raises ConfigError: *passthrough*, and there is not exactly one server.
    """
    methods = Methods(client, instructions, only_server(client) if passthrough else None)
    outbox, messages = anyio.create_memory_object_stream[bytes](MESSAGES_MAX)
    async with anyio.create_task_group() as tasks:
        talk = _Conversation(methods, principal, outbox, tasks)
        written = anyio.Event()
        tasks.start_soon(_write_all, writing, messages, written, tasks.cancel_scope)
        with anyio.CancelScope() as listening:
            if stop is not None:
                tasks.start_soon(_cancel_after, stop, listening)
            await _read_all(reading, talk.take)
        talk.end_streams()
        with anyio.move_on_after(grace_s):
            await talk.idle()
            outbox.close()
            await written.wait()
        tasks.cancel_scope.cancel()
    outbox.close()


@final
@define(eq=False)
class _Conversation:
    """What the host has asked, and what is under way."""

    _methods: Methods
    _principal: Principal | None
    _outbox: MemoryObjectSendStream[bytes]
    _tasks: TaskGroup
    #: The revision that ``initialize`` agreed on.
    _version: str | None = field(default=None, init=False)
    _calls: dict[RequestId, anyio.CancelScope] = field(factory=dict, init=False)
    #: Who is at the other end, where ``initialize`` said so.
    _host: Host = field(factory=Host, init=False)
    #: Of what belongs to no call.
    _stream: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    async def take(self, line: bytes | TooLong) -> None:
        """One line of the host's."""
        if isinstance(line, TooLong):
            too_long = RpcRefused(PARSE_ERROR, f"longer than {line.limit_bytes} bytes")
            await self._outbox.send(refusal(None, too_long))
            return
        try:
            message = decode(line)
        except ProtocolError:
            await self._outbox.send(refusal(readable_id(line), malformed(line)))
            return
        if isinstance(message, Request):
            try:
                await self._request(message)
            except RpcRefused as exc:
                await self._outbox.send(refusal(message.id, exc))
        elif isinstance(message, Success | Failure):
            self._host.on_answer(message)
        elif message.method == "notifications/cancelled":
            scope = self._calls.get(message.params.get("requestId", ""))
            if scope is not None:
                scope.cancel()

    def end_streams(self) -> None:
        """End what would go on for ever."""
        self._closing.set()
        self._stream.cancel()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._calls:
            self._ended = anyio.Event()
            await self._ended.wait()

    async def _request(self, call: Request) -> None:
        modern = is_modern_call(call, {})
        if modern:
            check_meta(call)
        elif call.method == "initialize":
            await self._outbox.send(await self._initialize(call))
            return
        elif self._version is None and call.method != "ping":
            raise RpcRefused(INVALID_REQUEST, "send initialize first, or name a version in _meta")
        make = self._made_by(call, modern=modern)
        if make is None:
            raise no_method()
        if call.id in self._calls:
            raise RpcRefused(INVALID_REQUEST, "a request with this id is under way")
        if len(self._calls) >= CALLS_MAX:
            raise RpcRefused(_OVERLOADED, f"{CALLS_MAX} requests are under way already")
        scope = self._calls[call.id] = anyio.CancelScope()
        visitor = self._visitor(call, scope, modern=modern)
        self._tasks.start_soon(self._answer, call, make, scope, visitor)

    def _made_by(self, call: Request, *, modern: bool) -> Made | None:
        if not modern:
            return made_by(self._methods, call, modern=False) or self._host.made_by(
                self._methods, call
            )
        if call.method == LISTEN:
            return partial(listen, self._methods, call, self._closing)
        return made_by(self._methods, call, modern=True)

    async def _answer(
        self, call: Request, make: Made, scope: anyio.CancelScope, visitor: Visitor
    ) -> None:
        try:
            with scope:
                _, data = await answer(call, make, visitor)
                await self._outbox.send(data)
        finally:
            del self._calls[call.id]
            self._ended.set()

    def _visitor(self, call: Request, scope: anyio.CancelScope, *, modern: bool) -> Visitor:
        tell, put = self._while_wanted(scope)
        if modern:
            return Visitor(
                principal=self._principal,
                modern=True,
                offers=Visitor.offers_in(call.params),
                log_level=Visitor.level_in(call.params),
                tell=tell,
                put=put,
            )
        return Visitor(
            principal=self._principal,
            modern=False,
            offers=self._host.offers,
            log_level=self._host.log_level,
            tell=tell,
            # A question that is given up is taken back, whatever became of its call.
            ask=partial(self._host.ask, self._tell),
        )

    def _while_wanted(self, scope: anyio.CancelScope) -> tuple[Tell, Put]:
        """A cancelled request gets no message any more (2026-07-28, "Cancellation")."""

        def tell(data: bytes) -> bool:
            return not scope.cancel_called and self._tell(data)

        async def put(data: bytes) -> None:
            if not scope.cancel_called:
                await self._outbox.send(data)

        return tell, put

    def _tell(self, data: bytes) -> bool:
        try:
            self._outbox.send_nowait(data)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def _initialize(self, call: Request) -> bytes:
        wanted = call.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcRefused(INVALID_PARAMS, "'protocolVersion' must be a string")
        agreed = wanted if wanted in LEGACY else LEGACY[0]
        about = await self._methods.initialization(agreed)
        again, self._version = self._version is not None, agreed
        self._host.offers = Host.offers_in(call.params)
        if not again:
            self._tasks.start_soon(self._hear)
        return encode_result(call.id, about)

    async def _hear(self) -> None:
        """Tell the host what changes, once it has said that it is there."""
        say = saying(self._outbox.send)
        with self._stream:
            await self._host.listen(self._methods, self._principal, say)


async def _cancel_after(stop: anyio.Event, scope: anyio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


async def _read_all(fd: int, take: Callable[[bytes | TooLong], Awaitable[None]]) -> None:
    """Hand every line to *take*, until the end."""
    lines = LineSplitter()
    while True:
        await _ready(anyio.wait_readable, fd)
        chunk = os.read(fd, _READ_BYTES)
        if not chunk:
            return
        for line in lines.feed(chunk):
            await take(line)


async def _write_all(
    fd: int,
    messages: MemoryObjectReceiveStream[bytes],
    written: anyio.Event,
    scope: anyio.CancelScope,
) -> None:
    """Write every message as a line. Where nobody reads any more, all of it ends."""
    try:
        with messages:
            async for message in messages:
                rest = memoryview(message + b"\n")
                while rest:
                    await _ready(anyio.wait_writable, fd)
                    rest = rest[os.write(fd, rest[:_WRITE_BYTES]) :]
    except BrokenPipeError:
        scope.cancel()
    finally:
        written.set()


async def _ready(wait: Callable[[int], Awaitable[None]], fd: int) -> None:
    try:
        await wait(fd)
    except PermissionError:
        # A file is always ready, and no event loop can wait for it.
        await anyio.lowlevel.checkpoint()
