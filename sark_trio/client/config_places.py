"""Where in a configuration file something stands, and what its parsers mean by their complaints.

Neither parser of the standard library says where what it has read stood. So a file in which a
mistake was found is read once more, statement by statement.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["explain", "json_line", "toml_line"]

#: A file that no person wrote is not searched; a mistake in it is still named by its key.
_LINES_MAX: Final = 20_000
#: Of one value. It is parsed again for each of its lines.
_VALUE_LINES_MAX: Final = 200
_MARK: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]|\n')
_POSITION: Final = re.compile(
    r"(?: \(at line \d+, column \d+\)|(?: at)?: line \d+ column \d+ \(char \d+\))$"
)
_TWICE: Final = re.compile(r"Cannot declare \((.*?),?\) twice")
#: What a complaint begins with, and what most often is the matter.
_MEANINGS: Final = (
    ("Cannot overwrite a value", "does the key stand twice?"),
    ("Invalid value", 'text stands in "quotes"'),
    ("Illegal character '\\n'", "is a quote missing at the end?"),
    ("Invalid hex value", "write a backslash twice, or the text in 'single quotes'"),
    ("Unescaped '\\' in a string", "write a backslash twice, or the text in 'single quotes'"),
)


def toml_line(text: str, path: Sequence[str]) -> int | None:
    """The line of *text*, which is TOML, where the statement about the key *path* begins.

    What is not there (a missing key, for one) has the line of the nearest table around it.
    """
    found: tuple[int, int | None] = (0, None)
    header: tuple[str, ...] = ()
    for line, statement in _statements(text):
        said = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            header = tuple(_chain(said))
            depth = _common(header, path)
        elif _common(header, path) == len(header):
            depth = len(header) + _common(_chain(said, path[len(header) :]), path[len(header) :])
        else:
            continue
        if depth > found[0]:
            found = (depth, line)
    return found[1]


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header and each ``key = value``, with the line on which it begins."""
    statement, begun = "", 1
    for number, line in enumerate(text.split("\n")[:_LINES_MAX], 1):
        statement += f"{line}\n"
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            if number - begun >= _VALUE_LINES_MAX:
                return
            continue
        yield begun, statement
        statement, begun = "", number + 1


def _chain(said: Any, path: Sequence[str] | None = None) -> Iterator[str]:
    """The keys from the outermost to the innermost: the only ones, or those on *path*."""
    depth = 0
    while said := said[0] if isinstance(said, list) and said else said:
        if not isinstance(said, dict):
            return
        if path is not None and (depth == len(path) or path[depth] not in said):
            return
        key = next(iter(said)) if path is None else path[depth]
        yield key
        said, depth = said[key], depth + 1


def _common(keys: Iterator[str] | Sequence[str], path: Sequence[str]) -> int:
    """How many of *keys*, from the first on, are those of *path*."""
    count = 0
    for mine, theirs in zip(keys, path, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def json_line(text: str, path: Sequence[str]) -> int | None:
    """As :func:`toml_line`, of a JSON object."""
    found: tuple[int, int | None] = (0, None)
    opened: list[str | None] = []
    key: str | None = None
    line, last = 1, ""
    for mark in _MARK.findall(text):
        if mark == "\n":
            line += 1
        elif mark == ":":
            key = json.loads(last)
            here = [*opened[1:], key]
            if len(here) > found[0] and here == list(path[: len(here)]):
                found = (len(here), line)
        elif mark in "{[":
            opened.append(key)
            key = None
        elif mark in "}]":
            opened.pop()
        else:
            last = mark
    return found[1]


def explain(complaint: str, text: str, place: tuple[int, int] | None) -> str:
    """*complaint* of a parser about *text*, without its place, and with what it may mean."""
    said = _POSITION.sub("", complaint)
    said = _TWICE.sub(_twice, said)
    meaning = next((words for start, words in _MEANINGS if start in said), None)
    char = "" if place is None else _at(text, *place)
    if meaning is None and said.startswith("not TOML") and text.lstrip().startswith("{"):
        meaning = "is it JSON? then name it so"
    elif char in {"/", "#"} and said.startswith("not JSON"):
        meaning = "JSON has no comments"
    elif char in {"}", "]"} and said.startswith("not JSON"):
        meaning = "is the comma before it one too many?"
    return f"{said}: {meaning}" if meaning else said


def _twice(match: re.Match[str]) -> str:
    keys = match[1].strip("'").replace("', '", ".")
    return f"[{keys}] stands twice"


def _at(text: str, line: int, column: int) -> str:
    return text.split("\n")[line - 1][column - 1 : column]
