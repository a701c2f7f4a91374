"""Resources, prompts and completions: the official models' words are read, others left out."""

from __future__ import annotations

import base64
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sark_trio.errors import ProtocolError
from sark_trio.mcp.prompts import (
    Completion,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptResult,
    parse_completion,
    parse_prompt,
    parse_prompt_result,
)
from sark_trio.mcp.resources import (
    Resource,
    ResourceContents,
    ResourceResult,
    ResourceTemplate,
    parse_resource,
    parse_resource_result,
    parse_template,
)


def dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def test_official_resources_are_read() -> None:
    theirs = mcp_types.Resource(
        uri="file:///a", name="a", title="A", description="d", mime_type="text/plain", size=3
    )
    ours = parse_resource(dumped(theirs))
    assert ours is not None
    assert (ours.uri, ours.name, ours.title) == ("file:///a", "a", "A")
    assert (ours.description, ours.mime_type, ours.size_bytes) == ("d", "text/plain", 3)
    template = parse_template(
        dumped(mcp_types.ResourceTemplate(uri_template="file:///{p}", name="t"))
    )
    assert template is not None
    assert (template.uri_template, template.title) == ("file:///{p}", None)


#: What resources, their templates and prompts may all say.
COMMON = {"name": "n", "title": "T", "description": "d", "_meta": {"k": 1}}


def test_everything_that_a_resource_says_is_read() -> None:
    more = {**COMMON, "mimeType": "text/plain", "annotations": {"priority": 1}}
    described = {
        "name": "n",
        "title": "T",
        "description": "d",
        "mime_type": "text/plain",
        "annotations": {"priority": 1},
        "meta": {"k": 1},
    }
    raw = {**more, "uri": "file:///a", "size": 0}
    assert parse_resource(raw) == Resource(uri="file:///a", size_bytes=0, **described, raw=raw)
    raw = {**more, "uriTemplate": "file:///{a}"}
    assert parse_template(raw) == ResourceTemplate(uri_template="file:///{a}", **described, raw=raw)
    contents = {"uri": "file:///a", "mimeType": "text/plain", "text": "x", "_meta": {"k": 1}}
    result = {"contents": [contents], "_meta": {"k": 2}}
    assert parse_resource_result(result) == ResourceResult(
        contents=(
            ResourceContents(uri="file:///a", mime_type="text/plain", text="x", meta={"k": 1}),
        ),
        meta={"k": 2},
        raw=result,
    )


@pytest.mark.parametrize("size", [-1, 1.5, True, "1"])
def test_what_is_of_another_type_is_left_out(size: Any) -> None:
    odd = parse_resource({"uri": "u", "name": "n", "size": size, "_meta": 1, "annotations": []})
    assert odd is not None
    assert (odd.size_bytes, odd.meta, odd.annotations) == (None, {}, {})


def test_a_uri_fits_into_a_header() -> None:
    for length, fits in ((8_192, True), (8_193, False)):
        assert (parse_resource({"uri": "u" * length, "name": "n"}) is not None) is fits
        assert (parse_template({"uriTemplate": "u" * length, "name": "n"}) is not None) is fits


def test_everything_that_a_prompt_says_is_read() -> None:
    argument = {"name": "a", "title": "A", "description": "b", "required": True}
    raw = {**COMMON, "arguments": [argument, {"name": "b"}]}
    assert parse_prompt(raw) == Prompt(
        name="n",
        title="T",
        description="d",
        arguments=(
            PromptArgument(name="a", title="A", description="b", required=True),
            PromptArgument(name="b", required=False),
        ),
        meta={"k": 1},
        raw=raw,
    )
    assert PromptArgument(name="b").required is False
    content = {"type": "text", "text": "x"}
    messages = [{"role": role, "content": content} for role in ("user", "assistant")]
    result = {"messages": messages, "description": "d", "_meta": {"k": 2}}
    assert parse_prompt_result(result) == PromptResult(
        messages=tuple(PromptMessage(role=one["role"], content=content) for one in messages),
        description="d",
        meta={"k": 2},
        raw=result,
    )


