"""How the gateway, the servers and the streams of a client are: asked, not guessed.

Nothing here raises: a report that fails tells nothing about what does work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final

import anyio
from attrs import field, frozen

from sark_trio.client.listing import Health
from sark_trio.client.servers import Stdio
from sark_trio.client.upstream import Upstream
from sark_trio.errors import GatewayError

__all__ = [
    "EventsHealth",
    "HealthReport",
    "HttpHealth",
    "ProcessHealth",
    "ServerHealth",
    "probe_all",
    "process_health",
    "switched_off",
]

#: Characters of an error that a report holds: a sentence, and no page.
_ERROR_CHARS_MAX: Final = 300


@final
@frozen(kw_only=True)
class ServerHealth:
    """One server, or the gateway.

    :param status: ``unknown``: it was not asked, such as a program that was never needed.
    :param latency_s: seconds that the answer took.
    :param error: why it is not well.
    """

    status: Health
    transport: str
    latency_s: float | None = None
    error: str | None = None


@final
@frozen(kw_only=True)
class HttpHealth:
    """Everything over HTTP: the gateway, where there is one, and the servers behind URLs.

    :param status: ``unhealthy`` where one of them is, ``unknown`` where there is none.
    :param cache_hit_rate: share of lookups that were answered at once, 0 to 1.
    """

    status: Health
    cache_hit_rate: float


@final
@frozen(kw_only=True)
class EventsHealth:
    """The gateway's event streams.

    :param status: ``unhealthy`` where a stream has lost its connection and looks for a new one;
        ``unknown`` where none is open.
    :param connection_state: of the stream that does best.
    """

    status: Health
    connection_state: str


@final
@frozen(kw_only=True)
class ProcessHealth:
    """A server that we start."""

    status: Literal["running", "stopped"]
    pid: int | None


@final
@frozen(kw_only=True)
class HealthReport:
    """How everything is.

    :param gateway: ``None``: the client has none.
    :param servers: by name.
    :param stdio: of the servers that we start, their processes.
    :param error_handler: breakers, schedule of retries and deadline; ``None`` where the client
        was made without (``enable_error_handling=False``).
    """

    gateway: ServerHealth | None
    servers: Mapping[str, ServerHealth]
    http: HttpHealth
    sse: EventsHealth
    stdio: Mapping[str, ProcessHealth]
    error_handler: Mapping[str, Any] | None = field(repr=False)

    @property
    def healthy(self) -> bool:
        """Whether nothing is known to be unwell."""
        asked = [*self.servers.values(), *([] if self.gateway is None else [self.gateway])]
        return all(one.status != "unhealthy" for one in asked)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON, in the original system's shape, which ``servers`` is added to."""
        return {
            "http": {"status": self.http.status, "cache_hit_rate": self.http.cache_hit_rate},
            "sse": {"status": self.sse.status, "connection_state": self.sse.connection_state},
            "stdio": {
                name: {"status": one.status, "pid": one.pid} for name, one in self.stdio.items()
            },
            "error_handler": self.error_handler,
            "healthy": self.healthy,
            "gateway": None if self.gateway is None else _as_dict(self.gateway),
            "servers": {name: _as_dict(one) for name, one in self.servers.items()},
        }


async def probe_all(
    upstreams: Sequence[Upstream], *, timeout_s: float
) -> Mapping[Upstream, ServerHealth]:
    """Ask all at once, each within *timeout_s* seconds."""
    found: dict[Upstream, ServerHealth] = {}

    async def probe(upstream: Upstream) -> None:
        found[upstream] = await _probe(upstream, timeout_s)

    async with anyio.create_task_group() as probing:
        for upstream in upstreams:
            probing.start_soon(probe, upstream)
    return {upstream: found[upstream] for upstream in upstreams}


def switched_off(upstream: Upstream) -> ServerHealth:
    """Of a server that the operator has blocked: it is not asked."""
    return ServerHealth(status="unknown", transport=upstream.kind, error="blocked by the operator")


async def _probe(upstream: Upstream, timeout_s: float) -> ServerHealth:
    idle = isinstance(upstream.server, Stdio) and process_health(upstream).pid is None
    if idle and upstream.state == "running" and upstream.health != "unhealthy":
        # Asking how it is must not start a program that nobody has needed yet.
        return ServerHealth(status="unknown", transport=upstream.kind)
    began = anyio.current_time()
    error = f"no answer within {timeout_s:g} s"
    try:
        with anyio.move_on_after(timeout_s):
            said = await upstream.probe()
            error = "" if said.get("healthy", True) else str(said.get("error") or "not healthy")
    except GatewayError as exc:
        error = exc.message or type(exc).__name__
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is that server's
        error = f"{type(exc).__name__}: {exc}"
    return ServerHealth(
        status="unhealthy" if error else "healthy",
        transport=upstream.kind,
        latency_s=None if error else anyio.current_time() - began,
        error=error[:_ERROR_CHARS_MAX] or None,
    )


def process_health(upstream: Upstream) -> ProcessHealth:
    """Whether the process of a server that we start is there."""
    pid = upstream.statistics().wire.details.get("pid")
    return ProcessHealth(status="stopped" if pid is None else "running", pid=pid)


def _as_dict(one: ServerHealth) -> dict[str, Any]:
    return {
        "status": one.status,
        "transport": one.transport,
        "latency_s": one.latency_s,
        "error": one.error,
    }
