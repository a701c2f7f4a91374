"""``server__tool`` and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.client.listing import ToolInfo
from sark_trio.gateway.names import candidates, definition, expose, resolve, unmirrored
from sark_trio.mcp.tools import Tool, parse_tool

NAMES = st.text(alphabet="ab_", min_size=1, max_size=6)


@given(servers=st.sets(NAMES, max_size=6), tool=NAMES)
def test_what_is_exposed_leads_back_to_its_own_tool_and_no_other(
    servers: set[str], tool: str
) -> None:
    exposed: dict[str, tuple[str, str]] = {}
    for server in servers:
        name = expose(server, tool, servers)
        if name is not None:
            assert resolve(name, servers) == (server, tool)
            assert exposed.setdefault(name, (server, tool)) == (server, tool)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a__b", ("a", "b")),
        ("a__b__c", ("a__b", "c")),
        ("a____b", ("a", "__b")),
        ("a___b", ("a", "_b")),
        ("a__", None),
        ("__b", None),
        ("ab", None),
        ("", None),
        ("x__b", None),
    ],
)
def test_the_longest_server_that_is_there_counts(name: str, found: tuple[str, str] | None) -> None:
    assert resolve(name, {"a", "a__b"}) == found


def test_candidates_are_few_even_of_nonsense() -> None:
    assert len(list(candidates("_" * 1000))) < 1000
    assert list(candidates("a__b__c")) == [("a__b", "c"), ("a", "b__c")]


def test_a_name_that_is_too_long_is_not_exposed() -> None:
    assert expose("a", "t" * 125, {"a"}) is not None
    assert expose("a", "t" * 126, {"a"}) is None


def test_marks_for_mirroring_are_taken_off_wherever_they_may_stand() -> None:
    leaf = {"type": "string", "x-mcp-header": "X", "enum": ["x-mcp-header"]}
    schema = {
        "type": "object",
        "properties": {
            "x-mcp-header": dict(leaf),
            "deep": {"type": "object", "properties": {"leaf": dict(leaf)}},
            "odd": True,
        },
    }
    plain = {"type": "string", "enum": ["x-mcp-header"]}
    assert unmirrored(schema) == {
        "type": "object",
        "properties": {
            "x-mcp-header": plain,
            "deep": {"type": "object", "properties": {"leaf": plain}},
            "odd": True,
        },
    }
    assert schema["properties"]["x-mcp-header"] == leaf  # nothing handed in is changed


def test_a_definition_keeps_what_its_server_said() -> None:
    raw = {
        "name": "t",
        "description": "d",
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
        "execution": {"taskSupport": "required"},
    }
    tool = parse_tool(raw)
    assert isinstance(tool, Tool)
    info = ToolInfo(
        tool_name="t",
        server_name="a",
        description="d",
        sensitivity_level="low",
        sensitive_params=(),
        definition=tool,
    )
    kept = {key: value for key, value in raw.items() if key != "execution"}
    assert definition(info, {"a"}) == {**kept, "name": "a__t"}
    assert definition(info, {"b"}) is None
