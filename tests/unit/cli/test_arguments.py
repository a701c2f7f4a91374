from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from sark_trio.cli.arguments import add_call, read_arguments
from sark_trio.cli.parsing import Parser, parse
from sark_trio.errors import ConfigError, InvalidArguments


def read(*words: str) -> dict[str, Any]:
    parser = Parser(prog="sark call")
    add_call(parser)
    parser.add_argument("--other")
    return read_arguments(parse(parser, ["server", "tool", *words]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["a=1"], {"a": 1}),
        (["a=one"], {"a": "one"}),
        (["a="], {"a": ""}),
        (['a="1"'], {"a": "1"}),
        (["a=null", "b=true", "c=[1, {}]"], {"a": None, "b": True, "c": [1, {}]}),
        (["a=x=y"], {"a": "x=y"}),
        # What is no JSON number is a text, and never a NaN.
        (["a=NaN", "b=Infinity"], {"a": "NaN", "b": "Infinity"}),
        (["a={1", 'b={"x":1,"x":2}'], {"a": "{1", "b": '{"x":1,"x":2}'}),
        (["a=36893488147419103232"], {"a": 2**65}),
        (['{"a": 1}', "b=2"], {"a": 1, "b": 2}),
        (["--json"], {}),
        (["a=1", "--json"], {"a": 1}),
        (["--json", '{"a": 1}'], {"a": 1}),
        (["--json", "a=1"], {"a": 1}),
        (["--other", "x", "a=1", "b=2"], {"a": 1, "b": 2}),
        (["a=1", "--other", "x", "b=2"], {"a": 1, "b": 2}),
    ],
)
def test_words_become_arguments(words: list[str], expected: dict[str, Any]) -> None:
    assert read(*words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "'a' is neither KEY=VALUE nor a JSON object"),
        (["=1"], "'=1' is neither"),
        (["a=1", "a=2"], "argument 'a' is given twice"),
        (['{"a": 1}', "a=2"], "argument 'a' is given twice"),
        ([""], "'' is neither"),
    ],
)
def test_what_is_no_argument_is_named(words: list[str], said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read(*words)
    assert said in caught.value.message


def test_documents_come_from_files_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": "ä"}', encoding="utf-8")
    assert read(f"@{path}") == {"a": "ä"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"b": 2}'))
    assert read("-", "c=3") == {"b": 2, "c": 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a":\n  x}', ":2:3: not JSON: Expecting value"),
        (b'{"a": 1, "a": 2}', "'a'"),
        (b"[1]", ": the arguments of a tool are a JSON object"),
        (b"\xff", ": not UTF-8"),
    ],
)
def test_a_bad_document_is_placed(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(f"@{path}")
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
