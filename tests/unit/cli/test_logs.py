"""What ``--log-level`` and ``--log-format`` turn on, for as long as the command runs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from sark_trio.cli.main import main
from tests.support.stdio import SCRIPTED

CONFIG = """\
[servers.files]
command = {command}
[policy]
allow_all = true
[audit]
directory = "log"
"""
CANARY = "canary-7f3a"
PLAIN = Path(SCRIPTED[-1]).with_name("plain.py")


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """A command line that makes a call."""
    path = tmp_path / "sark.toml"
    command = json.dumps([sys.executable, "-S", "-I", str(PLAIN)])
    path.write_text(CONFIG.format(command=command))
    return ["call", "files", "echo", f"secret={CANARY}", "--config", str(path), "--as", "ann"]


def test_nothing_is_logged_unless_it_is_asked_for(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call) == 0
    assert capsys.readouterr().err == ""


def test_text_names_what_happened(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*call, "--log-level", "info"]) == 0
    said = capsys.readouterr()
    lines = [line.split(" ", 3)[2:] for line in said.err.splitlines()]
    assert [(level, rest.split(" ")[0]) for level, rest in lines] == [
        ("INFO", "process.started"),
        ("INFO", "server.connected"),
        ("INFO", "call.finished"),
        ("INFO", "process.exited"),
    ]
    assert "outcome=ok" in said.err
    assert (CANARY in said.out, CANARY in said.err) == (True, False)


def test_json_is_one_object_a_line(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*call, "--log-level", "debug", "--log-format", "json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert said[0]["event"] == "call.started"
    assert {one["logger"] for one in said} == {"sark_trio.events"}
    (end,) = [one for one in said if one["event"] == "call.finished"]
    assert (end["level"], end["server"], end["tool"]) == ("info", "files", "echo")


def test_logging_is_as_it_was_afterwards(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("sark_trio")
    before = logger.level, logger.propagate, list(logger.handlers)
    assert main([*call, "--log-level", "error"]) == 0
    assert capsys.readouterr().err == ""
    assert (logger.level, logger.propagate, logger.handlers) == before
