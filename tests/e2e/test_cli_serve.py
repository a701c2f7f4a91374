"""``sark serve``: a real process in front of a real server, and those who come through it."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient, Http, Registry
from sark_trio.errors import AuthenticationRequired, Forbidden, RemoteError
from sark_trio.stores.audit import read_records, verify_directory
from tests.support.cli import Place, finish, make_place

BACKENDS = ("trio", "asyncio")
KEY = "the-robots-own-key-0123456789"
GATEWAY = f"""
[gateway.keys.robot]
key = "{KEY}"
roles = ["analyst"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = make_place(tmp_path)
    config = tmp_path / "sark.toml"
    config.write_text(config.read_text() + GATEWAY)
    return place


@contextmanager
def serving(place: Place, backend: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``sark serve`` on a free port: its base URL, and the process."""
    with place.start("serve", "--port", "0", "--backend", backend) as process:
        try:
            assert process.stdout is not None
            first, mcp = process.stdout.readline(), process.stdout.readline()
            assert first == "serving db, down\n", (first, process.stderr)
            yield mcp.split()[1].removesuffix("/mcp"), process
        finally:
            process.kill()


def invoke(base: str, sql: str, key: str | None = KEY) -> tuple[int, Any]:
    body = {"server": "db", "tool": "query", "parameters": {"sql": sql}}
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    request = urllib.request.Request(
        f"{base}/api/v1/invoke", json.dumps(body).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())


@pytest.mark.parametrize("backend", BACKENDS)
def test_others_are_governed_and_ctrl_c_ends_it(place: Place, backend: str) -> None:
    with serving(place, backend) as (base, process):
        status, said = invoke(base, "select name from people where id = 1")
        assert status == 200
        assert "Ada" in json.dumps(said)
        status, said = invoke(base, "drop table people")
        assert status == 403
        assert "no statement of yours" not in json.dumps(said)  # that is for the auditor
        assert invoke(base, "select 1", key=None)[0] == 401
        assert invoke(base, "select 1", key="somebody-elses-key-9876543210")[0] == 401
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("stopped\n")
    log = place.folder / "audit"
    report = verify_directory(log)
    assert report.ok
    assert report.in_doubt == ()
    kinds = [(one["kind"], one["principal_id"]) for one in read_records(log) if "server" in one]
    assert kinds == [("intent", "robot"), ("denied", "robot")]


@pytest.mark.anyio
@pytest.mark.parametrize("backend", BACKENDS)
async def test_our_own_client_comes_through_both_doors(
    place: Place, backend: str, tmp_path: Path
) -> None:
    with serving(place, backend) as (base, _):
        async with GatewayClient(
            servers={
                "mcp": Http(f"{base}/mcp", headers={"X-API-Key": KEY}),
                "rest": Registry(base, "db", api_key=KEY),
                "stranger": Http(f"{base}/mcp"),
            },
            policy=AllowAll(),
            audit=tmp_path / "own-audit",
        ) as client:
            sql = {"sql": "select name from people where id = 2"}
            for server, tool, refusal in (
                ("mcp", "db__query", RemoteError),
                ("rest", "query", Forbidden),
            ):
                with anyio.fail_after(20):
                    result = await client.invoke_tool(server, tool, sql)
                assert "Grace" in result.text
                # What the other side's policy denies, ours allowed: its no is an answer.
                with pytest.raises(refusal) as caught:
                    await client.invoke_tool(server, tool, {"sql": "drop table people"})
                assert caught.value.delivery == "answered"
            with pytest.raises(AuthenticationRequired):
                await client.list_tools("stranger")
            infos = {info.server_name: info for info in await client.list_servers()}
            assert infos["rest"].transport == "registry"
            assert infos["rest"].address == f"{base} db"
            assert infos["mcp"].protocol_version == "2026-07-28"


def test_an_address_that_strangers_reach_needs_keys(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    done = place.sark("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.status == 2
    assert "sark: " in done.error


def test_a_key_that_can_be_guessed_is_refused(place: Place) -> None:
    config = place.folder / "sark.toml"
    config.write_text(config.read_text().replace(KEY, "short"))
    done = place.sark("serve", "--port", "0")
    assert done.status == 2
    assert "16" in done.error
    assert "short" not in done.error.replace("shorter", "")
