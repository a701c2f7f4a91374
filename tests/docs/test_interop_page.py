"""The page of interoperability is of the servers and the script that there are now."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from tests.interop.column import COLUMNS, Cell
from tests.interop.matrix import PAGE, merged, read_page, written
from tests.interop.servers import SUBJECTS

NOTHING = Cell("not offered")


def test_every_server_and_operation_is_there_and_no_cell_failed() -> None:
    page = read_page(PAGE.read_text())
    assert set(page.cells) == set(SUBJECTS)
    for name, row in page.cells.items():
        assert tuple(row) == COLUMNS, name
        for column, cell in row.items():
            assert re.fullmatch(r"yes|-|no \(\d+\)", cell), (name, column, cell)
        assert (row["connect"], row["call"], row["messages"]) == ("yes", "yes", "yes"), name


def test_what_cannot_be_done_is_what_the_table_of_servers_says() -> None:
    page = read_page(PAGE.read_text())
    for name, row in page.cells.items():
        said = {column: cell for column, cell in row.items() if cell.startswith("no")}
        assert set(said) == set(SUBJECTS[name].cannot), name
        for column, cell in said.items():
            number = int(cell.removeprefix("no (").removesuffix(")"))
            why = SUBJECTS[name].cannot[column]
            assert page.notes[number - 1].lower() == f"{why}.".lower(), (name, column)


def test_it_was_written_for_the_versions_that_are_pinned() -> None:
    page = read_page(PAGE.read_text())
    assert dt.date.fromisoformat(page.date) <= dt.datetime.now(dt.UTC).date()
    for name, (_, version, transport, revision) in page.servers.items():
        subject = SUBJECTS[name]
        shown = (version, transport, revision)
        assert shown == (subject.release, subject.transport, subject.version), name


def test_what_is_written_is_read_again() -> None:
    row = {**dict.fromkeys(COLUMNS, NOTHING), "call": Cell("works"), "form": Cell("cannot", "why")}
    text = written({"python-2-stdio": row}, date="2026-01-02", backends="trio")
    page = read_page(text)
    assert (page.date, list(page.notes)) == ("2026-01-02", ["Why."])
    found = page.cells["python-2-stdio"]
    assert (found["call"], found["form"], found["page"]) == ("yes", "no (1)", "-")
    failed = written({"python-2-stdio": {**row, "page": Cell("failed", "x")}}, date="", backends="")
    assert "FAILED (2)" in failed


@pytest.mark.parametrize(
    ("one", "other", "worst"),
    [
        (Cell("works"), Cell("failed", "x"), "failed"),
        (Cell("works"), Cell("cannot", "x"), "cannot"),
        (NOTHING, Cell("works"), "works"),
    ],
)
def test_of_two_runs_the_worse_counts(one: Cell, other: Cell, worst: str) -> None:
    rows = [dict.fromkeys(COLUMNS, one), dict.fromkeys(COLUMNS, other)]
    for both in (rows, rows[::-1]):
        assert {cell.state for cell in merged(both).values()} == {worst}
