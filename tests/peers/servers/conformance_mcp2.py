"""What the official conformance suite wants of a server, made with the official SDK, 2.x.

Both eras: what needs somebody is asked for in the way of the era that a client speaks. Options
are those of ``everything_mcp2.py``. Names and texts are the suite's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import anyio
import everything_mcp2
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp_types import (
    AudioContent,
    CallToolResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    PromptMessage,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field
from tasks_mcp2 import Tasks

MODERN = "2026-07-28"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
WAV = base64.b64encode(b"RIFF" + bytes(40)).decode()
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

server = MCPServer("conformance-mcp2", version="1.0", extensions=[Tasks()])
everything_mcp2.server = server
extra: list[str] = []


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, words: str, kind: str = "text/plain") -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=kind, text=words)
    return EmbeddedResource(type="resource", resource=contents)


def said(words: str) -> CallToolResult:
    return CallToolResult(content=[text(words)])


# -- contents -------------------------------------------------------------------------------------


@server.tool(structured_output=False)
def test_simple_text() -> str:
    """A text."""
    return "This is a simple text response for testing."


@server.tool(structured_output=False)
def test_image_content() -> list[ImageContent]:
    """An image."""
    return [image()]


@server.tool(structured_output=False)
def test_audio_content() -> list[AudioContent]:
    """A sound."""
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@server.tool(structured_output=False)
def test_embedded_resource() -> list[EmbeddedResource]:
    """A resource."""
    return [embedded("test://embedded-resource", "This is an embedded resource content.")]


@server.tool(structured_output=False)
def test_multiple_content_types() -> list[Any]:
    """One of each."""
    mixed = embedded("test://mixed-content-resource", '{"test": "data"}', "application/json")
    return [text("Multiple content types test:"), image(), mixed]


@server.tool(structured_output=False)
def test_error_handling() -> str:
    """Fail."""
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool(structured_output=False)
def test_headers(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    """Wants its argument in a header, too."""
    return region


# -- beside the result ----------------------------------------------------------------------------


@server.tool(structured_output=False)
async def test_tool_with_logging(ctx: Context) -> str:
    """Log three times."""
    for step in ("started", "processing data", "completed"):
        await ctx.info(f"Tool execution {step}")
        await anyio.sleep(0.05)
    return "Tool with logging executed successfully"


@server.tool(structured_output=False)
async def test_logging_tool(ctx: Context) -> str:
    """Log once."""
    await ctx.info("logged")
    return "logged"


@server.tool(structured_output=False)
async def test_tool_with_progress(ctx: Context) -> str:
    """Tell progress three times."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(0.05)
    return "done"


@server.tool(structured_output=False)
async def test_streaming_elicitation(ctx: Context) -> str:
    """Tell progress, and ask nothing on the way."""
    await ctx.report_progress(50, 100)
    return "Streaming complete"


@server.tool(structured_output=False)
async def test_reconnection(ctx: Context) -> str:
    """Close the stream in the middle."""
    await ctx.close_sse_stream()
    await anyio.sleep(0.2)
    return "Reconnection test completed"


@server.tool(structured_output=False)
async def test_trigger_tool_change(ctx: Context) -> str:
    """One tool more, or one less."""
    if extra:
        server.remove_tool(extra.pop())
    else:
        extra.append("test_dynamic_tool")
        server.add_tool(test_simple_text, name=extra[0])
    await ctx.notify_tools_changed()
    return "changed"


@server.tool(structured_output=False)
async def test_trigger_prompt_change(ctx: Context) -> str:
    """Say that the prompts have changed."""
    await ctx.notify_prompts_changed()
    return "changed"


@server.tool(structured_output=False)
async def test_missing_capability(ctx: Context) -> str:
    """Only for clients that sample."""
    offered = ctx.client_capabilities
    if offered is None or offered.sampling is None:
        raise MCPError(-32021, "sampling is needed", {"requiredCapabilities": {"sampling": {}}})
    return "here you are"


# -- input ----------------------------------------------------------------------------------------


def form(message: str, **properties: str) -> ElicitRequest:
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(words: str, tokens: int = 100) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(words))
    params = CreateMessageRequestParams(messages=[message], max_tokens=tokens)
    return CreateMessageRequest(params=params)


NAME = {"user_name": form("What is your name?", name="string")}
CAPITAL = {"capital_question": sample("What is the capital of France?")}
ROOTS = {"client_roots": ListRootsRequest()}
CONFIRM = {"confirm": form("Please confirm", ok="boolean")}
GREETING = {"greeting": sample("Generate a greeting", 50)}
#: Tool to what it asks for, page after page, and whether it remembers anything.
WIZARDS: Mapping[str, tuple[list[Mapping[str, Any]], bool]] = {
    "test_input_required_result_elicitation": ([NAME], False),
    "test_input_required_result_sampling": ([CAPITAL], False),
    "test_input_required_result_list_roots": ([ROOTS], False),
    "test_input_required_result_request_state": ([CONFIRM], True),
    "test_input_required_result_tampered_state": ([CONFIRM], True),
    "test_input_required_result_multiple_inputs": ([{**NAME, **GREETING, **ROOTS}], True),
    "test_input_required_result_multi_round": (
        [
            {"step1": form("Step 1: What is your name?", name="string")},
            {"step2": form("Step 2: What is your favorite color?", color="string")},
        ],
        True,
    ),
}


