"""What ends a stream before its reader does: the gateway closes, or the reader may not stay.

A stream is let in once and goes on for hours; what let it in may not. A bearer token has an end,
and the operator can switch a caller off (``GatewayClient.block``). Who is cut off for either comes
back, and is told why it may not come in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, final

import anyio
from attrs import define, field, frozen

from sark_trio import GatewayClient, Principal
from sark_trio.gateway.faults import Refused

__all__ = ["Ending", "Ends", "Lapse", "Lapses"]

Ending = Literal["closing", "credential_expired", "blocked"]
#: Seconds between two looks at the clock on the wall: it can be set, and goes on while the
#: machine sleeps, which timers do not.
LOOK_S: Final = 30.0
_wall = time.time


class Ends(Protocol):
    """Something that comes to an end, such as an ``anyio.Event``."""

    async def wait(self) -> Ending | None:
        """Return when it does, and why if that is known."""


@final
@define(eq=False)
class Lapses:
    """Knows who may still be here. An observer of the client's audit log, too."""

    _client: GatewayClient
    _closing: bool = field(default=False, init=False)
    #: Replaced whenever somebody may have to leave.
    changed: anyio.Event = field(factory=anyio.Event, init=False)

    def __call__(self, _: int, record: Mapping[str, Any]) -> None:
        """Somebody may have been switched off."""
        if record.get("name") == "blocked":
            self._wake()

    def close(self) -> None:
        """The gateway closes: nobody stays."""
        self._closing = True
        self._wake()

    def of(self, principal: Principal | None) -> Lapse:
        """What ends a stream of *principal*'s.

        :raises Refused: 403, that caller is switched off.
        """
        lapse = Lapse(self, principal or self._client.principal)
        if lapse.ending() == "blocked":
            raise Refused(403, "denied", "policy denies this", reason="blocked")
        return lapse

    def ending(self, principal: Principal) -> Ending | None:
        """Why *principal* may not stay; ``None`` if it may."""
        if self._closing:
            return "closing"
        if self._client.is_blocked(principal):
            return "blocked"
        expires_at = principal.expires_at
        return "credential_expired" if expires_at is not None and _wall() >= expires_at else None

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@final
@frozen
class Lapse:
    """What ends the streams of one caller."""

    _lapses: Lapses
    _principal: Principal

    def ending(self) -> Ending | None:
        """Why they are over; ``None`` if they are not."""
        return self._lapses.ending(self._principal)

    async def wait(self) -> Ending:
        """Return when they are over, and why."""
        while (ending := self.ending()) is None:
            expires_at, look_s = self._principal.expires_at, LOOK_S
            if expires_at is not None:
                look_s = min(look_s, expires_at - _wall())
            with anyio.move_on_after(look_s):
                await self._lapses.changed.wait()
        return ending
