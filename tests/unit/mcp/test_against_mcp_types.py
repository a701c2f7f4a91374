"""Our words against the official models: what we write they read, what they write we read."""

from __future__ import annotations

import json
from typing import Any

import mcp_types
import pytest
from mcp_types import jsonrpc, methods
from mcp_types import version as their_version
from pydantic import BaseModel

from sark_trio.mcp import evidence, meta, versions
from sark_trio.mcp.codec import (
    decode,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    result_of,
)
from sark_trio.mcp.era import Done, Negotiation
from sark_trio.mcp.messages import Failure, InputRequired, Notification, Request, Success
from sark_trio.mcp.progress import LOG, PROGRESS, parse_log_message, parse_progress
from sark_trio.mcp.results import page_of, parse_tool_result
from sark_trio.mcp.tools import Tool, ToolAnnotations, parse_tool

INFO = {"name": "client", "version": "1"}
CALL = {"name": "get", "arguments": {"a": 1}}


def theirs(data: bytes) -> Any:
    return jsonrpc.jsonrpc_message_adapter.validate_json(data)


def dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def answered(model: BaseModel) -> dict[str, Any]:
    """*model* as a result, out over their wire and in over ours."""
    answer = jsonrpc.JSONRPCResponse(jsonrpc="2.0", id=1, result=dumped(model))
    message = decode(answer.model_dump_json(by_alias=True, exclude_none=True).encode())
    assert isinstance(message, Success)
    result = result_of(message)
    assert isinstance(result, dict)
    return result


def test_versions_and_codes_are_theirs() -> None:
    assert set(versions.SPOKEN) == set(their_version.KNOWN_PROTOCOL_VERSIONS)
    assert (versions.MODERN,) == their_version.MODERN_PROTOCOL_VERSIONS
    assert versions.LEGACY[0] == their_version.LATEST_HANDSHAKE_VERSION
    assert versions.HTTP_SSE == their_version.OLDEST_SUPPORTED_VERSION
    assert evidence.HEADER_MISMATCH == jsonrpc.HEADER_MISMATCH
    assert evidence.MISSING_CAPABILITY == jsonrpc.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert evidence.UNSUPPORTED_VERSION == jsonrpc.UNSUPPORTED_PROTOCOL_VERSION


