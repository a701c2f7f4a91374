"""Rows 45 to 48: a policy engine that is down, sick, changed or broken sends nothing anywhere."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
import pytest

from sark_trio import GatewayClient, Opa, Rego
from sark_trio.errors import Denied, PolicyUnavailable
from sark_trio.testing import census
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited
from tests.support.faulty import EVERYWHERE, cell, do, free_port
from tests.support.governance import POLICIES
from tests.support.http_servers import Peer, response, serve
from tests.support.peers import opa_server

pytestmark = pytest.mark.anyio

#: What a policy server says instead of yes.
SICK = {
    "500": response(b'{"result":true}', "500 Internal Server Error"),
    "html": response(b"<html>", content_type="text/html"),
    "empty": response(b""),
    "truncated": response(b'{"result":true}')[:-4],
    "no result": response(b"{}"),
    "null": response(b'{"result":null}'),
    "a word": response(b'{"result":"true"}'),
    "1": response(b'{"result":1}'),
    "nothing": response(b'{"result":{}}'),
    "allow: yes": response(b'{"result":{"allow":"yes"}}'),
    "a list": response(b'{"result":[true]}'),
    "2 MiB": response(b'{"result":true,"x":"' + b" " * (2 << 20) + b'"}'),
    "a strange obligation": response(b'{"result":{"allow":true,"obligations":[{"type":"?"}]}}'),
}


async def refused(client: GatewayClient, server: Any) -> None:
    """A call is denied; nothing has arrived."""
    with pytest.raises(Denied) as caught:
        await client.invoke_tool("desk", "echo", do(), replay_safe=True)
    assert (caught.value.delivery, caught.value.attempts) == ("not_sent", 0)
    assert server.effects == 0


@pytest.mark.row(45)
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_a_policy_server_that_is_not_there_denies_on_every_transport(kind: str) -> None:
    disk, policy = MemoryDisk(), Opa(f"http://127.0.0.1:{free_port()}")
    async with cell(kind, disk=disk, policy=policy, heals=False) as (server, client):
        await refused(client, server)
    assert len(audited(disk, "denied")) == 1
    assert audited(disk, "intent") == []


@pytest.mark.row(45, 46)
@pytest.mark.parametrize("how", SICK)
async def test_whatever_a_policy_server_says_but_yes_denies(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(SICK[how])

    disk, port = MemoryDisk(), free_port()
    policy = Opa(f"http://127.0.0.1:{port}")
    one = cell("json", disk=disk, policy=policy, heals=False)
    async with one as (server, client), serve(script, port=port):
        for _ in range(3):
            await refused(client, server)
    assert len(audited(disk, "denied")) == 3


@pytest.fixture(scope="module")
def opa() -> Iterator[tuple[str, int]]:
    """A real OPA server, and its process."""
    before = set(census_of_children())
    with opa_server(POLICIES / "gateway.rego") as url:
        (pid,) = set(census_of_children()) - before
        yield url, pid


def census_of_children() -> list[int]:
    async def children() -> list[int]:
        return list(census().children)

    return anyio.run(children)


async def put(url: str, text: str) -> int:
    async with httpcore.AsyncConnectionPool() as pool:
        answer = await pool.request("PUT", f"{url}/v1/policies/ours", content=text.encode())
    return answer.status


POLICY = "package mcp.ours\nimport rego.v1\n"
YES = POLICY + "allow := true\n"
NO = POLICY + "allow := false\n"
#: A complete rule with two values: an error when it is evaluated.
CONFLICT = POLICY + "allow := v if { some v in [true, false] }\n"


@asynccontextmanager
async def governed(
    url: str, timeout_s: float = 10
) -> AsyncIterator[tuple[Any, GatewayClient, MemoryDisk]]:
    """A client that asks the real server's ``mcp.ours``; each call is another question."""
    disk = MemoryDisk()
    policy = Opa(url, path="/v1/data/mcp/ours", timeout_s=timeout_s)
    async with cell("json", disk=disk, policy=policy, heals=False) as (server, client):
        yield server, client, disk