def wizard(name: str, pages: list[Mapping[str, Any]], *, remembers: bool) -> None:
    async def ask(ctx: Context) -> CallToolResult | InputRequiredResult:
        at = int(ctx.request_state or 0)
        if at < len(pages) and pages[at].keys() <= (ctx.input_responses or {}).keys():
            at += 1
        if at == len(pages):
            return said("state-ok" if remembers else f"Hello, {sorted(ctx.input_responses or {})}!")
        return InputRequiredResult(
            input_requests=pages[at], request_state=str(at) if remembers else None
        )

    server.add_tool(ask, name=name, description="Asks first.", structured_output=False)


for _name, (_pages, _remembers) in WIZARDS.items():
    wizard(_name, _pages, remembers=_remembers)


@server.tool(structured_output=False)
async def test_input_required_result_capabilities(
    ctx: Context,
) -> CallToolResult | InputRequiredResult:
    """Ask for as much as the client can give."""
    if ctx.input_responses is not None:
        return said("thank you")
    offered = ctx.client_capabilities
    asked: dict[str, Any] = {}
    if offered is not None and offered.sampling is not None:
        asked.update(CAPITAL)
    if offered is not None and offered.elicitation is not None:
        asked.update(NAME)
    return InputRequiredResult(input_requests=asked) if asked else said("nobody to ask")


class Response(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(
        default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    verified: bool = Field(default=True)


def titled(**options: str) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in options.items()]


LEVELS = titled(value1="First Option", value2="Second Option", value3="Third Option")
LEGACY = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]}


class Enums(BaseModel):
    # As the suite names them.
    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})  # noqa: N815
    titledSingle: str = Field(json_schema_extra={"oneOf": LEVELS})  # noqa: N815
    legacyEnum: str = Field(json_schema_extra=LEGACY)  # noqa: N815
    untitledMulti: list[Literal["option1", "option2", "option3"]]  # noqa: N815
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": LEVELS}})  # noqa: N815


async def elicited(ctx: Context, message: str, schema: type[BaseModel]) -> Any:
    """What a person enters, asked for in the way of the era."""
    if ctx.protocol_version != MODERN:
        result = await ctx.elicit(message, schema)
        content = result.data.model_dump() if result.action == "accept" else {}
        return said(f"action={result.action}, content={content}")
    answer = (ctx.input_responses or {}).get("form")
    if answer is not None:
        return said(f"action={answer.action}, content={answer.content}")
    asked = ElicitRequestFormParams(message=message, requested_schema=schema.model_json_schema())
    return InputRequiredResult(input_requests={"form": ElicitRequest(params=asked)})


@server.tool(structured_output=False)
async def test_elicitation(message: str, ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask a person."""
    return await elicited(ctx, message, Response)


@server.tool(structured_output=False)
async def test_elicitation_sep1034_defaults(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask a person, with an answer at hand."""
    return await elicited(ctx, "Please provide user information", Defaults)


@server.tool(structured_output=False)
async def test_elicitation_sep1330_enums(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Let a person choose."""
    return await elicited(ctx, "Please select values", Enums)


@server.tool(structured_output=False)
async def test_sampling(prompt: str, ctx: Context) -> CallToolResult | InputRequiredResult:
    """Ask a model."""
    request = sample(prompt)
    if ctx.protocol_version != MODERN:
        params = request.params
        result = await ctx.session.create_message(
            params.messages, max_tokens=params.max_tokens, related_request_id=ctx.request_id
        )
        return said(f"LLM response: {result.content.text}")
    answer = (ctx.input_responses or {}).get("model")
    if answer is None:
        return InputRequiredResult(input_requests={"model": request})
    return said(f"LLM response: {answer.content.text}")


# -- resources ------------------------------------------------------------------------------------


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """An image."""
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:  # noqa: A002 - as the template has it
    """One of many."""
    return f'{{"id": "{id}", "templateTest": true}}'


@server.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """One to watch."""
    return "Watched resource content"


# -- prompts --------------------------------------------------------------------------------------


@server.prompt()
def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


@server.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803
    """A prompt with a resource in it."""
    resource = embedded(resourceUri, "Embedded resource content for testing.")
    return [UserMessage(resource), UserMessage(text("Please process the embedded resource above."))]


@server.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image in it."""
    return [UserMessage(image()), UserMessage(text("Please analyze the image above."))]


@server.prompt()
def test_input_required_result_prompt(ctx: Context) -> Any:
    """A prompt that asks first."""
    answer = (ctx.input_responses or {}).get("user_context")
    if answer is None:
        asked = {"user_context": form("What context should the prompt use?", context="string")}
        return InputRequiredResult(input_requests=asked)
    words = text(f"in the context of {answer.content}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=words)])


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    """Complete whatever is asked for."""
    return Completion(values=[f"{argument.value}ing"], total=1, has_more=False)


# -- what the SDK leaves to its lower level -------------------------------------------------------


async def _done(ctx: Any, params: Any) -> EmptyResult:
    return EmptyResult()


_low = server._lowlevel_server
_low.add_request_handler("logging/setLevel", SetLevelRequestParams, _done)
_low.add_request_handler("resources/subscribe", SubscribeRequestParams, _done)
_low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _done)

_tool: Tool = server._tool_manager.add_tool(test_simple_text, name="json_schema_2020_12_tool")
_tool.parameters = SCHEMA

if __name__ == "__main__":
    everything_mcp2.main()
