"""Where something stands in a file, and what parsers mean."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio import jsontext
from sark_trio.client.config_places import explain, json_line, toml_line

TOML = '''\
# a comment
top = 1

[servers.db]  # another
url = "x"
command = [
  "a", # [servers.no]
  "b",
]
text = """
[servers.no]
hidden = 1
"""
env = { A = "a", B = { C = "c" } }
dotted.key = 1
[servers."a b"]
"odd key" = 1

[[servers.list]]
x = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("top", 2),
        ("servers", 4),
        ("servers/db", 4),
        ("servers/db/url", 5),
        ("servers/db/command", 6),
        ("servers/db/text", 10),
        ("servers/db/env/A", 14),
        ("servers/db/env/B/C", 14),
        ("servers/db/dotted/key", 15),
        ("servers/a b", 16),
        ("servers/a b/odd key", 17),
        ("servers/list", 19),
        ("servers/list/x", 20),
        # What is not there: the nearest table around it.
        ("servers/db/missing", 4),
        ("servers/no", 4),
        ("servers/db/command/0", 6),
        ("missing", None),
        ("", None),
    ],
)
def test_the_line_of_a_statement_of_toml(path: str, line: int | None) -> None:
    tomllib.loads(TOML)
    assert toml_line(TOML, path.split("/")) == line


def test_a_file_that_no_person_wrote_is_not_searched() -> None:
    long = "x = [\n" + "1,\n" * 300 + "]\ny = 1\n"
    assert toml_line("a = 1\n" + long, ["a"]) == 1
    assert toml_line("a = 1\n" + long, ["y"]) is None


JSON = """{
  "mcpServers": {
    "a": {"command": "x{\\"y\\": [", "args": [{"url": 1}],
      "url"
      : "z"},
    "\\u0062": {}
  }
}"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("mcpServers", 2),
        ("mcpServers/a", 3),
        ("mcpServers/a/args", 3),
        ("mcpServers/a/url", 5),
        ("mcpServers/b", 6),
        ("mcpServers/b/url", 6),
        ("y", None),
    ],
)
def test_the_line_of_a_member_of_json(path: str, line: int | None) -> None:
    assert json_line(JSON, path.split("/")) == line


KEYS = st.text('ab"\\\n. é', min_size=1, max_size=3)
OBJECTS = st.dictionaries(
    KEYS,
    st.recursive(st.integers() | KEYS, lambda below: st.dictionaries(KEYS, below), max_leaves=6),
)


@given(OBJECTS)
def test_every_member_of_any_object_is_found(value: dict[str, Any]) -> None:
    for indent, text in ((None, json.dumps(value)), (1, json.dumps(value, indent=1))):
        lines = text.split("\n")
        for key in value:
            found = json_line(text, [key])
            assert found is not None
            assert lines[found - 1].startswith(f" {json.dumps(key)}: " if indent else "{")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\na = 2\n", "not TOML: Cannot overwrite a value: does the key stand twice?"),
        ("[a.b]\n[a.b]", "not TOML: [a.b] stands twice"),
        ("[a]\n[a]", "not TOML: [a] stands twice"),
        ("a = x", 'not TOML: Invalid value: text stands in "quotes"'),
        ('a = "x\n', "not TOML: Illegal character '\\n': is a quote missing at the end?"),
        ('a = "C:\\Users"', "not TOML: Invalid hex value: write a backslash twice, or"),
        ('a = "C:\\work"', "not TOML: Unescaped '\\' in a string: write a backslash twice, or"),
        ("{}", "not TOML: Invalid statement: is it JSON? then name it so"),
        ("a: 1", "not TOML: Expected '=' after a key in a key/value pair"),
    ],
)
def test_what_is_wrong_with_toml_is_explained(text: str, said: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert explain(f"not TOML: {caught.value}", text, None).startswith(said)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ('{"a": 1,}', (1, 9), "is the comma before it one too many?"),
        ('{\n// x\n"a": 1}', (2, 1), "JSON has no comments"),
        ("{a: 1}", (1, 2), ""),
        ('{"a": "\t"}', (1, 8), ""),
    ],
)
def test_what_is_wrong_with_json_is_explained(text: str, place: tuple[int, int], said: str) -> None:
    with pytest.raises(jsontext.JSONError) as caught:
        jsontext.decode_strict(text)
    told = explain(str(caught.value), text, place)
    assert told.startswith("not JSON: ")
    assert told.endswith(said)
    assert "line 1" not in told
    assert not told.endswith(" at")
