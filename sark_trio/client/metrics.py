"""Counters of a client under the original system's names, as plain values fit for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from attrs import frozen

from sark_trio.machines.circuit import BreakerStatistics, CircuitState
from sark_trio.machines.retry import RetryConfig

__all__ = ["ClientMetrics", "breaker_metrics", "breakers_metrics", "retry_metrics"]

#: The worst first: of many breakers the worst one's state is told.
_WORST = (CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED)


@final
@frozen(kw_only=True)
class ClientMetrics:
    """Counters of a whole client.

    :param transport_mode: see :class:`~sark_trio.client.modes.TransportMode`.
    :param active_transports: kinds of transport that something was agreed or sent over.
    :param http_cache_hit_rate: share of lookups, of lists, reads and definitions of tools, that
        were answered at once, 0 to 1.
    :param stdio_servers_count: processes that run.
    :param cache: counters of the cache of responses.
    :param error_handler: see :class:`~sark_trio.client.health.HealthReport`.
    """

    transport_mode: str
    active_transports: tuple[str, ...]
    http_cache_hit_rate: float
    stdio_servers_count: int
    cache: Mapping[str, Any]
    error_handler: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "transport_mode": self.transport_mode,
            "active_transports": list(self.active_transports),
            "http_cache_hit_rate": self.http_cache_hit_rate,
            "stdio_servers_count": self.stdio_servers_count,
            "cache": dict(self.cache),
            "error_handler": self.error_handler,
        }


def breaker_metrics(counted: BreakerStatistics) -> dict[str, Any]:
    """The counters of one breaker. Refused calls are no calls, and dilute no rate."""
    judged = counted.successes + counted.failures
    return {
        "state": counted.state.value,
        "failure_count": counted.failures_in_row,
        "success_count": counted.probe_successes,
        "total_calls": counted.admitted,
        "total_failures": counted.failures,
        "total_successes": counted.successes,
        "failure_rate": counted.failures / judged if judged else 0.0,
        "state_changes": counted.generation,
    }


def breakers_metrics(all_counted: Sequence[BreakerStatistics]) -> dict[str, Any]:
    """The counters of all breakers together: sums, and the worst one's state."""
    singles = [breaker_metrics(counted) for counted in all_counted]
    failures = sum(single["total_failures"] for single in singles)
    judged = failures + sum(single["total_successes"] for single in singles)
    states = {counted.state for counted in all_counted} | {CircuitState.CLOSED}
    return {
        "state": next(state for state in _WORST if state in states).value,
        "failure_count": max((single["failure_count"] for single in singles), default=0),
        "success_count": max((single["success_count"] for single in singles), default=0),
        "total_calls": sum(single["total_calls"] for single in singles),
        "total_failures": failures,
        "total_successes": judged - failures,
        "failure_rate": failures / judged if judged else 0.0,
        "state_changes": sum(single["state_changes"] for single in singles),
    }


def retry_metrics(retry: RetryConfig) -> dict[str, Any]:
    """A schedule of retries."""
    return {
        "max_attempts": retry.max_attempts,
        "initial_delay": retry.initial_delay,
        "max_delay": retry.max_delay,
    }