@pytest.mark.row(47)
async def test_a_policy_that_flaps_decides_each_call_as_it_then_stands(
    opa: tuple[str, int],
) -> None:
    url, _ = opa
    assert await put(url, YES) == 200
    async with governed(url) as (server, client, _):
        allowed = 0
        for n in range(12):
            if n % 3 == 0:
                await put(url, (YES, NO, CONFLICT, YES)[n // 3])
            try:
                await client.invoke_tool("desk", "echo", {"n": n})
                allowed += 1
                assert n // 3 in {0, 3}
            except Denied:
                assert n // 3 in {1, 2}
        assert (allowed, server.effects) == (6, 6)


@pytest.mark.row(47)
async def test_a_policy_that_does_not_compile_leaves_the_old_one(opa: tuple[str, int]) -> None:
    url, _ = opa
    assert await put(url, NO) == 200
    assert await put(url, POLICY + "allow := {") == 400
    async with governed(url) as (server, client, _):
        await refused(client, server)
        assert await put(url, YES) == 200
        assert (await client.invoke_tool("desk", "echo", {"n": 1})).text == "1"


@pytest.mark.row(45)
async def test_a_policy_server_that_is_stopped_denies_and_is_asked_again_when_it_runs(
    opa: tuple[str, int],
) -> None:
    url, pid = opa
    assert await put(url, YES) == 200
    async with governed(url, timeout_s=0.1) as (server, client, disk):
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(PolicyUnavailable):
                await client.invoke_tool("desk", "echo", {"n": 2})
        finally:
            os.kill(pid, signal.SIGCONT)
        assert server.effects == 0
    assert len(audited(disk, "denied")) == 1
    async with governed(url) as (server, client, _):
        assert (await client.invoke_tool("desk", "echo", {"n": 2})).text == "2"


@pytest.mark.row(47)
async def test_a_decision_is_of_the_revision_that_made_it() -> None:
    """The bundle changes while the call is on its way: what was decided is what is recorded."""
    revisions = iter(["1", "1", "2", "2", "2", "2", "2", "2"])

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            body = '{"result":true,"provenance":{"bundles":{"b":{"revision":"%s"}}}}'
            await peer.send(response((body % next(revisions)).encode()))

    disk, port = MemoryDisk(), free_port()
    policy = Opa(f"http://127.0.0.1:{port}", timeout_s=10)
    one = cell("json", disk=disk, policy=policy, heals=False)
    async with one as (_, client), serve(script, port=port):
        for n in (1, 2, 3):
            await client.invoke_tool("desk", "echo", {"n": n})
    kept = [record["policy_revision"] for record in audited(disk, "intent")]
    assert kept[-1] == "b=2"
    assert kept == sorted(kept)
    assert all(re.fullmatch("b=[12]", one) for one in kept)


#: What goes wrong in process, of every call but the one with ``n`` of 41.
BROKEN = {
    "an error": 'deny contains "x" if to_number(input.parameters.word)',
    "two values": "reason := v if { some v in [input.parameters.n, 41] }",
    "much": "pad := [input.parameters.word | some _ in numbers.range(1, 3000); "
    "input.parameters.n != 41]",
}


@pytest.mark.row(48)
@pytest.mark.parametrize("how", BROKEN)
async def test_a_policy_in_process_that_breaks_denies_and_lives_on(how: str) -> None:
    text = (
        "package mcp.gateway\nimport rego.v1\n"
        'allow if input.action == "gateway:tool:discover"\n'
        "allow if input.parameters.n == 41\n"
    )
    disk, policy = MemoryDisk(), Rego(texts={"policy.rego": text + BROKEN[how]})
    async with cell("memory", disk=disk, policy=policy) as (server, client):
        with pytest.raises(Denied) as caught:
            arguments = {"n": 7, "word": "x" * 1000}
            await client.invoke_tool("desk", "echo", arguments)
        assert caught.value.delivery == "not_sent"
        assert server.effects == 0
    assert len(audited(disk, "denied")) == 1
