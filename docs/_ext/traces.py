"""The page that leads from each promise to its tests; read from the source, nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.crowds.fault import TRANSPORTS
from tests.crowds.table import cells, every_change, reason
from tests.tidy.security import lines_of
from tests.tidy.source import ROOT, project_files
from tests.tidy.trace import Trace, law_ids, rows, trace

__all__ = ["crowds", "page"]


def page() -> str:
    """Markdown: three tables."""
    tests = project_files(under="tests/", suffix=".py")
    laws = trace("law", tests)
    security = (ROOT / "docs" / "explanation" / "security.md").read_text("utf-8")
    sections = (
        (
            "Laws",
            ("law", "what it says"),
            [(law, _sentence(laws.get(law, []))) for law in law_ids()],
            laws,
        ),
        (
            "Rows of the fault matrix",
            ("row", "fault, and what then is so"),
            [(row.number, f"{row.fault}: {row.expected}") for row in rows()],
            trace("row", tests),
        ),
        (
            "Lines about security",
            ("line", "what it says"),
            [(line.number, line.text) for line in lines_of(security)],
            trace("security", tests),
        ),
    )
    return "\n".join(line for section in sections for line in _section(*section))


def crowds() -> str:
    """Markdown: each row under a thousand calls, on each transport."""
    lines = [
        "| row | fault | " + " | ".join(TRANSPORTS) + " |",
        "|---|---" + "|---" * len(TRANSPORTS) + "|",
    ]
    every, often = list(cells()), every_change()
    for row in rows():
        columns = []
        for transport, wires in TRANSPORTS.items():
            names = [
                f"{'**' if cell in often else ''}`[{cell.name}]`{'**' if cell in often else ''}"
                for cell in every
                if cell.row == row.number and cell.wire in wires
            ]
            columns.append("<br>".join(names) or f"*{reason(row.number, transport)}*")
        lines.append(f"| {row.number} | {_cell(row.fault)} | " + " | ".join(columns) + " |")
    return "\n".join([*lines, ""])


def _sentence(tests: Iterable[Trace]) -> str:
    return next((test.sentence for test in tests if test.sentence), "")


def _section(
    title: str,
    header: tuple[str, str],
    promises: Iterable[tuple[Any, str]],
    found: Mapping[Any, list[Trace]],
) -> list[str]:
    lines = [f"## {title}", "", f"| {header[0]} | {header[1]} | tests |", "|---|---|---|"]
    for ident, text in promises:
        names = "<br>".join(f"`{_short(test)}`" for test in found.get(ident, []))
        lines.append(f"| {ident} | {_cell(text)} | {names} |")
    return [*lines, ""]


def _short(test: Trace) -> str:
    return test.nodeid.removeprefix("tests/")


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
