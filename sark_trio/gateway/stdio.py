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
from sark_trio.gateway.answering import Teller
from sark_trio.gateway.envelope import check_meta, is_modern_call
from sark_trio.gateway.methods import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    Methods,
    RpcRefused,
    progress_token,
)
from sark_trio.gateway.rpc import Made, Tell, answer, made_by, malformed, refusal
from sark_trio.machines.lines import LineSplitter, TooLong
from sark_trio.mcp.codec import decode, encode_result, readable_id
from sark_trio.mcp.messages import Notification, Request, RequestId
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
) -> None:
    """Serve one host until it closes its end, or until *stop*.

    Then requests under way get *grace_s* to end, and are cancelled after that.

    :param reading, writing: descriptors; nothing else may read from or write to them meanwhile.
        They are not closed.
    :param principal: who the host is; default: the client's principal.
    :param instructions: what models are told about this gateway.
    """
    outbox, messages = anyio.create_memory_object_stream[bytes](MESSAGES_MAX)
    async with anyio.create_task_group() as tasks:
        talk = _Conversation(Methods(client, instructions), principal, outbox, tasks)
        written = anyio.Event()
        tasks.start_soon(_write_all, writing, messages, written, tasks.cancel_scope)
        with anyio.CancelScope() as listening:
            if stop is not None:
                tasks.start_soon(_cancel_after, stop, listening)
            await _read_all(reading, talk.take)
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
        elif isinstance(message, Notification) and message.method == "notifications/cancelled":
            scope = self._calls.get(message.params.get("requestId", ""))
            if scope is not None:
                scope.cancel()

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
            await self._outbox.send(self._initialize(call))
            return
        elif self._version is None and call.method != "ping":
            raise RpcRefused(INVALID_REQUEST, "send initialize first, or name a version in _meta")
        make = made_by(self._methods, call, self._principal, modern=modern)
        if make is None:
            raise RpcRefused(METHOD_NOT_FOUND, "this gateway has no such method")
        if call.id in self._calls:
            raise RpcRefused(INVALID_REQUEST, "a request with this id is under way")
        if len(self._calls) >= CALLS_MAX:
            raise RpcRefused(_OVERLOADED, f"{CALLS_MAX} requests are under way already")
        scope = self._calls[call.id] = anyio.CancelScope()
        self._tasks.start_soon(partial(self._answer, call, make, scope, modern=modern))

    async def _answer(
        self, call: Request, make: Made, scope: anyio.CancelScope, *, modern: bool
    ) -> None:
        try:
            with scope:
                _, data = await answer(call, make, self._teller(call, scope), modern=modern)
                await self._outbox.send(data)
        finally:
            del self._calls[call.id]
            self._ended.set()

    def _teller(self, call: Request, scope: anyio.CancelScope) -> Tell | None:
        token = progress_token(call.params)

        def tell(data: bytes) -> None:
            # A cancelled request gets no message any more (2026-07-28, "Cancellation").
            if not scope.cancel_called:
                try:
                    self._outbox.send_nowait(data)
                except (anyio.WouldBlock, anyio.BrokenResourceError):
                    return

        return None if token is None else Teller(token, tell)

    def _initialize(self, call: Request) -> bytes:
        wanted = call.params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise RpcRefused(INVALID_PARAMS, "'protocolVersion' must be a string")
        self._version = wanted if wanted in LEGACY else LEGACY[0]
        return encode_result(call.id, self._methods.initialization(self._version))


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
