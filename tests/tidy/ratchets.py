"""Limits on size and words. The lists of exceptions may only shrink."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

__all__ = [
    "FILE_LINES_MAX",
    "FUNCTION_LINES_MAX",
    "forbidden_words",
    "long_functions",
    "ratchet",
    "sleeps",
]

FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 70

# Assembled, so that this file does not hold the words that it forbids.
_LATER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
_NO_COVER = re.compile(r"pragma: *no *cov" + r"er")
_BARE_IGNORE = re.compile(r"#\s*type:\s*igno" + r"re(?!\[)")
_BARE_NOQA = re.compile(r"#\s*no" + r"qa(?!:\s*[A-Z])", re.IGNORECASE)
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:op" + r"t|wor" + r"k|ro" + r"ot|hom" + r"e/\w+)/[\w.]")
_WORDS: Mapping[str, re.Pattern[str]] = {
    "a note for later": _LATER,
    "code hidden from coverage": _NO_COVER,
    "a type error ignored without its code": _BARE_IGNORE,
    "a lint finding ignored without its code": _BARE_NOQA,
    "a path of one machine": _MACHINE_PATH,
}
_MOCKS = re.compile(r"\b(?:Magic|Async)Mo" + r"ck\b|\bunittest\.mo" + r"ck\b|\bmock" + r"er\b")


def forbidden_words(path: str, text: str) -> list[str]:
    """Lines of *text* with words that no file of the project may hold."""
    rules = {**_WORDS, "a mock": _MOCKS} if path.startswith("tests/") else _WORDS
    return [
        f"{path}:{number}: {what}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in rules.items()
        if pattern.search(line)
    ]


def sleeps(path: str, text: str) -> list[str]:
    """Calls that wait in real time. ``trio.sleep`` is free: the clock of those tests jumps."""
    virtual = "autojump_clock" in text or "MockClock" in text
    real = {"time.sleep", "asyncio.sleep"} | (set() if virtual else {"anyio.sleep"})
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in real
        and [ast.unparse(argument) for argument in node.args] != ["0"]
    ]


def long_functions(path: str, text: str) -> Iterator[tuple[str, int]]:
    """``path::Class.function`` and its number of lines, for each function over the limit."""
    yield from _long_functions(ast.parse(text), f"{path}::")


def _long_functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (child.end_lineno or child.lineno) - child.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{prefix}{child.name}", lines
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _long_functions(child, f"{prefix}{child.name}." if named else prefix)


def ratchet(found: Mapping[str, int], excused: Mapping[str, int]) -> list[str]:
    """What is over its limit and not excused, or excused by more than it needs."""
    over = [
        f"{name} has {size} lines, {excused[name]} are excused"
        if name in excused
        else f"{name} has {size} lines"
        for name, size in found.items()
        if size > excused.get(name, 0)
    ]
    slack = [
        f"the ratchet of {name} can go down from {size} to {found.get(name, 'nothing')}"
        for name, size in excused.items()
        if found.get(name, 0) < size
    ]
    return over + slack