def test_meta_keys_are_theirs() -> None:
    assert meta.PROTOCOL_VERSION == mcp_types.PROTOCOL_VERSION_META_KEY
    assert meta.CLIENT_INFO == mcp_types.CLIENT_INFO_META_KEY
    assert meta.CLIENT_CAPABILITIES == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert meta.LOG_LEVEL == mcp_types.LOG_LEVEL_META_KEY
    assert meta.SERVER_INFO == mcp_types.SERVER_INFO_META_KEY


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("server/discover", {}),
        ("tools/list", {}),
        ("tools/list", {"cursor": ""}),
        ("tools/call", CALL),
        ("resources/read", {"uri": "file:///a"}),
        ("prompts/get", {"name": "p"}),
    ],
)
def test_they_read_our_modern_requests(method: str, params: dict[str, Any]) -> None:
    envelope = meta.request_meta(
        versions.MODERN,
        client_info=INFO,
        client_capabilities={},
        log_level="info",
        progress_token=7,
        trace={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    )
    read = theirs(encode_request(7, method, meta.with_meta(params, envelope)))
    assert isinstance(read, jsonrpc.JSONRPCRequest)
    assert (read.id, read.method) == (7, method)
    parsed = methods.parse_client_request(method, versions.MODERN, read.params)
    assert parsed.method == method


@pytest.mark.parametrize("version", [*versions.LEGACY, versions.HTTP_SSE])
def test_they_read_our_legacy_requests(version: str) -> None:
    envelope = meta.request_meta(
        version, client_info=INFO, client_capabilities={}, progress_token="p"
    )
    read = theirs(encode_request("x", "tools/call", meta.with_meta(CALL, envelope)))
    methods.validate_client_request("tools/call", version, read.params)
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": INFO}
    read = theirs(encode_request(0, "initialize", hello))
    methods.validate_client_request("initialize", version, read.params)
    read = theirs(encode_notification("notifications/initialized"))
    assert isinstance(read, jsonrpc.JSONRPCNotification)
    methods.validate_client_notification(read.method, version, read.params)


def test_they_read_our_answers() -> None:
    assert theirs(encode_result("x", {"a": 1})).result == {"a": 1}
    error = theirs(encode_error(None, -32601, "no", [1]))
    assert isinstance(error, jsonrpc.JSONRPCError)
    assert (error.id, error.error.code, error.error.data) == (None, -32601, [1])


@pytest.mark.parametrize("exclude_none", [True, False])
def test_we_read_their_envelopes(exclude_none: bool) -> None:
    pairs: list[tuple[BaseModel, Any]] = [
        (jsonrpc.JSONRPCRequest(jsonrpc="2.0", id=1, method="ping"), Request(1, "ping")),
        (jsonrpc.JSONRPCNotification(jsonrpc="2.0", method="n"), Notification("n")),
        (jsonrpc.JSONRPCResponse(jsonrpc="2.0", id="x", result={}), Success("x", {})),
        (
            jsonrpc.JSONRPCError(
                jsonrpc="2.0", id=None, error=jsonrpc.ErrorData(code=1, message="m")
            ),
            Failure(None, 1, "m"),
        ),
    ]
    for model, message in pairs:
        assert decode(model.model_dump_json(exclude_none=exclude_none).encode()) == message


def test_we_read_their_tools() -> None:
    definition = mcp_types.Tool(
        name="get",
        title="Get",
        description="Gets.",
        input_schema={"type": "object", "properties": {"a": {"type": "integer"}}},
        output_schema={"type": "object"},
        annotations=mcp_types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    listed = mcp_types.ListToolsResult(tools=[definition], next_cursor="c")
    items, cursor = page_of(answered(listed), "tools")
    assert cursor == "c"
    parsed = parse_tool(items[0])
    assert isinstance(parsed, Tool)
    assert (parsed.name, parsed.title, parsed.description) == ("get", "Get", "Gets.")
    assert parsed.input_schema == definition.input_schema
    assert parsed.output_schema == {"type": "object"}
    assert parsed.annotations == ToolAnnotations(read_only_hint=True, open_world_hint=False)


def test_our_defaults_of_hints_are_the_protocols() -> None:
    # Their models hold None for an absent hint and state the default in words.
    words = {
        name: " ".join((mcp_types.ToolAnnotations.model_fields[name].description or "").split())
        for name in ("read_only_hint", "destructive_hint", "idempotent_hint", "open_world_hint")
    }
    assert set(words) < set(mcp_types.ToolAnnotations.model_fields)
    parsed = parse_tool(
        {"name": "a", "inputSchema": {}, "annotations": dumped(mcp_types.ToolAnnotations())}
    )
    assert isinstance(parsed, Tool)
    assert parsed.annotations == ToolAnnotations()


def test_we_read_their_results() -> None:
    result = mcp_types.CallToolResult(
        content=[
            mcp_types.TextContent(type="text", text="hi"),
            mcp_types.ImageContent(type="image", data="AA==", mime_type="image/png"),
            mcp_types.AudioContent(type="audio", data="AA==", mime_type="audio/wav"),
            mcp_types.ResourceLink(type="resource_link", uri="file:///a", name="a"),
            mcp_types.EmbeddedResource(
                type="resource",
                resource=mcp_types.TextResourceContents(uri="file:///a", text="t"),
            ),
        ],
        structured_content={"a": 1},
        is_error=True,
    )
    parsed = parse_tool_result(answered(result))
    assert [block["type"] for block in parsed.content] == [
        "text",
        "image",
        "audio",
        "resource_link",
        "resource",
    ]
    assert (parsed.text, parsed.structured_content, parsed.is_error) == ("hi", {"a": 1}, True)


def test_we_read_their_discovery_and_their_handshake() -> None:
    discovery = mcp_types.DiscoverResult(
        supported_versions=[versions.MODERN],
        capabilities=mcp_types.ServerCapabilities(tools=mcp_types.ToolsCapability()),
        instructions="Use it.",
    )
    step = Negotiation("http").on_result(dumped(discovery))
    assert isinstance(step, Done)
    assert step.agreed.capabilities == {"tools": {}}
    assert step.agreed.instructions == "Use it."

    handshake = mcp_types.InitializeResult(
        protocol_version=versions.LEGACY[0],
        capabilities=mcp_types.ServerCapabilities(),
        server_info=mcp_types.Implementation(name="s", version="1"),
    )
    negotiation = Negotiation("stdio", pinned_version=versions.LEGACY[0])
    step = negotiation.on_result(dumped(handshake))
    assert isinstance(step, Done)
    assert step.agreed.server_info == {"name": "s", "version": "1"}


def test_we_read_their_unsupported_version() -> None:
    data = mcp_types.UnsupportedProtocolVersionErrorData(
        supported=[versions.LEGACY[1]], requested=versions.MODERN
    )
    step = Negotiation("http").on_error(jsonrpc.UNSUPPORTED_PROTOCOL_VERSION, "", dumped(data))
    assert step == Negotiation("http", pinned_version=versions.LEGACY[1]).next()


def test_we_read_their_questions() -> None:
    asked = mcp_types.InputRequiredResult(
        input_requests={"roots": mcp_types.ListRootsRequest(method="roots/list")},
        request_state="opaque",
    )
    message = decode(json.dumps({"jsonrpc": "2.0", "id": 1, "result": dumped(asked)}).encode())
    assert isinstance(message, Success)
    question = result_of(message)
    assert isinstance(question, InputRequired)
    assert question.input_requests["roots"]["method"] == "roots/list"
    assert question.request_state == "opaque"


def test_we_read_their_notifications() -> None:
    progress = mcp_types.ProgressNotificationParams(
        progress_token="t", progress=0.5, total=1.0, message="half"
    )
    parsed = parse_progress(dumped(progress))
    assert parsed is not None
    assert (parsed.token, parsed.progress, parsed.total, parsed.message) == ("t", 0.5, 1.0, "half")
    log = mcp_types.LoggingMessageNotificationParams(level="alert", data={"a": 1}, logger="l")
    line = parse_log_message(dumped(log))
    assert line is not None
    assert (line.level, line.data, line.logger) == ("alert", {"a": 1}, "l")
    assert mcp_types.ProgressNotification.model_fields["method"].default == PROGRESS
    assert mcp_types.LoggingMessageNotification.model_fields["method"].default == LOG
