"""What is under way, as cancel scopes: how many, and how to bring it to an end."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import final

import anyio
from attrs import define, field

from sark_trio.errors import ClientClosed, GatewayError

__all__ = ["Bounded", "Scopes"]


@final
@define(eq=False)
class Scopes:
    """The cancel scopes of all that is under way. Each leaves when it is done."""

    _open: set[anyio.CancelScope] = field(factory=set, init=False)
    _idle: anyio.Event = field(factory=anyio.Event, init=False)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, scope: anyio.CancelScope) -> None:
        """*scope* began."""
        self._open.add(scope)

    def discard(self, scope: anyio.CancelScope) -> None:
        """*scope* is done."""
        self._open.discard(scope)
        if not self._open:
            self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Let all end within *grace_s*, then cancel the rest, and wait until it has ended.

        Whoever calls this lets nothing new begin.
        """
        with anyio.move_on_after(grace_s):
            await self._until_idle()
        for scope in self._open:
            scope.cancel()
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._open:
            if self._idle.is_set():  # else others wait for the same
                self._idle = anyio.Event()
            await self._idle.wait()


@final
@define(eq=False)
class Bounded:
    """``with bounded as scope``: what is in it ends by a deadline, or with the client.

    :param deadline: on the clock of ``anyio.current_time()``.
    :param late: the error of what did not end before it.
    """

    _scopes: Scopes
    _deadline: float
    _late: Callable[[], GatewayError]
    _scope: anyio.CancelScope = field(init=False)

    def __enter__(self) -> anyio.CancelScope:
        self._scope = anyio.CancelScope(deadline=self._deadline)
        self._scope.__enter__()
        self._scopes.add(self._scope)
        return self._scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scopes.discard(self._scope)
        self._scope.__exit__(kind, value, trace)
        if self._scope.cancelled_caught:
            # Closing cancels scopes before their time; whatever was late by itself is late.
            if anyio.current_time() < self._deadline:
                raise ClientClosed("the client was closed meanwhile")
            raise self._late()
