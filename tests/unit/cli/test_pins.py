"""``sark pins`` on its own: what it prints, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sark_trio.cli.main import main
from sark_trio.cli.output import visible
from sark_trio.mcp.pins import Definition, PinBook
from sark_trio.mcp.tools import Tool, parse_tool
from sark_trio.stores.pins import PinFile


def definition(name: str, text: str) -> Definition:
    raw = {"name": name, "inputSchema": {"type": "object"}, "description": text}
    tool = parse_tool(raw)
    assert isinstance(tool, Tool)
    return Definition.of(tool)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sark.toml"
    path.write_text('[pins]\npath = "pins.json"\n')
    return path


@pytest.fixture
def filled(config: Path) -> Path:
    """One tool is as it was; one has changed; one is new."""

    def met(book: PinBook, *tools: Definition) -> PinBook:
        named = {str(tool.members["name"]): tool for tool in tools}
        return book.judge("db", named, first_use=True, at="2026-01-01T00:00:00+00:00").book

    same, old = definition("same", "s"), definition("changed", "old")
    new = definition("changed", "new\u202e"), definition("added", "a")
    file = PinFile(config.parent / "pins.json")
    file.change(lambda book: (met(met(book, same, old), same, *new), None))
    return config


def run(config: Path, *words: str) -> int:
    return main(["pins", *words, "--config", str(config)])


def test_tools_are_listed_with_their_state(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(filled, "list") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines] == [
        ["SERVER", "TOOL", "STATE"],
        ["db", "added", "new"],
        ["db", "changed", "changed"],
        ["db", "same", "pinned"],
    ]
    assert lines[3][-3:] == ["first", "use,", "2026-01-01T00:00:00+00:00"]
    assert run(filled, "list", "other", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_book_says_how_it_is_filled(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "list") == 0
    assert "`sark tools`" in capsys.readouterr().out


def test_what_is_different_is_shown_and_hides_nothing(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(filled, "diff", "db", "changed") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("db changed: changed (")
    assert lines == ["  /description", '    - "old"', r'    + "new\u{202e}"']
    assert run(filled, "diff", "db") == 0
    assert "db added: new (" in capsys.readouterr().out
    assert run(filled, "diff", "db", "same") == 0
    assert capsys.readouterr().out == "nothing has changed\n"
    assert run(filled, "diff", "db", "changed", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["differences"] == [
        {"path": "/description", "before": '"old"', "after": r'"new\u{202e}"'}
    ]


def test_all_that_wait_are_decided_at_once(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(filled, "approve", "db") == 0
    assert capsys.readouterr().out == "approved db changed\napproved db added\n"
    assert run(filled, "refuse", "db", "same") == 0
    assert capsys.readouterr().out == "refused db same\n"
    assert run(filled, "approve", "db", "same", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"server": "db", "approved": ["same"]}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["approve", "db", "same"], "waits for approval"),
        (["approve", "nobody"], "no tool of 'nobody' waits"),
        (["refuse", "db", "nothing"], "no tool 'nothing' of 'db' is known"),
        (["diff", "db", "nothing"], "no tool 'nothing' of 'db' is known"),
        (["approve", "db", "changed", "--fingerprint", "00"], "is now"),
    ],
)
def test_mistakes_are_told_in_one_line(
    filled: Path, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert run(filled, *words) == 2
    printed, told = capsys.readouterr()
    assert (printed, told.count("\n")) == ("", 1)
    assert why in told


def test_without_a_file_of_pins_it_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sark.toml"
    path.write_text("")
    assert run(path, "list") == 2
    assert "[pins] path" in capsys.readouterr().err


@pytest.mark.security(14, 31)
@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\U000e0041", "\u00ad", "\ufeff", "\u3164"])
def test_no_description_hides_anything_on_a_terminal(hidden: str) -> None:
    """Wherever ``sark`` prints what a server says of itself."""
    assert visible(f"safe{hidden}") == f"safe\\x{ord(hidden):02x}"
    assert visible("größer 猫 ✓") == "größer 猫 ✓"
