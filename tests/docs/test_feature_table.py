"""The table of promised features is whole: report, code, tests and guides name each other.

``report.txt`` holds the promises of the original's integration report, a line each.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections import Counter
from functools import cache

import pytest
from attrs import frozen

import sark_trio
from tests.tidy.source import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "feature-table.md").read_text()
REPORT = (ROOT / "tests" / "docs" / "report.txt").read_text()
#: How many subjects the report has of each kind.
SUBJECTS = {
    "http": 15,
    "sse": 10,
    "stdio": 10,
    "unified": 10,
    "error_handling": 10,
    "authorization": 5,
    "performance": 5,
}
#: Of these ten subjects each has several tests, whose names begin with the subject.
SSE = (
    "streaming",
    "filtering_by_type",
    "automatic_reconnection",
    "connection_state",
    "last_event_id_tracking",
    "health_statistics",
    "concurrent_streams",
    "error_handling",
    "graceful_shutdown",
    "authentication",
)


@frozen
class Row:
    """A line of the table, below its heading."""

    section: str
    says: str
    here: tuple[str, ...]
    tests: tuple[str, ...]
    guide: str


def rows() -> list[Row]:
    found: list[Row] = []
    parts = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)[1:]
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        for line in body.splitlines():
            if not line.startswith("| ") or line.startswith("| the report says"):
                continue
            says, here, tests, guide = (cell.strip() for cell in line.strip("|").split(" | "))
            named = [tuple(re.findall(r"`([^`]+)`", cell)) for cell in (here, tests, guide)]
            found.append(Row(heading, says, named[0], named[1], *named[2]))
    return found


ROWS = rows()


def promises() -> list[tuple[str, str]]:
    """Heading and line of each promise."""
    section, found = "", []
    for line in REPORT.splitlines()[1:]:
        if line.startswith("## "):
            section = line[3:]
        elif line:
            found.append((section, line))
    return found


@cache
def functions_of(name: str) -> frozenset[str]:
    """The test functions of a file below ``tests/``."""
    path = ROOT / "tests" / f"{name}.py"
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_promise_of_the_report_has_one_row() -> None:
    assert len(promises()) > 150
    assert [(row.section, row.says) for row in ROWS] == promises()


def test_no_row_is_without_a_test_and_every_test_exists() -> None:
    missing = [
        (row.says, test)
        for row in ROWS
        for test in row.tests or ("no test",)
        if test.partition("::")[2] not in functions_of(test.partition("::")[0])
    ]
    assert missing == []


def test_every_guide_exists_and_is_no_bare_mention() -> None:
    assert [row.says for row in ROWS if not (DOCS / f"{row.guide}.md").is_file()] == []
    assert [row.says for row in ROWS if f"{{doc}}`{row.guide}`" not in PAGE] == []


def there_is(name: str) -> bool:
    """Whether *name* is a path of the project, or a name that can be imported or reached."""
    if "/" in name or name in {"pyproject.toml", "noxfile.py"}:
        return (ROOT / name).exists()
    if not name.startswith("sark_trio"):
        return _reaches(sark_trio, name.split("."))
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return _reaches(module, parts[length:])
    return False


def _reaches(start: object, parts: list[str]) -> bool:
    for part in parts:
        if not hasattr(start, part):
            return False
        start = getattr(start, part)
    return True


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in row.here}))
def test_what_a_row_names_is_there(name: str) -> None:
    assert there_is(name)


def test_what_is_not_there_is_found_out() -> None:
    wrong = ("GatewayClient.fly", "sark_trio.nowhere", "sark_trio.errors.Oops", "docs/none.md")
    assert not any(there_is(name) for name in wrong)
    assert functions_of("e2e/test_nothing") == frozenset()
    assert all(row.here and row.tests and row.guide for row in ROWS)


def test_the_sixty_five_subjects_have_tests() -> None:
    """Each subject of the report is a test, or some, in the file that its transport names."""
    found: Counter[str] = Counter()
    for kind in SUBJECTS:
        names = {each for each in functions_of(f"e2e/test_{kind}_subjects") if each[:5] == "test_"}
        in_table = {
            test.partition("::")[2]
            for row in ROWS
            for test in row.tests
            if test.startswith(f"e2e/test_{kind}_subjects::")
        }
        assert sorted(names - in_table) == [], kind
        if kind == "sse":
            begun = {one for one in SSE if any(name.startswith(f"test_{one}_") for name in names)}
            found[kind] = len(begun)
        else:
            found[kind] = len([name for name in names if not name.startswith("test_figures")])
    assert all(found[kind] >= count for kind, count in SUBJECTS.items()), found
    assert sum(SUBJECTS.values()) == 65


def test_types_are_checked_strictly_in_ci() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["mypy"]["strict"] is True
    assert project["tool"]["mypy"]["files"] == ["sark_trio"]
    assert "nox -s types" in (ROOT / ".ci" / "run").read_text()
    assert (ROOT / "sark_trio" / "py.typed").is_file()
