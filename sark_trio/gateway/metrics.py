"""Counters of the gateway and of its client, as Prometheus reads them.

Every label has a bounded set of values: routes, methods and statuses of this gateway, and names
that the operator gave. None is ever a caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from attrs import define, field

from sark_trio import CircuitState, ClientStatistics
from sark_trio.telemetry.metrics import (
    CONTENT_TYPE,
    Counter,
    Histogram,
    Kind,
    Registry,
    Sample,
    family_lines,
)
from sark_trio.telemetry.prometheus import Prometheus

__all__ = ["CONTENT_TYPE", "Traffic", "exposition"]

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_PREFIX: Final = "sark_gateway"


@final
@define(eq=False)
class Traffic:
    """Requests of this gateway, by route and status."""

    in_flight: int = field(default=0, init=False)
    _registry: Registry = field(factory=Registry, init=False)
    _ended: Counter = field(init=False)
    _seconds: Histogram = field(init=False)
    _auth_failures: Counter = field(init=False)
    _rate_limited: Counter = field(init=False)

    def __attrs_post_init__(self) -> None:
        add = self._registry.add
        self._ended = add(
            Counter(
                f"{_PREFIX}_requests_total", "Requests answered.", ("method", "endpoint", "status")
            )
        )
        self._seconds = add(
            Histogram(
                f"{_PREFIX}_request_duration_seconds",
                "Time from the request to the end of its answer, whatever that was.",
                ("method", "endpoint"),
            )
        )
        self._auth_failures = add(Counter(f"{_PREFIX}_auth_failures_total", "Credentials refused."))
        self._rate_limited = add(
            Counter(f"{_PREFIX}_rate_limit_exceeded_total", "Requests told to come back later.")
        )
        self._auth_failures.add(by=0)
        self._rate_limited.add(by=0)

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        method = method if method in _METHODS else "other"
        self._ended.add(method, route, str(status))
        self._seconds.observe(seconds, method, route)
        self._auth_failures.add(by=status == 401)
        self._rate_limited.add(by=status == 429)

    def families(self) -> Iterator[str]:
        """Its lines."""
        yield from self._registry.lines()
        yield from _one("requests_in_flight", "gauge", "Requests under way.", self.in_flight)


def exposition(
    statistics: ClientStatistics, traffic: Traffic, metrics: Prometheus | None = None
) -> bytes:
    """Everything, in the text format 0.0.4.

    :param metrics: what the client's hook has counted, if it has one.
    """
    lines = [*traffic.families(), *_of_client(statistics), *_of_pools(statistics)]
    lines += [*_of_audit(statistics), *_of_hooks(statistics)]
    if metrics is not None:
        lines += metrics.lines()
    return ("\n".join(lines) + "\n").encode()


def _of_client(statistics: ClientStatistics) -> Iterator[str]:
    yield from _one("calls_running", "gauge", "Tool calls under way.", statistics.running_calls)
    breakers = {name: one.breaker for name, one in sorted(statistics.servers.items())}
    attempts = [
        ({"server": name, "status": status}, float(count))
        for name, breaker in breakers.items()
        for status, count in (
            ("success", breaker.successes),
            ("failure", breaker.failures),
            ("neutral", breaker.neutral + breaker.late),
            ("rejected", breaker.rejected),
        )
    ]
    yield from _family("attempts_total", "counter", "Attempts at calls, by their end.", attempts)
    states = [
        ({"server": name, "state": state.value}, float(breaker.state is state))
        for name, breaker in breakers.items()
        for state in CircuitState
    ]
    yield from _family("circuit_state", "gauge", "1 for the state of the breaker.", states)
    wires = [
        ({"server": name, "transport": one.transport}, float(one.wire.requests))
        for name, one in sorted(statistics.servers.items())
    ]
    yield from _family("wire_requests_total", "counter", "Requests put on a wire.", wires)
    restarts = [
        ({"server": name}, float(one.wire.restarts))
        for name, one in sorted(statistics.servers.items())
    ]
    yield from _family("wire_restarts_total", "counter", "Sessions and processes anew.", restarts)


def _of_audit(statistics: ClientStatistics) -> Iterator[str]:
    audit = statistics.audit
    families: tuple[tuple[str, Kind, str, float], ...] = (
        ("records_total", "counter", "Audit records written.", audit.records),
        ("queue_depth", "gauge", "Audit records that wait.", audit.queued_records),
        ("open_intents", "gauge", "Calls whose end is not recorded yet.", audit.open_intents),
        ("drops_total", "counter", "Calls let through unrecorded.", audit.dropped),
        ("available", "gauge", "Whether calls can be recorded.", audit.unavailable is None),
    )
    for name, kind, text, value in families:
        yield from _family(name, kind, text, [({}, float(value))], prefix="sark_audit")


def _of_pools(statistics: ClientStatistics) -> Iterator[str]:
    pools = {
        name: pool
        for name, one in sorted(statistics.servers.items())
        if isinstance(pool := one.wire.details.get("pool"), dict)
    }
    for state, text in (("size", "Connections, idle ones too."), ("active", "... in use.")):
        yield from _family(
            f"connection_pool_{state}",
            "gauge",
            text,
            [({"pool_name": name}, _connections(pool)[state]) for name, pool in pools.items()],
        )


def _connections(pool: Mapping[str, int]) -> dict[str, float]:
    active = float(pool["leased"] + pool["granted"])
    return {"active": active, "size": active + pool["idle"] + pool["connecting"]}


def _of_hooks(statistics: ClientStatistics) -> Iterator[str]:
    failures = sum(one.failures for one in statistics.hooks)
    disabled = sum(one.disabled for one in statistics.hooks)
    yield from _one("hook_failures_total", "counter", "Errors of telemetry hooks.", failures)
    yield from _one("hooks_disabled", "gauge", "Hooks that failed too often.", disabled)


def _one(name: str, kind: Kind, text: str, value: float) -> Iterator[str]:
    return _family(name, kind, text, [({}, float(value))])


def _family(
    name: str, kind: Kind, text: str, samples: Iterable[Sample], prefix: str = _PREFIX
) -> Iterator[str]:
    return family_lines(f"{prefix}_{name}", kind, text, samples)
