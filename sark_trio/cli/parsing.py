"""How ``sark`` reads its command line: argparse, with mistakes told in one line."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

__all__ = ["Commands", "Parser", "count", "parse", "seconds"]

#: Records that ``audit tail`` holds in memory at once.
_COUNT_MAX = 1_000_000


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        print(f"sark: {message} (see `{self.prog} --help`)", file=sys.stderr)
        sys.exit(2)


#: What ``add_subparsers`` returns; generic for type checkers only.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - it has no other name


def parse(parser: Parser, words: Sequence[str] | None) -> argparse.Namespace:
    """The options that *words* give; exits with status 2 where they make no sense."""
    options, rest = parser.parse_known_args(words)
    # argparse takes the arguments of a tool in one run; those after an option are left over.
    unknown = [one for one in rest if one.startswith("-") and one != "-"]
    if unknown or (rest and not hasattr(options, "arguments")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        options.arguments = [*options.arguments, *rest]
    return options


def count(text: str) -> int:
    """A number of records."""
    if not text.isdecimal() or not 1 <= int(text) <= _COUNT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_COUNT_MAX:,}")
    return int(text)


def seconds(text: str) -> float:
    """A time that something may take."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return value
