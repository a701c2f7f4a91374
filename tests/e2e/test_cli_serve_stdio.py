"""``sark serve --stdio``: a real process, in front of a real server, started by real hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient, Progress, Stdio
from sark_trio.errors import RemoteError
from sark_trio.stores.audit import verify_directory
from tests.support.backends import BACKENDS as BACKENDS_WITHIN
from tests.support.cli import Place, finish
from tests.support.client import audited, check_log
from tests.support.gateway import META
from tests.support.peers import peer, stdio_server
from tests.tidy.source import ROOT

BACKENDS = ("trio", "asyncio")
CLIENTS = Path(__file__).parents[1] / "peers" / "clients"
OPEN = "package mcp.gateway\nallow := true\n"
SHUT = 'package mcp.gateway\nallow if input.action == "gateway:tool:discover"\n'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with a real server, under the name ``peer``, and a policy."""
    place = Place(tmp_path)
    place.write("policy.rego", OPEN)
    command = json.dumps(stdio_server("everything-mcp2"))
    place.write(
        "sark.toml",
        f'[servers.peer]\ncommand = {command}\n[policy]\nrego = ["policy.rego"]\n'
        '[audit]\ndirectory = "audit"\n[identity]\nprincipal = "host"\n',
    )
    return place


def command(place: Place, backend: str) -> list[str]:
    config = str(place.folder / "sark.toml")
    return [
        *(sys.executable, "-W", "error", "-m", "sark_trio", "serve", "--stdio"),
        *("--config", config, "--backend", backend),
    ]


