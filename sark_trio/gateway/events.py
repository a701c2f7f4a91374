"""What happens, as event streams tell it: a ring of the latest events, and their source.

There is one ring, and each reader keeps a place in it. A reader that is too slow falls off its
end, and is told so; it never costs memory. Events come from the audit log's records, so nothing
is told that is not recorded; what must not be missed is read there (``/api/v1/audit/stream``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, final

import anyio
from attrs import define, field, frozen

from sark_trio import jsontext

__all__ = ["Feed", "Happening", "Reporter"]

#: Events kept for those who come back: about 3 MiB, and five seconds of two thousand calls each.
EVENTS_MAX: Final = 10_000
#: Calls under way that are remembered: as many as the audit log lets be open.
CALLS_MAX: Final = 65_536
#: Refusals of a server's breaker or supervisor, which are recorded as denials are.
_SICK: Final = frozenset({"open", "probing", "forced", "down"})
#: Records of other kinds that are told: the event's name, and its status.
_OPERATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "server_registered": ("server_registered", "registered"),
    "server_removed": ("server_registered", "removed"),
    "blocked": ("security_event", "blocked"),
    "unblocked": ("security_event", "unblocked"),
    "policy_reloaded": ("security_event", "policy_reloaded"),
    "policy_kept": ("security_event", "policy_kept"),
    "audit_refused": ("security_violation", "audit_refused"),
}


@final
@frozen
class Happening:
    """One event.

    :param server: which server it is about, if it is about one.
    :param owner: whose call it is about, if it is about one: kind and id of the principal.
    """

    number: int
    name: str
    data: bytes
    server: str | None
    owner: str | None


@final
@define(eq=False)
class Feed:
    """The latest events, numbered.

    :param run: tells this run's numbers from those of another; a word for ids.
    :param events_max: events kept.
    """

    run: str
    events_max: int = EVENTS_MAX
    #: The number that the next event gets.
    next: int = field(default=0, init=False)
    _ring: deque[Happening] = field(init=False)
    _more: anyio.Event = field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        if self.events_max < 1:
            raise ValueError("events_max must be positive")
        self._ring = deque(maxlen=self.events_max)

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.next - len(self._ring)

    def publish(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        server: str | None = None,
        owner: str | None = None,
    ) -> None:
        """Something happened."""
        known = {key: value for key, value in data.items() if value is not None}
        self._ring.append(Happening(self.next, name, jsontext.encode(known), server, owner))
        self.next += 1
        self._more.set()
        self._more = anyio.Event()

    def since(self, number: int) -> Iterator[Happening]:
        """What is kept from event *number* on."""
        skipped = max(0, number - self.first)
        return (self._ring[at] for at in range(skipped, len(self._ring)))

    async def beyond(self, number: int) -> None:
        """Wait until there is an event *number*."""
        while self.next <= number:
            await self._more.wait()

    def id_of(self, number: int) -> str:
        """What the event's ``id`` field says."""
        return f"{self.run}-{number}"

    def place_after(self, last_id: str) -> tuple[int, str | None]:
        """Where a reader goes on that saw *last_id*, and why it missed something, if it did."""
        run, _, digits = last_id.rpartition("-")
        if run != self.run or not (digits.isascii() and digits.isdecimal() and len(digits) < 16):
            return self.first, "unknown_id"
        seen = int(digits)
        if seen >= self.next:
            return self.first, "unknown_id"
        return max(seen + 1, self.first), None if seen + 1 >= self.first else "too_old"


@final
@define(eq=False)
class Reporter:
    """Turns records of the audit log into events. Handed to the client as an observer.

    :param health: what the client thinks of a server now; ``None`` if there is none of that name.
    """

    _feed: Feed
    _health: Callable[[str], str | None]
    _calls: dict[str, dict[str, Any]] = field(factory=dict, init=False)
    _last_health: dict[str, str] = field(factory=dict, init=False)

    def __call__(self, _: int, record: Mapping[str, Any]) -> None:
        """Tell of one record."""
        kind = record["kind"]
        if kind == "intent":
            self._begun(record)
        elif kind in {"outcome", "recovered"}:
            self._ended(record)
        elif kind == "denied":
            self._refused(record)
        elif kind == "event":
            self._operated(record)

    def _begun(self, record: Mapping[str, Any]) -> None:
        about = _about(record)
        if len(self._calls) >= CALLS_MAX:
            del self._calls[next(iter(self._calls))]
        self._calls[record["request_id"]] = about
        self._publish("tool_invoked", about, status="started")

    def _ended(self, record: Mapping[str, Any]) -> None:
        about = self._calls.pop(record["request_id"], None)
        if about is None:
            return
        outcome = record["outcome"]
        name = "tool_completed" if outcome == "ok" else "tool_failed"
        error = None if outcome == "ok" else record.get("error_type") or outcome
        duration = record.get("duration_us", 0) / 1e6
        self._publish(name, about, status=outcome, duration=duration, error=error)
        self._look_at(about["server_name"])

    def _refused(self, record: Mapping[str, Any]) -> None:
        # One word of ours; the policy's words behind it are for the auditor.
        word = record.get("reason", "").partition(":")[0]
        if word in _SICK:
            self._publish("tool_failed", _about(record), status="not_sent", error=word)
            self._look_at(record["server"])
            return
        self._publish("authorization_denied", _about(record), status="denied", error=word)

    def _operated(self, record: Mapping[str, Any]) -> None:
        told = _OPERATIONS.get(record["name"])
        if told is None:
            return
        name, status = told
        details = record["details"]
        server = details.get("server")
        severity = "high" if name.startswith("security") else None
        data = {
            "server_name": server,
            "tool_name": details.get("tool"),
            "user_id": details.get("principal") or details.get("principal_id"),
            "status": status,
            "severity": severity,
        }
        self._feed.publish(name, data, server=server)

    def _look_at(self, server: str) -> None:
        """Tell what became of a server's health, if it changed."""
        status = self._health(server)
        if status is not None and self._last_health.get(server, "unknown") != status:
            self._last_health[server] = status
            data = {"server_name": server, "status": status}
            self._feed.publish("server_health", data, server=server)

    def _publish(self, name: str, about: Mapping[str, Any], **more: Any) -> None:
        data = {key: value for key, value in about.items() if key != "owner"}
        server, owner = about["server_name"], about["owner"]
        self._feed.publish(name, {**data, **more}, server=server, owner=owner)


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tool_name": record.get("tool"),
        "server_name": record["server"],
        "user_id": record["principal_id"],
        "request_id": record["request_id"],
        "owner": f"{record['principal_kind']}:{record['principal_id']}",
    }
