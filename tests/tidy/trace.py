"""From a promise to its tests: laws, rows of the fault matrix, lines of the security list.

Read from the source alone, so that the documentation and the checks need to run nothing. A mark
on a module or a class is one on each of its tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.laws import required_ids

__all__ = ["Row", "Trace", "law_ids", "rows", "trace"]

LAWS = Path(__file__).parents[1] / "laws"


@dataclass(frozen=True, order=True)
class Trace:
    """A test that carries a mark."""

    path: str
    name: str
    line: int
    #: The first paragraph of its docstring.
    sentence: str = ""

    @property
    def nodeid(self) -> str:
        return f"{self.path}::{self.name}"


@dataclass(frozen=True)
class Row:
    """One row of the fault matrix."""

    number: int
    fault: str
    expected: str


def rows() -> list[Row]:
    """The fault matrix: ``number | fault | expected``, a line each; ``#`` begins a comment."""
    found = []
    for line in (LAWS / "rows.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            number, fault, expected = (part.strip() for part in line.split("|"))
            found.append(Row(int(number), fault, expected))
    return found


def law_ids() -> list[str]:
    """Every law, in the order in which ``required.txt`` lists them."""
    return required_ids((LAWS / "required.txt").read_text("utf-8"))


def trace(mark: str, files: Mapping[str, str]) -> dict[Any, list[Trace]]:
    """Each argument of *mark* and the tests that carry it, in the order of files and lines."""
    found: dict[Any, list[Trace]] = {}
    for path, text in files.items():
        if not path.rpartition("/")[2].startswith("test_"):
            continue
        tree = ast.parse(text)
        whole = _of_module(tree, mark)
        for test, arguments in _tests(tree, mark, whole, ""):
            said = (ast.get_docstring(test.node) or "").split("\n\n")[0]
            name = f"{test.prefix}{test.node.name}"
            one = Trace(path, name, test.node.lineno, " ".join(said.split()))
            for argument in dict.fromkeys(arguments):
                found.setdefault(argument, []).append(one)
    return found


@dataclass(frozen=True)
class _Test:
    prefix: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _tests(
    tree: ast.Module | ast.ClassDef, mark: str, above: tuple[Any, ...], prefix: str
) -> Iterator[tuple[_Test, tuple[Any, ...]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test_"):
                yield _Test(prefix, node), above + _arguments(node.decorator_list, mark)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner = above + _arguments(node.decorator_list, mark)
            inside = list(_tests(node, mark, inner, f"{prefix}{node.name}::"))
            # Without tests of its own it inherits them, as those of a state machine do.
            yield from inside or [(_Test(prefix, node), inner)]


def _of_module(tree: ast.Module, mark: str) -> tuple[Any, ...]:
    """Arguments of the mark in ``pytestmark = ...``, which is one mark or a list of them."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            value = node.value
            each = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
            return _arguments(each, mark)
    return ()


def _arguments(marks: list[ast.expr], mark: str) -> tuple[Any, ...]:
    return tuple(
        ast.literal_eval(argument)
        for each in marks
        if isinstance(each, ast.Call) and ast.unparse(each.func) == f"pytest.mark.{mark}"
        for argument in each.args
    )
