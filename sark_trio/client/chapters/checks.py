"""How everything is, and how often what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sark_trio.client.chapters.events import Events
from sark_trio.client.health import (
    EventsHealth,
    HealthReport,
    HttpHealth,
    ServerHealth,
    probe_all,
    process_health,
    switched_off,
)
from sark_trio.client.listing import Health
from sark_trio.client.metrics import (
    ClientMetrics,
    breaker_metrics,
    breakers_metrics,
    retry_metrics,
)
from sark_trio.client.servers import Stdio
from sark_trio.client.switches import is_off
from sark_trio.client.upstream import Upstream
from sark_trio.client.wiring import ErrorHandling
from sark_trio.errors import UsageError

__all__ = ["Checks"]

_STATES: Final[Mapping[str, Health]] = {"connected": "healthy", "reconnecting": "unhealthy"}


class Checks(Events):
    """Looking after a client."""

    #: Breaker and retries of servers that have none of their own.
    _handling: ErrorHandling

    async def health_check(self, *, timeout_s: float = 5.0) -> HealthReport:
        """Ask the gateway and every server how they are, all at once.

        A server behind a URL is asked as MCP lets it be (``ping``, ``server/discover``), past its
        breaker; the gateway by ``GET /health``. A program that was not needed so far is not
        started for this, nor is a server asked that is blocked. Nothing that is not well makes
        this raise.

        :param timeout_s: seconds that each of them has for its answer.
        :raises UsageError: *timeout_s* is no positive number.
        """
        if not 0 < timeout_s < float("inf"):
            raise UsageError(f"timeout_s={timeout_s!r} is no positive number of seconds")
        engine = self._engine
        upstreams = list(engine.upstreams.values())
        whole = [] if engine.offered is None else [engine.offered.upstream]
        on = [each for each in upstreams if not is_off(self._caller, each.name, self._principal)]
        asked = await probe_all([*whole, *on], timeout_s=timeout_s)
        servers = {each.name: asked.get(each) or switched_off(each) for each in upstreams}
        gateway = asked[whole[0]] if whole else None
        return HealthReport(
            gateway=gateway,
            servers=servers,
            http=HttpHealth(
                status=_together(gateway, servers), cache_hit_rate=round(self._hit_rate(), 4)
            ),
            sse=self._events_health(),
            stdio={
                upstream.name: process_health(upstream)
                for upstream in upstreams
                if isinstance(upstream.server, Stdio)
            },
            error_handler=self._error_handler(),
        )

    def get_metrics(self) -> ClientMetrics:
        """Counters of the whole client, under the original system's names."""
        upstreams = self._all_upstreams()
        kinds = {one.kind for one in upstreams if one.statistics().wire.requests}
        events = self.event_statistics()
        if events is not None and events.connections_made:
            kinds.add("events")
        counted = self._cache.statistics()
        return ClientMetrics(
            transport_mode=self._gateway.mode.value,
            active_transports=tuple(sorted(kinds)),
            http_cache_hit_rate=round(self._hit_rate(), 4),
            stdio_servers_count=sum(
                process_health(one).status == "running"
                for one in upstreams
                if isinstance(one.server, Stdio)
            ),
            cache={
                "cache_enabled": self._cache.options is not None,
                "cache_size": counted.entries,
                "cache_bytes": counted.bytes,
                "cache_hits": counted.hits,
                "cache_misses": counted.misses + counted.joined,
                "total_requests": counted.hits + counted.misses + counted.joined,
                "hit_rate": round(counted.hit_rate, 4),
                "stale": counted.stale,
                "evictions": counted.evictions,
            },
            error_handler=self._error_handler(),
        )

    def _all_upstreams(self) -> list[Upstream]:
        offered = self._engine.offered
        whole = [] if offered is None else [offered.upstream]
        return [*self._engine.all_upstreams().values(), *whole]

    def _hit_rate(self) -> float:
        """Of the cache of responses, and of the lists of tools that are kept beside it."""
        counted, lists = self._cache.statistics(), [one.catalogue for one in self._all_upstreams()]
        hits = counted.hits + sum(one.hits for one in lists)
        missed = counted.misses + counted.joined + sum(one.misses for one in lists)
        return hits / (hits + missed) if hits + missed else 0.0

    def _events_health(self) -> EventsHealth:
        counted = self.event_statistics()
        if counted is None or not counted.active_streams:
            return EventsHealth(status="unknown", connection_state="disconnected")
        state = counted.state.value
        return EventsHealth(status=_STATES.get(state, "unknown"), connection_state=state)

    def _error_handler(self) -> dict[str, Any] | None:
        if not self._handling.enabled:
            return None
        counted = {one.name: one.breaker.statistics() for one in self._all_upstreams()}
        return {
            "circuit_breaker": breakers_metrics(list(counted.values())),
            "circuit_breakers": {name: breaker_metrics(one) for name, one in counted.items()},
            "retry_config": retry_metrics(self._handling.retry),
            "default_timeout": self._caller.timeout_s,
        }


def _together(gateway: ServerHealth | None, servers: dict[str, ServerHealth]) -> Health:
    """The worst of all that is reached over HTTP."""
    over_http = {"http", "sse", "websocket", "registry"}
    found = {one.status for one in servers.values() if one.transport in over_http}
    if gateway is not None:
        found.add(gateway.status)
    if "unhealthy" in found:
        return "unhealthy"
    return "healthy" if found else "unknown"
