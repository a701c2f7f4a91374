"""The arguments of a tool, as somebody types them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sark_trio import jsontext
from sark_trio.cli.parsing import Parser
from sark_trio.errors import ConfigError, InvalidArguments

__all__ = ["add_call", "read_arguments"]


def add_call(parser: Parser) -> None:
    """``SERVER TOOL KEY=VALUE... --json``."""
    parser.add_argument("server", metavar="SERVER", help="its name in the configuration")
    parser.add_argument("tool", metavar="TOOL", help="its exact name, as `sark tools` lists it")
    parser.add_argument(
        "arguments",
        nargs="*",
        default=(),
        metavar="KEY=VALUE",
        help="a VALUE that is JSON is taken as such, any other as text; a whole JSON object, "
        "@FILE, or - for standard input will do, too",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const=True,
        metavar="ARGUMENTS",
        help="print one JSON document; a JSON object after it is the arguments",
    )


def read_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_call` read, as one object.

    :raises ConfigError: a document is not JSON: source, line and column say where.
    :raises InvalidArguments: a word is no argument, or an argument is given twice.
    """
    words = list(options.arguments)
    if isinstance(options.json, str):
        words.append(options.json)
    whole: dict[str, Any] = {}
    for key, value in (pair for word in words for pair in _pairs(word)):
        if key in whole:
            raise InvalidArguments(f"argument {key!r} is given twice")
        whole[key] = value
    return whole


def _pairs(word: str) -> Iterable[tuple[str, Any]]:
    if word == "-":
        return _object(sys.stdin.read(), "standard input").items()
    if word.startswith("@"):
        return _object(_read(Path(word[1:])), word[1:]).items()
    if word.startswith("{"):
        return _object(word, "arguments").items()
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise InvalidArguments(f"{word!r} is neither KEY=VALUE nor a JSON object")
    return [(key, _value(text))]


def _value(text: str) -> Any:
    try:
        return jsontext.decode_strict(text)
    except jsontext.JSONError:
        return text


def _object(text: str, source: str) -> Mapping[str, Any]:
    try:
        value = jsontext.decode_strict(text)
    except jsontext.JSONError as exc:
        place = exc.__cause__
        if isinstance(place, json.JSONDecodeError):
            raise ConfigError(
                f"not JSON: {place.msg}", source=source, line=place.lineno, column=place.colno
            ) from exc
        raise ConfigError(str(exc), source=source) from exc
    if not isinstance(value, dict):
        raise ConfigError("the arguments of a tool are a JSON object", source=source)
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError("not UTF-8", source=str(path)) from exc
