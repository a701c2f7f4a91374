"""What a server may ask of its client: input of a person, a model's words, the roots.

MCP 2026-07-28, "Elicitation", "Sampling" and "Roots". The words are the same in every revision;
only the way differs: embedded in a result since 2026-07-28, a JSON-RPC request of the server's
before. What comes is read here once into a value, and what goes back is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final
from urllib.parse import urlsplit

from attrs import field, frozen

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.forms import Form, parse_form
from sark_trio.mcp.members import object_of
from sark_trio.mcp.progress import number_of

__all__ = [
    "ELICIT",
    "ROOTS",
    "SAMPLE",
    "Elicitation",
    "Root",
    "Sampling",
    "UrlElicitation",
    "elicit_result",
    "parse_elicitation",
    "parse_sampling",
    "roots_result",
    "sampling_result",
]

ELICIT: Final = "elicitation/create"
SAMPLE: Final = "sampling/createMessage"
ROOTS: Final = "roots/list"

#: What a person reads before deciding.
MESSAGE_CHARS_MAX: Final = 65_536
#: Servers commonly accept no longer request line.
URL_CHARS_MAX: Final = 8_192
#: Messages of one sampling request.
MESSAGES_MAX: Final = 10_000
#: Roots of one client.
ROOTS_MAX: Final = 1_000

Action = Literal["accept", "decline", "cancel"]
_ACTIONS: Final = ("accept", "decline", "cancel")
_ROLES: Final = frozenset({"user", "assistant"})


@final
@frozen(kw_only=True)
class Elicitation:
    """A form that *server* wants a person to fill in. Say which server it is that asks.

    Not for secrets: what is entered passes through this program and to the server.
    """

    server: str
    message: str
    form: Form
    #: The request's parameters as they came.
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen(kw_only=True)
class UrlElicitation:
    """A page that *server* wants a person to visit ("URL Mode Elicitation Requests").

    Show the whole URL, its host above all, and open it only if the person agrees; never fetch
    it. To accept says that the person agreed, not that anything was done there.
    """

    server: str
    message: str
    url: str
    #: Names the elicitation in ``notifications/elicitation/complete`` (2025-11-25 only).
    elicitation_id: str | None = None
    raw: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def host(self) -> str:
        """The host that the URL leads to, as browsers take it."""
        return urlsplit(self.url).hostname or ""


@final
@frozen(kw_only=True)
class Sampling:
    """Words that *server* wants of a model. A person should see them before a model does."""

    server: str
    messages: tuple[Mapping[str, Any], ...]
    max_tokens: int
    system_prompt: str | None = None
    temperature: float | None = None
    stop_sequences: tuple[str, ...] = ()
    model_preferences: Mapping[str, Any] = field(factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    #: ``auto``, ``required`` or ``none``.
    tool_choice: str = "auto"
    metadata: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen
class Root:
    """A directory or file that servers may work in.

    :raises InvalidArguments: *uri* is no ``file://`` URI.
    """

    uri: str = field()
    name: str | None = None

    @uri.validator
    def _check_uri(self, _: object, value: object) -> None:
        if type(value) is not str or not value.startswith("file://"):
            raise InvalidArguments("a root is a file:// URI")


def parse_elicitation(params: Mapping[str, Any], *, server: str) -> Elicitation | UrlElicitation:
    """The parameters of ``elicitation/create``; without a ``mode`` they are a form's.

    :raises ProtocolError: they are malformed, or of a mode that no revision has.
    """
    message = params.get("message")
    if type(message) is not str or len(message) > MESSAGE_CHARS_MAX:
        raise _malformed(ELICIT, "'message' is no string, or too long")
    mode = params.get("mode", "form")
    if mode == "form":
        form = parse_form(params.get("requestedSchema"))
        return Elicitation(server=server, message=message, form=form, raw=params)
    if mode != "url":
        raise _malformed(ELICIT, "unknown mode")
    named = params.get("elicitationId")
    return UrlElicitation(
        server=server,
        message=message,
        url=_checked_url(params.get("url")),
        elicitation_id=named if type(named) is str else None,
        raw=params,
    )


def elicit_result(
    asked: Elicitation | UrlElicitation, answer: Mapping[str, Any] | Action
) -> dict[str, Any]:
    """The result for *answer*: what was entered, or what the person did.

    A form's content is completed with defaults and checked against its schema.

    :raises InvalidArguments: *answer* is neither, or not what the form wants.
    """
    if isinstance(answer, Mapping):
        if isinstance(asked, UrlElicitation):
            raise InvalidArguments("a URL is accepted, declined or cancelled; it has no content")
        return {"action": "accept", "content": asked.form.complete(answer)}
    if answer not in _ACTIONS:
        raise InvalidArguments("an elicitation is answered by content, accept, decline or cancel")
    if answer == "accept" and isinstance(asked, Elicitation):
        return {"action": "accept", "content": asked.form.complete({})}
    return {"action": answer}


def parse_sampling(params: Mapping[str, Any], *, server: str) -> Sampling:
    """The parameters of ``sampling/createMessage``.

    :raises ProtocolError: they are malformed, or their messages do not fit together ("Message
        Content Constraints").
    """
    messages = params.get("messages")
    if not isinstance(messages, list) or len(messages) > MESSAGES_MAX:
        raise _malformed(SAMPLE, "'messages' is no list, or too long")
    _check_messages(messages)
    max_tokens = params.get("maxTokens")
    if type(max_tokens) is not int or max_tokens < 0:
        raise _malformed(SAMPLE, "'maxTokens' is no whole number")
    system = params.get("systemPrompt")
    choice = object_of(params, "toolChoice").get("mode")
    return Sampling(
        server=server,
        messages=tuple(messages),
        max_tokens=max_tokens,
        system_prompt=system if type(system) is str else None,
        temperature=number_of(params.get("temperature")),
        stop_sequences=tuple(t for t in _list(params.get("stopSequences")) if type(t) is str),
        model_preferences=object_of(params, "modelPreferences"),
        tools=tuple(tool for tool in _list(params.get("tools")) if isinstance(tool, Mapping)),
        tool_choice=choice if type(choice) is str else "auto",
        metadata=object_of(params, "metadata"),
        raw=params,
    )


def sampling_result(answer: Mapping[str, Any]) -> dict[str, Any]:
    """*answer* itself, if it is a ``CreateMessageResult``; without a role it is the assistant's.

    :raises InvalidArguments: it has no model or no content.
    """
    result = {"role": "assistant", **answer}
    if type(result.get("model")) is not str:
        raise InvalidArguments("the answer to a sampling request has no 'model'")
    if not _is_role(result["role"]):
        raise InvalidArguments("the answer to a sampling request has an unknown role")
    if not all(map(_is_block, _blocks(result.get("content")))):
        raise InvalidArguments("the answer to a sampling request has no content")
    return result


def roots_result(roots: Sequence[Root]) -> dict[str, Any]:
    """The result of ``roots/list``.

    :raises InvalidArguments: there are too many of them.
    """
    if len(roots) > ROOTS_MAX:
        raise InvalidArguments(f"more than {ROOTS_MAX} roots")
    return {
        "roots": [
            {"uri": root.uri} if root.name is None else {"uri": root.uri, "name": root.name}
            for root in roots
        ]
    }


def _check_messages(messages: list[Any]) -> None:
    """Roles, content, and that each use of a tool is followed by exactly its results."""
    owed: set[str] = set()
    for message in messages:
        if not isinstance(message, Mapping) or not _is_role(message.get("role")):
            raise _malformed(SAMPLE, "a message has no role")
        blocks = _blocks(message.get("content"))
        if not all(map(_is_block, blocks)):
            raise _malformed(SAMPLE, "a message has no content")
        results = {str(b.get("toolUseId")) for b in blocks if b["type"] == "tool_result"}
        if results and any(block["type"] != "tool_result" for block in blocks):
            raise _malformed(SAMPLE, "results of tools are mixed with other content")
        if results != owed:
            raise _malformed(SAMPLE, "uses of tools and their results do not match")
        owed = {str(b.get("id")) for b in blocks if b["type"] == "tool_use"}


def _is_role(value: Any) -> bool:
    return type(value) is str and value in _ROLES


def _blocks(content: Any) -> list[Any]:
    """One block or several (since 2025-11-25). Nothing is one block that is none."""
    return content if isinstance(content, list) else [content]


def _is_block(block: Any) -> bool:
    return isinstance(block, Mapping) and type(block.get("type")) is str


def _checked_url(url: Any) -> str:
    if type(url) is not str or len(url) > URL_CHARS_MAX or not url.isprintable():
        raise _malformed(ELICIT, "'url' is no URL, or too long")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise _malformed(ELICIT, "'url' is no URL") from None
    # Anything else (javascript:, data:, file:) would be run or read, not visited.
    if parts.scheme not in {"https", "http"} or not host:
        raise _malformed(ELICIT, "'url' leads to no page on the web")
    return url


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _malformed(method: str, what: str) -> ProtocolError:
    return ProtocolError(f"the server's {method} is malformed: {what}", delivery="answered")
