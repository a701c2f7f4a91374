"""Sessions of the legacy era: bounded, bound to whoever opened them, forgotten when idle."""

from __future__ import annotations

from collections import Counter
from typing import Final, final

import anyio
from attrs import define, field

from sark_trio.gateway.calls import Calls
from sark_trio.gateway.host import Host

__all__ = ["Session", "Sessions"]

#: Each is a few hundred bytes; more clients than that belong to a bigger gateway.
SESSIONS_MAX: Final = 10_000
#: Of one owner: nobody can push the sessions of all others out.
OWNED_MAX: Final = 1_000
#: A client that comes back later gets 404 and opens another one (2025-11-25, "Session
#: Management").
IDLE_S: Final = 3_600.0


@final
@define(eq=False)
class Session:
    """One session: its version, its owner, and what goes on in it."""

    id: str
    version: str
    owner: str | None
    used_at: float
    #: Who is at the other end.
    host: Host = field(factory=Host)
    calls: Calls = field(factory=Calls, init=False)
    #: The stream of what belongs to no call, while somebody reads it.
    stream: anyio.CancelScope | None = field(default=None, init=False)

    @property
    def busy(self) -> bool:
        """Whether anything goes on in it."""
        return len(self.calls) > 0 or self.stream is not None

    def end(self) -> None:
        """Cancel its calls, and end its stream."""
        self.calls.end()
        if self.stream is not None:
            self.stream.cancel()


@final
@define(eq=False)
class Sessions:
    """All sessions, the longest unused first.

    :param sessions_max: when there are as many, the longest unused idle one makes room.
    :param idle_s: after so much time without a request a session is forgotten.
    :param owned_max: when one owner has as many, the longest unused idle one of those does.
    """

    _sessions_max: int = SESSIONS_MAX
    _idle_s: float = IDLE_S
    _owned_max: int = OWNED_MAX
    _by_id: dict[str, Session] = field(factory=dict, init=False)
    _owned: Counter[str | None] = field(factory=Counter, init=False)

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, now: float, session_id: str, version: str, owner: str | None) -> Session | None:
        """A new session; ``None`` where there are too many and all of them are busy."""
        self._forget(now)
        own_only = self._owned[owner] >= self._owned_max
        if own_only or len(self._by_id) >= self._sessions_max:
            able = (one for one in self._by_id.values() if not own_only or one.owner == owner)
            idle = next((one for one in able if not one.busy), None)
            if idle is None:
                return None
            self._drop(idle)
        session = self._by_id[session_id] = Session(session_id, version, owner, now)
        self._owned[owner] += 1
        return session

    def find(self, now: float, session_id: str, owner: str | None) -> Session | None:
        """The session, if it is there and *owner*'s: an id alone proves nothing."""
        self._forget(now)
        session = self._by_id.get(session_id)
        if session is None or session.owner != owner:
            return None
        session.used_at = now
        self._by_id[session_id] = self._by_id.pop(session_id)
        return session

    def close(self, session: Session) -> None:
        """End *session*."""
        self._drop(session)
        session.end()

    def _forget(self, now: float) -> None:
        """Drop those that are idle for too long: they stand in front."""
        while self._by_id:
            first = next(iter(self._by_id.values()))
            if now - first.used_at < self._idle_s:
                return
            if first.busy:  # a long call is no idleness
                first.used_at = now
                self._by_id[first.id] = self._by_id.pop(first.id)
            else:
                self._drop(first)

    def _drop(self, session: Session) -> None:
        if self._by_id.pop(session.id, None) is not None:
            self._owned[session.owner] -= 1
            if not self._owned[session.owner]:
                del self._owned[session.owner]
