"""How ``sark`` reads its command line: argparse, with mistakes told in one line."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

__all__ = ["Commands", "Formatter", "Parser", "Version", "add_command", "count", "parse", "seconds"]

#: Records that ``audit tail`` holds in memory at once.
_COUNT_MAX = 1_000_000


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        print(f"sark: {message} (see `{self.prog} --help`)", file=sys.stderr)
        sys.exit(2)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in which the longest command has its words beside it, as all others have."""

    def add_argument(self, action: argparse.Action) -> None:
        """As argparse, which forgets that commands are indented."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no other name
            self._action_max_length += self._indent_increment


class Version(argparse.Action):
    """``--version``: the installed distribution is looked up only for whoever asks."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Say it and exit with status 0."""
        from importlib.metadata import version

        print(f"sark {version('sark_trio')}")
        parser.exit()


#: What ``add_subparsers`` returns; generic for type checkers only.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - it has no other name


def add_command(commands: Commands, name: str, summary: str, *examples: str) -> Parser:
    """A command: *summary* says what it does, and *examples* are lines that can be typed."""
    lines = ["examples:" if len(examples) > 1 else "example:", *(f"  {one}" for one in examples)]
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n".join(lines) if examples else None,
        formatter_class=Formatter,
    )


def _text(word: str) -> str:
    """*word* of the command line as UTF-8, whatever the locale takes its bytes for."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return word


def parse(parser: Parser, words: Sequence[str] | None) -> argparse.Namespace:
    """The options that *words* give; exits with status 2 where they make no sense."""
    words = [_text(word) for word in sys.argv[1:]] if words is None else words
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
