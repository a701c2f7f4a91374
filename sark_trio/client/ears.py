"""Who listens to one server for what belongs to no request.

Until 2025-11-25 there is one stream for all of them (two at once, and a server may send each
message on either): whoever holds the lock keeps it open, and the next one takes over.
"""

from __future__ import annotations

from typing import Protocol, final

import anyio
from attrs import define, field

from sark_trio.mcp.messages import Notification

__all__ = ["Ear", "Ears"]


class Ear(Protocol):
    """Somebody who listens."""

    def hear(self, notification: Notification) -> None:
        """The server said something. Must not block."""

    def opened(self) -> None:
        """The stream is there, or there again: what the server was asked to watch is forgotten."""

    def close(self) -> None:
        """The server is being left."""


@final
@define(eq=False)
class Ears:
    """The listeners of one server.

    :param lock: held by the one who keeps the shared stream open.
    :param is_open: whether that stream is there.
    """

    lock: anyio.Lock = field(factory=anyio.Lock)
    is_open: bool = False
    _all: set[Ear] = field(factory=set, init=False)
    _watched: dict[str, int] = field(factory=dict, init=False)
    #: Resources that the server is being asked to watch no more, and when that is over.
    _leaving: dict[str, anyio.Event] = field(factory=dict, init=False)

    def add(self, ear: Ear) -> None:
        """*ear* listens from now on."""
        self._all.add(ear)

    def discard(self, ear: Ear) -> None:
        """*ear* listens no more."""
        self._all.discard(ear)

    def hear(self, notification: Notification, but: Ear | None = None) -> None:
        """Tell everybody, *but* one who knows."""
        for ear in tuple(self._all):
            if ear is not but:
                ear.hear(notification)

    def opened(self) -> None:
        """The shared stream is there, or there again."""
        self.is_open = True
        for ear in tuple(self._all):
            ear.opened()

    def close(self) -> None:
        """The server is being left."""
        for ear in tuple(self._all):
            ear.close()

    def watch(self, uri: str) -> None:
        """One more wants to hear of the resource *uri*."""
        self._watched[uri] = self._watched.get(uri, 0) + 1

    def unwatch(self, uri: str) -> bool:
        """One less does; whether the server has to be told: it was the last one."""
        left = self._watched.get(uri, 0) - 1
        if left > 0:
            self._watched[uri] = left
            return False
        self._watched.pop(uri, None)
        return left == 0 and uri not in self._leaving

    def leaving(self, uri: str) -> anyio.Event:
        """The server is told now; the event is set by :meth:`left`."""
        return self._leaving.setdefault(uri, anyio.Event())

    def left(self, uri: str) -> None:
        """It was told, or cannot be."""
        self._leaving.pop(uri).set()

    async def wait_left(self, uri: str) -> None:
        """Wait until the server may be asked to watch *uri*: such requests may change places."""
        while (leaving := self._leaving.get(uri)) is not None:
            await leaving.wait()
