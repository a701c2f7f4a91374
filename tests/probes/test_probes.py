"""The page about peers is of the probes that there are, and what it says of us still holds."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from functools import partial
from typing import Any

import anyio
import pytest

from tests.peers.provision import PEERS
from tests.probes.child import perform
from tests.probes.page import DATA, PAGE, encoded, read, written
from tests.probes.play import COLUMNS, Cell, Column, in_a_process, play
from tests.probes.probes import PROBES

RECORD = read(DATA.read_text())
OURS = {(one.probe, one.backend): one for one in RECORD.cells if one.peer == "sark_trio"}
#: Of what a caller waits for in vain, in tests.
HASTE_S = 0.2


# -- the page -------------------------------------------------------------------------------------


def test_every_probe_was_run_with_every_client() -> None:
    expected = [(name, one.peer, one.backend) for name in PROBES for one in COLUMNS]
    assert [(one.probe, one.peer, one.backend) for one in RECORD.cells] == expected


def test_the_page_is_made_from_the_data() -> None:
    assert PAGE.read_text() == written(RECORD)
    assert read(encoded(RECORD)) == RECORD
    assert dt.date.fromisoformat(RECORD.date) <= dt.datetime.now(dt.UTC).date()


def test_the_clients_are_those_that_are_pinned() -> None:
    versions = {one.peer: one.version for one in RECORD.cells if one.version}
    assert versions.pop("sark_trio") == importlib.metadata.version("sark_trio")
    for peer, version in versions.items():
        (environment,) = {one.environment for one in COLUMNS if one.peer == peer}
        assert f"{peer}=={version}" in PEERS[environment].pins


def test_what_is_not_clean_of_ours_is_said_so() -> None:
    text = PAGE.read_text()
    for cell in RECORD.cells:
        for fault in cell.faults:
            assert fault.replace("|", "\\|").replace("<", "&lt;") in text


# -- our own column -------------------------------------------------------------------------------


async def _here(peer: str, plan: dict[str, Any]) -> dict[str, Any]:
    """The client in this process, in haste where nothing will ever come."""
    for step in (step for group in plan["steps"] for step in group):
        if step.get("in_vain"):
            step["timeout_s"] = HASTE_S
    await anyio.wait_all_tasks_blocked()  # the server's own tasks are not the client's
    return await perform(peer, plan)


@pytest.mark.anyio
@pytest.mark.parametrize("name", [one.name for one in PROBES.values() if one.ci])
async def test_our_client_does_what_the_page_says(name: str, anyio_backend_name: str) -> None:
    column = Column("sark_trio", anyio_backend_name)
    cell = await play(PROBES[name], column, partial(_here, "sark_trio"), timed=False)
    said = OURS[name, anyio_backend_name]
    assert (cell.clean, cell.faults) == (said.clean, said.faults)
    assert _kinds(cell) == _kinds(said)


def _kinds(cell: Cell) -> dict[str, tuple[str, str]]:
    """How each step ended, without its figures."""
    steps = cell.facts["steps"].items()
    return {label: (one["kind"], one.get("type", "")) for label, one in steps}


@pytest.mark.anyio
async def test_a_client_has_a_process_of_its_own(anyio_backend_name: str) -> None:
    column, probe = Column("sark_trio", anyio_backend_name), PROBES["cut body"]
    cell = await play(probe, column, in_a_process(column, probe), timed=False)
    assert cell.faults == ()
    assert cell.version == importlib.metadata.version("sark_trio")


# -- the judge ------------------------------------------------------------------------------------

RIGHT = {"kind": "answer", "text": "next", "s": 0.1}
ERROR = {"kind": "error", "type": "MCPError", "message": "no", "groups": 0, "s": 0.1}
LEFT = {"kind": "left", "s": 0.3, "close_s": 0.0}


async def _judged(name: str, **changes: Any) -> tuple[str, ...]:
    """What the judge finds in a client that did as it should, but for *changes*."""
    found = {
        "version": "1",
        "steps": {"call": ERROR, "next": RIGHT, **changes.pop("steps", {})},
        "block": LEFT,
        "left": [],
        "grown_mib": 1.0,
        **changes,
    }

    async def client(_: dict[str, Any]) -> dict[str, Any]:
        return found

    return (await play(PROBES[name], COLUMNS[0], client)).faults


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.anyio
async def test_the_judge_finds_what_is_not_as_it_should_be() -> None:
    assert await _judged("wrong id, JSON") == ()
    foreign = {"kind": "answer", "text": "foreign", "s": 0.1}
    (fault,) = await _judged("wrong id, JSON", steps={"call": foreign})
    assert fault == "call: what is no answer to it was taken for one ('foreign')"
    (fault,) = await _judged("wrong id, JSON", steps={"next": ERROR})
    assert fault == "next: MCPError after 0.10 s instead of 'next'"
    (fault,) = await _judged("wrong id, JSON", left=["child process"])
    assert fault == "left: 1 child process"
    (fault,) = await _judged("wrong id, JSON", block={**LEFT, **ERROR, "groups": 2})
    assert fault == "the block: MCPError in 2 groups"
    (fault,) = await _judged("256 MiB body", grown_mib=300.0)
    assert fault == "memory grew by 300 MiB"
    (fault,) = await _judged("dies", steps={"call": {**ERROR, "s": 4.0}})
    assert fault == "call took 4.0 s"
    faults = await _judged("lost session", steps={"next": {"kind": "unfinished", "s": 20.0}})
    assert faults == (
        "next: no end after 20.00 s instead of 'next'",
        "next: no end after 20.00 s",
    )
