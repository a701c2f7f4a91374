"""Counters of the gateway and of its client, as Prometheus reads them.

Every label has a bounded set of values: routes, methods and statuses of this gateway, and names
that the operator gave. None is ever a caller's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from attrs import define, field

from sark_trio import CircuitState, ClientStatistics

__all__ = ["CONTENT_TYPE", "Traffic", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_Sample = tuple[Mapping[str, str], float]


@final
@define(eq=False)
class Traffic:
    """Requests of this gateway, by route and status."""

    in_flight: int = field(default=0, init=False)
    auth_failures: int = field(default=0, init=False)
    _ended: Counter[tuple[str, str, int]] = field(factory=Counter, init=False)
    _seconds: dict[tuple[str, str], float] = field(factory=dict, init=False)

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        method = method if method in _METHODS else "other"
        self._ended[method, route, status] += 1
        self._seconds[method, route] = self._seconds.get((method, route), 0.0) + seconds
        self.auth_failures += status == 401

    def families(self) -> Iterator[str]:
        """Its lines."""
        requests = [
            ({"method": method, "endpoint": route, "status": str(status)}, float(count))
            for (method, route, status), count in sorted(self._ended.items())
        ]
        yield from _family("requests_total", "counter", "Requests answered.", requests)
        yield from _one("requests_in_flight", "gauge", "Requests under way.", self.in_flight)
        name = "request_duration_seconds"
        yield f"# HELP sark_gateway_{name} Time from the request to the end of its answer."
        yield f"# TYPE sark_gateway_{name} summary"
        for (method, route), seconds in sorted(self._seconds.items()):
            labels = _labels({"method": method, "endpoint": route})
            count = sum(n for key, n in self._ended.items() if key[:2] == (method, route))
            yield f"sark_gateway_{name}_sum{labels} {seconds:.6f}"
            yield f"sark_gateway_{name}_count{labels} {count}"
        yield from _one(
            "auth_failures_total", "counter", "Credentials refused.", self.auth_failures
        )


def exposition(statistics: ClientStatistics, traffic: Traffic) -> bytes:
    """Everything, in the text format 0.0.4."""
    lines = [*traffic.families(), *_of_client(statistics), *_of_audit(statistics)]
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
    for name, kind, text, value in (
        ("records_total", "counter", "Audit records written.", audit.records),
        ("queue_depth", "gauge", "Audit records that wait.", audit.queued_records),
        ("open_intents", "gauge", "Calls whose end is not recorded yet.", audit.open_intents),
        ("drops_total", "counter", "Calls let through unrecorded.", audit.dropped),
        ("available", "gauge", "Whether calls can be recorded.", audit.unavailable is None),
    ):
        yield from _family(name, kind, text, [({}, float(value))], prefix="sark_audit")


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    return _family(name, kind, text, [({}, float(value))])


def _family(
    name: str, kind: str, text: str, samples: Iterable[_Sample], prefix: str = "sark_gateway"
) -> Iterator[str]:
    yield f"# HELP {prefix}_{name} {text}"
    yield f"# TYPE {prefix}_{name} {kind}"
    for labels, value in samples:
        yield f"{prefix}_{name}{_labels(labels)} {value:.15g}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
