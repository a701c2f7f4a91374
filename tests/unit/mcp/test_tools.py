"""Tool definitions, which of them may be offered, and their fingerprints."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from sark_trio.jsontext import JSONError
from sark_trio.mcp.headers import ParamHeader
from sark_trio.mcp.tools import (
    DEFINITION_NODES_MAX,
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    TITLE_CHARS_MAX,
    Tool,
    ToolAnnotations,
    ToolList,
    ToolRejected,
    fingerprint,
    parse_tool,
    parse_tools,
    visible,
)

OBJECT = {"type": "object"}


def raw(**members: Any) -> dict[str, Any]:
    return {"name": "get", "inputSchema": OBJECT, **members}


def tool(**members: Any) -> Tool:
    parsed = parse_tool(raw(**members))
    assert isinstance(parsed, Tool), parsed
    return parsed


def reason(definition: Any, **options: Any) -> str:
    parsed = parse_tool(definition, **options)
    assert isinstance(parsed, ToolRejected), parsed
    return parsed.reason


def test_a_tool_with_everything() -> None:
    definition = raw(
        title="Get",
        description="Gets.",
        outputSchema={"type": "array"},
        annotations={
            "title": "G",
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        _meta={"k": 1},
        inputSchema={"properties": {"r": {"type": "string", "x-mcp-header": "R"}}},
    )
    assert parse_tool(definition) == Tool(
        name="get",
        title="Get",
        description="Gets.",
        input_schema=definition["inputSchema"],
        output_schema={"type": "array"},
        annotations=ToolAnnotations(
            title="G",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        meta={"k": 1},
        param_headers=(ParamHeader("Mcp-Param-R", ("r",)),),
        raw=definition,
    )


def test_a_tool_with_the_least_gets_the_protocols_careful_defaults() -> None:
    nulls = dict.fromkeys(("title", "description", "outputSchema", "annotations", "_meta"))
    for parsed in (tool(), tool(**nulls), tool(annotations={"readOnlyHint": None})):
        assert parsed.annotations == ToolAnnotations()
        assert (parsed.title, parsed.description, parsed.output_schema) == (None, None, None)
    assert not ToolAnnotations().read_only_hint
    assert not ToolAnnotations().idempotent_hint
    assert ToolAnnotations().destructive_hint
    assert ToolAnnotations().open_world_hint


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "getUser",
        "DATA_EXPORT_v2",
        "admin.tools.list",
        "a b",
        "größe",
        "工具",
        "a/b",
        "a~b",
        "🛠",
        "\u1810",  # what follows the selectors: a Mongolian digit, a vertical comma
        "\ufe10",
    ],
)
def test_visible_names_are_taken_exactly(name: str) -> None:
    assert tool(name=name).name == name


@pytest.mark.security(15)
@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        7,
        "x" * (NAME_CHARS_MAX + 1),
        "a\nb",
        "a\x00b",
        "a\x7fb",
        "a\u202eb",  # right-to-left override
        "a\u2066b",  # left-to-right isolate
        "a\u200bb",  # zero-width space
        "a\u200db",  # zero-width joiner
        "a\u2060b",  # word joiner
        "\ufeffa",
        "a\u00adb",  # soft hyphen
        "a\u2028b",  # line separator
        "a\u2029b",  # paragraph separator
        "a\u0378b",  # unassigned
        "a\u00a0b",  # no-break space
        "a\u3164b",  # Hangul filler
        "a\ufe00b",  # the first variation selector
        "a\ufe0fb",  # the last
        "a\u180bb",  # Mongolian variation selector
        "a\u180fb",
        "a\u2800b",  # blank Braille pattern
        "a\U000e0041b",  # tag
        "a\U000e0100b",  # variation selector supplement
        "a\ue000b",  # private use
        "a\ud800b",
        " a",
        "a ",
    ],
)
def test_names_that_hide_something_are_refused(name: Any) -> None:
    parsed = parse_tool(raw(name=name))
    assert isinstance(parsed, ToolRejected)
    assert parsed.name.isascii()
    assert parsed.name.isprintable()
    assert len(parsed.name) <= NAME_CHARS_MAX * 10


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({"name": "get"}, "inputSchema is missing"),
        (raw(inputSchema=None), "inputSchema is missing"),
        (raw(inputSchema=[]), "inputSchema is not an object"),
        (raw(inputSchema=True), "inputSchema is not an object"),
        (raw(inputSchema={"type": "array"}), "no object"),
        (raw(outputSchema=7), "outputSchema is not an object"),
        (raw(title=7), "title is not a string"),
        (raw(title="x" * (TITLE_CHARS_MAX + 1)), "title is longer"),
        (raw(description=["x"]), "description is not a string"),
        (raw(description="x" * (DESCRIPTION_CHARS_MAX + 1)), "description is longer"),
        (raw(annotations=[]), "annotations is not an object"),
        (raw(annotations={"readOnlyHint": "true"}), "readOnlyHint is not a boolean"),
        (raw(annotations={"destructiveHint": 0}), "destructiveHint is not a boolean"),
        (raw(annotations={"title": 1}), "title is not a string"),
        (raw(inputSchema={"enum": [0] * DEFINITION_NODES_MAX}), "values"),
        (raw(inputSchema={"x-mcp-header": "R"}), "x-mcp-header"),
    ],
)
def test_a_malformed_definition_is_set_aside_with_a_reason(definition: Any, words: str) -> None:
    assert words in reason(definition)


def test_a_schema_bomb_is_set_aside() -> None:
    bomb: Any = {}
    for _ in range(2_000):
        bomb = {"items": bomb}
    assert "deeper" in reason(raw(inputSchema=bomb))


def test_other_transports_ignore_header_annotations() -> None:
    definition = raw(inputSchema={"type": "object", "x-mcp-header": ""})
    assert "x-mcp-header" in reason(definition)
    parsed = parse_tool(definition, over_http=False)
    assert isinstance(parsed, Tool)
    assert parsed.param_headers == ()


def test_the_same_definition_twice_counts_once() -> None:
    listed = parse_tools([raw(), raw(), raw(name="put")])
    assert listed == ToolList(tools={"get": tool(), "put": tool(name="put")}, rejected=())


def test_lists_are_held_to_the_rules_of_headers_unless_told_otherwise() -> None:
    definition = raw(inputSchema={"type": "object", "x-mcp-header": ""})
    assert not parse_tools([definition]).tools
    assert parse_tools([definition], over_http=False).tools


@pytest.mark.parametrize(
    ("name", "shown"), [("a\nb", "a\\nb"), ("\u202eab", "\\u202eab"), (7, "?")]
)
def test_a_refused_name_is_shown_whole_and_spelled_out(name: Any, shown: str) -> None:
    assert parse_tool(raw(name=name)) == ToolRejected(shown, reason(raw(name=name)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gets.", "Gets."),
        ("größe 工具", "größe 工具"),
        ("a\tb\n", "a\\u{9}b\\u{a}"),
        ("é\u202e\u0378", "é\\u{202e}\\u{378}"),
        ("", ""),
    ],
)
def test_what_a_reader_would_not_see_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_one_bad_definition_does_not_cost_the_others() -> None:
    listed = parse_tools([None, raw(), raw(name="bad", title=7)])
    assert dict(listed.tools) == {"get": tool()}
    assert [each.name for each in listed.rejected] == ["?", "bad"]


@pytest.mark.security(15)
@pytest.mark.parametrize(
    "names", [("get", "get"), ("file", "\ufb01le"), ("A1", "A\u00b9"), ("é", "e\u0301")]
)
def test_names_that_look_alike_shadow_each_other(names: tuple[str, str]) -> None:
    first, second = (raw(name=name, title=str(n)) for n, name in enumerate(names))
    listed = parse_tools([first, raw(name="other"), second])
    assert [each.name for each in listed.rejected] == list(dict.fromkeys(names))
    shadowed = "another tool of this server has the same name"
    assert {each.reason for each in listed.rejected} == {shadowed}
    assert dict(listed.tools) == {"other": tool(name="other")}


@pytest.mark.security(15)
def test_names_are_case_sensitive() -> None:
    assert list(parse_tools([raw(), raw(name="GET")]).tools) == ["get", "GET"]


BASE = {
    "title": "Get",
    "description": "Gets.",
    "outputSchema": {"type": "array"},
    "annotations": {"readOnlyHint": True},
}


@pytest.mark.security(14)
@pytest.mark.parametrize(
    "change",
    [
        {"name": "Get"},
        {"title": "get"},
        {"description": "Gets. "},
        {"inputSchema": {"type": "object", "additionalProperties": False}},
        {"outputSchema": {"type": "object"}},
        {"annotations": {"readOnlyHint": False}},
        {"annotations": {"readOnlyHint": True, "extra": 1}},
        {"title": None},
    ],
)
def test_any_pinned_member_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(tool(**BASE)) != fingerprint(tool(**{**BASE, **change}))


def test_what_is_not_pinned_does_not_change_the_fingerprint() -> None:
    print_ = fingerprint(tool(**BASE))
    assert print_ == fingerprint(tool(**dict(reversed(BASE.items())), _meta={"a": 1}, icons=[]))
    assert len(print_) == 64
    assert fingerprint(tool()) == fingerprint(tool(title=None))


@pytest.mark.security(14)
def test_a_fingerprint_can_be_computed_by_others() -> None:
    # Users keep them: a change of this value asks all of them to approve every tool again.
    canonical = (
        b'{"annotations":{"readOnlyHint":true},"description":"Gets.",'
        b'"inputSchema":{"type":"object"},"name":"get","outputSchema":{"type":"array"},'
        b'"title":"Get"}'
    )
    assert fingerprint(tool(**BASE)) == hashlib.sha256(canonical).hexdigest()


@pytest.mark.security(14)
def test_so_can_that_of_a_definition_without_a_canonical_form() -> None:
    schema = {"maximum": 2**63 - 1, "x": [1.5, None, True, "y", 1]}
    marked = (
        b'marked:{"annotations":null,"description":null,'
        b'"inputSchema":{"maximum":"i9223372036854775807","x":[1.5,null,true,"sy","i1"]},'
        b'"name":"sget","outputSchema":null,"title":null}'
    )
    assert fingerprint(tool(inputSchema=schema)) == hashlib.sha256(marked).hexdigest()


def test_wide_integers_have_a_fingerprint_of_their_own() -> None:
    def limited(value: Any) -> str:
        schema = {"type": "object", "properties": {"n": {"maximum": value, "x": [1.5, None, True]}}}
        return fingerprint(tool(inputSchema=schema))

    values = [2**63 - 1, 2**63 + 1, 2**63, str(2**63), "i" + str(2**63), 2**53 - 1]
    assert len({limited(value) for value in values}) == len(values)
    assert limited(2**63) == limited(float(2**63))  # one JSON number (RFC 8785, 3.2.2.3)


def test_a_string_that_looks_like_a_wide_integer_is_none() -> None:
    def both(name: str, maximum: Any, minimum: Any) -> str:
        limits = {"maximum": maximum, "minimum": minimum}
        return fingerprint(tool(name=name, inputSchema={"properties": {"n": limits}}))

    wide, looks = 2**63, "i9223372036854775808"
    assert both("get", wide, wide) != both("get", looks, wide)
    assert both("get", wide, wide) != both("sget", looks, looks)


def test_limits_are_inclusive() -> None:
    longest = {"title": "x" * TITLE_CHARS_MAX, "description": "x" * DESCRIPTION_CHARS_MAX}
    assert tool(name="x" * NAME_CHARS_MAX, **longest).name == "x" * NAME_CHARS_MAX
    limits = (NAME_CHARS_MAX, TITLE_CHARS_MAX, DESCRIPTION_CHARS_MAX, DEFINITION_NODES_MAX)
    assert limits == (128, 1_024, 65_536, 20_000)


def test_a_lone_surrogate_has_no_fingerprint() -> None:
    with pytest.raises(JSONError):
        fingerprint(tool(description="\ud800"))
