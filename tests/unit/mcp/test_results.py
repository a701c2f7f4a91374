"""Results and pages: what is checked, and what is passed on."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.errors import ProtocolError
from sark_trio.mcp.results import ToolResult, page_of, parse_tool_result

TEXT = {"type": "text", "text": "hello"}


def test_a_result_with_everything() -> None:
    result = {
        "content": [TEXT, {"type": "image", "data": "", "mimeType": "image/png"}, TEXT],
        "structuredContent": [1],
        "isError": True,
        "_meta": {"k": 1},
    }
    parsed = parse_tool_result(result)
    assert parsed == ToolResult(
        content=tuple(result["content"]),
        structured_content=[1],
        is_error=True,
        meta={"k": 1},
        raw=result,
    )
    assert parsed.text == "hello\nhello"


@pytest.mark.parametrize(
    "result", [{"content": []}, {"content": [], "isError": None, "_meta": None}]
)
def test_a_result_with_the_least(result: dict[str, Any]) -> None:
    parsed = parse_tool_result(result)
    assert (parsed.content, parsed.structured_content, parsed.is_error) == ((), None, False)
    assert (parsed.meta, parsed.text) == ({}, "")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "data": "", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "file:///a", "name": "a"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": ""}},
        {"type": "hologram", "text": 7},
    ],
)
def test_kinds_of_content(block: dict[str, Any]) -> None:
    assert parse_tool_result({"content": [block]}).content == (block,)


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"content": None},
        {"content": TEXT},
        {"content": ["text"]},
        {"content": [{}]},
        {"content": [{"type": 1}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": None}]},
        {"content": [{"type": "image", "data": ""}]},
        {"content": [{"type": "audio", "mimeType": "audio/wav"}]},
        {"content": [{"type": "resource_link", "uri": "file:///a"}]},
        {"content": [{"type": "resource"}]},
        {"content": [{"type": "resource", "resource": {"text": ""}}]},
        {"content": [], "isError": "false"},
        {"content": [], "isError": 1},
    ],
)
def test_a_malformed_result_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_tool_result(result)
    assert caught.value.delivery == "answered"


def test_a_result_is_no_error_unless_it_says_so() -> None:
    assert ToolResult(content=()).is_error is False


def test_pages() -> None:
    assert page_of({"tools": [1]}, "tools") == ([1], None)
    assert page_of({"tools": [], "nextCursor": None}, "tools") == ([], None)
    assert page_of({"tools": [], "nextCursor": ""}, "tools") == ([], "")
    for broken in ({}, {"tools": {}}, {"tools": [], "nextCursor": 7}):
        with pytest.raises(ProtocolError):
            page_of(broken, "tools")
