"""A server behind a URL that may speak the newer or the older of two transports.

MCP 2025-11-25, Transports, "Backwards Compatibility": the newer one is tried first, and where
its handshake is refused as a server of the older one would refuse it, that one is tried. What
was found holds for as long as it works: a server that was upgraded meanwhile is found out when
the older transport is refused in its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from sark_trio.errors import (
    ClientClosed,
    GatewayError,
    HTTPStatusError,
    ProtocolError,
    TransportError,
)
from sark_trio.mcp.messages import Agreed
from sark_trio.transports.base import Outgoing, Transport, TransportStatistics

__all__ = ["FallbackTransport"]

#: What a server that does not have the older transport says to it. Anything else that it says
#: is about something else, such as credentials, and is worth more than the first refusal.
_NOT_HERE: Final = frozenset({400, 404, 405, 406, 501})


@final
@define(eq=False, repr=False)
class FallbackTransport(Transport):
    """The *newer* transport, or the one that *older* makes where the server has only that.

    :param newer: tried first.
    :param older: makes the other one, when it is first needed.
    :param is_refused: whether the last handshake of *newer* failed as it does with servers that
        only have the older one.
    """

    _newer: Transport
    _older: Callable[[], Transport]
    _is_refused: Callable[[], bool]
    #: The older one, once it was needed.
    _made: Transport | None = field(default=None, init=False)
    #: Whether the older one is what the server has, as far as we know.
    _fell_back: bool = field(default=False, init=False)
    _making: anyio.Lock = field(factory=anyio.Lock, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _ended: anyio.Event = field(factory=anyio.Event, init=False)

    def __repr__(self) -> str:
        return f"<FallbackTransport {self._present!r}>"

    def is_held_up(self) -> bool:
        """That of the transport in use."""
        return self._present.is_held_up()

    @property
    def kind(self) -> str:  # type: ignore[override] # it is found out
        """That of the transport in use."""
        return self._present.kind

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """See :meth:`Transport.run`."""
        if self._tasks is not None or self._closing.is_set():
            raise ClientClosed("a transport runs once")
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._newer.run)
                self._tasks = tasks
                task_status.started()
                try:
                    await self._closing.wait()
                finally:
                    self._closing.set()
                await self._newer.aclose()
                async with self._making:  # and none is made from here on
                    if self._made is not None:
                        await self._made.aclose()
        finally:
            self._ended.set()

    async def connect(self) -> Agreed:
        """See :meth:`Transport.connect`; of the two errors, the one that says more."""
        return await (await self._ready()).connect()

    async def request(self, outgoing: Outgoing) -> dict[str, Any]:
        """See :meth:`Transport.request`."""
        known = self._newer.agreed is not None and not self._closing.is_set()
        return await (self._newer if known else await self._ready()).request(outgoing)

    async def listen(self, outgoing: Outgoing) -> None:
        """See :meth:`Transport.listen`."""
        await (await self._ready()).listen(outgoing)

    async def wait_lost(self) -> None:
        """See :meth:`Transport.wait_lost`."""
        await self._present.wait_lost()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See :meth:`Transport.notify`."""
        await (await self._ready()).notify(method, params)

    async def aclose(self) -> None:
        """See :meth:`Transport.aclose`."""
        self._closing.set()
        if self._tasks is not None:
            await self._ended.wait()

    @property
    def agreed(self) -> Agreed | None:
        """See :attr:`Transport.agreed`."""
        return self._present.agreed

    def statistics(self) -> TransportStatistics:
        """See :meth:`Transport.statistics`; of the transport in use."""
        return self._present.statistics()

    @property
    def _present(self) -> Transport:
        return self._made if self._fell_back and self._made is not None else self._newer

    async def _ready(self) -> Transport:
        """The transport that the server has, connected."""
        if self._fell_back:
            older = await self._make()
            try:
                await older.connect()
            except (HTTPStatusError, ProtocolError) as exc:
                if _says_more(exc):
                    raise
                self._fell_back = False  # it was upgraded, or is another one: look again
            else:
                return older
        try:
            await self._newer.connect()
        except (HTTPStatusError, ProtocolError) as exc:
            if not self._is_refused():
                raise
            return await self._fall_back(exc)
        return self._newer

    async def _fall_back(self, refusal: GatewayError) -> Transport:
        older = await self._make()
        try:
            await older.connect()
        except (HTTPStatusError, ProtocolError, TransportError) as exc:
            if _says_more(exc):
                raise
            raise refusal from exc
        self._fell_back = True
        return older

    async def _make(self) -> Transport:
        async with self._making:
            if self._tasks is None or self._closing.is_set():
                raise ClientClosed("the transport is closed, or was never run")
            if self._made is None:
                older = self._older()
                await self._tasks.start(older.run)
                self._made = older
            return self._made


def _says_more(exc: GatewayError) -> bool:
    """Whether *exc* is about more than which transport the server has."""
    return isinstance(exc, HTTPStatusError) and exc.status not in _NOT_HERE
