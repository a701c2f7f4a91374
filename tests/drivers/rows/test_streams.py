"""Rows 20 to 24: answers that are event streams, cut, endless, or told twice. In virtual time."""

from __future__ import annotations

import json
from typing import Any

import httpcore
import pytest
import trio
from trio.testing import MockClock

from sark_trio.errors import MessageTooLarge, OutcomeUnknown, ServerDisconnected
from tests.support.client import outcomes
from tests.support.http_servers import SSE_END, SSE_HEAD, Peer, Received, chunk, response
from tests.support.virtual import virtual

pytestmark = pytest.mark.trio

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


def done(received: Received, text: str = "done") -> str:
    content = [{"type": "text", "text": text}]
    result = {"resultType": "complete", "content": content}
    return json.dumps({"jsonrpc": "2.0", "id": received.id, "result": result})


def progress(received: Received, step: int) -> str:
    token = received.json["params"]["_meta"]["progressToken"]
    params = {"progressToken": token, "progress": step}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


# -- row 20 --------------------------------------------------------------------------------------


@pytest.mark.row(20)
@ERAS
async def test_a_stream_that_ends_without_the_answer_leaves_the_outcome_unknown(
    autojump_clock: MockClock, era: str
) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        assert received.method == "POST"  # without an id there is nothing to go on from
        await peer.send(SSE_HEAD + chunk(b": hello\n\n") + SSE_END)

    async with virtual(handle, era=era) as world:
        with pytest.raises(OutcomeUnknown) as caught:
            await world.client.invoke_tool("desk", "echo")
        assert isinstance(caught.value.__cause__, ServerDisconnected)
        assert len(world.calls) == 1


@pytest.mark.row(20)
async def test_a_server_that_primes_and_ends_is_gone_on_with_five_times(
    autojump_clock: MockClock,
) -> None:
    """Laws, section 0: the reference client goes on 964 times."""
    numbers = iter(range(1_000))

    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(
            SSE_HEAD + chunk(b"id: %d\nretry: 100\ndata:\n\n" % next(numbers)) + SSE_END
        )

    async with virtual(handle, era="legacy") as world:
        with pytest.raises(OutcomeUnknown):
            await world.client.invoke_tool("desk", "echo", timeout_s=200)
        assert 1 <= [each.method for each in world.network.requests].count("GET") <= 6
        assert len(world.calls) == 1


