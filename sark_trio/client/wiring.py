"""What a client's options stand for: each checked, and put together with what it needs of us."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, final

from attrs import evolve, field, frozen

from sark_trio.client.allowance import Allowance
from sark_trio.client.cached import Cache
from sark_trio.client.call import TIMEOUT_MAX_S
from sark_trio.client.caller import Caller
from sark_trio.client.directory import GatewayServers
from sark_trio.client.engine import Engine
from sark_trio.client.handlers import Handlers
from sark_trio.client.identity import JwksUrl
from sark_trio.client.isolated import isolate
from sark_trio.client.link import GatewayLink
from sark_trio.client.modes import TransportMode
from sark_trio.client.pins import PinKeeper, guard_of
from sark_trio.client.programs import recorded
from sark_trio.client.servers import Server, as_server
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ConfigError
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.opa import Opa
from sark_trio.governance.pipeline import Policy
from sark_trio.governance.principal import Principal
from sark_trio.governance.rego import Rego, RegoEngine
from sark_trio.machines.breaker import Mode
from sark_trio.machines.caching import CacheOptions
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.limiter import ConcurrencyLimiter, RateLimiter, RateOptions
from sark_trio.machines.retry import RetryConfig
from sark_trio.machines.slots import PoolOptions
from sark_trio.mcp.messages import Notification
from sark_trio.net.exchange import Exchange
from sark_trio.net.headers import can_be_sent
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import parse_url
from sark_trio.stores.audit import AuditLog
from sark_trio.telemetry.hooks import Emitter, Hook

__all__ = [
    "ErrorHandling",
    "allowance_of",
    "cache_of",
    "emitter_to",
    "grace_of",
    "link_to",
    "log_of",
    "principal_of",
    "ready",
    "servers_of",
    "timeout_of",
    "with_keys",
]


def link_to(
    url: str | None,
    api_key: str | None,
    mode: TransportMode | str,
    max_connections: int,
    tls: TLSOptions | None,
) -> GatewayLink:
    """The way to the gateway at *url*, each part of it checked.

    :raises ConfigError: one of them cannot be; the message names it.
    """
    try:
        chosen = TransportMode(mode)
    except ValueError:
        known = ", ".join(TransportMode)
        raise ConfigError(f"{mode!r} is not one of {known}", source="transport_mode") from None
    if type(max_connections) is not int or max_connections < 1:
        raise ConfigError(f"{max_connections!r} is no positive number", source="max_connections")
    limits = PoolOptions(
        total=max_connections,
        per_origin=max_connections,
        # All of them: callers who wait for one write of the audit log have theirs idle at once,
        # and what is closed then is dialled again right after. Who rests loses them in 30 s.
        idle_max=max_connections,
    )
    _check_kind(tls, TLSOptions, "tls")
    pool = ConnectionPool(backend=AnyIOBackend(), options=limits, tls=tls)
    return GatewayLink(
        url=None if url is None else _base_url(url),
        api_key=None if api_key is None else _key(api_key, url),
        mode=chosen,
        pool=pool,
        exchange=Exchange(pool),
    )


def _base_url(url: str) -> str:
    base = url.rstrip("/")
    try:
        target = parse_url(base).target
    except ValueError as exc:
        raise ConfigError(str(exc), source="gateway_url") from None
    if "?" in target:
        raise ConfigError("a base URL has no query", source="gateway_url")
    return base


def _key(api_key: str, url: str | None) -> str:
    if url is None:
        raise ConfigError("a key for which gateway? give gateway_url, too", source="api_key")
    if not api_key or not can_be_sent("X-API-Key", api_key):
        raise ConfigError("cannot be sent in a header", source="api_key")
    return api_key


def _check_kind(value: object, kind: type, source: str) -> None:
    """Refuse what would only fail when it is used.

    :raises ConfigError: *value* is neither ``None`` nor of *kind*. It is not shown: it may be a
        secret in the wrong place.
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"expected {kind.__name__}, got {type(value).__name__}", source=source)


def principal_of(principal: Principal | None) -> Principal:
    """Who calls when a call does not say.

    :raises ConfigError: it is none, such as a name.
    """
    _check_kind(principal, Principal, "principal")
    return principal or Principal.anonymous()


def log_of(audit: AuditLog | Path | str) -> AuditLog:
    """The log that *audit* is, or that is kept in that directory.

    :raises ConfigError: it is neither.
    """
    if isinstance(audit, AuditLog):
        return audit
    try:
        return AuditLog(audit)
    except TypeError as exc:
        raise ConfigError("expected an AuditLog, or its directory", source="audit") from exc


def timeout_of(timeout_s: float) -> float:
    """The deadline of a call.

    :raises ConfigError: it is none.
    """
    if not isinstance(timeout_s, int | float):
        raise ConfigError(f"{timeout_s!r} is no number of seconds", source="timeout_s")
    if not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise ConfigError(f"{timeout_s!r} is not in (0, {TIMEOUT_MAX_S:g}]", source="timeout_s")
    return timeout_s


def grace_of(grace_s: float) -> float:
    """The time that running calls get when the client closes.

    :raises ConfigError: it is none.
    """
    if not isinstance(grace_s, int | float):
        raise ConfigError(f"{grace_s!r} is no number of seconds", source="grace_s")
    if not 0 <= grace_s < float("inf"):
        raise ConfigError(f"{grace_s!r} is no number of seconds", source="grace_s")
    return grace_s


