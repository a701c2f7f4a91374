"""The response cache at work: what ``machines.freshness`` decides, with tasks and a clock.

A fetch runs in a task of the client's, not in that of whoever asked first: cancelling one of
those who wait for it costs the others nothing, and the last one who goes away takes it along.
Values are kept as the JSON that they came as, and read anew for each who asks, so nobody can
change what another one gets, and an entry's size is known.

Whoever asks has been allowed to: a hit answers for a server, never for the policy.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, final

import anyio
from attrs import asdict, define, field

from sark_trio import jsontext
from sark_trio.client.answers import Answer, Ticket, entry_bytes
from sark_trio.client.servers import Directory, Registry, Remote
from sark_trio.client.silence import silent_ttl_s
from sark_trio.client.upstream import Upstream
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ClientClosed,
    HTTPStatusError,
    Overloaded,
    TransportError,
)
from sark_trio.governance.principal import Principal
from sark_trio.machines.freshness import (
    CacheFull,
    CacheKey,
    CacheOptions,
    CacheStatistics,
    Cancel,
    Hit,
    Lead,
    ResponseCache,
    Serve,
    scope_of,
    ttl_of,
)
from sark_trio.mcp.messages import Notification
from sark_trio.net.clock import lasting_time
from sark_trio.telemetry.events import CacheLookedUp
from sark_trio.telemetry.hooks import Emit

__all__ = ["Cache"]

#: Longest fetch. Those who wait may have less time; nobody who comes later is to find one that
#: never ends.
FETCH_TIMEOUT_S: Final = 30.0
#: What is not current any more when a server announces a change.
_CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
    "notifications/resources/updated": ("resources/read",),
    "notifications/tools/list_changed": ("tools/list", "tools/call"),
}
#: Answers to requests with these members belong to one conversation (MCP 2026-07-28, MRTR).
_CONVERSATION: Final = frozenset({"inputResponses", "requestState"})


@define(eq=False)
class _Flight:
    """One fetch under way."""

    limit_s: float
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    done: anyio.Event = field(factory=anyio.Event)
    encoded: bytes = b""
    stale: bool = False
    error: Exception | None = None
    abandoned: bool = False


@final
@define(eq=False, kw_only=True)
class Cache:
    """The cache of one client.

    :param options: its limits; ``None``: nothing is kept, and every ask is a fetch of its own.
    :param spawn: runs a coroutine function in a task that outlives the caller.
    :param revision: what the policy is now.
    :param jitter: draws from [0, 1).
    :param on_stale: told server and method where an answer stands in whose time is over.
    :param emit: told of lookups.
    """

    options: CacheOptions | None
    spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    revision: Callable[[], str | None]
    jitter: Callable[[], float]
    on_stale: Callable[[str, str], object]
    emit: Emit | None = None
    _machine: ResponseCache[bytes] = field(init=False)
    _flights: dict[int, _Flight] = field(factory=dict, init=False)
    #: Keys show up in tracebacks: what they hold of a secret tells nothing outside this process.
    _salt: bytes = field(factory=partial(secrets.token_bytes, 32), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._machine = ResponseCache(self.options or CacheOptions(entries_max=0))

    async def fetch(
        self,
        upstream: Upstream,
        method: str,
        params: Mapping[str, Any],
        ask: Callable[[], Awaitable[dict[str, Any]]],
        *,
        principal: Principal | None,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> Answer:
        """The answer to a read: from the cache, or of one fetch for all who ask for the same.

        Decide first, and filter or redact the answer afterwards: neither is done here.

        :param params: what the answer depends on, beside who asks.
        :param ask: ``await ask()`` makes the request; retries and breaker are its business.
        :param principal: for whom; ``None`` is the client itself, for lists that are asked for
            in its own name and filtered for each principal afterwards.
        :raises GatewayError: the fetch failed; each who waits gets an error of its own.
        :raises Overloaded: as many wait for fetches as may.
        """
        if self.options is None or not _CONVERSATION.isdisjoint(params):
            return Answer(await ask())
        if upstream.agreed is None:
            await upstream.connect()  # the era is part of the key
        key = self.key(upstream, method, params, principal)
        shared = upstream.server.cache_public and principal is not None
        found = self._machine.lookup(lasting_time(), key, self.jitter(), shared=shared)
        self._looked_up(upstream.name, hit=isinstance(found, Hit))
        if isinstance(found, Hit):
            return Answer(jsontext.decode(found.value), cached=True, age_s=found.age_s)
        if isinstance(found, CacheFull):
            raise Overloaded(f"{upstream.name}: {found.limit} wait for fetches already")
        if isinstance(found, Lead):
            flight = _Flight(timeout_s)
            self._flights[found.flight] = flight
            self._begin(found, flight, partial(self._fly, found.flight, flight, upstream, key, ask))
        else:
            flight = self._flights[found.flight]
        try:
            await flight.done.wait()
        finally:
            if not flight.done.is_set():
                self._leave(found.flight, found.waiter, flight)
        if flight.error is not None:
            # A copy for each: a shared one would mix their tracebacks.
            raise copy.copy(flight.error) from flight.error
        return Answer(jsontext.decode(flight.encoded), stale=flight.stale)

    def look(
        self, upstream: Upstream, method: str, params: Mapping[str, Any], principal: Principal
    ) -> Answer | Ticket | None:
        """The answer at hand, or the right to put one there; ``None``: neither.

        For calls: each makes its own, in its own task, with its own record and deadline.
        Before there is a connection it is neither: nobody knows of which revision its answer
        will be.
        """
        if self.options is None or upstream.agreed is None:
            return None
        key = self.key(upstream, method, params, principal)
        found = self._machine.lookup(lasting_time(), key, self.jitter())
        self._looked_up(upstream.name, hit=isinstance(found, Hit))
        if isinstance(found, Hit):
            return Answer(jsontext.decode(found.value), cached=True, age_s=found.age_s)
        if isinstance(found, Lead):
            return Ticket(self._machine, key, found.flight, found.waiter)
        if not isinstance(found, CacheFull):
            self._machine.abandon(found.flight, found.waiter)
        return None

    def key(
        self,
        upstream: Upstream,
        method: str,
        params: Mapping[str, Any],
        principal: Principal | None,
    ) -> CacheKey:
        """What the answer depends on. The partition is a digest: no key tells a secret."""
        who = None if principal is None else asdict(principal)
        credential = _credential(upstream)
        facts = jsontext.canonical([who, credential, self.revision()])
        partition = hashlib.blake2b(facts, digest_size=16, key=self._salt).hexdigest()
        agreed = upstream.agreed
        era = None if agreed is None else agreed.version
        return CacheKey(upstream.name, era, method, jsontext.canonical(dict(params)), partition)

    def invalidate(self, server: str, *methods: str) -> None:
        """What *server* answered to *methods*, or to any, is not current any more."""
        for method in methods:
            self._machine.invalidate(server=server, method=method)
        if not methods:
            self._machine.invalidate(server=server)

    def on_notice(self, server: str, notification: Notification) -> None:
        """*server* says that something changed."""
        changed = _CHANGES.get(notification.method)
        if changed is not None:
            self.invalidate(server, *changed)

    def statistics(self) -> CacheStatistics:
        """A snapshot of what is held, and how lookups fared."""
        return self._machine.statistics()

    def _looked_up(self, server: str, *, hit: bool) -> None:
        if self.emit is not None:
            self.emit(CacheLookedUp(server=server, cache="responses", hit=hit))

    # -- fetches ------------------------------------------------------------------------------

    def _begin(
        self, found: Lead, flight: _Flight, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            self.spawn(work)
        except BaseException:
            self._leave(found.flight, found.waiter, flight)
            raise

    def _leave(self, number: int, waiter: int, flight: _Flight) -> None:
        """One waiter is gone; if it was the last one, so is the fetch."""
        if isinstance(self._machine.abandon(number, waiter), Cancel):
            flight.abandoned = True
            del self._flights[number]
            flight.scope.cancel()

    async def _fly(
        self,
        number: int,
        flight: _Flight,
        upstream: Upstream,
        key: CacheKey,
        ask: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        flight.scope.deadline = anyio.current_time() + flight.limit_s
        error: Exception = ClientClosed(f"{upstream.name}: the client was closed meanwhile")
        try:
            with flight.scope:
                answer = await ask()
                self._store(number, flight, upstream, key, answer)
                return
            message = f"{upstream.name}: no answer to {key.method} within {flight.limit_s:g} s"
            error = CallTimeout(message, server=upstream.name)
        except Exception as exc:  # noqa: BLE001 - handed to whoever waits, whatever it is
            error = exc
        finally:
            if not flight.abandoned:
                if not flight.encoded:
                    self._fail(number, flight, key, error)
                del self._flights[number]
                flight.done.set()

    def _store(
        self,
        number: int,
        flight: _Flight,
        upstream: Upstream,
        key: CacheKey,
        answer: dict[str, Any],
    ) -> None:
        if flight.abandoned:
            return
        encoded = jsontext.encode(answer)
        complete = answer.get("resultType", "complete") == "complete"
        silent_s = silent_ttl_s(upstream.server, upstream.agreed, str(key.method))
        ttl_s = ttl_of(answer.get("ttlMs"), silent_s)
        now = lasting_time()
        self._machine.tick(now)
        self._machine.store(
            now,
            number,
            encoded,
            size_bytes=entry_bytes(key, encoded),
            ttl_s=ttl_s if complete else 0.0,
            shared=upstream.server.cache_public and scope_of(answer.get("cacheScope")) == "public",
        )
        flight.encoded = encoded

    def _fail(self, number: int, flight: _Flight, key: CacheKey, error: Exception) -> None:
        allow_stale = _may_be_covered(error)
        end = self._machine.fail(lasting_time(), number, allow_stale=allow_stale)
        if not isinstance(end, Serve):
            flight.error = error
            return
        flight.encoded, flight.stale = end.value, end.stale
        if end.stale:
            self.on_stale(str(key.server), str(key.method))


def _may_be_covered(error: Exception) -> bool:
    """Whether an answer whose time is over may stand in: nobody could be asked, or was well."""
    if isinstance(error, HTTPStatusError):
        return error.status >= 500
    if isinstance(error, TransportError | CallTimeout | CircuitOpen):
        return error.delivery != "answered"
    return False


def _credential(upstream: Upstream) -> Any:
    """What we show to the server to be let in; it goes into a digest and nowhere else."""
    server = upstream.server
    if isinstance(server, Remote):
        return dict(server.headers)
    return server.api_key if isinstance(server, Registry | Directory) else None
