"""Hearing of changes: one stream that outlives its connections, as something to iterate over.

Since 2026-07-28 it is a request, ``subscriptions/listen``, made again under a new id when its
stream broke; before, it is the stream that a server may send anything on, and ``resources/
subscribe`` for each resource. After a break nobody knows what was missed: the lists that matter
are forgotten here, and the reader is told of a ``gap``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Final, Self, final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from sark_trio.client.upstream import Upstream
from sark_trio.client.watching import ask_to_watch, stop_watching
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    GatewayError,
    HTTPStatusError,
    ReadTimeout,
    Refused,
    ServerDisconnected,
    TLSError,
    TransportError,
    UsageError,
)
from sark_trio.machines.reconnect import End, Reconnector, Stop, Wait, judge
from sark_trio.mcp.changes import ACKNOWLEDGED, LISTEN, Change, Interest, parse_change
from sark_trio.mcp.messages import Agreed, Notification
from sark_trio.mcp.tasks import EXTENSION
from sark_trio.transports.base import Outgoing

__all__ = ["Subscription"]

#: For the server to begin the stream.
OPEN_S: Final = 30.0
#: A stream that lived so long was no failure, even if nothing happened on it.
LIVED_S: Final = 30.0
#: For ending it, and for telling a server that nobody wants to hear of a resource any more.
CLOSE_S: Final = 1.0
#: Different changes that wait for their reader; beyond it there is but one gap.
WAITING_MAX: Final = 1_000
_GAP: Final = Change("gap")
_LISTS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}


@final
@define(eq=False, kw_only=True)
class Subscription:
    """``async with subscription as changes``, then ``async for change in changes``.

    Changes that wait for their reader are told once, however often they come. When the stream
    is lost for good, its error is raised where the next change is waited for.

    :param allow: asks policy, and records it; raises Denied.
    :param jitter: draws from [0, 1).
    """

    upstream: Upstream = field(repr=False)
    interest: Interest
    allow: Callable[[], Awaitable[None]] = field(repr=False)
    jitter: Callable[[], float] = field(repr=False)
    #: Kinds of changes that the server does not tell of, as it says.
    unheard: tuple[str, ...] = field(default=(), init=False)
    _machine: Reconnector = field(factory=Reconnector, init=False)
    _waiting: OrderedDict[tuple[str, str | None], Change] = field(factory=OrderedDict, init=False)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _opening: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _begun: anyio.Event = field(factory=anyio.Event, init=False)
    _news: anyio.Event = field(factory=anyio.Event, init=False)
    _watching: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)
    _error: GatewayError | None = field(default=None, init=False)
    _started: bool = field(default=False, init=False)
    _since: float | None = field(default=None, init=False)
    #: Until 2025-11-25: whether it is counted among those who watch its resources.
    _watches: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        if self._started:
            raise UsageError("a subscription is entered once; make another one")
        self._started = True
        await self.allow()
        self.upstream.spawn(self._run)
        try:
            with anyio.move_on_after(OPEN_S):
                await self._begun.wait()
        except BaseException:
            await self._close()
            raise
        if not self._begun.is_set():
            await self._close()
            text = f"{self.upstream.name}: no stream of changes within {OPEN_S:g} s"
            raise CallTimeout(text, server=self.upstream.name)
        if self._error is not None:
            raise self._taken(self._error)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        await checkpoint()
        while not self._waiting:
            if self._ended.is_set():
                if self._error is not None:
                    raise self._taken(self._error)
                raise StopAsyncIteration
            if self._news.is_set():  # else another task waits here, too
                self._news = anyio.Event()
            await self._news.wait()
        return self._waiting.popitem(last=False)[1]

    # -- what comes in (``Ear``) ---------------------------------------------------------------

    def hear(self, notification: Notification) -> None:
        """The server said something."""
        if notification.method == ACKNOWLEDGED:
            self.unheard = self.interest.unheard(notification.params.get("notifications"))
            self._opening.deadline = inf
            self.opened()
            self._begun.set()
            return
        change = parse_change(notification)
        if change is not None and self.interest.wants(change):
            now = anyio.current_time()
            self._machine.on_event(now, "")
            self._machine.on_handed_over(now, "")
            self._offer(change)

    def opened(self) -> None:
        """The stream is there, or there again."""
        again = self._begun.is_set()
        self._machine.on_connected(anyio.current_time())
        self._since = anyio.current_time()
        self._watching.set()
        if again:
            for name in self.interest.notifications():
                if name in _LISTS:
                    self.upstream.hear(Notification(_LISTS[name]), but=self)
            self._offer(_GAP)

    def close(self) -> None:
        """End it; leaving the block waits for that."""
        self._scope.cancel()

    def _offer(self, change: Change) -> None:
        self._waiting[change.kind, change.subject] = change
        if len(self._waiting) > WAITING_MAX:
            self._waiting.clear()
            self._waiting[_GAP.kind, None] = _GAP
        self._news.set()

    def _taken(self, error: GatewayError) -> GatewayError:
        self._error = None
        return error

    # -- the task -----------------------------------------------------------------------------

    async def _run(self) -> None:
        ears = self.upstream.ears
        ears.add(self)
        try:
            with self._scope:
                await self._keep_open()
        except ClientClosed:
            return  # whoever closed it knows
        except GatewayError as exc:
            self._error = exc
        finally:
            ears.discard(self)
            if self._watches:
                await stop_watching(self.upstream, self.interest.resources, CLOSE_S, OPEN_S)
            self._ended.set()
            self._begun.set()
            self._news.set()

    async def _keep_open(self) -> None:
        machine = self._machine
        while True:
            step = machine.begin(anyio.current_time())
            if isinstance(step, Wait):
                await anyio.sleep(step.seconds)
                continue
            lost = await self._stream()
            now = anyio.current_time()
            if self._since is not None and now - self._since >= LIVED_S:
                machine.on_event(now, "", "filtered")  # which counts as progress
            self._since = None
            end = _end_of(lost)
            after_s = lost.retry_after_s
            if isinstance(machine.on_closed(now, end, self.jitter(), after_s), Stop):
                raise lost

    async def _stream(self) -> GatewayError:
        """One connection: how it ended."""
        try:
            agreed = await self.upstream.connect()
            if agreed.modern:
                await self._listen(agreed)
            else:
                await self._share()
        except ClientClosed:
            raise
        except GatewayError as exc:
            return exc
        # 2026-07-28, "Graceful Closure": over, and no failure.
        return ServerDisconnected(f"{self.upstream.name}: the server ended the stream of changes")

    async def _listen(self, agreed: Agreed) -> None:
        """Since 2026-07-28: for as long as it lasts, once the server has said that it begins."""
        with anyio.CancelScope(deadline=anyio.current_time() + OPEN_S) as self._opening:
            await self.upstream.listen(self._request(agreed))
            return
        text = f"{self.upstream.name}: {LISTEN} was not acknowledged within {OPEN_S:g} s"
        raise ReadTimeout(text, server=self.upstream.name)

    def _request(self, agreed: Agreed) -> Outgoing:
        capabilities = self.upstream.handlers.capabilities(modern=agreed.modern)
        if self.interest.tasks:
            capabilities["extensions"] = {EXTENSION: {}}
        return Outgoing(
            method=LISTEN,
            params={"notifications": self.interest.notifications()},
            on_notification=self._heard,
            capabilities=capabilities,
        )

    def _heard(self, notification: Notification) -> None:
        self.hear(notification)
        if notification.method != ACKNOWLEDGED:  # which is this subscription's alone
            self.upstream.hear(notification, but=self)

    # -- until 2025-11-25 ---------------------------------------------------------------------

    async def _share(self) -> None:
        """Keep the server's one stream open, or wait for whoever does, and ask it to watch."""
        ears, failures = self.upstream.ears, list[GatewayError]()

        async def watch() -> None:
            try:
                await self._watch()
            except GatewayError as exc:
                failures.append(exc)
                tasks.cancel_scope.cancel()

        async def listen() -> None:
            try:
                async with ears.lock:
                    try:
                        await self.upstream.listen(self._stream_for_all())
                    finally:
                        ears.is_open = False
            except GatewayError as exc:
                failures.append(exc)
            tasks.cancel_scope.cancel()

        if not self._watches:
            self._watches = True
            for uri in self.interest.resources:
                ears.watch(uri)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            if ears.is_open:
                self.opened()
            tasks.start_soon(listen)
        if failures:
            raise failures[0]

    def _stream_for_all(self) -> Outgoing:
        return Outgoing(
            method=LISTEN,
            params={},
            on_notification=self.upstream.hear,
            on_sent=self.upstream.ears.opened,
        )

    async def _watch(self) -> None:
        """Ask the server to watch resources, as often as it forgets it."""
        while True:
            await self._watching.wait()
            self._watching = anyio.Event()
            for uri in self.interest.resources:
                await ask_to_watch(self.upstream, uri, OPEN_S)
            if self._begun.is_set() and self.interest.resources:
                self._offer(_GAP)  # until now the server did not know of our interest
            self._begun.set()

    async def _close(self) -> None:
        self._scope.cancel()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 2 * CLOSE_S):
            await self._ended.wait()


def _end_of(lost: GatewayError) -> End:
    """How a connection ended, for the machine that decides on the next one."""
    if isinstance(lost, HTTPStatusError):
        end = judge(lost.status, None)
        return End.REFUSED if end in {None, End.NOT_FOUND, End.UNAUTHORIZED} else end or End.EOF
    passing = isinstance(lost, TransportError) and not isinstance(lost, TLSError)
    held_back = isinstance(lost, Refused) and lost.retry_after_s is not None
    return End.FAILED if passing or held_back else End.REFUSED
