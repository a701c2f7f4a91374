"""Every line about security has a test that holds it, and every risk that is known has a line."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tidy.security import LINES, Line, holders, lines_of, risks_of
from tests.tidy.source import ROOT, package_files, project_files

PAGE = (ROOT / "docs/explanation/security.md").read_text()
TESTS = project_files(under="tests/", suffix=".py")
FILES = package_files()
#: What would run, or unpack, what somebody else wrote.
UNSAFE = {"pickle", "shelve", "marshal", "dill", "yaml", "jinja2", "mako", "xmlrpc", "code"}


def held() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path, text in TESTS.items():
        for test, numbers in holders(text):
            for number in numbers:
                found.setdefault(number, set()).add(f"{path}::{test}")
    return found


def test_every_line_is_on_the_page_once() -> None:
    assert [line.number for line in lines_of(PAGE)] == list(range(1, LINES + 1))
    assert {line.status for line in lines_of(PAGE)} <= {"held", "partly"}


def test_every_line_has_a_test_and_every_mark_a_line() -> None:
    assert sorted(held()) == list(range(1, LINES + 1))


def test_what_a_line_lacks_is_said() -> None:
    """Each line that is held in part is named where the page says what is not covered."""
    lacking = {line.number for line in lines_of(PAGE) if line.status == "partly"}
    rest = PAGE.partition("## What is not covered")[2]
    named = {
        int(number)
        for numbers in re.findall(r"\(lines? ([\d, ]+)\)", rest)
        for number in numbers.split(", ")
    }
    assert named == lacking


@pytest.mark.security(39)
def test_every_known_risk_has_a_line() -> None:
    risks = risks_of(PAGE)
    owasp = {risk.partition(" ")[0] for risk in risks if risk.startswith("MCP")}
    assert owasp == {f"MCP{number:02}" for number in range(1, 11)}
    assert len(risks) == 16
    known = {line.number for line in lines_of(PAGE)}
    for risk, numbers in risks.items():
        assert numbers, risk
        assert set(numbers) <= known, risk


@pytest.mark.security(27)
@pytest.mark.parametrize("path", FILES)
def test_no_module_runs_or_unpacks_what_strangers_wrote(path: str) -> None:
    tree = ast.parse(FILES[path])
    names = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert names & UNSAFE == set()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [c.lineno for c in calls if ast.unparse(c.func) in {"eval", "exec", "compile"}] == []
    shells = [c.lineno for c in calls for key in c.keywords if key.arg == "shell"]
    assert shells == []
    assert not [c.lineno for c in calls if ast.unparse(c.func) in {"os.system", "os.popen"}]


@pytest.mark.security(35)
@pytest.mark.parametrize(
    ("path", "times"),
    [
        ("gateway/guard.py", 1),
        ("gateway/decisions.py", 1),
        ("auth/redirect.py", 1),
        ("client/authorizing/redirects.py", 1),
        ("net/tls.py", 1),
    ],
)
def test_secrets_are_compared_in_constant_time(path: str, times: int) -> None:
    assert FILES[path].count("hmac.compare_digest(") == times


# -- the reading itself -----------------------------------------------------------------------

PLANTED = """
pytestmark = [pytest.mark.anyio, pytest.mark.security(1)]

@pytest.mark.security(2, 3)
async def test_a(): ...

class TestB:
    def test_c(self): ...

def helper(): ...
"""


def test_marks_are_found_on_files_classes_and_functions() -> None:
    assert list(holders(PLANTED)) == [("test_a", (1, 2, 3)), ("test_c", (1,))]
    assert list(holders("pytestmark = pytest.mark.security(7)\ndef test_x(): ...\n")) == [
        ("test_x", (7,))
    ]
    assert list(holders("def test_x(): ...\n")) == []


def test_lines_are_found() -> None:
    assert lines_of("| 1 | It | holds. | held |\n| a | b | held |\n") == [
        Line(1, "It | holds.", "held")
    ]
