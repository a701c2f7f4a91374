"""``/events``, ``/servers/{name}/stream``, ``/audit/stream``: who may read what, and from where."""

from __future__ import annotations

from typing import Final, final

from attrs import define

from sark_trio import GatewayClient, Principal
from sark_trio.client.chapters.operations import AuditFollower
from sark_trio.errors import AuditError, GatewayError
from sark_trio.gateway.asgi import Request, Send
from sark_trio.gateway.events import Feed, Happening
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.lapse import Lapses
from sark_trio.gateway.streaming import Source, frame, stream

__all__ = ["Streams"]

#: Event types of one filter, and characters of each.
TYPES_MAX: Final = 32
TYPE_CHARS_MAX: Final = 64
#: Numbers of records have at most so many digits.
_DIGITS_MAX: Final = 15


@final
@define(eq=False, kw_only=True)
class _Events:
    """One reader's place in the feed, and what that reader may see. A :class:`Source`.

    :param owner: the reader, as owner of calls.
    :param sees_all: it may see other people's calls, too.
    """

    client: GatewayClient
    feed: Feed
    principal: Principal
    at: int
    sees_all: bool
    server: str | None
    types: frozenset[str]
    #: Told first.
    preface: bytes = b""

    async def wait(self) -> None:
        if not self.preface:
            await self.feed.beyond(self.at)

    async def take(self) -> tuple[bytes, bool]:
        feed = self.feed
        if self.at < feed.first:
            missed = {"reason": "too_slow", "last_event_id": feed.id_of(self.at - 1)}
            return frame("stream_cut", missed), True
        pieces, self.preface = [self.preface], b""
        wanted = [one for one in feed.since(self.at) if self._is_wanted(one)]
        self.at = feed.next
        seen = [one for one in wanted if await self._may_see(one)]
        pieces += [frame(one.name, one.data, feed.id_of(one.number)) for one in seen]
        return b"".join(pieces), False

    def _is_wanted(self, one: Happening) -> bool:
        of_server = self.server is None or one.server == self.server
        return of_server and (not self.types or one.name in self.types)

    async def _may_see(self, one: Happening) -> bool:
        """Everybody sees their own calls, and the servers that policy shows them."""
        if self.sees_all:
            return True
        if one.owner is not None:
            return one.owner == self.principal.key
        if one.server is None or one.name.startswith("security"):
            return False
        try:
            await self.client.get_server_info(one.server, principal=self.principal)
        except GatewayError:
            return False
        return True


@final
@define(eq=False, kw_only=True)
class _Records:
    """One reader's place in the audit log. A :class:`Source`."""

    follower: AuditFollower
    preface: bytes = b""

    async def wait(self) -> None:
        if not self.preface:
            await self.follower.wait()

    async def take(self) -> tuple[bytes, bool]:
        if self.preface:
            told, self.preface = self.preface, b""
            return told, False
        try:
            found = await self.follower.next()
        except AuditError:
            return frame("stream_cut", {"reason": "log_unreadable"}), True
        events = [frame("audit_event", data, str(seq)) for seq, data in found]
        return b"".join(events), not found


@final
@define(eq=False)
class Streams:
    """The event streams."""

    _client: GatewayClient
    feed: Feed
    #: Streams end, and their readers are told why.
    _lapses: Lapses

    async def events(self, request: Request, principal: Principal | None, send: Send) -> None:
        """``GET /events``: what happens, from the last seen event on, or from now."""
        await self._events(request, principal, send, None)

    async def server(self, request: Request, principal: Principal | None, send: Send) -> None:
        """``GET /servers/{name}/stream``: what happens at one server."""
        name, who = request.path[-2], principal or self._client.principal
        await self._client.get_server_info(name, principal=who)
        await self._events(request, principal, send, name)

    async def audit(self, request: Request, principal: Principal | None, send: Send) -> None:
        """``GET /audit/stream``: the audit log's records as they become durable.

        The id of an event is the record's number, so that nothing is missed by who comes back.
        """
        last, preface = _last_id(request), b""
        after = None if last is None else _number(last)
        records = self._client.statistics().audit.records
        if last is not None and (after is None or after >= records):
            after, preface = None, frame("stream_gap", {"reason": "unknown_id"})
        follower = await self._client.follow_audit(after=after, principal=principal)
        await self._stream(request, principal, send, _Records(follower=follower, preface=preface))

    async def _events(
        self, request: Request, principal: Principal | None, send: Send, server: str | None
    ) -> None:
        types, last = _types(request), _last_id(request)
        at, gap = (self.feed.next, None) if last is None else self.feed.place_after(last)
        source = _Events(
            client=self._client,
            feed=self.feed,
            principal=principal or self._client.principal,
            at=at,
            sees_all=await self._client.sees_all_events(principal),
            server=server,
            types=types,
            preface=b"" if gap is None else frame("stream_gap", {"reason": gap}),
        )
        await self._stream(request, principal, send, source)

    async def _stream(
        self, request: Request, principal: Principal | None, send: Send, source: Source
    ) -> None:
        if not request.accepts("text/event-stream"):
            raise Refused(406, "not_acceptable", "this is an event stream")
        await stream(request, send, source, self._lapses.of(principal))


def _last_id(request: Request) -> str | None:
    """The last id that was seen; of a header that cannot be set, the query stands in."""
    last = request.headers.get("last-event-id") or request.query().get("last_event_id")
    return last or None


def _number(text: str) -> int | None:
    fits = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
    return int(text) if fits else None


def _types(request: Request) -> frozenset[str]:
    text = request.query().get("event_types", "")
    names = {name.strip() for name in text.split(",")} - {""}
    if len(names) > TYPES_MAX or any(len(name) > TYPE_CHARS_MAX for name in names):
        raise Refused(400, "invalid_request", f"event_types: at most {TYPES_MAX} short names")
    return frozenset(names)
