"""Tasks of 2025-11-25 through the gateway: begun, looked at, fetched and cancelled."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio import GatewayClient, Principal, Rego
from sark_trio.gateway import serve_stdio
from sark_trio.gateway.pipes import read_lines
from sark_trio.mcp.faults import remote_error
from tests.support.audit_disk import MemoryDisk
from tests.support.client import answer, audited, check_log, desk, open_client
from tests.support.gateway import (
    HUNG_S,
    Answer,
    Legacy,
    Reader,
    Served,
    Stuck,
    connected,
    eventually,
    head,
    serving,
)

pytestmark = pytest.mark.anyio

ANN, BOB = "anns-key-anns-key-1", "bobs-key-bobs-key-1"
KEYS = {ANN: Principal(id="ann"), BOB: Principal(id="bob")}
RELATED = "io.modelcontextprotocol/related-task"
ECHO = {"name": "desk__echo", "task": {"ttl": 60_000}}
QUESTION = {
    "resultType": "input_required",
    "inputRequests": {
        "who": {
            "method": "elicitation/create",
            "params": {
                "mode": "form",
                "message": "Who?",
                "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        }
    },
}


@asynccontextmanager
async def served_by(
    server: Any, disk: MemoryDisk | None = None, client: Any = None, **options: Any
) -> AsyncIterator[Served]:
    async with (
        open_client(server, disk, **(client or {})) as inner,
        serving(inner, **{"api_keys": KEYS, **options}) as served,
    ):
        yield served


async def host(served: Served, key: str = ANN, **capabilities: Any) -> Legacy:
    """A client of 2025-11-25 with a session."""
    legacy = Legacy(served, X_API_Key=key, Accept="application/json, text/event-stream")
    begun = await legacy.initialize(**capabilities)
    tasks = begun.json["result"]["capabilities"]["tasks"]
    assert tasks == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    return legacy


async def begin(legacy: Legacy, **params: Any) -> str:
    task = (await legacy.call("tools/call", {**ECHO, **params})).json["result"]["task"]
    assert task["status"] == "working"
    found: str = task["taskId"]
    return found


async def ask(legacy: Legacy, what: str, task_id: str) -> Answer:
    return await legacy.call(f"tasks/{what}", {"taskId": task_id})


async def status(legacy: Legacy, task_id: str) -> str:
    found: str = (await ask(legacy, "get", task_id)).json["result"]["status"]
    return found


async def becomes(legacy: Legacy, task_id: str, wanted: str) -> None:
    while await status(legacy, task_id) != wanted:
        pass


async def test_a_task_from_its_beginning_to_its_result() -> None:
    disk, late = MemoryDisk(), Stuck()
    async with served_by(desk(late), disk) as served:
        ann = await host(served)
        (listed,) = (await ann.call("tools/list")).json["result"]["tools"]
        assert listed["execution"] == {"taskSupport": "optional"}
        begun = (await ann.call("tools/call", ECHO)).json["result"]["task"]
        assert set(begun) == {
            "taskId",
            "status",
            "createdAt",
            "lastUpdatedAt",
            "ttl",
            "pollInterval",
        }
        assert (begun["status"], begun["ttl"]) == ("working", 60_000)
        task_id = begun["taskId"]
        await late.arrived.wait()
        # Recorded before it is made, as every call is, and nobody has to wait for it.
        (intent,) = audited(disk, "intent")
        assert (intent["principal_id"], intent["tool"]) == ("ann", "echo")
        await eventually(lambda: served.app.traffic.in_flight == 0)
        async with anyio.create_task_group() as tasks:
            found: list[Answer] = []

            async def wait() -> None:
                found.append(await ask(ann, "result", task_id))

            tasks.start_soon(wait)
            assert await status(ann, task_id) == "working"
            late.goes_on.set()
        result = found[0].json["result"]
        assert result["content"] == [{"type": "text", "text": "late"}]
        assert result["_meta"] == {RELATED: {"taskId": task_id}}
        # Whoever lost the session has the task all the same.
        again = await host(served)
        assert await status(again, task_id) == "completed"
        assert (await ask(again, "result", task_id)).json["result"] == result
        refused = await ask(again, "cancel", task_id)
        assert refused.error["code"] == -32602
    (outcome,) = audited(disk, "outcome")
    assert (outcome["outcome"], outcome["request_id"]) == ("ok", intent["request_id"])
    check_log(disk)


@pytest.mark.security(12)
async def test_a_task_is_its_callers_and_nobody_elses() -> None:
    late = Stuck()
    async with served_by(desk(late), client={"grace_s": 0}) as served:
        ann, bob = await host(served), await host(served, BOB)
        task_id = await begin(ann)
        for legacy, name in ((bob, task_id), (ann, task_id[:-1]), (ann, "desk__" + task_id)):
            for what in ("get", "result", "cancel"):
                refused = await ask(legacy, what, name)
                assert (refused.error["code"], "data" in refused.error) == (-32602, False)
        for wrong in (None, 7, {}, []):
            refused = await ann.call("tasks/get", {"taskId": wrong})
            assert refused.error["code"] == -32602
        assert await status(ann, task_id) == "working"
        assert len(task_id) >= 32  # of 24 bytes that nobody can guess
        assert await begin(ann) != task_id


async def test_a_cancelled_task_is_cancelled_here_and_at_the_server() -> None:
    disk, stuck = MemoryDisk(), Stuck()
    async with served_by(desk(stuck), disk) as served:
        ann = await host(served)
        task_id = await begin(ann)
        await stuck.arrived.wait()
        shown = (await ask(ann, "cancel", task_id)).json["result"]
        assert (shown["taskId"], shown["status"]) == (task_id, "cancelled")
        await eventually(lambda: served.client.statistics().running_calls == 0)
        assert await status(ann, task_id) == "cancelled"
        assert "cancelled" in (await ask(ann, "result", task_id)).error["message"]
        assert (await ask(ann, "cancel", task_id)).error["code"] == -32602
    (outcome,) = audited(disk, "outcome")
    assert outcome["outcome"] == "cancelled"


async def test_calls_that_fail_are_tasks_that_failed_and_say_what_the_call_would() -> None:
    error = remote_error(4711, "no such row", {"row": 7}, delivery="answered")
    script = (answer("no", isError=True), error, answer("no", isError=True), error)
    async with served_by(desk(*script)) as served:
        ann = await host(served)
        for member in ("result", "error"):
            task_id = await begin(ann)
            as_task = (await ask(ann, "result", task_id)).json
            assert await status(ann, task_id) == "failed"
            assert member in as_task
        for member in ("result", "error"):
            plain = (await ann.call("tools/call", {"name": "desk__echo"})).json
            assert member in plain
        assert as_task["error"]["code"] == plain["error"]["code"] == 4711
        assert as_task["error"]["message"] == plain["error"]["message"]
        unknown = await ann.call("tools/call", {**ECHO, "name": "desk_nothing"})
        assert unknown.error["code"] == -32602


@pytest.mark.security(2)
async def test_what_policy_denies_is_sent_as_no_task_either() -> None:
    policy = Rego(
        texts={
            "p": "package mcp.gateway\n"
            "default allow := false\n"
            'allow if input.action != "gateway:tool:invoke"\n'
        }
    )
    server, disk = desk(), MemoryDisk()
    async with served_by(server, disk, {"policy": policy}) as served:
        ann = await host(served)
        task_id = await begin(ann)
        refused = await ask(ann, "result", task_id)
        assert refused.error["data"]["type"] == "denied"
        assert await status(ann, task_id) == "failed"
    assert not server.arrived
    (denied,) = audited(disk, "denied")
    assert denied["principal_id"] == "ann"


@pytest.mark.security(37)
async def test_who_is_switched_off_gets_no_task_and_no_result() -> None:
    async with served_by(desk()) as served:
        ann, bob = await host(served), await host(served, BOB)
        mine, theirs = await begin(ann), await begin(bob)
        await ask(ann, "result", mine)
        served.client.block(principal="ann", reason="incident")
        for what in ("get", "result", "cancel"):
            assert (await ask(ann, what, mine)).error["data"]["reason"] == "blocked"
        assert (await ask(bob, "result", theirs)).json["result"]["content"]


async def test_a_server_that_asks_in_a_task_asks_whoever_waits_for_its_result() -> None:
    server = desk(QUESTION, answer("hello"))
    async with served_by(server) as served:
        ann = await host(served, elicitation={})
        task_id = await begin(ann)
        await becomes(ann, task_id, "input_required")
        params = {"taskId": task_id}
        async with waiting(ann, params) as first:
            asked = await message(first)
            assert asked["method"] == "elicitation/create"
            assert asked["params"]["message"] == "Who?"
            assert asked["params"]["_meta"] == {RELATED: params}
            # Somebody who came back: what waits for an answer is asked again, there.
            async with waiting(ann, params) as second:
                again = await message(second)
                assert again["params"] == asked["params"]
                assert again["id"] != asked["id"]
                cancelled = await message(first)
                assert cancelled["method"] == "notifications/cancelled"
                assert cancelled["params"] == {"requestId": asked["id"]}
                given = {"action": "accept", "content": {"name": "Ann"}}
                answered = {"jsonrpc": "2.0", "id": again["id"], "result": given}
                assert (await ann.post(answered)).status == 202
                for reader in (second, first):
                    ended = await message(reader)
                    assert ended["result"]["content"][0]["text"] == "hello"
        assert await status(ann, task_id) == "completed"


@asynccontextmanager
async def waiting(legacy: Legacy, params: Mapping[str, Any]) -> AsyncIterator[Reader]:
    """Wait for a result on a stream that is read message by message."""
    call = {"jsonrpc": "2.0", "id": next(legacy.ids), "method": "tasks/result", "params": params}
    async with connected(legacy.served.url) as stream:
        body = json.dumps(call).encode()
        await stream.send(head(legacy.served.url, "POST", "/mcp", body, legacy.headers))
        yield Reader(stream)


async def message(reader: Reader) -> Any:
    (event,) = await reader.raw(1)
    return json.loads(event.data)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-03-26"])
async def test_earlier_revisions_have_no_tasks_and_pass_a_wish_for_one_over(version: str) -> None:
    async with served_by(desk()) as served:
        legacy = Legacy(served, X_API_Key=ANN)
        begun = await legacy.initialize(version)
        assert "tasks" not in begun.json["result"]["capabilities"]
        (listed,) = (await legacy.call("tools/list")).json["result"]["tools"]
        assert "execution" not in listed
        # 2025-11-25, "Task Support and Handling": who offers none ignores the wish for one.
        assert (await legacy.call("tools/call", ECHO)).json["result"]["content"]
        for method in ("tasks/list", "tasks/get", "tasks/result", "tasks/cancel"):
            assert (await legacy.call(method, {"taskId": "t"})).error["code"] == -32601


async def test_tasks_on_standard_input_and_output() -> None:
    (theirs, writing), (reading, ours) = os.pipe(), os.pipe()
    answers: dict[Any, Any] = {}

    async def take(line: Any) -> None:
        found = json.loads(line)
        answers[found["id"]] = found

    async def call(number: int, method: str, **params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        os.write(ours, json.dumps(request).encode() + b"\n")
        await eventually(lambda: number in answers)
        return answers[number]["result"]

    async def be_served(client: GatewayClient) -> None:
        await serve_stdio(client, reading=reading, writing=writing)
        os.close(writing)

    with anyio.fail_after(HUNG_S):
        async with open_client(desk()) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(be_served, client)
            tasks.start_soon(read_lines, theirs, take)
            about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
            assert "tasks" in (await call(1, "initialize", **about))["capabilities"]
            task = (await call(2, "tools/call", **ECHO))["task"]
            result = await call(3, "tasks/result", taskId=task["taskId"])
            assert result["content"][0]["text"] == "done"
            os.close(ours)
    for descriptor in (theirs, reading):
        os.close(descriptor)
