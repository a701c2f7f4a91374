"""Every command says what it does, and shows lines that can be typed."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from sark_trio.cli.main import make_parser
from sark_trio.cli.parsing import Parser, parse


def commands(parser: Parser, name: str = "sark") -> Iterator[tuple[str, Parser]]:
    """All commands that do something, by their names."""
    below = [
        action.choices
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    if not below:
        yield name, parser
    for choices in below:
        for word, one in choices.items():
            yield from commands(one, f"{name} {word}")


COMMANDS = dict(commands(make_parser()))


def test_each_command_has_its_words_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = make_parser().format_help()
    _, _, below = text.partition("\ncommands:\n  COMMAND\n")
    lines = below.partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(
        dict.fromkeys(name.split()[1] for name in COMMANDS)
    )
    assert len({line.index(line.split(maxsplit=1)[1]) for line in lines}) == 1
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_sentence_and_examples_that_parse(name: str) -> None:
    parser = COMMANDS[name]
    assert parser.description is not None
    assert parser.description[0].isupper()
    assert parser.description.endswith(".")
    title, *examples = str(parser.epilog).splitlines()
    assert title == ("examples:" if len(examples) > 1 else "example:")
    for line in examples:
        program, *words = shlex.split(line)
        assert program == "sark"
        assert line.strip().startswith(name)
        assert callable(parse(make_parser(), words).command)
    assert len(max(examples, key=len)) <= 80