@pytest.mark.parametrize(
    ("name", "script", "mode", "version", "backend"),
    [
        ("mcp2", "stdio_mcp2.py", ["auto"], "2026-07-28", "trio"),
        ("mcp2", "stdio_mcp2.py", ["auto"], "2026-07-28", "asyncio"),
        ("mcp2", "stdio_mcp2.py", ["legacy"], "2025-11-25", "trio"),
        ("mcp1", "stdio_mcp1.py", [], "2025-11-25", "asyncio"),
    ],
    ids=["mcp2-trio", "mcp2-asyncio", "mcp2-legacy", "mcp1"],
)
def test_hosts_of_the_official_sdk(
    place: Place, backend: str, name: str, script: str, mode: list[str], version: str
) -> None:
    done = subprocess.run(
        [str(peer(name).python), str(CLIENTS / script), *mode, *command(place, backend)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saw = json.loads(done.stdout)
    assert saw["version"] == version
    assert {"peer__add", "peer__echo", "peer__slow", "peer__fail"} <= set(saw["tools"])
    assert saw["added"] == {"result": 5}
    assert saw["progress"] == [[1, 3], [2, 3], [3, 3]]
    assert saw["failed"] is True
    assert saw["error"] == [-32602, "unknown_tool"]
    found = check_log(place.folder / "audit")
    assert {one["principal_id"] for one in found if one["kind"] == "intent"} == {"host"}


@pytest.fixture(params=BACKENDS_WITHIN)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.anyio
async def test_our_own_client_is_a_host_too(
    place: Place, anyio_backend: tuple[str, Any], tmp_path: Path
) -> None:
    backend = anyio_backend[0]
    seen: list[Progress] = []
    server = Stdio(command(place, backend), env={"PYTHONPATH": str(ROOT)})
    async with GatewayClient(
        servers={"far": server}, policy=AllowAll(), audit=tmp_path / "own-audit"
    ) as client:
        with anyio.fail_after(60):
            agreed = await client.connect("far")
            assert agreed.server_info["name"] == "sark_trio"
            assert agreed.version == "2026-07-28"
            total = await client.invoke_tool("far", "peer__add", {"a": 2, "b": 3})
            assert total.structured_content == {"result": 5}
            arguments = {"seconds": 0.1, "steps": 2}
            await client.invoke_tool("far", "peer__slow", arguments, on_progress=seen.append)
            with pytest.raises(RemoteError) as caught:
                await client.invoke_tool("far", "peer__die", {"code": 3})
            assert caught.value.data["type"] == "outcome_unknown"
    assert [one.progress for one in seen] == [1, 2]
    check_log(place.folder / "audit")


# -- line by line ---------------------------------------------------------------------------------


class Talk:
    """A host that writes and reads lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def request(self, request_id: Any, method: str, *, modern: bool = True, **params: Any) -> None:
        meta = {"_meta": META} if modern else {}
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, **meta}}
        self.say(json.dumps(body))

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def talking(place: Place, backend: str) -> Iterator[Talk]:
    with place.start("serve", "--stdio", "--backend", backend) as process:
        try:
            yield Talk(process)
        finally:
            process.kill()


SLOW = {"name": "peer__slow", "arguments": {"seconds": 60, "steps": 600}}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_line_is_answered_or_is_none(place: Place, backend: str) -> None:
    with talking(place, backend) as talk:
        for line, code in (
            ("{", -32700),
            ("[]", -32600),
            ('{"jsonrpc":"2.0","method":3,"id":4}', -32600),
            ("é" * 3_000_000, -32700),  # longer than any message
        ):
            talk.say(line)
            assert talk.hear()["error"]["code"] == code
        talk.say('{"jsonrpc":"2.0","method":"notifications/anything"}')
        talk.say('{"jsonrpc":"2.0","id":9,"result":{}}')
        talk.request(1, "tools/list", modern=False)
        assert talk.hear()["error"]["code"] == -32600  # no session, no version
        talk.request(2, "ping", modern=False)
        assert talk.hear() == {"jsonrpc": "2.0", "id": 2, "result": {}}
        talk.request("three", "server/discover")
        found = talk.hear()
        assert (found["id"], found["result"]["supportedVersions"]) == ("three", ["2026-07-28"])
        talk.say(
            '{"jsonrpc":"2.0","id":4,"method":"tools/list","params":{"_meta":'
            '{"io.modelcontextprotocol/protocolVersion":"2099-01-01"}}}'
        )
        error = talk.hear()["error"]
        assert (error["code"], error["data"]["requested"]) == (-32022, "2099-01-01")
        talk.say(
            '{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{"_meta":'
            '{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
        )
        assert talk.hear()["error"]["code"] == -32602
        talk.request(6, "resources/nothing")
        assert talk.hear()["error"]["code"] == -32601
        talk.request(7, "initialize", modern=False)
        assert talk.hear()["error"]["code"] == -32602
        talk.request(8, "initialize", modern=False, protocolVersion="2024-11-05")
        assert talk.hear()["result"]["protocolVersion"] == "2025-11-25"
        talk.request(9, "tools/list", modern=False)
        assert "resultType" not in talk.hear()["result"]
        # The end of input is the end, and nothing but messages was on standard output.
        done = finish(talk.process)
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_is_answered_in_one_line_and_only_where_there_are_batches(
    place: Place, backend: str
) -> None:
    ping, listing = ({"jsonrpc": "2.0", "method": name} for name in ("ping", "tools/list"))
    batch = json.dumps([{**ping, "id": 1}, {**ping, "id": [1]}, {**listing, "id": "b"}, ping])
    with talking(place, backend) as talk:
        talk.say(batch)
        assert talk.hear()["error"]["code"] == -32600
        talk.request(0, "initialize", modern=False, protocolVersion="2025-03-26")
        assert talk.hear()["result"]["protocolVersion"] == "2025-03-26"
        talk.say(batch)
        broken, pong, listed = talk.hear()
        assert (broken["id"], broken["error"]["code"]) == (None, -32600)
        assert pong == {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert listed["id"] == "b"
        assert listed["result"]["tools"]
        talk.say("[]")
        assert talk.hear()["error"]["code"] == -32600
        talk.say(json.dumps([ping]))  # a notification, and no answer
        for wrong in ("[1]", '{"a":1}', "true", "null", "0.5", '"0"'):
            cancelled = f'"method":"notifications/cancelled","params":{{"requestId":{wrong}}}'
            talk.say(f'{{"jsonrpc":"2.0",{cancelled}}}')
        talk.request(2, "ping", modern=False)
        assert talk.hear() == {"jsonrpc": "2.0", "id": 2, "result": {}}
        done = finish(talk.process)
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_request_gets_no_answer_and_the_next_one_does(
    place: Place, backend: str
) -> None:
    with talking(place, backend) as talk:
        talk.request(1, "tools/call", **SLOW)
        talk.request(1, "tools/call", **SLOW)
        assert talk.hear()["error"]["code"] == -32600  # the id is under way
        while not place.intents():
            talk.request("tick", "server/discover")
            assert talk.hear()["id"] == "tick"
        talk.say('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
        talk.request(2, "tools/call", name="peer__add", arguments={"a": 1, "b": 1})
        found = talk.hear()
        assert (found["id"], found["result"]["structuredContent"]) == (2, {"result": 2})
        done = finish(talk.process)
    assert (done.status, done.out) == (0, "")
    ends = [one["outcome"] for one in audited(place.folder / "audit", "outcome")]
    assert sorted(ends) == ["cancelled", "ok"]


@pytest.mark.parametrize(
    ("backend", "number"), [("trio", signal.SIGINT), ("asyncio", signal.SIGTERM)]
)
def test_a_signal_ends_it_and_the_log_is_whole(
    place: Place, backend: str, number: signal.Signals
) -> None:
    config = place.folder / "sark.toml"
    config.write_text(config.read_text() + "[client]\ngrace_s = 0.0\n")
    with talking(place, backend) as talk:
        talk.request(1, "tools/call", **SLOW)
        while not place.intents():
            talk.request("tick", "server/discover")
            assert talk.hear()["id"] == "tick"
        talk.process.send_signal(number)
        done = finish(talk.process)
    assert (done.status, done.err) == (0, "")
    assert verify_directory(place.folder / "audit").in_doubt == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hang_up_reads_the_policy_again(place: Place, backend: str) -> None:
    add = {"name": "peer__add", "arguments": {"a": 1, "b": 1}}
    with talking(place, backend) as talk:
        assert talk.process.stderr is not None
        talk.request(1, "tools/call", **add)
        assert talk.hear()["result"]["structuredContent"] == {"result": 2}
        for text, said in (
            (SHUT, "sark: new policy: sha256:"),
            ("package mcp.gateway\nallow :=", "sark: the policy stays as it was: policy.rego"),
        ):
            place.write("policy.rego", text)
            talk.process.send_signal(signal.SIGHUP)
            assert talk.process.stderr.readline().startswith(said)
            talk.request(2, "tools/call", **add)
            assert talk.hear()["error"]["code"] == 403
        place.write("policy.rego", OPEN)
        talk.process.send_signal(signal.SIGHUP)
        assert "new policy" in talk.process.stderr.readline()
        talk.request(3, "tools/call", **add)
        assert talk.hear()["result"]["structuredContent"] == {"result": 2}
        assert finish(talk.process).status == 0
    names = [one["name"] for one in audited(place.folder / "audit", "event")]
    assert names == ["program_started", "policy_reloaded", "policy_kept", "policy_reloaded"]


def test_a_host_that_died_ends_it(place: Place) -> None:
    with place.start("serve", "--stdio", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        Talk(process).request(1, "server/discover")
        assert process.wait(60) == 0
        assert process.stdin is not None
        process.stdin.close()


def test_files_will_do(place: Place) -> None:
    """A descriptor that no event loop can wait for is always ready."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}}
    into, out = place.write("in", json.dumps(asked) + "\n"), place.folder / "out"
    with (
        into.open() as reading,
        out.open("w") as writing,
        place.start("serve", "--stdio", stdin=reading, stdout=writing) as process,
    ):
        assert process.wait(60) == 0
    assert json.loads(out.read_text())["id"] == 1
