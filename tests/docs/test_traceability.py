"""The page that leads from promises to tests leaves none of them out."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.tidy.source import ROOT, project_files
from tests.tidy.trace import law_ids, rows, trace


@pytest.fixture(scope="module")
def table() -> dict[str, list[list[str]]]:
    """The rows of each section of the page, as cells."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        import traces  # type: ignore[import-not-found]

        page: str = traces.page()
    finally:
        sys.path.remove(str(ROOT / "docs" / "_ext"))
    found: dict[str, list[list[str]]] = {}
    for section in page.split("## ")[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
        found[title] = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return found


@pytest.mark.parametrize(
    ("title", "mark", "ids"),
    [
        ("Laws", "law", law_ids()),
        ("Rows of the fault matrix", "row", [row.number for row in rows()]),
        ("Lines about security", "security", list(range(1, 40))),
    ],
)
def test_every_promise_is_there_with_all_its_tests(
    table: Any, title: str, mark: str, ids: list[Any]
) -> None:
    tests = trace(mark, project_files(under="tests/", suffix=".py"))
    assert [line[0] for line in table[title]] == [str(ident) for ident in ids]
    for ident, line in zip(ids, table[title], strict=True):
        assert line[1], ident
        named = line[-1].split("<br>")
        assert named == [f"`{test.nodeid.removeprefix('tests/')}`" for test in tests[ident]]


def test_the_page_is_in_the_book() -> None:
    assert "reference/traceability" in (ROOT / "docs" / "index.md").read_text()
    page = (ROOT / "docs" / "reference" / "traceability.md").read_text()
    assert "_generated/traceability.md" in page
