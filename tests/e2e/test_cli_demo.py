"""``sark demo``: the README's first command line, on both event loops; and it can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from sark_trio import AllowAll
from sark_trio.cli.demo import story
from sark_trio.cli.demo.machinery import make_client
from sark_trio.cli.main import main
from tests.support.cli import Place

#: What the demo promises to show, in its own words.
SHOWN = (
    "allowed: three people came back",
    "nothing was sent",
    "the table is still there",
    "the server saw only ['sql']",
    "no mail address, no card number",
    "the caller knows that it may have run",
    "the next call is served",
    "closed until the fifth failure, then open",
    "it says how long to wait",
    "after the wait a probe passes",
    "and the second one closes it",
    "no call is running",
    "no connection is leased",
    "the child process is gone",
    "every link holds",
    "found, and at its record",
)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_demo_holds_within_half_a_minute(tmp_path: Path, backend: str) -> None:
    began = time.monotonic()
    done = Place(tmp_path).sark("demo", "--backend", backend)
    assert (done.status, done.err) == (0, "")
    assert [line for line in SHOWN if f"{line}\n" not in done.out] == []
    assert done.out.endswith("all as it should be\n")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_ctrl_c_ends_the_demo_with_one_line(tmp_path: Path, backend: str) -> None:
    """A terminal interrupts the whole group of processes."""
    command = [sys.executable, "-m", "sark_trio", "demo", "--backend", backend]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("2. "):  # now its servers run
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "sark: interrupted\n")


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_demo_without_its_policy_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    monkeypatch.setattr(story, "make_client", partial(make_client, policy=AllowAll()))
    assert main(["demo", "--backend", backend]) == 1
    out, err = capsys.readouterr()
    assert err == "    FAILED  expected Denied, but the call succeeded\n"
    assert "all as it should be" not in out
