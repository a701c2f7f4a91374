"""The tools of one server: fetched once for all who ask, kept until they may have changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, final

import anyio
from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.client.pins import Guard
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    GatewayError,
    MessageTooLarge,
    ToolChanged,
    UnknownTool,
)
from sark_trio.machines.caching import TTL_S_MAX, ttl_of
from sark_trio.mcp.paging import PageWalk
from sark_trio.mcp.pins import PinState
from sark_trio.mcp.tools import Tool, parse_tools
from sark_trio.net.clock import lasting_time
from sark_trio.telemetry.events import CacheLookedUp, ListFetched
from sark_trio.telemetry.hooks import Reporter

__all__ = ["Catalogue", "Listing"]

#: How long a definition is believed for calls, whatever the list's own time.
DEFAULT_TTL_S = 300.0
#: A name that is not in the list is looked for anew, but not more often than this.
REFRESH_MIN_S = 1.0
#: A list that lacks tools which somebody has yet to approve is no longer believed than this, so
#: that an approval from outside is seen.
WITHHELD_TTL_S = 5.0
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
    #: Tools that are not as they were approved: they cannot be called either.
    withheld: Mapping[str, PinState]
    fetched_at: float
    expires_at: float


@final
@define(eq=False)
class Catalogue:
    """Tools of one server, single-flight and bounded.

    :param fetch: makes one ``tools/list`` with the given parameters, until that deadline.
    :param spawn: runs a coroutine function in a task that outlives the caller.
    :param over_http: hold tools to the rules of mirrored headers.
    :param report: told of fetches, and of what was at hand.
    :param silent_ttl_s: seconds for which a list is fresh that does not say for how long.
    """

    _server: str
    _fetch: Callable[[Mapping[str, Any], float], Awaitable[dict[str, Any]]]
    _spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    _over_http: bool = True
    _report: Reporter | None = None
    _silent_ttl_s: Callable[[], float] = lambda: DEFAULT_TTL_S
    #: Compares every list with what was approved, where something is pinned.
    guard: Guard | None = field(default=None, init=False)
    #: Lookups that the list at hand answered, and those that had to wait for a fetch.
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)
    _listing: Listing | None = field(default=None, init=False)
    _flight: _Flight | None = field(default=None, init=False)
    _generation: int = field(default=0, init=False)

    @property
    def size(self) -> int | None:
        """Tools in the list at hand; ``None`` if there is none."""
        return None if self._listing is None else len(self._listing.tools)

    def knows(self, name: str) -> bool:
        """Whether the list at hand, fresh or not, has a tool of that name."""
        return self._listing is not None and name in self._listing.tools

    def invalidate(self) -> None:
        """The server's tools changed: forget them, also those that are being fetched now."""
        self._generation += 1
        self._listing = None

    async def listing(self) -> Listing:
        """All tools, fetched if the list is not fresh. Many callers share one fetch.

        :raises GatewayError: the fetch failed; each waiting caller gets that error.
        """
        listing = self._listing
        if listing is not None and lasting_time() < listing.expires_at:
            self._looked_up(hit=True)
            return listing
        return await self._join()

    async def tool(self, name: str) -> Tool:
        """The tool *name*, for a call.

        A call needs the tool's definition, not the newest list: one that the server gave a
        ``ttlMs`` of 0 is still believed for :data:`DEFAULT_TTL_S`, unless it was invalidated.

        :raises UnknownTool: the server has no such tool, or it was rejected.
        :raises ToolChanged: it is not as it was approved.
        """
        listing = self._listing
        if listing is None or lasting_time() - listing.fetched_at >= DEFAULT_TTL_S:
            listing = await self._join()
        else:
            self._looked_up(hit=True)
        found = listing.tools.get(name)
        if found is None and lasting_time() - listing.fetched_at >= REFRESH_MIN_S:
            listing = await self._join()
            found = listing.tools.get(name)
        if found is None:
            raise self._unknown(name, listing)
        return found

    def _unknown(self, name: str, listing: Listing) -> UnknownTool | ToolChanged:
        """Which tools there are is not said here: policy may not let this caller see them."""
        state = listing.withheld.get(name)
        if state is not None:
            message = f"{self._server}: tool {name!r} {_WITHHELD[state]}"
            return ToolChanged(message, reason=f"tool_{state}", server=self._server)
        reason = listing.rejected.get(name)
        if reason is not None:
            message = f"{self._server}: tool {name!r} was rejected: {reason}"
        else:
            message = f"{self._server}: no tool {name!r}; names are exact"
        return UnknownTool(message, server=self._server)

    def _looked_up(self, *, hit: bool) -> None:
        self.hits += hit
        self.misses += not hit
        if self._report is not None:
            event = CacheLookedUp(server=self._server, cache="tools", hit=hit)
            self._report.emit(event)

    async def _join(self) -> Listing:
        self._looked_up(hit=False)
        asked_at = anyio.current_time()
        flight = await self._land()
        if flight.timed_out and flight.began < asked_at:
            # Its time was up, not ours: we came when it had already been under way.
            flight = await self._land()
        if flight.listing is None:
            raise flight.failure(self._server) from flight.error
        return flight.listing

    async def _land(self) -> _Flight:
        """Join the fetch that is under way, or begin one, and wait for its end."""
        wanted = self._generation
        while (flight := self._flight) is not None and flight.generation < wanted:
            # One fetch at a time, however often the server says that its tools changed.
            await flight.done.wait()
        if flight is None:
            flight = _Flight(generation=self._generation, began=anyio.current_time())
            self._spawn(partial(self._fly, flight))
            self._flight = flight
        flight.waiting += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.done.is_set():
                self._abandon(flight)
        return flight

    def _abandon(self, flight: _Flight) -> None:
        """Nobody waits for it any more; whoever comes next must not join it."""
        if self._flight is flight:
            self._flight = None
        flight.scope.cancel()

    async def _fly(self, flight: _Flight) -> None:
        flight.scope.deadline = flight.began + LIST_TIMEOUT_S
        try:
            with flight.scope:
                flight.listing = await self._fetch_all(flight.scope.deadline)
                if flight.generation == self._generation:
                    self._listing = flight.listing
            if flight.waiting and flight.scope.cancelled_caught:
                message = f"{self._server}: no list of tools within {LIST_TIMEOUT_S:g} s"
                flight.error = CallTimeout(message, server=self._server)
                flight.timed_out = True
        except GatewayError as exc:
            flight.error = exc
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()
            self._fetched(flight, anyio.current_time() - flight.began)

    def _fetched(self, flight: _Flight, seconds: float) -> None:
        listing, error = flight.listing, flight.error
        # Neither: nobody waits for it any more, so it was given up.
        if self._report is not None and (listing is not None or error is not None):
            self._report.emit(
                ListFetched(
                    server=self._server,
                    method="tools/list",
                    seconds=seconds,
                    items=None if listing is None else len(listing.tools),
                    error_type=None if error is None else type(error).__name__,
                )
            )

    async def _fetch_all(self, deadline: float) -> Listing:
        raw: list[Any] = []
        walk = PageWalk("tools")
        ttl_s, size_bytes = TTL_S_MAX, 0
        while not walk.done:
            result = await self._fetch(walk.params(), deadline)
            items = walk.take(result)
            size_bytes += len(jsontext.encode(items))
            if size_bytes > LIST_BYTES_MAX:
                raise MessageTooLarge(
                    f"{self._server}: the list of tools is larger than {LIST_BYTES_MAX} bytes",
                    limit_bytes=LIST_BYTES_MAX,
                )
            raw.extend(items)
            ttl_s = min(ttl_s, ttl_of(result.get("ttlMs"), self._silent_ttl_s()))
        return await self._sort_out(raw, ttl_s)

    async def _sort_out(self, raw: list[Any], ttl_s: float) -> Listing:
        parsed = parse_tools(raw, over_http=self._over_http)
        tools, withheld = parsed.tools, {}
        if self.guard is not None:
            withheld = dict(await self.guard(tools))
            tools = {name: tool for name, tool in tools.items() if name not in withheld}
            ttl_s = min(ttl_s, WITHHELD_TTL_S) if withheld else ttl_s
        now = lasting_time()
        return Listing(
            tools=tools,
            rejected={one.name: one.reason for one in parsed.rejected},
            withheld=withheld,
            fetched_at=now,
            expires_at=now + ttl_s,
        )


_WITHHELD: Mapping[PinState, str] = {
    "changed": "has changed since it was approved",
    "new": "was never approved",
    "refused": "was refused by the operator",
}


@define(eq=False)
class _Flight:
    """One fetch under way, and who waits for it."""

    generation: int
    began: float
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    done: anyio.Event = field(factory=anyio.Event)
    waiting: int = 0
    timed_out: bool = False
    listing: Listing | None = None
    error: GatewayError | None = None

    def failure(self, server: str) -> GatewayError:
        """The error for one waiter."""
        if self.error is None:
            return ClientClosed(f"{server}: the client was closed meanwhile", server=server)
        return self.error.twin()
