"""A tier of the simulation that fits into CI, its regressions, and proof that it can fail."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
from attrs import evolve

from sark_trio.errors import ConnectError, GatewayError
from sark_trio.testing import Leaked
from tests.simulation import world
from tests.simulation.checks import Asked, Violation, check
from tests.simulation.disk import SimDisk
from tests.simulation.server import Effect, SimServer
from tests.simulation.world import simulate

#: `python -m tests.simulation --seeds 100000` is the deep tier.
SEEDS = 200

#: Seeds that broke a promise once, and which one.
REGRESSIONS = {
    283: "a replay that was refused made `not_sent` of a call whose first sending had arrived",
}


@pytest.mark.row(2, 5, 8, 10, 16, 19, 20, 27, 29, 30, 49, 64)
@pytest.mark.parametrize("first", range(0, SEEDS, 25))
def test_no_promise_is_broken(first: int) -> None:
    answered = struck = 0
    for seed in range(first, first + 25):
        report = simulate(seed)
        answered += report.outcomes["answered"]
        struck += report.struck.total()
    assert answered > 50
    assert struck > 50


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_promise_that_was_broken_once_holds(seed: int) -> None:
    assert simulate(seed).calls == 30


def test_a_seed_repeats_itself_in_this_process_and_in_another() -> None:
    here = simulate(7).trace
    assert simulate(7).trace == here
    code = "from tests.simulation.world import simulate; print(simulate(7).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here
    assert simulate(8).trace != here


def executed(*numbers: int, tool: str = "write") -> SimServer:
    server = SimServer("s0", world.Dice(random.Random(1)), modern=True)
    server.effects += [Effect(1.0, "s0", tool, {"n": number}) for number in numbers]
    return server


GOOD = Asked(n=1, server="s0", tool="write", ended=1.0, outcome="answered", text="1")


@pytest.mark.parametrize(
    ("asked", "effects", "sentence"),
    [
        (evolve(GOOD, outcome="running"), [1], "Every call ends"),
        (evolve(GOOD, text="2"), [1], "the one to the question"),
        (GOOD, [1, 1], "executed once at most"),
        (GOOD, [], "What was answered was executed"),
        (evolve(GOOD, text=None, error=ConnectError("x")), [1], "said not to have been sent"),
        (evolve(GOOD, tool="admin", text=None), [1], "policy denies"),
        (evolve(GOOD, ended=31.1), [1], "ends at its deadline"),
        (evolve(GOOD, ended=9.0, patience_s=2.0), [1], "its caller gives up"),
    ],
)
def test_the_checks_see_what_they_are_for(asked: Asked, effects: list[int], sentence: str) -> None:
    check([GOOD], [executed(1)], SimDisk(), 50)
    with pytest.raises(Violation, match=sentence):
        check([asked], [executed(*effects)], SimDisk(), 50)


def test_too_many_connections_are_seen() -> None:
    with pytest.raises(Violation, match="51 connections"):
        check([GOOD], [executed(1)], SimDisk(), 51)


def test_a_client_that_repeats_what_is_unsafe_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug of every peer: a call is sent again because nobody answered."""
    monkeypatch.setattr(world, "REPLAY_SAFE", True)
    with pytest.raises(Violation, match="executed once at most"):
        for seed in range(60):
            simulate(seed)


def test_a_log_that_is_not_durable_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug of a log without write-ahead: records reach the disk when they like."""
    monkeypatch.setattr(SimDisk, "sync", lambda self, fd: None)
    with pytest.raises(BaseExceptionGroup) as caught:
        simulate(0)
    assert caught.group_contains(Violation, match="before its intent was durable")


def test_a_connection_that_is_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.simulation.network import Wire

    monkeypatch.setattr(Wire, "close", lambda self: None)
    with pytest.raises((Violation, Leaked, GatewayError, BaseExceptionGroup)) as caught:
        simulate(0)
    assert "outlive the client" in repr(caught.value)