def allowance_of(concurrent_max: int, rate: RateOptions | None) -> Allowance:
    """What counts the calls of each principal.

    :raises ConfigError: one of the limits is none.
    """
    _check_kind(rate, RateOptions, "rate")
    try:
        places = ConcurrencyLimiter(concurrent_max)
    except (TypeError, ValueError) as exc:
        raise ConfigError(str(exc), source="concurrent_max") from None
    return Allowance(places, None if rate is None else RateLimiter(rate))


def with_keys(identity: TokenVerifier | None, exchange: Exchange) -> TokenVerifier | None:
    """*identity* with a way to its keys, where they come from a URL.

    :raises ConfigError: it is none.
    """
    if not callable(getattr(identity, "verify", None)):
        _check_kind(identity, TokenVerifier, "identity")
    if identity is not None and isinstance(identity.keys, JwksUrl):
        return evolve(identity, keys=identity.keys.bind(exchange))
    return identity


def ready(policy: Policy, exchange: Exchange) -> Policy:
    """*policy* with what it needs of us: its files read, a way to its server.

    :raises ConfigError: it decides nothing, such as a path, or it is wrong.
    """
    if isinstance(policy, Opa) and policy.exchange is None:
        return policy.bind(exchange)
    if isinstance(policy, Rego):
        isolated = policy.isolation is not None
        return isolate(policy, _content) if isolated else policy.load(_content)
    engine = policy is None or isinstance(policy, RegoEngine)
    if not engine and not callable(getattr(policy, "decide", None)):
        hint = "give Rego('policy.rego'), Opa('http://...') or an engine of your own"
        raise ConfigError(f"{policy!r} decides nothing: {hint}", source="policy")
    return policy


def _content(name: str) -> bytes:
    return Path(name).read_bytes()


def emitter_to(hooks: Iterable[Hook], audit: AuditLog) -> Emitter | None:
    """What tells *hooks*, of *audit* as well; ``None`` where there are none.

    :raises ConfigError: one of them cannot be called, or there are too many.
    """
    try:
        emitter = Emitter.of(hooks, clock=time.perf_counter)
    except ValueError as exc:
        raise ConfigError(str(exc), source="hooks") from None
    audit.emit = None if emitter is None else emitter.emit
    return emitter


def _ignore(_server: str, _notice: Notification) -> None:
    """Nobody wants to know."""


def _is_its_kind(_: object, attribute: Any, value: object) -> None:
    _check_kind(value, type(attribute.default.factory()), attribute.name)


@final
@frozen(kw_only=True)
class ErrorHandling:
    """Breaker and retries of servers that have none of their own, and whether there are any.

    :param enabled: without it a call is one attempt, whatever any option says, and no breaker
        refuses or counts anything. Deadlines and governance do not belong to it.
    :param emitter: told what happens to servers.
    :param mode: which kinds of transport may be used.
    :param on_notice: told what servers announce.
    :param handlers: what the application does for servers that ask.
    :param pins: what is known of tools that were approved.
    :param audit: records which programs are started.
    """

    enabled: bool = True
    breaker: BreakerOptions = field(factory=BreakerOptions, validator=_is_its_kind)
    retry: RetryConfig = field(factory=RetryConfig, validator=_is_its_kind)
    jitter: Callable[[], float] = random.random
    emitter: Emitter | None = None
    mode: TransportMode = TransportMode.AUTO
    on_notice: Callable[[str, Notification], None] = _ignore
    handlers: Handlers = field(factory=Handlers, validator=_is_its_kind)
    pins: PinKeeper | None = None
    audit: AuditLog | None = None

    def upstream(self, name: str, server: Server | str | Sequence[str]) -> Upstream:
        """The upstream of *server*.

        :raises ConfigError: it cannot be.
        """
        server = as_server(server, source=f"servers.{name}")
        upstream = Upstream.of(
            name,
            server if self.audit is None else recorded(name, server, self.audit),
            breaker=self.breaker,
            retry=self.retry,
            jitter=self.jitter,
            emit=None if self.emitter is None else self.emitter.emit,
            handlers=self.handlers,
            mode=self.mode,
        )
        upstream.on_notice = self.on_notice
        upstream.catalogue.guard = guard_of(self.pins, name, upstream.server.pins)
        if not self.enabled:
            upstream.retry = RetryConfig(attempts=1)
            upstream.breaker.force(0.0, Mode.FORCED_CLOSED)
        return upstream


def cache_of(
    options: CacheOptions | None, engine: Engine, caller: Caller, handling: ErrorHandling
) -> Cache:
    """The cache of responses, its fetches living in the tasks of *engine*.

    :raises ConfigError: *options* are none.
    """
    _check_kind(options, CacheOptions, "cache")
    audit, emitter = caller.audit, handling.emitter

    def spawn(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        engine.open_tasks().start_soon(work)

    return Cache(
        options=options,
        spawn=spawn,
        revision=lambda: caller.governor.policy.revision,
        jitter=handling.jitter,
        on_stale=lambda server, method: audit.event_nowait(
            "served_stale", {"server": server, "method": method}
        ),
        emit=None if emitter is None else emitter.emit,
    )


def servers_of(
    link: GatewayLink, engine: Engine, cache: Cache, handling: ErrorHandling
) -> GatewayServers | None:
    """The servers of the gateway that *link* leads to, if it leads to one."""
    if link.url is None:
        return None

    async def start(upstream: Upstream) -> None:
        await engine.open_tasks().start(upstream.run)

    return GatewayServers(link=link, url=link.url, cache=cache, make=handling.upstream, start=start)
