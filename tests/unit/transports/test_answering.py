"""Requests of a server's: each answered once, so many at a time, and given up with their call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio import jsontext
from sark_trio.errors import RemoteError
from sark_trio.mcp.messages import Request
from sark_trio.transports import answering
from sark_trio.transports.answering import Answering, Asker

pytestmark = pytest.mark.anyio
HUNG_S = 20.0


class Desk:
    """What was answered, and a wait for so many answers."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._news = anyio.Event()

    async def send(self, body: bytes) -> None:
        self.sent.append(jsontext.decode(body))
        self._news.set()

    async def wait(self, count: int) -> list[Any]:
        with anyio.fail_after(HUNG_S):
            while len(self.sent) < count:
                self._news = anyio.Event()
                await self._news.wait()
        return self.sent


@asynccontextmanager
async def answers(ask: Asker | None = None) -> AsyncIterator[tuple[Answering, Desk]]:
    async with anyio.create_task_group() as tasks:
        yield Answering(tasks, ask), Desk()
        tasks.cancel_scope.cancel()


async def echo(request: Request) -> Mapping[str, Any]:
    return {"method": request.method}


async def forever(_: Request) -> Mapping[str, Any]:
    await anyio.sleep_forever()
    raise AssertionError


async def test_a_request_is_answered_by_whom_it_came_with_else_by_whoever_is_there() -> None:
    async def own(_: Request) -> Mapping[str, Any]:
        return {"own": True}

    async with answers(echo) as (desk, sent):
        desk.take(Request(1, "roots/list"), sent.send)
        desk.take(Request("1", "roots/list"), sent.send, own)
        desk.take(Request(2, "ping"), sent.send)
        found = {type(one["id"]).__name__ + str(one["id"]): one for one in await sent.wait(3)}
    assert found["int1"]["result"] == {"method": "roots/list"}
    assert found["str1"]["result"] == {"own": True}
    assert found["int2"]["result"] == {}
    assert len(desk) == 0


async def test_without_anybody_there_is_no_such_method_but_ping() -> None:
    async with answers() as (desk, sent):
        desk.take(Request(1, "sampling/createMessage"), sent.send)
        desk.take(Request(2, "ping"), sent.send)
        by_id = {one["id"]: one for one in await sent.wait(2)}
    assert by_id[1]["error"]["code"] == -32601
    assert by_id[2]["result"] == {}


async def test_failures_are_answered_and_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(request: Request) -> Mapping[str, Any]:
        if request.id == 1:
            raise ValueError("secret")
        if request.id == 2:
            raise RemoteError("user said no", code=-1, data={"x": 1})
        if request.id == 3:
            raise RemoteError("bad", code=-2, data=object())
        return {"much": "x" * 100} if request.id == 4 else {"no json": object()}

    monkeypatch.setattr(answering, "ANSWER_BYTES_MAX", 100)
    async with answers(fail) as (desk, sent):
        for number in range(1, 6):
            desk.take(Request(number, "x"), sent.send)
        errors = {one["id"]: one["error"] for one in await sent.wait(5)}
    assert errors[2] == {"code": -1, "message": "user said no", "data": {"x": 1}}
    assert {errors[n]["code"] for n in (1, 3, 4, 5)} == {-32603}
    assert "secret" not in str(errors)


async def test_only_so_many_are_answered_at_a_time() -> None:
    async with answers(forever) as (desk, sent):
        for number in range(16):
            desk.take(Request(number, "x"), sent.send)
        desk.take(Request(3, "x"), sent.send)
        desk.take(Request(99, "x"), sent.send)
        refused = await sent.wait(2)
        assert {one["id"] for one in refused} == {3, 99}
        assert {one["error"]["code"] for one in refused} == {-32600}
        assert len(desk) == 16
        desk.withdraw(3)
        desk.withdraw(True)
        desk.withdraw("unknown")
        desk.withdraw(None)
        with anyio.fail_after(HUNG_S):
            while len(desk) == 16:
                await anyio.lowlevel.checkpoint()
        assert len(desk) == 15
        assert len(sent.sent) == 2  # whoever takes a question back wants no answer


async def test_a_flood_of_requests_is_not_even_refused() -> None:
    stuck = anyio.Event()

    async def send(_: bytes) -> None:
        await stuck.wait()

    async with answers(forever) as (desk, _):
        for number in range(1_000):
            desk.take(Request(number, "x"), send)
        await anyio.wait_all_tasks_blocked()
        assert desk._refusing == 16
        assert repr(desk) == "<Answering 16 requests>"


async def test_what_came_with_a_call_ends_with_it() -> None:
    asked: set[anyio.CancelScope] = set()
    async with answers() as (desk, sent):
        desk.take(Request(1, "x"), sent.send, forever, asked)
        await anyio.wait_all_tasks_blocked()
        for scope in asked:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert (len(desk), asked, sent.sent) == (0, set(), [])


@pytest.mark.trio
async def test_nobody_is_waited_for_for_ever(autojump_clock: Any) -> None:
    async with answers(forever) as (desk, sent):
        desk.take(Request(1, "x"), sent.send)
        await anyio.sleep(answering.ANSWER_S_MAX + 1)
        assert sent.sent[0]["error"]["message"] == "nobody answered in time"
