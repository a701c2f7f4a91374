"""The tools of one server: fetched once for all who ask, kept until they may have changed."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, final

import anyio
from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    GatewayError,
    MessageTooLarge,
    ProtocolError,
    UnknownTool,
)
from sark_trio.mcp.results import page_of
from sark_trio.mcp.tools import Tool, parse_tools

__all__ = ["Catalogue", "Listing"]

#: How long a list is believed when the server does not say (the original's cache time).
DEFAULT_TTL_S = 300.0
#: MCP lets a server say `ttlMs`; longer than a day is not believed.
TTL_MAX_S = 86_400.0
#: A name that is not in the list is looked for anew, but not more often than this.
REFRESH_MIN_S = 1.0
#: No server has more pages or tools than this; one that does repeats itself.
PAGES_MAX = 1_000
TOOLS_MAX = 100_000
#: All definitions together: a thousand tools with 16 KiB of schema each.
LIST_BYTES_MAX = 16 * 1024 * 1024
#: Longest wait for all pages. Whoever waits for the list may have less time; nobody who comes
#: later is to find a fetch that never ends.
LIST_TIMEOUT_S = 30.0


@final
@frozen(kw_only=True)
class Listing:
    """What one ``tools/list`` brought, all pages together."""

    tools: Mapping[str, Tool]
    #: Tools that were refused, and why: they cannot be called.
    rejected: Mapping[str, str]
    fetched_at: float
    expires_at: float


@final
@define(eq=False)
class Catalogue:
    """Tools of one server, single-flight and bounded.

    :param fetch: makes one ``tools/list`` with the given parameters, until that deadline.
    :param spawn: runs a coroutine function in a task that outlives the caller.
    :param over_http: hold tools to the rules of mirrored headers.
    """

    _server: str
    _fetch: Callable[[Mapping[str, Any], float], Awaitable[dict[str, Any]]]
    _spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    _over_http: bool = True
    _listing: Listing | None = field(default=None, init=False)
    _flight: _Flight | None = field(default=None, init=False)
    _generation: int = field(default=0, init=False)

    @property
    def size(self) -> int | None:
        """Tools in the list at hand; ``None`` if there is none."""
        return None if self._listing is None else len(self._listing.tools)

    def invalidate(self) -> None:
        """The server's tools changed: forget them, also those that are being fetched now."""
        self._generation += 1
        self._listing = None

    async def listing(self) -> Listing:
        """All tools, fetched if the list is not fresh. Many callers share one fetch.

        :raises GatewayError: the fetch failed; each waiting caller gets that error.
        """
        listing = self._listing
        if listing is not None and anyio.current_time() < listing.expires_at:
            return listing
        return await self._join()

    async def tool(self, name: str) -> Tool:
        """The tool *name*, for a call.

        A call needs the tool's definition, not the newest list: one that the server gave a
        ``ttlMs`` of 0 is still believed for :data:`DEFAULT_TTL_S`, unless it was invalidated.

        :raises UnknownTool: the server has no such tool, or it was rejected.
        """
        listing = self._listing
        if listing is None or anyio.current_time() - listing.fetched_at >= DEFAULT_TTL_S:
            listing = await self._join()
        found = listing.tools.get(name)
        if found is None and anyio.current_time() - listing.fetched_at >= REFRESH_MIN_S:
            listing = await self._join()
            found = listing.tools.get(name)
        if found is None:
            raise self._unknown(name, listing)
        return found

    def _unknown(self, name: str, listing: Listing) -> UnknownTool:
        """Which tools there are is not said here: policy may not let this caller see them."""
        reason = listing.rejected.get(name)
        if reason is not None:
            message = f"{self._server}: tool {name!r} was rejected: {reason}"
        else:
            message = f"{self._server}: no tool {name!r}; names are exact"
        return UnknownTool(message, server=self._server)

    async def _join(self) -> Listing:
        wanted = self._generation
        while (flight := self._flight) is not None and flight.generation < wanted:
            # One fetch at a time, however often the server says that its tools changed.
            await flight.done.wait()
        if flight is None:
            flight = _Flight(generation=self._generation)
            self._spawn(partial(self._fly, flight))
            self._flight = flight
        flight.waiting += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.done.is_set():
                self._abandon(flight)
        if flight.listing is None:
            raise flight.failure(self._server) from flight.error
        return flight.listing

    def _abandon(self, flight: _Flight) -> None:
        """Nobody waits for it any more; whoever comes next must not join it."""
        if self._flight is flight:
            self._flight = None
        flight.scope.cancel()

    async def _fly(self, flight: _Flight) -> None:
        flight.scope.deadline = anyio.current_time() + LIST_TIMEOUT_S
        try:
            with flight.scope:
                flight.listing = await self._fetch_all(flight.scope.deadline)
                if flight.generation == self._generation:
                    self._listing = flight.listing
            if flight.waiting and flight.scope.cancelled_caught:
                message = f"{self._server}: no list of tools within {LIST_TIMEOUT_S:g} s"
                flight.error = CallTimeout(message, server=self._server)
        except GatewayError as exc:
            flight.error = exc
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()

    async def _fetch_all(self, deadline: float) -> Listing:
        raw: list[Any] = []
        seen: set[str] = set()
        cursor: str | None = None
        ttl_s, size_bytes = TTL_MAX_S, 0
        for _ in range(PAGES_MAX):
            result = await self._fetch({} if cursor is None else {"cursor": cursor}, deadline)
            items, cursor = page_of(result, "tools")
            size_bytes += len(jsontext.encode(items))
            if size_bytes > LIST_BYTES_MAX:
                raise MessageTooLarge(
                    f"{self._server}: the list of tools is larger than {LIST_BYTES_MAX} bytes",
                    limit_bytes=LIST_BYTES_MAX,
                )
            raw.extend(items)
            ttl_s = min(ttl_s, _ttl_of(result))
            if cursor is None or len(raw) > TOOLS_MAX:
                break
            if cursor in seen:
                raise ProtocolError(f"{self._server}: tools/list repeats cursor {cursor[:40]!r}")
            seen.add(cursor)
        if cursor is not None:
            raise ProtocolError(f"{self._server}: tools/list does not end")
        return self._sort_out(raw, ttl_s)

    def _sort_out(self, raw: list[Any], ttl_s: float) -> Listing:
        parsed = parse_tools(raw, over_http=self._over_http)
        now = anyio.current_time()
        return Listing(
            tools=parsed.tools,
            rejected={one.name: one.reason for one in parsed.rejected},
            fetched_at=now,
            expires_at=now + ttl_s,
        )


@define(eq=False)
class _Flight:
    """One fetch under way, and who waits for it."""

    generation: int
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    done: anyio.Event = field(factory=anyio.Event)
    waiting: int = 0
    listing: Listing | None = None
    error: GatewayError | None = None

    def failure(self, server: str) -> GatewayError:
        """The error for one waiter: its own copy, since a shared one would mix tracebacks."""
        if self.error is None:
            return ClientClosed(f"{server}: the client was closed meanwhile", server=server)
        return copy.copy(self.error)


def _ttl_of(result: Mapping[str, Any]) -> float:
    """MCP 2026-07-28, "Caching": an integer of milliseconds; anything else is not believed."""
    ttl_ms = result.get("ttlMs")
    if ttl_ms is None:
        return DEFAULT_TTL_S
    if type(ttl_ms) is not int or ttl_ms < 0:
        return 0.0
    return min(ttl_ms / 1000, TTL_MAX_S)
