"""Batches over HTTP: of revision 2025-03-26, whose servers must take them, and of no other."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from sark_trio.gateway.limits import Limits
from sark_trio.machines.limiter import RateOptions
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, desk, open_client
from tests.support.gateway import Answer, Legacy, Stuck, eventually, serving, sse_events

pytestmark = pytest.mark.anyio

BATCHED = "2025-03-26"
CALL = {"name": "desk__echo", "arguments": {"a": 1}}


def request(request_id: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


async def test_each_request_is_answered_in_one_array() -> None:
    disk = MemoryDisk()
    server = desk(answer("one"), answer("two"))
    async with open_client(server, disk) as inner, serving(inner) as served:
        client = Legacy(served)
        await client.initialize(BATCHED)
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        batch = [
            request(1, "ping"),
            note,
            request("b", "tools/call", **CALL),
            request(1, "tools/call", **CALL),
            request(4, "initialize"),
            request(5, "nope"),
            17,
        ]
        found = await client.post(batch)
        assert (found.status, found.headers["content-type"]) == (200, "application/json")
        broken, ping, first, second, *none = found.json
        assert (broken["id"], broken["error"]["code"]) == (None, -32600)
        assert (ping["id"], ping["result"]) == (1, {})
        assert (first["id"], first["result"]["content"][0]["text"]) == ("b", "one")
        # An id is free again once its request is answered: one comes after the other.
        assert (second["id"], second["result"]["content"][0]["text"]) == (1, "two")
        assert [(one["id"], one["error"]["code"]) for one in none] == [(4, -32601), (5, -32601)]
        assert (await client.post([note, note])).status == 202
        assert (await client.post([])).status == 400
    assert len(audited(disk, "outcome")) == 2


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
async def test_later_revisions_have_none(version: str) -> None:
    async with open_client(desk()) as inner, serving(inner) as served:
        client = Legacy(served)
        assert (await client.post([request(1, "ping")])).status == 400  # no session at all
        await client.initialize(version)
        found = await client.post([request(1, "ping")])
        assert (found.status, found.error["code"]) == (400, -32600)
        assert version in found.error["message"]
        # Nor has the one that is stateless.
        body = json.dumps([request(1, "ping")]).encode()
        found = await served.ask("POST", "/mcp", body, MCP_Protocol_Version="2026-07-28")
        assert (found.status, found.error["code"]) == (400, -32600)


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_what_is_given_up_is_not_answered(how: str) -> None:
    disk, stuck = MemoryDisk(), Stuck()
    async with open_client(desk(stuck), disk) as inner, serving(inner) as served:
        async with anyio.create_task_group() as tasks:
            client = Legacy(served)
            await client.initialize(BATCHED)
            found: list[Answer] = []

            async def post() -> None:
                calls = [request("a", "tools/call", **CALL), request("b", "ping")]
                found.append(await client.post(calls))

            tasks.start_soon(post)
            await stuck.arrived.wait()
            if how == "cancelled":
                await client.notify("notifications/cancelled", {"requestId": "a"})
            else:
                assert (await served.ask("DELETE", "/mcp", **client.headers)).status == 204
            await eventually(lambda: bool(found))
        (rest,) = found[0].json
        assert rest["id"] == "b"
        assert ("result" in rest) == (how == "cancelled")  # what comes after the end is refused
    (ended,) = audited(disk, "outcome")
    assert ended["outcome"] == "cancelled"


async def test_each_request_counts() -> None:
    limits = Limits(rate=RateOptions(per_s=0.001, burst=5))
    async with open_client(desk()) as inner, serving(inner, limits=limits) as served:
        client = Legacy(served)
        await client.initialize(BATCHED)  # one
        assert (await client.post([request(n, "ping") for n in range(3)])).status == 200  # three
        found = await client.post([request(n, "ping") for n in range(3)])
        assert (found.status, found.error["type"]) == (429, "rate_limited")


async def test_progress_comes_before_the_array() -> None:
    async def with_progress(incoming: Any) -> Any:
        incoming.receive()
        incoming.notify("notifications/progress", {"progressToken": "none", "progress": 1})
        return answer("done")

    async with open_client(desk(with_progress)) as inner, serving(inner) as served:
        client = Legacy(served)
        await client.initialize(BATCHED)
        call = request(1, "tools/call", **CALL, _meta={"progressToken": "t"})
        progress, answers = sse_events((await client.post([call])).body)
    assert progress["params"] == {"progressToken": "t", "progress": 1}
    assert [one["id"] for one in answers] == [1]
