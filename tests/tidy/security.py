"""The lines of docs/explanation/security.md, and which tests hold them, read from both sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["LINES", "Line", "holders", "lines_of", "risks_of"]

#: How many there are. Their numbers are for good: a line that is given up keeps its own.
LINES = 39


@dataclass(frozen=True)
class Line:
    """One line of the page."""

    number: int
    text: str
    status: str


def lines_of(page: str) -> list[Line]:
    """The rows of the table of lines."""
    rows = re.findall(r"^\| (\d+) \| (.+) \| (\w+) \|$", page, re.MULTILINE)
    return [Line(int(number), text, status) for number, text, status in rows]


def risks_of(page: str) -> Mapping[str, tuple[int, ...]]:
    """The lines against each risk."""
    table = page.partition("| risk | lines |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+) \| ([\d, ]+) \|$", table, re.MULTILINE)
    return {risk: tuple(map(int, numbers.split(", "))) for risk, numbers in rows}


def holders(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each test of a file that holds a line: by a mark of its own, its class's or its file's."""
    tree = ast.parse(text)
    yield from _holders(tree.body, _of_file(tree))


def _holders(body: list[ast.stmt], above: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own = above + tuple(n for each in node.decorator_list for n in _numbers(each))
            if isinstance(node, ast.ClassDef):
                yield from _holders(node.body, own)
            elif own and node.name.startswith("test_"):
                yield node.name, tuple(sorted(set(own)))


def _of_file(tree: ast.Module) -> tuple[int, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            marks = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            return tuple(number for mark in marks for number in _numbers(mark))
    return ()


def _numbers(mark: ast.expr) -> tuple[int, ...]:
    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.security":
        return tuple(ast.literal_eval(each) for each in mark.args)
    return ()
