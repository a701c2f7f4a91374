"""What is under way, as cancel scopes: how many, and how to bring it to an end."""

from __future__ import annotations

from typing import final

import anyio
from attrs import define, field

__all__ = ["Scopes"]


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
            self._idle = anyio.Event()
            await self._idle.wait()
