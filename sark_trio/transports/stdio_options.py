"""Options of the stdio transport, checked where they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

__all__ = ["command_of", "environment_of", "path_or_none"]


def path_or_none(value: str | os.PathLike[str] | None) -> str | None:
    """A path as a string."""
    return None if value is None else os.fspath(value)


def environment_of(value: Mapping[str, str] | None) -> dict[str, str]:
    """Variables that can be set."""
    variables = dict(value or {})
    for name, text in variables.items():
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"env: the variable {name!r} can not be set")
    return variables


def command_of(value: Sequence[str]) -> tuple[str, ...]:
    """A program and its arguments; a shell's line is neither."""
    words: tuple[object, ...] = (value,) if isinstance(value, str) else tuple(value)
    if len(words) == 0 or words[0] == "" or isinstance(value, str):
        raise ValueError(f"command must be a list, a program and its arguments, not {value!r}")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f"command must hold strings without NUL, not {word!r}")
    return tuple(value)
