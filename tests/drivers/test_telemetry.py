"""What hooks are told when a real wire is under the call, and what the servers see of it.

Servers on real sockets and in real processes, on trio and on asyncio.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field
from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sark_trio import (
    AllowAll,
    AuditLog,
    GatewayClient,
    Http,
    Progress,
    Registry,
    RetryConfig,
    Stdio,
)
from sark_trio.errors import ConnectError, OutcomeUnknown
from sark_trio.telemetry import events
from sark_trio.telemetry.events import GATEWAY, Event
from sark_trio.telemetry.otel import OpenTelemetry
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, desk, open_client
from tests.support.event_servers import block, saying
from tests.support.gateway import serving
from tests.support.http_servers import (
    Peer,
    Received,
    legacy,
    modern,
    response,
    result,
    serve,
)
from tests.support.stdio import SCRIPTED

#: A server that gives progress and never answers, among others.
PLAIN = [*SCRIPTED[:-1], str(Path(SCRIPTED[-1]).with_name("plain.py"))]

pytestmark = pytest.mark.anyio

#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 30.0
CANARY = "canary-7f3a"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LIST = {
    "resultType": "complete",
    "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
    "ttlMs": 60_000,
}
DONE = {"resultType": "complete", "content": [{"type": "text", "text": CANARY}]}


@define(eq=False)
class Told:
    events: list[Event] = field(factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def only(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


@asynccontextmanager
async def client_of(server: Any, *hooks: Any) -> AsyncIterator[GatewayClient]:
    client = GatewayClient(
        servers={"there": server},
        policy=AllowAll(),
        audit=AuditLog("log", files=MemoryDisk()),
        principal=ALICE,
        hooks=hooks,
    )
    with anyio.fail_after(HUNG_S):
        async with client:
            yield client


async def tools(peer: Peer, received: Received) -> None:
    """A server with one tool."""
    await peer.send(result(received, LIST if received.rpc == "tools/list" else DONE))


def contexts(received: Received) -> list[Mapping[str, str]]:
    """Trace context in the headers, and in ``_meta``."""
    keys = ("traceparent", "tracestate", "baggage")
    meta = received.json["params"].get("_meta", {})
    return [{key: one[key] for key in keys if key in one} for one in (received.headers, meta)]


# -- HTTP -------------------------------------------------------------------------------------


async def test_connections_lists_and_calls_are_told_in_their_order() -> None:
    told = Told()
    async with serve(modern(tools)) as server, client_of(Http(server.url), told) as client:
        await client.invoke_tool("there", "echo", {"secret": CANARY})
        await client.invoke_tool("there", "echo", {"secret": CANARY})
    assert told.names == [
        *("call.started", "cache.looked_up", "connection.opened", "pool.waited"),
        *("server.connected", "list.fetched", "call.decided"),
        *("attempt.started", "attempt.finished", "call.finished"),
        *("call.started", "cache.looked_up", "call.decided"),
        *("attempt.started", "attempt.finished", "call.finished"),
        "connection.closed",
    ]
    call = told.only(events.CallFinished)[0].call
    assert (call.transport, call.host, call.port) == ("http", "127.0.0.1", server.port)
    assert told.only(events.ConnectionClosed)[0].exchanges == 4
    assert told.only(events.PoolWaited)[0].granted
    assert all(getattr(event, "server", "there") == "there" for event in told.events)
    assert CANARY not in repr(told.events)


async def test_a_wait_that_ends_without_a_connection_is_told() -> None:
    told = Told()
    async with serve(modern(tools)) as server:
        url = server.url
    async with client_of(Http(url, retry=RetryConfig(attempts=1)), told) as client:
        with pytest.raises(ConnectError):
            await client.invoke_tool("there", "echo")
    (waited,) = told.only(events.PoolWaited)
    assert not waited.granted
    assert told.only(events.ConnectionOpened) == []
    assert told.only(events.ListFetched)[0].error_type == "ConnectError"


async def test_a_session_that_is_renewed_is_told() -> None:
    sessions = iter(("one", "two"))

    async def forgetful(peer: Peer, received: Received) -> None:
        if received.rpc == "tools/call" and received.headers["mcp-session-id"] == "one":
            await peer.send(response(status="404 Not Found"))
        else:
            await tools(peer, received)

    told = Told()
    script = legacy(forgetful, session=lambda: next(sessions))
    async with serve(script) as server, client_of(Http(server.url), told) as client:
        await client.invoke_tool("there", "echo", traceparent=PARENT)
    assert told.only(events.SessionRenewed) == [events.SessionRenewed(server="there")]
    (again,) = told.only(events.CallRetried)
    assert (again.reason, again.number) == ("session_renewed", 1)
    sent = [contexts(one) for one in server.requests if one.rpc == "tools/call"]
    assert sent == [[{"traceparent": PARENT}] * 2] * 2


async def test_a_registry_is_told_the_trace_in_headers() -> None:
    seen: list[Received] = []
    found = {"server_id": "s", "server_name": "files", "server_url": "http://x/"}
    listed = {"tool_name": "echo", "server_name": "files", "description": ""}

    async def registry(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            seen.append(received)
            if received.target.startswith("/api/v1/servers"):
                body: Any = found
            elif received.target.startswith("/api/v1/tools"):
                body = {"tools": [listed], "total": 1}
            else:
                body = {"status": "success", "result": {"content": []}}
            await peer.send(response(json.dumps(body).encode()))

    told = Told()
    async with serve(registry) as server:
        base = server.url.removesuffix("/mcp")
        async with client_of(Registry(base, "files"), told) as client:
            await client.invoke_tool("there", "echo", traceparent=PARENT)
    (invoked,) = [one for one in seen if one.target == "/api/v1/invoke"]
    assert invoked.headers["traceparent"] == PARENT
    assert told.only(events.CallFinished)[0].call.host == "127.0.0.1"
    assert len(told.only(events.ConnectionOpened)) == 1


async def test_the_span_of_a_call_reaches_the_server_in_header_and_meta() -> None:
    exporter, tracing = InMemorySpanExporter(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    hook = OpenTelemetry(tracer_provider=tracing)
    tracer = tracing.get_tracer("application")
    async with serve(modern(tools)) as server, client_of(Http(server.url), hook) as client:
        with tracer.start_as_current_span("outer"):
            token = attach(set_baggage("tenant", "acme"))
            try:
                await client.invoke_tool("there", "echo", {"secret": CANARY})
            finally:
                detach(token)
    attempt, call, outer = exporter.get_finished_spans()
    assert (attempt.name, call.name, outer.name) == ("attempt", "tools/call echo", "outer")
    assert call.parent is not None
    assert call.parent.span_id == outer.context.span_id
    trace = f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-"
    (sent,) = [contexts(one) for one in server.requests if one.rpc == "tools/call"]
    assert sent[0] == sent[1]
    assert sent[0]["traceparent"].startswith(trace)
    assert sent[0]["baggage"] == "tenant=acme"
    assert all("traceparent" not in one.headers for one in server.requests[:-1])
    assert CANARY not in "".join(span.to_json() for span in exporter.get_finished_spans())
    tracing.shutdown()


async def test_a_trace_goes_through_the_gateway_and_nothing_that_came_with_it() -> None:
    server = desk()
    async with open_client(server) as client, serving(client) as served:
        meta = {"traceparent": PARENT, "tracestate": f"a={CANARY}", "baggage": f"b={CANARY}"}
        params = {"name": "desk__echo", "arguments": {}, "_meta": meta}
        assert (await served.rpc("tools/call", params)).status == 200
        body = {"server": "desk", "tool": "echo"}
        headers = {"Traceparent": PARENT, "Baggage": f"b={CANARY}"}
        assert (await served.ask("POST", "/api/v1/invoke", body, **headers)).status == 200
        params["_meta"] = {"traceparent": 7}
        assert (await served.rpc("tools/call", params)).status == 200
    sent = [params.get("_meta") or None for kind, params in server.journal if kind == "arrived"]
    assert sent == [{"traceparent": PARENT}, {"traceparent": PARENT}, None]


async def test_the_gateways_event_stream_is_told() -> None:
    told = Told()
    async with serve(saying(block("a", id="1"))) as server:
        client = GatewayClient(
            gateway_url=server.url.removesuffix("/mcp"),
            audit=AuditLog("log", files=MemoryDisk()),
            hooks=[told],
        )
        with anyio.fail_after(HUNG_S):
            async with client, client.stream_events() as stream:
                await anext(aiter(stream))
    assert told.only(events.StreamConnected) == [events.StreamConnected(server=GATEWAY)]


# -- processes --------------------------------------------------------------------------------


async def test_a_process_that_is_killed_in_a_call_is_told_with_its_end_and_its_successor() -> None:
    told = Told()

    def kill(_: Progress) -> None:
        os.kill(told.only(events.ProcessStarted)[0].pid, signal.SIGKILL)

    async with client_of(Stdio(PLAIN), told) as client:
        with pytest.raises(OutcomeUnknown):
            await client.invoke_tool("there", "hold", {"secret": CANARY}, on_progress=kill)
        await client.invoke_tool("there", "echo", {"secret": CANARY})
    first, second = told.only(events.ProcessStarted)
    killed, stopped = told.only(events.ProcessExited)
    assert (first.restarts, second.restarts) == (0, 1)
    assert (killed.pid, killed.expected) == (first.pid, False)
    assert killed.exit_code == -signal.SIGKILL
    assert (stopped.pid, stopped.expected) == (second.pid, True)
    lost, done = told.only(events.CallFinished)
    assert (lost.outcome, lost.delivery, lost.error_type) == (
        *("unknown", "unknown", "OutcomeUnknown"),
    )
    assert told.only(events.AttemptFinished)[0].error_type == "ProcessExited"
    assert (done.outcome, done.call.transport, done.call.host) == ("ok", "stdio", None)
    assert [one.transport for one in told.only(events.ServerConnected)] == ["stdio"]
    assert CANARY not in repr(told.events)
