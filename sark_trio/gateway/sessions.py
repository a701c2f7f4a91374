"""Sessions of the legacy era: bounded, bound to whoever opened them, forgotten when idle."""

from __future__ import annotations

from typing import Final, final

import anyio
from attrs import define, field

from sark_trio.gateway.host import Host
from sark_trio.mcp.messages import RequestId

__all__ = ["Session", "Sessions"]

#: Each is a few hundred bytes; more clients than that belong to a bigger gateway.
SESSIONS_MAX: Final = 10_000
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
    calls: dict[RequestId, anyio.CancelScope] = field(factory=dict, init=False)
    #: The stream of what belongs to no call, while somebody reads it.
    stream: anyio.CancelScope | None = field(default=None, init=False)

    @property
    def busy(self) -> bool:
        """Whether anything goes on in it."""
        return bool(self.calls) or self.stream is not None

    def end(self) -> None:
        """Cancel its calls, and end its stream."""
        for scope in self.calls.values():
            scope.cancel()
        if self.stream is not None:
            self.stream.cancel()


@final
@define(eq=False)
class Sessions:
    """All sessions, the longest unused first.

    :param sessions_max: when there are as many, the longest unused idle one makes room.
    :param idle_s: after so much time without a request a session is forgotten.
    """

    _sessions_max: int = SESSIONS_MAX
    _idle_s: float = IDLE_S
    _by_id: dict[str, Session] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, now: float, session_id: str, version: str, owner: str | None) -> Session | None:
        """A new session; ``None`` where there are too many and all of them are busy."""
        self._forget(now)
        if len(self._by_id) >= self._sessions_max:
            idle = next((one for one in self._by_id.values() if not one.busy), None)
            if idle is None:
                return None
            del self._by_id[idle.id]
        session = self._by_id[session_id] = Session(session_id, version, owner, now)
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
        self._by_id.pop(session.id, None)
        session.end()

    def _forget(self, now: float) -> None:
        """Drop those that are idle for too long: they stand in front."""
        while self._by_id:
            first = next(iter(self._by_id.values()))
            if now - first.used_at < self._idle_s:
                return
            del self._by_id[first.id]
            if first.busy:  # a long call is no idleness
                first.used_at = now
                self._by_id[first.id] = first
