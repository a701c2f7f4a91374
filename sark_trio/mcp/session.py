"""The life of a legacy session over HTTP: a machine, one per upstream.

MCP 2025-11-25, Transports, "Session Management": a server may name a session when it answers
``initialize``; a 404 to a request that carries the name says that the session is gone, and the
client must begin a new one. Hundreds of calls can learn that at the same time. Sessions are
therefore numbered, and a call says *which* generation it saw dying: the first one to say so
leads the renewal, the others join it or find it done, and all of them then try once more.
Some servers say 400 instead of 404: see :func:`denies_session`.

::

    none --acquire--> initializing --ready--> ready --404, first try--> initializing
                           |                    '----404, second try--> lost --acquire--> ...
                           '--failed--> none

Stateless revisions have no sessions and no use for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal, final

from attrs import define, field, frozen

from sark_trio.errors import ProtocolError
from sark_trio.mcp.headers import check_session_id
from sark_trio.mcp.messages import Failure, Fault, Success

__all__ = [
    "TABLE",
    "Event",
    "GiveUp",
    "Join",
    "Phase",
    "Renew",
    "Session",
    "SessionLifecycle",
    "SessionStatistics",
    "Use",
    "denies_session",
]

#: The codes that the transports of the official SDKs give to errors of their own.
_OF_THE_TRANSPORT: Final = frozenset({-32000, -32600})


@frozen
class Session:
    """What a legacy request needs to know."""

    generation: int
    #: ``None`` where the server has no sessions. Not shown: who knows it may be taken for us.
    id: str | None = field(repr=False)
    version: str


@frozen
class Use:
    """Send with this session."""

    session: Session


@frozen
class Renew:
    """You lead: send ``initialize`` without a session, then report under this generation."""

    generation: int


@frozen
class Join:
    """Somebody else leads this generation: wait until it is settled, then ask again.

    If its leader failed (and was not merely cancelled), that failure is yours, too: asking
    again at once would send one ``initialize`` for every call that waits.
    """

    generation: int


@frozen
class GiveUp:
    """The call is not tried again.

    ``retried``: it lost two sessions. ``no_session``: the 404 is about something else.
    ``malformed_id``: the server named a session as no server may. ``closed``: we are closing.
    """

    reason: Literal["retried", "no_session", "malformed_id", "closed"]


class Phase(Enum):
    """Where a session stands."""

    NONE = "none"
    INITIALIZING = "initializing"
    READY = "ready"
    LOST = "lost"
    CLOSED = "closed"


class Event(Enum):
    """What moves it."""

    BEGUN = "a caller leads an initialization"
    MADE = "the server answered it"
    NOT_MADE = "it failed or was cancelled"
    EXPIRED = "404, and the call that saw it leads the renewal"
    LOST = "404, and the call that saw it gives up"
    CLOSED = "we close"


#: Everything else changes nothing.
TABLE: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.NONE, Event.BEGUN): Phase.INITIALIZING,
    (Phase.NONE, Event.CLOSED): Phase.CLOSED,
    (Phase.INITIALIZING, Event.MADE): Phase.READY,
    (Phase.INITIALIZING, Event.NOT_MADE): Phase.NONE,
    (Phase.INITIALIZING, Event.CLOSED): Phase.CLOSED,
    (Phase.READY, Event.EXPIRED): Phase.INITIALIZING,
    (Phase.READY, Event.LOST): Phase.LOST,
    (Phase.READY, Event.CLOSED): Phase.CLOSED,
    (Phase.LOST, Event.BEGUN): Phase.INITIALIZING,
    (Phase.LOST, Event.CLOSED): Phase.CLOSED,
    (Phase.CLOSED, Event.CLOSED): Phase.CLOSED,
}


@frozen(kw_only=True)
class SessionStatistics:
    """A snapshot."""

    phase: Phase
    #: Initializations begun so far.
    generation: int
    #: Of those, begun because of a 404.
    renewals: int
    #: 404s that came when their session had been given up already.
    shared: int
    #: Calls that gave up on their second 404.
    lost: int


@final
@define(repr=False, eq=False)
class SessionLifecycle:
    """Who initializes, who waits, who gives up. Total: no input raises."""

    _phase: Phase = field(init=False, default=Phase.NONE)
    _generation: int = field(init=False, default=0)
    #: The session made last; in use while the phase is READY.
    _session: Session | None = field(init=False, default=None)
    _renewals: int = field(init=False, default=0)
    _shared: int = field(init=False, default=0)
    _lost: int = field(init=False, default=0)

    def acquire(self) -> Use | Renew | Join | GiveUp:
        """A call wants to send."""
        if self._phase is Phase.READY and self._session is not None:
            return Use(self._session)
        if self._phase is Phase.INITIALIZING:
            return Join(self._generation)
        if self._phase is Phase.CLOSED:
            return GiveUp("closed")
        return self._begin(Event.BEGUN)

    def on_ready(
        self, generation: int, session_id: str | None, version: str
    ) -> Use | GiveUp | Fault:
        """The leader of *generation* was answered; *session_id* as the header has it, if any.

        A malformed id is as good as a failure. On a :class:`Fault` (closed meanwhile) the
        session is the leader's to end.
        """
        if not self._leads(generation):
            return Fault(f"generation {generation} is not being initialized")
        if session_id is not None:
            try:
                check_session_id(session_id)
            except ProtocolError:
                self._move(Event.NOT_MADE)
                return GiveUp("malformed_id")
        self._move(Event.MADE)
        self._session = Session(generation, session_id, version)
        return Use(self._session)

    def on_failed(self, generation: int) -> Fault | None:
        """The leader of *generation* failed, or was cancelled: the next caller may lead."""
        if not self._leads(generation):
            return Fault(f"generation {generation} is not being initialized")
        self._move(Event.NOT_MADE)
        return None

    def on_404(
        self, generation: int, *, retried: bool = False
    ) -> Use | Renew | Join | GiveUp | Fault:
        """A call that was sent with the session of *generation* was answered 404.

        :param retried: it was its second try; it has lost two sessions and gives up.
        """
        session = self._session
        if session is None or not 1 <= generation <= session.generation:
            return Fault(f"no session of generation {generation} was ever ready")
        if self._phase is Phase.CLOSED:
            return GiveUp("closed")
        is_current = self._phase is Phase.READY and generation == session.generation
        if is_current and session.id is None:
            return GiveUp("no_session")
        if retried:
            self._lost += 1
            if is_current:
                self._move(Event.LOST)
            return GiveUp("retried")
        if is_current:
            self._renewals += 1
            return self._begin(Event.EXPIRED)
        self._shared += 1
        return self.acquire()

    def on_close(self) -> Session | None:
        """We close. The session to end with DELETE, if the server named one."""
        session = self._session if self._phase is Phase.READY else None
        self._move(Event.CLOSED)
        return session if session is not None and session.id is not None else None

    def statistics(self) -> SessionStatistics:
        """A snapshot."""
        return SessionStatistics(
            phase=self._phase,
            generation=self._generation,
            renewals=self._renewals,
            shared=self._shared,
            lost=self._lost,
        )

    def check_invariants(self) -> None:
        """Assert what must hold between any two inputs."""
        ready = 0 if self._session is None else self._session.generation
        assert 0 <= ready <= self._generation
        assert self._phase is not Phase.READY or ready == self._generation > 0
        assert self._phase is not Phase.INITIALIZING or ready < self._generation
        assert self._phase is not Phase.LOST or self._lost > 0
        # Each generation is renewed at most once.
        assert self._renewals <= ready

    def __repr__(self) -> str:
        return f"<SessionLifecycle {self._phase.value} generation {self._generation}>"

    def _leads(self, generation: int) -> bool:
        return self._phase is Phase.INITIALIZING and generation == self._generation

    def _begin(self, event: Event) -> Renew:
        self._move(event)
        self._generation += 1
        return Renew(self._generation)

    def _move(self, event: Event) -> None:
        self._phase = TABLE[self._phase, event]


def denies_session(answer: Success | Failure) -> bool:
    """Whether an answer under HTTP 400, to a request in a session, says that the session is gone.

    Servers made after the examples of the official TypeScript SDK, the reference servers among
    them, look sessions up before the SDK's transport does, which would answer 404: they say 400
    with a JSON-RPC error, as to a request without a session. So did early releases of Python's.
    """
    if isinstance(answer, Success) or answer.code not in _OF_THE_TRANSPORT:
        return False
    return "session id" in answer.message.lower()
