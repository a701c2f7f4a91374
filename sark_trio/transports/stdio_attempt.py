"""One try to have a server process, shared by all who want one."""

from __future__ import annotations

import copy
from typing import final

import anyio
from attrs import define, field

from sark_trio.errors import GatewayError
from sark_trio.mcp.messages import Agreed
from sark_trio.transports.stdio_session import Session

__all__ = ["Attempt"]


@final
@define(eq=False)
class Attempt:
    """One try to have a server, shared by all who want one, and the server that came of it."""

    #: Decided: ``agreed`` or ``failure`` is set.
    done: anyio.Event = field(factory=anyio.Event)
    #: Over: nothing of its process is left.
    buried: anyio.Event = field(factory=anyio.Event)
    session: Session | None = None
    agreed: Agreed | None = None
    failure: GatewayError | None = None

    def succeed(self, agreed: Agreed) -> None:
        """There is a server, and this was agreed with it."""
        self.agreed = agreed
        self.done.set()

    def fail(self, failure: GatewayError) -> None:
        """There is none. The first outcome stands."""
        if not self.done.is_set():
            self.failure = failure
            self.done.set()

    def is_spent(self) -> bool:
        """Whether nothing more can come of it."""
        alive = self.session is not None and self.session.alive
        return self.done.is_set() and not (alive and self.failure is None)

    def error(self) -> GatewayError:
        """The failure, anew: many tasks raise it, and each writes its own traceback into it."""
        assert self.failure is not None
        twin = copy.copy(self.failure)
        twin.__cause__ = self.failure.__cause__
        return twin
