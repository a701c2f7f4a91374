"""The ASGI application: what comes in at the door, who it is, and which room it goes to."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final, final

import anyio
from attrs import define, field

from sark_trio import GatewayClient, Principal
from sark_trio.client.scopes import Scopes
from sark_trio.errors import GatewayError
from sark_trio.gateway.asgi import Receive, Reply, Request, Scope, Send
from sark_trio.gateway.cors import headers_for, is_preflight, preflight
from sark_trio.gateway.decisions import DecisionsApi
from sark_trio.gateway.endpoint import McpEndpoint
from sark_trio.gateway.events import EVENTS_MAX, Feed, Reporter
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.guard import KEY_CHARS_MIN, LOOPBACK, Access, Names, Verify
from sark_trio.gateway.lapse import Lapses
from sark_trio.gateway.limits import Limits, Turnstile, caller_of
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.metrics import CONTENT_TYPE, Traffic, exposition
from sark_trio.gateway.presence import while_there
from sark_trio.gateway.rest import RestApi, failure
from sark_trio.gateway.roof import only_server
from sark_trio.gateway.routing import STREAMS, UNKNOWN, methods_of, route_of
from sark_trio.gateway.sending import Sending
from sark_trio.gateway.streams import Streams
from sark_trio.telemetry.prometheus import Prometheus

__all__ = ["Gateway", "create_app"]

#: As the transports of this package take it, and the official SDK's servers do.
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
#: Requests at once; each holds a task and a connection.
REQUESTS_MAX: Final = 1_000
_LOG: Final = logging.getLogger("sark_trio.gateway")
#: Asked with a key of its own, by whoever it was given to.
_REPORTS: Final = "/api/v1/gateway/audit"
#: Their errors have a member ``detail``.
_DECISIONS: Final = "/api/v1/gateway/"
_Handler = Callable[[Request, Principal | None], Awaitable[Reply]]
_Streamer = Callable[[Request, Principal | None, Send], Awaitable[None]]


def create_app(
    client: GatewayClient,
    *,
    api_keys: Mapping[str, Principal] | None = None,
    verifier: Verify | None = None,
    allowed_hosts: Iterable[str] = LOOPBACK,
    allowed_origins: Iterable[str] = (),
    body_bytes_max: int = BODY_BYTES_MAX,
    requests_max: int = REQUESTS_MAX,
    limits: Limits | None = None,
    audit_key: str | None = None,
    events_max: int = EVENTS_MAX,
    instructions: str | None = None,
    metrics: Prometheus | None = None,
    passthrough: bool = False,
) -> Gateway:
    """A gateway in front of *client*, which must be open while it serves.

    :param api_keys: keys (``X-API-Key``), and the principal that each one stands for.
    :param verifier: the principal that a bearer token proves, such as ``client.authenticate``;
        with neither keys nor verifier, everybody is let in as the client's own principal.
    :param allowed_hosts: names that it answers to; without a port they stand for any port.
    :param allowed_origins: pages of these origins may ask, too, and read the answers.
    :param body_bytes_max: largest request body.
    :param requests_max: requests at once; more are answered 503.
    :param limits: what each caller gets; more is answered 429.
    :param audit_key: lets another gateway report events (``X-Gateway-Api-Key``); none may if not.
    :param events_max: events kept for readers of event streams who come back.
    :param instructions: what models are told about it.
    :param metrics: one of the client's hooks, for ``/metrics`` to show what it has counted.
    :param passthrough: the client has one server only, and MCP clients see its own names.
    :raises ValueError: an option that cannot be.
    :raises ConfigError: *passthrough*, and there is not exactly one server.
    """
    if body_bytes_max < 1 or requests_max < 1:
        raise ValueError("body_bytes_max and requests_max must be positive")
    if audit_key is not None and len(audit_key) < KEY_CHARS_MIN:
        raise ValueError(f"audit_key must have {KEY_CHARS_MIN} characters or more")
    feed = Feed(secrets.token_hex(4), events_max)
    client.observe(Reporter(feed, client.health_of))
    lapses = Lapses(client)
    client.observe(lapses)
    return Gateway(
        client=client,
        access=Access.of(api_keys or {}, verifier),
        names=Names(hosts=allowed_hosts, origins=allowed_origins),
        body_bytes_max=body_bytes_max,
        requests_max=requests_max,
        turnstile=Turnstile(limits or Limits()),
        rest=RestApi(client),
        decisions=DecisionsApi(client, audit_key),
        lapses=lapses,
        streams=Streams(client, feed, lapses),
        mcp=McpEndpoint(
            Methods(client, instructions, only_server(client) if passthrough else None), lapses
        ),
        metrics=metrics,
    )


@final
@define(eq=False, kw_only=True)
class Gateway:
    """An ASGI 3.0 application. Made by :func:`create_app`."""

    client: GatewayClient
    access: Access
    names: Names
    body_bytes_max: int
    requests_max: int
    turnstile: Turnstile
    rest: RestApi
    decisions: DecisionsApi
    lapses: Lapses
    streams: Streams
    mcp: McpEndpoint
    metrics: Prometheus | None = None
    traffic: Traffic = field(factory=Traffic, init=False)
    _closing: bool = field(default=False, init=False)
    #: Of the time that running requests get to end in, once it closes.
    _grace: anyio.CancelScope | None = field(default=None, init=False)
    _hurried: bool = field(default=False, init=False)
    _scopes: Scopes = field(factory=Scopes, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's life span."""
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "lifespan":
                await _live(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})

    async def close(self, grace_s: float) -> None:
        """Refuse new requests, let running ones end within *grace_s*, then cancel them."""
        self._closing = True
        self.lapses.close()
        with anyio.move_on_after(0 if self._hurried else grace_s) as self._grace:
            await self._scopes.drain(math.inf)
        await self._scopes.drain(0)

    def hurry(self) -> None:
        """Let running requests have no grace when it closes, or no more of it."""
        self._hurried = True
        if self._grace is not None:
            self._grace.cancel()

    # One request.

    async def _serve(self, scope: Scope, receive: Receive, raw_send: Send) -> None:
        began, route = anyio.current_time(), UNKNOWN
        self.traffic.in_flight += 1
        cancelling = anyio.CancelScope()
        send = Sending(raw_send, cancelling)
        self._scopes.add(cancelling)
        try:
            with cancelling:
                request = Request.of(scope, receive, self.body_bytes_max)
                route = route_of(request.path)
                await self._answer(request, route, send)
            if cancelling.cancelled_caught and send.status is None:
                await failure(Refused(503, "closing", "the gateway is closing")).send(send)
        finally:
            self._scopes.discard(cancelling)
            self.traffic.in_flight -= 1
            seconds = anyio.current_time() - began
            self.traffic.ended(scope["method"], route, send.status or 499, seconds)

    async def _answer(self, request: Request, route: str, send: Sending) -> None:
        try:
            reply = await self._reply(request, route, send)
        except (Refused, GatewayError) as exc:
            reply = failure(exc, detail=route.startswith(_DECISIONS))
        except Exception:
            _LOG.exception("a request to %s failed", route)
            if send.status is not None:
                raise
            reply = failure(Refused(500, "internal", "the gateway failed"))
        if reply is not None:
            await _send_reply(request, reply, send)

    async def _reply(self, request: Request, route: str, send: Sending) -> Reply | None:
        if request.doubled is not None:
            raise Refused(400, "invalid_request", f"header {request.doubled} stands twice")
        origin = self.names.check(request)
        if self.names.origins:
            send.headers = headers_for(origin)
        if origin is not None and is_preflight(request):
            return preflight(request, _methods(route))  # browsers send no credentials with it
        if route in {"/health", "/ready"}:
            _allow(request, route)
            return self._health() if route == "/health" else self._ready()
        reports, principal = route == _REPORTS, None
        if reports:
            self.decisions.check_reporter(request)
        else:
            principal = await self.access.principal(request)
        _methods(route)
        if self._closing or len(self._scopes) > self.requests_max:
            kind = "closing" if self._closing else "overloaded"
            raise Refused(503, kind, "come back later", headers=(("retry-after", "1"),))
        caller = _REPORTS if reports else caller_of(principal)
        send.headers += self.turnstile.take(anyio.current_time(), caller)
        with self.turnstile.inside(caller, streaming=route in STREAMS):
            if route == "/mcp":
                count = partial(self._count, caller)
                return await self.mcp.handle(request, principal, send, count)
            return await self._served(request, route, principal, send)

    def _count(self, caller: str) -> None:
        """One more request of *caller*'s, which came together with another."""
        self.turnstile.take(anyio.current_time(), caller)

    async def _served(
        self, request: Request, route: str, principal: Principal | None, send: Send
    ) -> Reply | None:
        _allow(request, route)
        if route == "/metrics":
            body = exposition(self.client.statistics(), self.traffic, self.metrics)
            return Reply(body=body, content_type=CONTENT_TYPE)
        streamers: dict[str, _Streamer] = {
            "/api/v1/events": self.streams.events,
            "/api/v1/servers/{name}/stream": self.streams.server,
            "/api/v1/audit/stream": self.streams.audit,
        }
        if route in streamers:
            await streamers[route](request, principal, send)
            return None
        handlers: dict[str, _Handler] = {
            "/api/v1/servers": self.rest.servers,
            "/api/v1/servers/{name}": self.rest.server,
            "/api/v1/tools": self.rest.tools,
            "/api/v1/invoke": self.rest.invoke,
            "/api/v1/gateway/authorize": self.decisions.authorize,
            "/api/v1/gateway/authorize-a2a": self.decisions.authorize_a2a,
            "/api/v1/gateway/servers": self.decisions.servers,
            "/api/v1/gateway/tools": self.decisions.tools,
            "/api/v1/gateway/audit": self.decisions.audit,
        }
        if request.method == "POST":
            await request.body()
        return await while_there(request, partial(handlers[route], request, principal))

    def _health(self) -> Reply:
        """Alive: the event loop turns, and answers."""
        return Reply.json({"status": "healthy"})

    def _ready(self) -> Reply:
        """Ready: calls can be made, and recorded."""
        statistics = self.client.statistics()
        checks = {
            "client": statistics.state == "open" and not self._closing,
            "audit": statistics.audit.unavailable is None,
        }
        ready = all(checks.values())
        body = {"status": "ready" if ready else "not_ready", "checks": checks}
        return Reply.json(body, 200 if ready else 503)


def _methods(route: str) -> tuple[str, ...]:
    if route == UNKNOWN:
        raise Refused(404, "not_found", "there is nothing here")
    return methods_of(route)


def _allow(request: Request, route: str) -> None:
    methods = methods_of(route)
    if request.method not in methods:
        allowed = ", ".join(methods)
        message = f"only {allowed} is served here"
        raise Refused(405, "method_not_allowed", message, headers=(("allow", allowed),))


async def _send_reply(request: Request, reply: Reply, send: Send) -> None:
    """Send *reply*; a body that nobody read is thrown away before, and meanwhile.

    A server that feeds us the body through a bounded queue would wait for us to take it before
    it ends the request, while we wait for it to take the reply.
    """
    await request.discard()
    if not request.unread:
        await reply.send(send)
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request.gone)
        await reply.send(send)
        tasks.cancel_scope.cancel()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        phase = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return