def test_prompts_are_bounded() -> None:
    many = [{"name": str(number)} for number in range(1_001)]
    made = parse_prompt({"name": "n" * 1_024, "arguments": many})
    assert made is not None
    assert len(made.arguments) == 1_000
    assert parse_prompt({"name": "n" * 1_025}) is None
    message = {"role": "user", "content": {"type": "text", "text": ""}}
    assert len(parse_prompt_result({"messages": [message] * 10_000}).messages) == 10_000
    with pytest.raises(ProtocolError, match="too long"):
        parse_prompt_result({"messages": [message] * 10_001})


def test_official_contents_are_read() -> None:
    blob = base64.b64encode(b"\0\1").decode()
    theirs = mcp_types.ReadResourceResult(
        contents=[
            mcp_types.TextResourceContents(uri="file:///a", text="x", mime_type="text/plain"),
            mcp_types.BlobResourceContents(uri="file:///b", blob=blob),
            mcp_types.TextResourceContents(uri="file:///c", text="y"),
        ]
    )
    ours = parse_resource_result(dumped(theirs))
    assert [one.blob for one in ours.contents] == [None, b"\0\1", None]
    assert ours.text == "x\ny"


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"contents": {}},
        {"contents": [{"text": "x"}]},
        {"contents": [{"uri": "a"}]},
        {"contents": [{"uri": "a", "text": "x", "blob": "eA=="}]},
        {"contents": [{"uri": "a", "blob": "no base64"}]},
    ],
)
def test_malformed_contents_are_refused(result: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="resource is malformed") as caught:
        parse_resource_result(result)
    assert caught.value.delivery == "answered"


def test_official_prompts_are_read() -> None:
    argument = mcp_types.PromptArgument(name="code", description="d", required=True)
    ours = parse_prompt(dumped(mcp_types.Prompt(name="p", title="P", arguments=[argument])))
    assert ours is not None
    assert (ours.name, ours.title, ours.arguments[0].required) == ("p", "P", True)
    content = mcp_types.TextContent(type="text", text="x")
    theirs = mcp_types.GetPromptResult(
        description="d", messages=[mcp_types.PromptMessage(role="user", content=content)]
    )
    got = parse_prompt_result(dumped(theirs))
    assert (got.description, got.messages[0].role) == ("d", "user")
    assert got.messages[0].content["text"] == "x"


def test_an_argument_without_a_name_costs_no_other() -> None:
    listed = [{"name": "a", "required": 1}, {"title": "no name"}, 7, {"name": ""}, {"name": "b"}]
    ours = parse_prompt({"name": "p", "arguments": listed})
    assert ours is not None
    assert [(one.name, one.required) for one in ours.arguments] == [("a", False), ("b", False)]


@pytest.mark.parametrize(
    "messages", [None, [{}], [{"role": "system", "content": {"type": "text"}}], [{"role": "user"}]]
)
def test_malformed_prompts_are_refused(messages: Any) -> None:
    with pytest.raises(ProtocolError, match="prompt is malformed") as caught:
        parse_prompt_result({"messages": messages})
    assert caught.value.delivery == "answered"


def test_official_completions_are_read_and_bounded() -> None:
    theirs = mcp_types.CompleteResult(
        completion=mcp_types.Completion(values=["a", "b"], total=7, has_more=True)
    )
    ours = parse_completion(dumped(theirs))
    assert (ours.values, ours.total, ours.has_more) == (("a", "b"), 7, True)
    many = parse_completion({"completion": {"values": ["x"] * 101}})
    assert (len(many.values), many.has_more, many.total) == (100, True, None)
    whole = parse_completion({"completion": {"values": ["x"] * 100, "total": 0}})
    assert (len(whole.values), whole.has_more, whole.total) == (100, False, 0)
    assert parse_completion({"completion": {"values": [], "total": -1}}) == Completion(values=())
    assert Completion(values=()).has_more is False
    for wrong in ({}, {"completion": {}}, {"completion": {"values": [1, "a"]}}):
        with pytest.raises(ProtocolError, match="completion is malformed"):
            parse_completion(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ENTRIES = JSON | st.dictionaries(
    st.sampled_from(["uri", "uriTemplate", "name", "title", "size", "arguments", "_meta"]), JSON
)


@given(ENTRIES)
def test_one_malformed_entry_costs_no_other(raw: Any) -> None:
    for parse in (parse_resource, parse_template, parse_prompt):
        made = parse(raw)
        assert made is None or made.raw is raw