@pytest.mark.row(20)
@pytest.mark.parametrize("how", ["refused", "401", "404", "405", "500", "html"])
async def test_a_call_that_is_not_gone_on_with_is_not_called_unsent(
    autojump_clock: MockClock, how: str
) -> None:
    """However the GET fails: the request was sent, so an unsafe call is not made again."""
    status = {"401": "401 No", "404": "404 No", "405": "405 No", "500": "500 No"}.get(how, "200 OK")

    async def handle(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            await peer.send(SSE_HEAD + chunk(b"id: e1\ndata:\n\n") + SSE_END)
            if how == "refused":
                world.network.scripts = (httpcore.ConnectError("refused"),)
                await peer.stream.aclose()
        else:
            await peer.send(response(b"<html>", status, "text/html"))

    async with virtual(handle, era="legacy", heals=False) as world:
        with pytest.raises(OutcomeUnknown) as caught:
            await world.client.invoke_tool("desk", "echo", timeout_s=200)
        assert caught.value.delivery == "unknown"
        assert len(world.calls) == 1
    assert outcomes(world.disk) == [("unknown", "unknown")]


# -- row 21 --------------------------------------------------------------------------------------

WELL = {
    "LF": "data: @\n\n",
    "CR": "data: @\r\r",
    "CRLF": "data: @\r\n\r\n",
    "a mark at the beginning": "\ufeffdata: @\n\n",
    "an id with NUL": "id: a\0b\ndata: @\n\n",
    "an empty id": "id\ndata: @\n\n",
    "no space": "data:@\n\n",
    "a comment in it": "data: @\n: c\n\n",
    "unknown fields": "x: y\nfoo\ndata: @\n\n",
    "a foreign type first": "event: other\ndata: @\n\ndata: @\n\n",
}


@pytest.mark.row(21)
@ERAS
@pytest.mark.parametrize("form", WELL)
@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_every_form_of_an_event_in_every_cut_is_read_alike(
    autojump_clock: MockClock, era: str, form: str, size: int
) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        text = "\N{SNOWMAN}\N{PILE OF POO}"
        whole = WELL[form].replace("@", done(received).replace("done", text)).encode()
        await peer.send(SSE_HEAD)
        for start in range(0, len(whole), size):
            await peer.send(chunk(whole[start : start + size]))
        await peer.send(SSE_END)

    async with virtual(handle, era=era) as world:
        found = await world.client.invoke_tool("desk", "echo")
        assert found.text == "\N{SNOWMAN}\N{PILE OF POO}"


@pytest.mark.row(21)
@ERAS
@pytest.mark.parametrize("keep", [1, 20, -1, -2])
async def test_half_an_event_is_none(autojump_clock: MockClock, era: str, keep: int) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            whole = f"data: {done(received)}\n\n".encode()
            await peer.send(SSE_HEAD + chunk(whole[:keep]) + SSE_END)

    async with virtual(handle, era=era) as world:
        with pytest.raises(OutcomeUnknown):
            await world.client.invoke_tool("desk", "echo")
        assert len(world.calls) == 1


# -- row 22 --------------------------------------------------------------------------------------

ENDLESS = {
    "a line": b"data: " + b"x" * (6 << 20),
    "an event": b"data: 0123456789\n" * 600_000,
    "a field": b"event: " + b"x" * (6 << 20),
    "an id": b"id: " + b"x" * (6 << 20),
}


@pytest.mark.row(22)
@ERAS
@pytest.mark.parametrize("what", ENDLESS)
async def test_what_has_no_end_has_a_limit(autojump_clock: MockClock, era: str, what: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD)
        data = ENDLESS[what]
        for start in range(0, len(data), 65_536):
            await peer.send(chunk(data[start : start + 65_536]))
        await peer.send(SSE_END)

    async with virtual(handle, era=era) as world:
        with pytest.raises((MessageTooLarge, OutcomeUnknown)) as caught:
            await world.client.invoke_tool("desk", "echo")
        error: Any = caught.value
        causes = (error, error.__cause__)
        assert any(isinstance(one, MessageTooLarge) for one in causes)
        assert len(world.calls) == 1


@pytest.mark.row(22)
@ERAS
@pytest.mark.parametrize("noise", [b"\n" * 65_536, b"x: y\n" * 10_000, b": c\n" * 10_000])
async def test_noise_without_end_costs_its_bytes_and_no_more(
    autojump_clock: MockClock, era: str, noise: bytes
) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(SSE_HEAD)
        for _ in range(5):
            await peer.send(chunk(noise))
        await peer.send(chunk(f"\ndata: {done(received)}\n\n".encode()) + SSE_END)

    async with virtual(handle, era=era) as world:
        assert (await world.client.invoke_tool("desk", "echo")).text == "done"


# -- row 23 --------------------------------------------------------------------------------------


@pytest.mark.row(23)
@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("0", 0.1, 0.1),
        ("250", 0.25, 0.25),
        ("1" + "0" * 20, 30, 30),
        ("9" * 400, 30, 30),
        ("-1", 0.75, 1.25),
        ("1e3", 0.75, 1.25),
        ("+5", 0.75, 1.25),
        ("", 0.75, 1.25),
        ("\u0661", 0.75, 1.25),
    ],
)
async def test_the_wait_that_a_server_asks_for_is_bounded(
    autojump_clock: MockClock, asked: str, low: float, high: float
) -> None:
    times: list[float] = []
    calls: list[Received] = []

    async def handle(peer: Peer, received: Received) -> None:
        times.append(trio.current_time())
        if received.method == "POST":
            calls.append(received)
            said = f"id: e1\nretry: {asked}\ndata:\n\n".encode()
            await peer.send(SSE_HEAD + chunk(said) + SSE_END)
        else:
            await peer.send(SSE_HEAD + chunk(f"data: {done(calls[0])}\n\n".encode()) + SSE_END)

    async with virtual(handle, era="legacy") as world:
        found = await world.client.invoke_tool("desk", "echo", timeout_s=60)
        assert found.text == "done"
    first, second = times
    assert low - 0.01 <= second - first <= high + 0.01


# -- row 24 --------------------------------------------------------------------------------------


@pytest.mark.row(24)
async def test_what_a_server_tells_twice_is_heard_once_and_in_order(
    autojump_clock: MockClock,
) -> None:
    """A stream that breaks three times, and each time begins two events too early."""
    heard: list[float] = []
    calls: list[Received] = []

    def log() -> list[str]:
        steps = [progress(calls[0], step) for step in range(1, 13)]
        return [f"id: {n}\ndata: {data}\n\n" for n, data in enumerate([*steps, done(calls[0])])]

    async def handle(peer: Peer, received: Received) -> None:
        if received.method == "POST":
            calls.append(received)
        last = received.headers.get("last-event-id")
        start = 0 if last is None else max(0, int(last) - 1)
        await peer.send(SSE_HEAD + chunk("".join(log()[start : start + 6]).encode()) + SSE_END)

    async with virtual(handle, era="legacy") as world:
        found = await world.client.invoke_tool(
            "desk", "echo", on_progress=lambda one: heard.append(one.progress)
        )
        assert found.text == "done"
        assert len(world.calls) == 1
    assert heard == list(range(1, 13))
