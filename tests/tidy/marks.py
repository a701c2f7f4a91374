"""The marks of tests, read from their source: laws that are stated, faults that are refuted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Marked", "marked"]


@dataclass(frozen=True)
class Marked:
    """A test function or class with the arguments of one of its marks."""

    name: str
    arguments: tuple[Any, ...]
    documented: bool


def marked(text: str, mark: str) -> Iterator[Marked]:
    """What ``@pytest.mark.<mark>(...)`` decorates in a test file."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            call = isinstance(decorator, ast.Call)
            if call and ast.unparse(decorator.func) == f"pytest.mark.{mark}":
                arguments = tuple(ast.literal_eval(each) for each in decorator.args)
                yield Marked(node.name, arguments, ast.get_docstring(node) is not None)
