"""What a fault is to a crowd: who meets it, how it comes about, and what may come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
from attrs import define, field, frozen

from sark_trio import GatewayClient
from sark_trio.errors import GatewayError
from tests.crowds.front import Front
from tests.support.faulty import Faulty, do
from tests.support.http_servers import Script

__all__ = ["CALLS", "LEGACY_AND_MODERN", "PRIVATE", "TRANSPORTS", "End", "Fault", "World"]

CALLS = 1_000
#: Wires (see ``tests/support/faulty.py``) by the name of their transport.
TRANSPORTS: Mapping[str, tuple[str, ...]] = {
    "HTTP": ("json", "events", "legacy"),
    "HTTP+SSE": ("sse",),
    "stdio": ("stdio",),
    "WebSocket": ("websocket",),
    "in process": ("memory",),
}
LEGACY_AND_MODERN = TRANSPORTS["HTTP"]
#: On which a call has a connection of its own, or none.
PRIVATE = (*LEGACY_AND_MODERN, "memory")

#: How a call ended: with this text, with this error, or cancelled.
End = str | GatewayError | None


@define(eq=False)
class World:
    """A crowd, the two servers that it calls, and what is between."""

    wire: str
    folder: Path
    sick: Faulty
    tasks: anyio.abc.TaskGroup
    #: Of the client, once it is open; a fault puts there what it needs.
    options: dict[str, Any] = field(factory=dict)
    #: What a server gets at the other end of each call that arrives.
    arrived: dict[int, int] = field(factory=dict)
    ends: dict[int, End] = field(factory=dict)
    callers: dict[int, anyio.CancelScope] = field(factory=dict)
    heard: dict[int, list[float]] = field(factory=dict)
    facts: dict[str, Any] = field(factory=dict)
    _client: GatewayClient | None = None
    _front: Front | None = None

    @property
    def client(self) -> GatewayClient:
        assert self._client is not None
        return self._client

    @property
    def front(self) -> Front:
        assert self._front is not None
        return self._front

    @property
    def pid(self) -> int:
        """The process of the sick server."""
        pid = self.client.statistics().servers["sick"].wire.details["pid"]
        assert isinstance(pid, int)
        return pid


Blow = Callable[[World], Awaitable[None]]
Around = Callable[[World], AbstractAsyncContextManager[None] | AbstractContextManager[None]]


async def _nothing(_: World) -> None:
    """The fault is in the calls, or around them."""


def _plain(number: int, wire: str) -> dict[str, Any]:
    return do(n=number)


@frozen(kw_only=True)
class Fault:
    """One fault of the matrix, as it is for a thousand calls at once.

    Half of the calls go to a server that is well. Of the others, those that *meets* tells meet the
    fault: each twentieth, or all.

    :param wires: on which it is played.
    :param says: arguments of a call that meets it, by its number and wire: what the server does.
    :param around: a context that is entered before the calls begin, and left when they have ended.
    :param options: whether *around* is entered before there is a client, whose options it makes.
    :param strike: what happens once all calls are under way.
    :param errors: those that a call which meets it may end with; none: it is answered.
    :param meets: ``some`` each twentieth call of the sick server's, ``one`` the first of them,
        ``sick`` all of that server's, ``all`` those of the server that is well, too.
    :param spoils: wires on which the other calls of the sick server may end so, too: they share
        what is broken.
    :param may: whether it is a matter of the moment if anybody ends with an error.
    :param cancels: whether callers who meet it may be cancelled.
    :param text: what the server's answer is to those who meet it.
    :param timeout_s: of calls that meet it.
    :param refuses: whether calls that meet it arrive and are not executed.
    :param servers: options of the sick server's description.
    :param tls: whether the sick server is behind TLS.
    :param wrap: stands before the sick server on each connection.
    :param check: looks at what else must be so, when all have ended.
    :param heals: whether the sick server can be called afterwards.
    :param progress: told the progress of calls that meet it.
    """

    name: str
    wires: tuple[str, ...]
    says: Callable[[int, str], dict[str, Any]] = _plain
    around: Around | None = None
    options: Around | None = None
    strike: Blow = _nothing
    errors: tuple[type[GatewayError], ...] = ()
    meets: Literal["some", "one", "sick", "all"] = "some"
    spoils: tuple[str, ...] = ()
    may: bool = False
    cancels: bool = False
    text: Callable[[int], str] = str
    timeout_s: float | None = None
    refuses: bool = False
    servers: Mapping[str, Any] = field(factory=dict)
    tls: bool = False
    wrap: Callable[[World], Callable[[Script], Script]] | None = None
    check: Callable[[World], None] | None = None
    progress: Callable[[Any], None] | None = None
    heals: bool = True
    #: Of the sick server, with ``PORT`` for its port.
    url: str | None = None
    #: Whether it takes too long for every change; its plain cells do not.
    slow: bool = False
    #: What is done instead, in a folder and on a backend: where the crowd itself is the victim.
    alone: Callable[[Path, str], object] | None = None

    def hits(self, number: int) -> bool:
        """Whether the call of that number meets it."""
        match self.meets:
            case "one":
                return number == 0
            case "some":
                return number % 20 == 0
            case "sick":
                return is_sick(number)
            case "all":
                return True

    def may_fail(self, number: int, wire: str) -> bool:
        """Whether that call may end with one of the errors."""
        return self.hits(number) or (wire in self.spoils and is_sick(number))


def is_sick(number: int) -> bool:
    """Whether that call goes to the sick server."""
    return number % 2 == 0


def is_safe(number: int) -> bool:
    """Whether that call may be repeated: its caller says so. Half of those that are hit are."""
    return number // 20 % 2 == 1
