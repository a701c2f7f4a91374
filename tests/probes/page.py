"""The page of the documentation, and the data that it is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from attrs import asdict, frozen

from tests.peers.provision import ROOT
from tests.probes.play import COLUMNS, Cell
from tests.probes.probes import PROBES, Probe

__all__ = ["DATA", "PAGE", "Record", "encoded", "read", "written"]

PAGE: Final = ROOT / "docs" / "reference" / "peers.md"
DATA: Final = PAGE.with_suffix(".json")
_CLEAN, _NOT = "clean", "**not clean**"


@frozen
class Record:
    """One run of all probes."""

    date: str
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, cells: Iterable[Cell], date: str) -> Self:
        """One that is complete and in order, of each cell the last one."""
        latest = {(one.probe, one.peer, one.backend): one for one in cells}
        order = ((probe, one.peer, one.backend) for probe in PROBES for one in COLUMNS)
        return cls(date, tuple(latest[key] for key in order if key in latest))


def encoded(record: Record) -> str:
    """The record as JSON, one probe of one client a line."""
    cells = ",\n".join(json.dumps(asdict(cell), sort_keys=True) for cell in record.cells)
    return f'{{"date": {json.dumps(record.date)}, "cells": [\n{cells}\n]}}\n'


def read(text: str) -> Record:
    """What :func:`encoded` made."""
    data: dict[str, Any] = json.loads(text)
    cells = [Cell(**{**cell, "faults": tuple(cell["faults"])}) for cell in data["cells"]]
    return Record.of(cells, data["date"])


_HEAD = """\
# Peers under fault

What our client does when a server breaks its word, and what other Python clients do: the same
probes for each, written by `nox -s probe-peers` on {date}. The figures are of one machine, which
was busy; everything that happened is in {{download}}`peers.json`.

{versions}

## How it was done

Each client runs each probe in a process of its own, with the server on loopback beside it, a hard
limit of time and 6 GiB of address space. It is used as its documentation begins, with what it has
by default: `GatewayClient` with a policy that allows everything and an audit log on disk,
`mcp.Client` and `fastmcp.Client` with a URL or a command. Where a header is sent, it is given in
the way that each documents. Nothing else is configured, and nothing is retried by the probes.

A connection is made, and a first call answered; then the server does what the table says. **Clean**
is what the criterion says, and, for all probes: every step ends; no exception leaves in a group;
and when the client is closed no task, descriptor or process of its own is left, without the help
of the garbage collector (it is off, except where memory is measured). A criterion is our choice.
Other choices are reasonable, and some rows are about features that a client does not claim: the
SDK's client leaves deadlines and reconnecting to its user, and documents both.

`sibling` is a call that is under way while the fault strikes, `next` one after it.

## Overview

{overview}
"""


def written(record: Record) -> str:
    """The page."""
    cells = {(one.probe, one.peer, one.backend): one for one in record.cells}
    versions = {one.peer: one.version for one in record.cells if one.version}
    shown = ", ".join(f"`{peer}` {version}" for peer, version in versions.items())
    rows = [["probe", *(one.name for one in COLUMNS)], ["---"] * (len(COLUMNS) + 1)]
    for probe in PROBES.values():
        own = [cells.get((probe.name, one.peer, one.backend)) for one in COLUMNS]
        marks = ["-" if cell is None else "yes" if cell.clean else "**no**" for cell in own]
        rows.append([probe.name, *marks])
    clean = [
        sum(cell.clean for cell in record.cells if (cell.peer, cell.backend) == key)
        for key in ((one.peer, one.backend) for one in COLUMNS)
    ]
    rows.append(["clean", *(f"{count} of {len(PROBES)}" for count in clean)])
    parts = [_HEAD.format(date=record.date, versions=f"Clients: {shown}.", overview=_table(rows))]
    for wire in ("HTTP", "stdio"):
        parts.append(f"## {wire}\n")
        parts += [_section(probe, cells) for probe in PROBES.values() if probe.wire == wire]
    return "\n".join(parts)


def _section(probe: Probe, cells: dict[tuple[str, str, str], Cell]) -> str:
    found = [cells[key] for one in COLUMNS if (key := (probe.name, one.peer, one.backend)) in cells]
    rows = [["client", "", "what happened"], ["---"] * 3]
    for cell in found:
        what = cell.happened
        if cell.faults:
            what += ". Not clean: " + "; ".join(cell.faults)
        mark = _CLEAN if cell.clean else _NOT
        rows.append([f"{cell.peer} on {cell.backend}", mark, what])
    title = probe.name[0].upper() + probe.name[1:]
    return f"### {title}\n\nThe server {probe.does}.\nClean: {probe.clean}.\n\n{_table(rows)}\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")
