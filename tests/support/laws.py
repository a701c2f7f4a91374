"""A pytest plugin that keeps the table of laws: which test states which law, and how it went.

Marks are ``@pytest.mark.law("B1")``; the sentence is the test's docstring. ``--laws`` prints
the table at the end and fails the run where an id of ``tests/laws/required.txt`` has no passing
test; ``--laws-json PATH`` writes it for the documentation, also under ``--collect-only``.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["LawTable", "required_ids", "sort_key"]

REQUIRED = Path(__file__).parents[1] / "laws" / "required.txt"
_PROPERTY = "law"


class LawTable:
    """Rows of (law id, test, sentence, outcomes), collected from tests and their reports."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, law: str, test: str, sentence: str, outcome: str | None = None) -> None:
        """Note that *test* states *law*; the same pair may come many times (parameters)."""
        blank = {"law": law, "test": test, "sentence": sentence, "outcomes": []}
        row = self._rows.setdefault((law, test), blank)
        if outcome is not None:
            row["outcomes"].append(outcome)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order of ids and then of tests."""
        return sorted(self._rows.values(), key=lambda row: (sort_key(row["law"]), row["test"]))

    def gaps(self, required: Iterable[str]) -> list[str]:
        """The required ids that no test states, or whose tests did not all pass."""
        kept: dict[str, set[str]] = {}
        for row in self._rows.values():
            kept.setdefault(row["law"], set()).update(row["outcomes"])
        bad = {law for law, outcomes in kept.items() if "failed" in outcomes}
        good = {law for law, outcomes in kept.items() if "passed" in outcomes} - bad
        return sorted(set(required) - good, key=sort_key)

    def lines(self) -> list[str]:
        """The table as text: id, outcome, test, sentence."""
        return [
            f"{row['law']:<4} {_summary(row['outcomes']):<8} {row['test']}\n"
            f"{'':<13} {row['sentence']}"
            for row in self.rows()
        ]


def _summary(outcomes: list[str]) -> str:
    for outcome in ("failed", "passed", "skipped"):
        if outcome in outcomes:
            return outcome
    return "not run"


def sort_key(law: str) -> tuple[str, int]:
    """B2 before B10."""
    letters, digits = re.fullmatch(r"([A-Z]+)(\d+)", law).groups()  # type: ignore[union-attr]
    return letters, int(digits)


def required_ids(text: str) -> list[str]:
    """The ids in the text of ``required.txt``: one or more a line, ``#`` begins a comment."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return [law for line in lines for law in line.split()]


def _laws_of(item: pytest.Item) -> list[str]:
    return [law for mark in item.iter_markers("law") for law in mark.args]


def _test_name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _sentence(item: pytest.Item) -> str:
    for owner in (getattr(item, "obj", None), getattr(item, "cls", None)):
        if text := inspect.getdoc(owner) if owner is not None else None:
            return " ".join(text.split("\n\n")[0].split())
    return ""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("laws")
    group.addoption("--laws", action="store_true", help="print the laws and fail on a gap")
    group.addoption("--laws-json", metavar="PATH", help="write the table of laws to PATH")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = LawTable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for law in _laws_of(item):
            config.stash[_TABLE].add(law, _test_name(item), _sentence(item))
            # Properties travel in reports, so the table is whole under xdist, too.
            item.user_properties.append((_PROPERTY, [law, _test_name(item), _sentence(item)]))


class _Recorder:
    """Reads the reports; registered by the run that has them all."""

    def __init__(self, config: pytest.Config) -> None:
        self._table = config.stash[_TABLE]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        for name, value in report.user_properties:
            if name == _PROPERTY and not isinstance(value, str):
                law, test, sentence = value
                self._table.add(law, test, sentence, report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Recorder(session.config), "laws-recorder")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if path := config.getoption("--laws-json"):
        rows: list[Mapping[str, Any]] = config.stash[_TABLE].rows()
        Path(path).write_text(json.dumps(rows, indent=1) + "\n")
    if config.getoption("--laws") and _gaps(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.getoption("--laws"):
        return
    terminalreporter.section("laws")
    for line in config.stash[_TABLE].lines():
        terminalreporter.line(line)
    for law in _gaps(config):
        terminalreporter.line(f"{law:<4} NO PASSING TEST", red=True)


def _gaps(config: pytest.Config) -> list[str]:
    return config.stash[_TABLE].gaps(required_ids(REQUIRED.read_text()))


_TABLE = pytest.StashKey[LawTable]()
