"""``sark call`` asks whoever sits at the terminal, where the policy wants that."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import TIMEOUT_S, Done, Place, finish, make_place
from tests.support.client import audited

BACKENDS = ("trio", "asyncio")
POLICY = """
package mcp.gateway

default allow := true

obligations contains {"type": "require_approval", "message": "\\u001b[2J for real"}
"""
WORDS = ("call", "db", "query", "sql=select '\x1b[2J' as word")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = make_place(tmp_path)
    place.write("policy.rego", POLICY)
    return place


@contextmanager
def asked(place: Place, backend: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A call that waits for an answer at its terminal; what the terminal shows."""
    ours, theirs = pty.openpty()
    words = (*WORDS, "--backend", backend)
    try:
        with place.start(*words, stdin=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            while b"[y/N] " not in shown:
                shown += os.read(ours, 4096)
            yield process, ours, shown.decode()
    finally:
        os.close(ours)


def ended(process: subprocess.Popen[str]) -> Done:
    out, _ = process.communicate(timeout=TIMEOUT_S)
    return Done(process.returncode, out, "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_yes_at_the_terminal_lets_the_call_go(place: Place, backend: str) -> None:
    with asked(place, backend) as (process, terminal, shown):
        assert "wants db/query" in shown
        assert "for real" in shown
        assert "\\u001b[2J" in shown
        assert "\x1b" not in shown  # it is shown, and not obeyed
        os.write(terminal, b"y\n")
        done = ended(process)
    assert done.status == 0
    assert "word" in done.out
    (intent,) = audited(place.folder / "audit", "intent")
    assert intent["labels"]["approved_by"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("said", [b"n\n", b"\n", b"\x04"])
def test_anything_else_is_a_no(place: Place, backend: str, said: bytes) -> None:
    with asked(place, backend) as (process, terminal, _):
        os.write(terminal, said)
        assert ended(process).status == 3
    assert [r["reason"][:16] for r in audited(place.folder / "audit", "denied")] == [
        "approval_refused"
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_at_the_question_ends_it(place: Place, backend: str) -> None:
    with asked(place, backend) as (process, _, _):
        process.send_signal(signal.SIGINT)
        assert ended(process).status == 130
    assert len(audited(place.folder / "audit", "denied")) == 1
    assert audited(place.folder / "audit", "intent") == []


def test_without_a_terminal_there_is_nobody_to_ask(place: Place) -> None:
    done = finish(place.start(*WORDS), "y\n")
    assert done.status == 3
    assert "nobody to ask" in done.err
