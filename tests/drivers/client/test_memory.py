"""The transport without a wire keeps the contract of those that have one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio.errors import ClientClosed, ConnectError, InvalidArguments, ProtocolError
from sark_trio.mcp.messages import Notification
from sark_trio.transports.base import Outgoing
from sark_trio.transports.memory import Incoming, MemoryTransport

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(serve: Any, **options: Any) -> Any:
    transport = MemoryTransport(serve, **options)
    async with anyio.create_task_group() as tasks:
        await tasks.start(transport.run)
        yield transport
        await transport.aclose()


async def test_a_request_is_answered_and_neither_side_holds_the_others_objects() -> None:
    kept: dict[str, Any] = {"structuredContent": [1]}
    given: dict[str, Any] = {"arguments": {"x": [1]}}

    async def serve(incoming: Incoming) -> Any:
        incoming.receive()["arguments"]["x"].append(2)
        return kept

    async with running(serve) as transport:
        first = await transport.request(Outgoing(method="tools/call", params=given))
        first["structuredContent"].append(2)
        assert kept == {"structuredContent": [1]}
        assert given == {"arguments": {"x": [1]}}
        assert transport.agreed.modern
        assert transport.statistics().requests == 1


async def test_it_is_sent_when_it_is_received_and_not_before() -> None:
    sent: list[int] = []

    async def serve(incoming: Incoming) -> Any:
        assert (incoming.method, incoming.headers, incoming.delivery) == ("m", (), "not_sent")
        if not sent:
            raise ConnectError("refused")
        incoming.receive()
        assert incoming.delivery == "unknown"
        return {}

    async with running(serve) as transport:
        outgoing = Outgoing(method="m", on_sent=lambda: sent.append(1))
        with pytest.raises(ConnectError):
            await transport.request(outgoing)
        assert sent == []
        sent.append(0)
        await transport.request(outgoing)
        assert sent == [0, 1]


async def test_notifications_go_to_the_request_or_to_the_listener() -> None:
    own: list[Notification] = []
    others: list[Notification] = []

    async def serve(incoming: Incoming) -> Any:
        incoming.notify("progress", {"progress": 1})
        incoming.announce("changed")
        assert not await incoming.may_resend("stale_connection")
        return {}

    async with running(serve, on_event=others.append) as transport:
        await transport.request(Outgoing(method="m", on_notification=own.append))
        await transport.notify("m", {})
    assert own == [Notification("progress", {"progress": 1})]
    assert others == [Notification("changed", {})] * 2


@pytest.mark.parametrize("result", [None, [1], "text", {"x": object()}])
async def test_what_no_wire_would_carry_is_not_carried_here(result: Any) -> None:
    async def serve(incoming: Incoming) -> Any:
        return result

    async with running(serve) as transport:
        with pytest.raises(ProtocolError):
            await transport.request(Outgoing(method="m"))


async def test_parameters_that_are_no_json_are_not_sent() -> None:
    async def serve(incoming: Incoming) -> Any:
        return incoming.receive()

    async with running(serve) as transport:
        with pytest.raises(InvalidArguments):
            await transport.request(Outgoing(method="m", params={"x": object()}))


@pytest.mark.parametrize(("receives", "delivery"), [(False, "not_sent"), (True, "unknown")])
async def test_closing_fails_what_waits(receives: bool, delivery: str) -> None:
    waiting = anyio.Event()
    caught: list[ClientClosed] = []

    async def serve(incoming: Incoming) -> Any:
        if receives:
            incoming.receive()
        waiting.set()
        await anyio.sleep_forever()

    async def call(transport: MemoryTransport) -> None:
        with pytest.raises(ClientClosed) as info:
            await transport.request(Outgoing(method="m"))
        caught.append(info.value)

    async with running(serve) as transport, anyio.create_task_group() as tasks:
        tasks.start_soon(call, transport)
        await waiting.wait()
        await transport.aclose()
        await transport.aclose()
    assert [each.delivery for each in caught] == [delivery]
    with pytest.raises(ClientClosed):
        await transport.connect()
    assert "0 requests" in repr(transport)


async def test_before_it_runs_and_after_it_was_cancelled_it_is_closed() -> None:
    async def serve(incoming: Incoming) -> Any:
        return {}

    transport = MemoryTransport(serve)
    await MemoryTransport(serve).aclose()
    with pytest.raises(ClientClosed):
        await transport.request(Outgoing(method="m"))
    async with anyio.create_task_group() as tasks:
        await tasks.start(transport.run)
        await transport.connect()
        tasks.cancel_scope.cancel()
    with pytest.raises(ClientClosed):
        await transport.request(Outgoing(method="m"))
