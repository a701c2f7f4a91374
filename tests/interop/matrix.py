"""The matrix of servers and operations: put together, printed, written as a page, read again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.interop.column import COLUMNS, Cell
from tests.interop.servers import SUBJECTS, Subject

__all__ = ["PAGE", "Page", "Row", "merged", "printed", "read_page", "written"]

Row = Mapping[str, Cell]

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "interop.md"
_WORST_FIRST: Final = ("failed", "cannot", "works", "not offered")
#: The columns of each table of the page: what our side asks for, and the rest.
_TABLES: Final = (("Calls", COLUMNS[:9]), ("What else servers offer, ask and do", COLUMNS[9:]))

_HEAD: Final = """\
# Interoperability

Other people's servers, each started as its users start it, and one script of operations over
each, through the public API alone, on {backends}.
Written by `nox -s interop` on {date}. CI runs the script over those servers that its tests have
anyway.

**yes**: it works. **-**: the server does not offer it, or there is no such thing on that
transport. **no**: it cannot work, for the reason below the table.

| operation | what is done |
|---|---|
{legend}
"""
_LEGEND: Final = {
    "connect": "agree on the revision that is expected, and ping",
    "list tools": "and find the one to call",
    "call": "the answer is the right one",
    "structured": "the same with `structuredContent`",
    "tool error": "the tool says itself that it failed",
    "progress": "arrives while the call runs, at its caller",
    "log": "messages of the server's arrive",
    "cancel": "a call is given up, and the server goes on serving",
    "20 at once": "each gets its own answer",
    "resources": "list them and their templates, read one",
    "prompts": "list them, get one",
    "complete": "values for an argument",
    "subscribe": "watch a resource, and hear that it changed",
    "form": "the server asks for a form to be filled in (elicitation)",
    "page": "the server asks for a page to be visited (elicitation by URL)",
    "model": "the server asks a model (sampling)",
    "roots": "the server asks where it may work",
    "restart": "the server is ended and started again; then 20 calls at once",
    "JSON answer": "a call was answered with JSON",
    "SSE answer": "a call was answered with an event stream",
    "messages": "the official models, `mcp-types`, take every message that we sent, and know all "
    "of its members",
}


def merged(rows: Sequence[Row]) -> Row:
    """One row of several runs: the worst of each cell counts."""

    def worst(cells: list[Cell]) -> Cell:
        return min(cells, key=lambda cell: _WORST_FIRST.index(cell.state))

    return {name: worst([row[name] for row in rows]) for name in COLUMNS}


# -- for a terminal -------------------------------------------------------------------------------


def printed(name: str, row: Row) -> str:
    """One line that counts, and one for each cell with something to say."""
    states = [row[column].state for column in COLUMNS]
    counts = ", ".join(f"{states.count(s)} {s}" for s in reversed(_WORST_FIRST) if s in states)
    lines = [f"{name}: {counts}"]
    lines += [
        f"  {column}: {cell.state}: {cell.why}"
        for column, cell in row.items()
        if cell.state in {"cannot", "failed"}
    ]
    return "\n".join(lines)


# -- as a page ------------------------------------------------------------------------------------


def written(rows: Mapping[str, Row], *, date: str, backends: str) -> str:
    """The page."""
    legend = "\n".join(f"| {name} | {_LEGEND[name]} |" for name in COLUMNS)
    parts = [_HEAD.format(backends=backends, date=date, legend=legend), "## Servers\n"]
    parts.append("| server | program | version | transport | revision |\n|---|---|---|---|---|")
    parts += [_server_line(SUBJECTS[name]) for name in rows]
    notes: dict[str, int] = {}
    for title, columns in _TABLES:
        parts.append(f"\n## {title}\n")
        parts.append(f"| server | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        parts += [_line(name, rows[name], columns, notes) for name in rows]
    parts.append("\n## Why not\n")
    parts += [f"{number}. {why[0].upper()}{why[1:]}." for why, number in notes.items()]
    return "\n".join(parts) + "\n"


def _server_line(subject: Subject) -> str:
    program, version = subject.package.rstrip("=@"), subject.release
    return f"| {subject.name} | `{program}` | {version} | {subject.transport} | {subject.version} |"


def _line(name: str, row: Row, columns: Iterable[str], notes: dict[str, int]) -> str:
    return f"| {name} | {' | '.join(_shown(row[column], notes) for column in columns)} |"


def _shown(cell: Cell, notes: dict[str, int]) -> str:
    if cell.state in {"works", "not offered"}:
        return "yes" if cell.state == "works" else "-"
    number = notes.setdefault(cell.why, next(n for n in count(1) if n not in notes.values()))
    return f"no ({number})" if cell.state == "cannot" else f"FAILED ({number})"


@frozen
class Page:
    """What a page says."""

    #: Program, version, transport and revision of each server.
    servers: Mapping[str, tuple[str, ...]]
    #: Of each server, what stands in each column.
    cells: Mapping[str, Mapping[str, str]]
    notes: Sequence[str]
    date: str


def read_page(text: str) -> Page:
    """Read what :func:`written` wrote."""
    servers: dict[str, tuple[str, ...]] = {}
    cells: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in text.splitlines():
        first, *rest = [part.strip().strip("`") for part in line.strip("|").split("|")]
        if first == "server":
            columns = rest
        elif columns and line.startswith("| "):
            if columns[0] == "program":
                servers[first] = tuple(rest)
            else:
                cells.setdefault(first, {}).update(zip(columns, rest, strict=True))
    date = re.search(r"`nox -s interop` on (\d{4}-\d\d-\d\d)", text)
    notes = re.findall(r"^\d+\. (.+)$", text, re.MULTILINE)
    return Page(servers, cells, notes, "" if date is None else date[1])
