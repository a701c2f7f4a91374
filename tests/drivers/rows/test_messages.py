"""Rows 26 to 33: what a server says that it should not, on every transport that can say it.

The server is real on each of them: sockets, or a process. After each cell the next call
succeeds, nothing is left, and each intent has its outcome.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sark_trio.errors import CallTimeout, ProtocolError, RemoteError
from tests.support.faulty import STREAMED, WIRES, cell, do

pytestmark = pytest.mark.anyio


def wire(client: Any) -> Any:
    return client.statistics().servers["desk"].wire


def result(value: bytes, ident: bytes = b"@ID") -> bytes:
    return b'{"jsonrpc":"2.0","id":' + ident + b',"result":' + value + b"}"


JUNK = {
    "bad UTF-8": b'{"jsonrpc":"2.0",\xff"method":"x"}',
    "a cut character": b'{"jsonrpc":"2.0"\xe2\x98,"method":"x"}',
    "words": b"Server listening",
    "half a message": b'{"jsonrpc":"2.0","id":1,"resu',
    "NaN": result(b'{"x":NaN}', b"901"),
    "Infinity": result(b'{"x":-Infinity}', b"901"),
    "depth 100,000": result(b"[" * 100_000 + b"]" * 100_000, b"901"),
    "100,000 digits": result(b'{"x":' + b"9" * 100_000 + b"}", b"901"),
    "a key twice": b'{"jsonrpc":"2.0","id":901,"id":901,"result":{}}',
    "a lone surrogate": result(b'{"x":"\\ud800"}', b"901"),
    "a batch": b'[{"jsonrpc":"2.0","id":901,"result":{}}]',
    "no version": b'{"id":901,"result":{}}',
    "result and error": b'{"jsonrpc":"2.0","id":901,"result":{},"error":{"code":1,"message":""}}',
    "neither": b'{"jsonrpc":"2.0","id":901}',
    "id null": result(b"{}", b"null"),
    "id 1.0": result(b"{}", b"1.0"),
    "id true": result(b"{}", b"true"),
    "id object": result(b"{}", b"{}"),
}


@pytest.mark.row(26, 27, 28)
@pytest.mark.parametrize("kind", STREAMED)
async def test_what_is_no_message_costs_only_itself(kind: str) -> None:
    async with cell(kind) as (_server, client):
        for number, (name, data) in enumerate(JUNK.items()):
            if kind == "websocket" and not _is_text(data):
                continue  # RFC 6455, 8.1: such a frame ends the connection; row 44 has it
            before = wire(client).garbage + wire(client).unmatched
            found = await client.invoke_tool("desk", "echo", do(data, n=number))
            assert found.text == str(number), name
            assert wire(client).garbage + wire(client).unmatched == before + 1, name
        assert wire(client).restarts == 0


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


BROKEN = {
    "no object": result(b"[]"),
    "another version": b'{"jsonrpc":"1.0","id":@ID,"result":{}}',
    "result and error": b'{"jsonrpc":"2.0","id":@ID,"result":{},"error":{"code":1,"message":"m"}}',
    "a word for an error": b'{"jsonrpc":"2.0","id":@ID,"error":"no"}',
    "a key twice": result(b'{"a":1,"a":2}'),
    "NaN": result(b'{"x":NaN}'),
    "neither": b'{"jsonrpc":"2.0","id":@ID}',
}


@pytest.mark.row(27, 28)
@pytest.mark.parametrize("kind", WIRES)
async def test_a_broken_answer_is_one_error_and_the_call_is_made_once(kind: str) -> None:
    async with cell(kind) as (server, client):
        await client.list_tools("desk")
        for number, (name, data) in enumerate(BROKEN.items(), 1):
            # Were it counted and no more, the call would wait for ever: nothing else comes.
            arguments = do(data, end="hang" if kind != "json" else "answer")
            if name == "NaN" and kind != "json":
                continue  # nothing of it is read, its id neither: a line that is no message
            with pytest.raises(ProtocolError) as caught:
                await client.invoke_tool("desk", "echo", arguments, replay_safe=True)
            assert caught.value.attempts == 1, name
            assert server.effects <= number


@pytest.mark.row(26, 27, 28, 29)
@pytest.mark.parametrize("body", [*JUNK.values(), result(b'{"stolen":1}', b"902")])
async def test_a_body_that_is_no_answer_is_an_error_of_its_call_alone(body: bytes) -> None:
    async with cell("json") as (server, client):
        with pytest.raises(ProtocolError):
            await client.invoke_tool("desk", "echo", do(body), replay_safe=True)
        assert server.effects == 1


STRANGE_IDS = {"never asked": b"999", "negative": b"-1", "text": b'"@ID"', "zero": b"0"}


@pytest.mark.row(29)
@pytest.mark.parametrize("kind", STREAMED)
async def test_an_answer_to_somebody_else_is_never_handed_out(kind: str) -> None:
    stolen = b'{"content":[{"type":"text","text":"stolen"}]}'
    async with cell(kind) as (_server, client):
        for number, ident in enumerate(STRANGE_IDS.values()):
            answer = result(stolen, ident)
            found = await client.invoke_tool("desk", "echo", do(answer, n=number))
            assert found.text == str(number)
            assert wire(client).unmatched == number + 1


@pytest.mark.row(29)
@pytest.mark.parametrize("kind", STREAMED)
async def test_an_answer_to_a_call_that_timed_out_answers_no_other(kind: str) -> None:
    late = result(b'{"content":[{"type":"text","text":"late"}]}', b"@HELD")
    async with cell(kind) as (server, client):
        await client.list_tools("desk")
        with pytest.raises(CallTimeout):
            await client.invoke_tool("desk", "echo", do(end="hang"), timeout_s=0.05)
        before = wire(client).unmatched
        assert (await client.invoke_tool("desk", "echo", do(late))).text == "7"
        assert wire(client).unmatched == before + 1
        assert server.effects == 2


@pytest.mark.row(30)
@pytest.mark.parametrize("kind", STREAMED)
async def test_the_first_of_two_answers_is_the_answer(kind: str) -> None:
    first, second = (
        result(b'{"resultType":"complete","content":[{"type":"text","text":"%s"}]}' % text)
        for text in (b"first", b"second")
    )
    async with cell(kind) as (server, client):
        for _ in range(3):
            # Its own is the third.
            found = await client.invoke_tool("desk", "echo", do(first, second))
            assert found.text == "first"
        assert server.effects == 3


@pytest.mark.row(31)
@pytest.mark.parametrize("kind", STREAMED)
async def test_what_a_server_asks_or_answers_unasked_is_counted(kind: str) -> None:
    asked = b'{"jsonrpc":"2.0","id":"s-@N","method":"sampling/createMessage","params":{}}'
    async with cell(kind) as (_server, client):
        found = await client.invoke_tool("desk", "echo", do((asked, 20)))
        assert found.text == "7"
        assert wire(client).details["server_requests"] == 20
        answered = result(b"{}", b'"notification"')
        assert (await client.invoke_tool("desk", "echo", do(answered))).text == "7"
        assert wire(client).unmatched == 1


def progress(token: bytes = b"@TOKEN") -> bytes:
    return (
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'
        + token
        + b',"progress":@N}}'
    )


@pytest.mark.row(32)
@pytest.mark.parametrize("kind", STREAMED)
async def test_a_flood_of_progress_is_told_in_order_and_is_nobody_elses(kind: str) -> None:
    heard: list[float] = []
    async with cell(kind) as (_server, client):
        flood = do((progress(b'"strange"'), 50), (progress(), 2_000))
        found = await client.invoke_tool(
            "desk", "echo", flood, on_progress=lambda one: heard.append(one.progress)
        )
        assert found.text == "7"
        assert heard == sorted(heard)
        assert heard[-1] == 2_000
        kept = len(heard)
        # To the one before it, which has ended.
        assert (await client.invoke_tool("desk", "echo", do((progress(b"2"), 20)))).text == "7"
        assert len(heard) == kept


@pytest.mark.row(32)
@pytest.mark.parametrize("kind", STREAMED)
async def test_progress_does_not_move_the_deadline(kind: str) -> None:
    async with cell(kind) as (_server, client):
        await client.list_tools("desk")
        endless = do((progress(), 3_000), end="hang")
        with pytest.raises(CallTimeout):
            await client.invoke_tool(
                "desk", "echo", endless, timeout_s=0.1, on_progress=lambda _: None
            )


@pytest.mark.row(61)
@pytest.mark.parametrize("kind", STREAMED)
async def test_a_listener_that_raises_is_its_own_affair(kind: str) -> None:
    def listener(_: Any) -> None:
        raise RuntimeError("a bug of the listener's")

    async with cell(kind) as (_server, client):
        told = do((progress(), 3))
        found = await client.invoke_tool("desk", "echo", told, on_progress=listener)
        assert found.text == "7"


@pytest.mark.row(33)
@pytest.mark.parametrize("kind", [kind for kind in STREAMED if kind != "stdio"])
async def test_a_storm_of_changes_is_one_fetch_and_one_to_come(kind: str) -> None:
    changed = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    async with cell(kind) as (server, client):
        await client.list_tools("desk")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.invoke_tool, "desk", "echo", do((changed, 1_000)))
            for _ in range(20):
                tasks.start_soon(client.list_tools, "desk")
                await anyio.lowlevel.checkpoint()
        listed = await client.list_tools("desk")
        assert [one.tool_name for one in listed] == ["echo"]
        # Whoever asks after a change gets a list of after it, and they share what they can.
        assert server.lists_at_once == 1
        assert server.lists <= 22


@pytest.mark.row(15)
@pytest.mark.parametrize("kind", WIRES)
async def test_an_error_of_json_rpc_is_an_answer_and_health(kind: str) -> None:
    failure = b'{"jsonrpc":"2.0","id":@ID,"error":{"code":-32000,"message":"no"}}'
    async with cell(kind) as (server, client):
        end = "answer" if kind == "json" else "hang"
        with pytest.raises(RemoteError) as caught:
            await client.invoke_tool("desk", "echo", do(failure, end=end), replay_safe=True)
        assert (caught.value.delivery, caught.value.attempts) == ("answered", 1)
        assert client.statistics().servers["desk"].breaker.failures == 0
        assert server.effects == 1
