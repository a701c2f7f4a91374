"""Rows under a thousand concurrent calls: a few meet a fault, and none of the others hears of it.

One sick server and one that is well share a client, a log and a network in memory, in virtual
time. A thousand calls are under way at once when the fault strikes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import httpcore
import pytest
import trio
from trio.testing import MockClock

from sark_trio import AllowAll, AuditLog, GatewayClient, RetryConfig, jsontext
from sark_trio.client.servers import Http, Memory
from sark_trio.errors import GatewayError
from sark_trio.testing import held, no_leaks
from sark_trio.transports.memory import Incoming
from tests.simulation.network import Network, Wire
from tests.support.audit_disk import MemoryDisk
from tests.support.client import ALICE, check_log
from tests.support.faulty import NEVER
from tests.support.http_servers import SSE_HEAD, chunk, response

CALLS = 1_000
#: Every so many meets the fault.
EVERY = 10


class Calm:
    """A network on which nothing goes wrong by itself."""

    def strikes(self, point: str) -> bool:
        return False

    def seconds(self, what: str, low: float, high: float) -> float:
        return low

    def size(self, what: str, most: int) -> int:
        return most


class Sick:
    """A server in the simulated network that answers what *fault* says to each tenth call."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.effects: Counter[int] = Counter()
        self.lists = 0
        self.well = False

    async def accept(self, wire: Wire) -> None:
        try:
            while await self._exchange(wire):
                pass
        except httpcore.NetworkError:
            pass
        finally:
            wire.close()

    async def _exchange(self, wire: Wire) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await wire.read(65_536)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        while len(body) < size:
            body += await wire.read(65_536)
        return await self._answer(wire, jsontext.decode(body))

    async def _answer(self, wire: Wire, message: Any) -> bool:
        ident, method = message["id"], message["method"]
        if method == "server/discover":
            result = '{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}'
        elif method == "tools/list":
            self.lists += 1
            result = '{"tools":[{"name":"echo","inputSchema":{"type":"object"}}],"ttlMs":600000}'
        else:
            n = message["params"]["arguments"]["n"]
            self.effects[n] += 1
            # So that a thousand are under way before the first has ended.
            await anyio.sleep(1)
            if n % EVERY == 0 and not self.well:
                return await self._break(wire, ident)
            result = f'{{"resultType":"complete","content":[{{"type":"text","text":"{n}"}}]}}'
        await wire.write(_response(ident, result))
        return True

    async def _break(self, wire: Wire, ident: int) -> bool:
        stolen = '{"content":[{"type":"text","text":"stolen"}]}'
        answers: dict[str, list[bytes]] = {
            "cut": [_response(ident, stolen)[:-9]],
            "malformed head": [b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc"],
            "extra bytes": [_response(ident, stolen.replace("stolen", "extra")) + b"HTTP/1.1 2"],
            "html": [response(b"<html>", content_type="text/html")],
            "forbidden": [response(b"", "403 Forbidden")],
            "busy": [response(b"", "429 Too Many Requests", Retry_After="2")],
            "failing": [response(b"", "500 Oops")],
            "stream without answer": [SSE_HEAD + b"0\r\n\r\n"],
            "huge event": [SSE_HEAD, chunk(b"data: " + b"x" * (5 << 20))],
            "bad UTF-8": [response(b'{"jsonrpc":"2.0","id":\xff}')],
            "no JSON": [response(b"{" * 1_000)],
            "no JSON-RPC": [response(b'[{"jsonrpc":"2.0","id":%d,"result":{}}]' % ident)],
            "wrong id": [_response(ident + 1, stolen)],
        }
        if self.fault == "reset":
            wire.reset()
            return False
        if self.fault == "silent":
            await anyio.sleep_forever()
        for piece in answers.get(self.fault, []):
            await wire.write(piece)
        return self.fault in {"html", "forbidden", "busy", "failing", "no JSON"}


def _response(ident: int, result: str) -> bytes:
    return response(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (ident, result.encode()))


FAULTS = {
    "reset": 5,
    "cut": 8,
    "silent": 10,
    "malformed head": 11,
    "extra bytes": 12,
    "html": 14,
    "forbidden": 15,
    "busy": 16,
    "failing": 17,
    "stream without answer": 20,
    "huge event": 22,
    "bad UTF-8": 26,
    "no JSON": 27,
    "no JSON-RPC": 28,
    "wrong id": 29,
}


@pytest.mark.trio
@pytest.mark.row(5, 8, 10, 11, 12, 14, 15, 16, 17, 20, 22, 26, 27, 28, 29)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_thousand_calls_of_which_each_tenth_meets_a_fault(
    autojump_clock: MockClock, fault: str
) -> None:
    disk, ends = MemoryDisk(), dict[int, str]()
    async with no_leaks(), trio.open_nursery() as world:
        sick = Sick(fault)
        network = Network(Calm(), world)
        host = network.add("sick.test", sick.accept)
        client = GatewayClient(
            servers={
                "sick": Http("http://sick.test/mcp", network=network, timeout_s=250.0),
                "well": Memory(well),
            },
            policy=AllowAll(),
            audit=AuditLog("log", files=disk),
            principal=ALICE,
            breaker=NEVER,
            retry=RetryConfig(attempts=1),
        )
        async with client:
            await client.list_tools()

            async def call(number: int) -> None:
                server = "sick" if number % 2 == 0 else "well"
                try:
                    found = await client.invoke_tool(server, "echo", {"n": number})
                except GatewayError as exc:
                    assert exc.delivery in {"unknown", "answered", "not_sent"}
                    # The pool's own five seconds: half of them wait for ten connections.
                    ends[number] = "waited" if exc.delivery == "not_sent" else "failed"
                    assert exc.delivery != "not_sent" or sick.effects[number] == 0
                else:
                    ends[number] = found.text

            async with trio.open_nursery() as callers:
                for number in range(CALLS):
                    callers.start_soon(call, number)
                await trio.testing.wait_all_tasks_blocked()
                assert client.statistics().running_calls == CALLS
            judge(fault, ends, sick)
            assert held(client) == {}
            sick.well = True
            for server in ("sick", "well"):
                assert (await client.invoke_tool(server, "echo", {"n": 7_000})).text == "7000"
            assert held(client) == {}
        assert host.most_open <= 10
        world.cancel_scope.cancel()
    check_log(disk)


def judge(fault: str, ends: dict[int, str], sick: Sick) -> None:
    """Nobody is missing, nobody got another's answer, nothing happened twice."""
    assert len(ends) == CALLS
    assert max(sick.effects.values()) == 1
    for number, end in ends.items():
        if number % 2:
            assert end == str(number)
        elif number % EVERY:
            assert end in {str(number), "waited"}
        else:
            assert end in {"failed", "waited"} or (fault == "extra bytes" and end == "extra")
    assert "failed" in ends.values() or fault == "extra bytes"
    assert sum(end.isdigit() for end in ends.values()) > CALLS // 2


async def well(incoming: Incoming) -> dict[str, Any]:
    params = incoming.receive()
    if incoming.method == "tools/list":
        return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    await anyio.sleep(1)
    return {"content": [{"type": "text", "text": str(params["arguments"]["n"])}]}
