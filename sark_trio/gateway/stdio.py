"""The MCP endpoint on standard input and output: for the host that started this process.

One host, one principal, both eras on one pipe: a request that names 2026-07-28 in its ``_meta``
is answered as that revision wants, and ``initialize`` opens the session of the older ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Final, final

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream
from attrs import define, field

from sark_trio import GatewayClient, Principal
from sark_trio.errors import ProtocolError
from sark_trio.gateway.batches import BATCHED, Batch, is_batch, joined
from sark_trio.gateway.calls import Calls
from sark_trio.gateway.envelope import check_meta, is_modern_call
from sark_trio.gateway.host import Host
from sark_trio.gateway.listening import listen, saying
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.pipes import read_lines, write_lines
from sark_trio.gateway.refusals import (
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcRefused,
    no_method,
)
from sark_trio.gateway.roof import only_server
from sark_trio.gateway.rpc import Made, agreed_version, answer, made_by, malformed, refusal
from sark_trio.gateway.tasks import REVISION as TASKS
from sark_trio.gateway.visitor import Put, Tell, Visitor
from sark_trio.machines.lines import TooLong
from sark_trio.mcp.changes import LISTEN
from sark_trio.mcp.codec import decode, encode_result
from sark_trio.mcp.messages import Failure, Message, Request, Success

__all__ = ["serve_stdio"]

#: Requests at once; each holds a task.
CALLS_MAX: Final = 100
#: Messages that wait for a host that does not read. Answers wait for room; progress, which later
#: progress supersedes, is left out.
MESSAGES_MAX: Final = 64
#: JSON-RPC has no code for it; ours is that of HTTP.
_OVERLOADED: Final = 503
#: Makes an answer and hands it over, unless it is cancelled before.
_Answering = Callable[[Put], Awaitable[None]]


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
    with outbox:
        async with anyio.create_task_group() as tasks:
            talk = _Conversation(methods, principal, outbox, tasks)
            written = anyio.Event()
            tasks.start_soon(write_lines, writing, messages, written, tasks.cancel_scope)
            with anyio.CancelScope() as listening:
                if stop is not None:
                    tasks.start_soon(_cancel_after, stop, listening)
                await read_lines(reading, talk.take)
            talk.end_streams()
            with anyio.move_on_after(grace_s):
                await talk.idle()
                outbox.close()
                await written.wait()
            tasks.cancel_scope.cancel()


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
    _calls: Calls = field(factory=Calls, init=False)
    #: Batches that are being answered, each one request after the other.
    _batches: int = field(default=0, init=False)
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
        if self._version == BATCHED and is_batch(line):
            await self._batch(line)
            return
        try:
            message = decode(line)
        except ProtocolError:
            await self._outbox.send(malformed(line))
            return
        if isinstance(message, Request):
            try:
                await self._request(message)
            except RpcRefused as exc:
                await self._outbox.send(refusal(message.id, exc))
        else:
            self._note(message)

    def _note(self, message: Message) -> None:
        """Take what is not answered."""
        if isinstance(message, Success | Failure):
            self._host.on_answer(message)
        elif message.method == "notifications/cancelled":
            self._calls.on_cancelled(message.params)

    def end_streams(self) -> None:
        """End what would go on for ever."""
        self._closing.set()
        self._stream.cancel()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            self._ended = anyio.Event()
            await self._ended.wait()

    @property
    def _under_way(self) -> int:
        return max(len(self._calls), self._batches)

    async def _request(self, call: Request) -> None:
        modern = is_modern_call(call, {})
        if modern:
            check_meta(call)
        elif call.method == "initialize":
            await self._outbox.send(await self._initialize(call))
            return
        elif self._version is None and call.method != "ping":
            raise RpcRefused(INVALID_REQUEST, "send initialize first, or name a version in _meta")
        self._check_room()
        with ExitStack() as stack:
            answering = self._begin(call, stack, modern=modern)
            # What the stack holds is the task's from now on.
            self._tasks.start_soon(self._answer, answering, stack.pop_all())

    def _check_room(self) -> None:
        if self._under_way >= CALLS_MAX:
            raise RpcRefused(_OVERLOADED, f"{CALLS_MAX} requests are under way already")

    async def _batch(self, line: bytes) -> None:
        """Several messages at once (2025-03-26, "Batching"), answered in one array."""
        try:
            batch = Batch.of(line)
            self._check_room()
        except RpcRefused as exc:
            await self._outbox.send(refusal(None, exc))
            return
        for message in batch.others:
            self._note(message)
        if batch.requests or batch.refusals:
            self._batches += 1
            self._tasks.start_soon(self._answer_all, batch)

    async def _answer_all(self, batch: Batch) -> None:
        answers = list(batch.refusals)

        async def keep(data: bytes) -> None:
            answers.append(data)

        try:
            for call in batch.requests:
                try:
                    with ExitStack() as stack:
                        await self._begin(call, stack, modern=False)(keep)
                except RpcRefused as exc:
                    answers.append(refusal(call.id, exc))
            if answers:
                await self._outbox.send(joined(answers))
        finally:
            self._batches -= 1
            self._ended.set()

    def _begin(self, call: Request, stack: ExitStack, *, modern: bool) -> _Answering:
        """Begin *call*; it is under way as long as *stack* is open.

        :raises RpcRefused: it cannot begin.
        """
        make = self._made_by(call, modern=modern)
        if make is None:
            raise no_method()
        scope = anyio.CancelScope()
        visitor = self._visitor(call, scope, modern=modern)
        stack.enter_context(self._calls.under_way(call.id, scope))

        async def answering(put: Put) -> None:
            with scope:
                _, data = await answer(call, make, visitor)
                await put(data)

        return answering

    def _made_by(self, call: Request, *, modern: bool) -> Made | None:
        if not modern:
            return made_by(self._methods, call, modern=False) or self._host.made_by(
                self._methods, call
            )
        if call.method == LISTEN:
            return partial(listen, self._methods, call, self._closing)
        return made_by(self._methods, call, modern=True)

    async def _answer(self, answering: _Answering, stack: ExitStack) -> None:
        try:
            with stack:
                await answering(self._outbox.send)
        finally:
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
            tasks=self._version == TASKS,
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
        agreed = agreed_version(call.params)
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
