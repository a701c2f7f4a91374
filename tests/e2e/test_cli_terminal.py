"""``sark`` where there is no good terminal: other encodings, closed streams, impatient people."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sark_trio.stores.audit import read_records, verify_directory
from tests.support.cli import TIMEOUT_S, Place, finish, make_place
from tests.tidy.source import ROOT

BACKENDS = ("trio", "asyncio")
UNUSUAL = "select 'é ✓ 😀' as word"
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


@pytest.mark.parametrize(
    "env",
    [
        ASCII,
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_what_the_terminal_cannot_show_is_an_escape(place: Place, env: dict[str, str]) -> None:
    done = place.sark("call", "db", "query", f"sql={UNUSUAL}", env=env)
    assert (done.status, done.err) == (0, "")
    assert "\\u2713" in done.out
    # Machines get a document that means the same wherever it was written.
    done = place.sark("call", "db", "query", f"sql={UNUSUAL}", "--json", env=env)
    assert done.status == 0
    assert done.out.isascii()
    assert "é ✓ 😀" in json.dumps(done.json, ensure_ascii=False)


def test_errors_are_told_in_any_encoding(place: Place) -> None:
    done = place.sark("tools", "dé✓", env=ASCII)
    assert done.status == 2
    assert "\\u2713" in done.error


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_nobodys(place: Place, closed: str) -> None:
    command = f'"{sys.executable}" -m sark_trio tools db {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(place.folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("query" in done.stdout) == (">" not in closed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_ctrl_c_ends_running_calls_at_once_and_on_record(
    place: Place, backend: str
) -> None:
    config = place.folder / "sark.toml"
    config.write_text(config.read_text() + "[client]\ngrace_s = 300.0\ntimeout_s = 300.0\n")
    with place.start("serve", "--port", "0", "--backend", backend) as process:
        assert process.stdout is not None
        process.stdout.readline()
        base = process.stdout.readline().split()[1].removesuffix("/mcp")
        caller = threading.Thread(target=call_report, args=(base,))
        caller.start()
        while not place.intents():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                raise AssertionError(process.communicate())
        process.send_signal(signal.SIGINT)
        while listens(base):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        done = finish(process)
        caller.join(TIMEOUT_S)
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("stopped\n")
    log = place.folder / "audit"
    assert verify_directory(log).in_doubt == ()
    assert [one["outcome"] for one in read_records(log) if one["kind"] == "outcome"] == [
        "cancelled"
    ]


def test_a_port_that_is_taken_says_what_to_do(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = place.sark("serve", "--port", str(other.getsockname()[1]))
    assert done.status == 2
    assert done.error.endswith(
        "another program has it; --port takes another one, 0 any that is free"
    )


def call_report(base: str) -> None:
    """A call that goes on until somebody ends it."""
    body = json.dumps({"server": "db", "tool": "report"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/api/v1/invoke", body, headers, method="POST")
    with suppress(OSError), closing(urllib.request.urlopen(request)):
        pass


def listens(base: str) -> bool:
    address = urlsplit(base)
    try:
        with socket.create_connection((str(address.hostname), int(address.port or 0))):
            return True
    except OSError:
        return False
