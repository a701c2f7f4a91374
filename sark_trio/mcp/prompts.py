"""Prompts and completions as a server gives them: MCP 2026-07-28, "Prompts", "Completion".

Data from a stranger; the texts are meant for a model, and nothing here interprets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.errors import ProtocolError
from sark_trio.mcp.members import object_of, string_of

__all__ = [
    "Completion",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
    "PromptResult",
    "parse_completion",
    "parse_prompt",
    "parse_prompt_result",
]

#: No revision bounds it; a name is one line of a user interface.
NAME_CHARS_MAX: Final = 1_024
ARGUMENTS_MAX: Final = 1_000
MESSAGES_MAX: Final = 10_000
#: "Maximum 100 items per response".
VALUES_MAX: Final = 100

_ROLES: Final = frozenset({"user", "assistant"})


@final
@frozen(kw_only=True)
class PromptArgument:
    """One argument that a prompt takes."""

    name: str
    title: str | None = None
    description: str | None = None
    required: bool = False


@final
@frozen(kw_only=True)
class Prompt:
    """One prompt that can be got."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: tuple[PromptArgument, ...] = ()
    meta: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen(kw_only=True)
class PromptMessage:
    """One message of a prompt; *content* is one block, as in the result of a tool."""

    role: str
    content: Mapping[str, Any]


@final
@frozen(kw_only=True)
class PromptResult:
    """A prompt with its arguments filled in."""

    messages: tuple[PromptMessage, ...]
    description: str | None = None
    meta: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen(kw_only=True)
class Completion:
    """Values that would complete an argument, best first.

    :param total: how many there are, where the server knows; ``values`` are at most 100.
    """

    values: tuple[str, ...]
    total: int | None = None
    has_more: bool = False


def parse_prompt(raw: Any) -> Prompt | None:
    """One item of ``prompts/list``; ``None`` if it is none."""
    name = string_of(raw, "name")
    if not name or len(name) > NAME_CHARS_MAX:
        return None
    listed = raw.get("arguments")
    arguments = [_argument(one) for one in listed] if isinstance(listed, list) else []
    return Prompt(
        name=name,
        title=string_of(raw, "title"),
        description=string_of(raw, "description"),
        arguments=tuple(one for one in arguments if one is not None)[:ARGUMENTS_MAX],
        meta=object_of(raw, "_meta"),
        raw=raw,
    )


def parse_prompt_result(result: Mapping[str, Any]) -> PromptResult:
    """The result of a ``prompts/get``.

    :raises ProtocolError: it is not one; ``delivery`` is ``answered``.
    """
    messages = result.get("messages")
    if not isinstance(messages, list) or len(messages) > MESSAGES_MAX:
        raise _malformed("the prompt", "'messages' is no list, or too long")
    return PromptResult(
        messages=tuple(map(_message, messages)),
        description=string_of(result, "description"),
        meta=object_of(result, "_meta"),
        raw=result,
    )


def parse_completion(result: Mapping[str, Any]) -> Completion:
    """The result of a ``completion/complete``; values beyond the hundredth are dropped.

    :raises ProtocolError: it is not one; ``delivery`` is ``answered``.
    """
    found = object_of(result, "completion")
    values, total = found.get("values"), found.get("total")
    if not isinstance(values, list) or not all(type(value) is str for value in values):
        raise _malformed("the completion", "'values' is not a list of strings")
    return Completion(
        values=tuple(values[:VALUES_MAX]),
        total=total if type(total) is int and total >= 0 else None,
        has_more=found.get("hasMore") is True or len(values) > VALUES_MAX,
    )


def _argument(raw: Any) -> PromptArgument | None:
    name = string_of(raw, "name")
    if not name:
        return None
    return PromptArgument(
        name=name,
        title=string_of(raw, "title"),
        description=string_of(raw, "description"),
        required=raw.get("required") is True,
    )


def _message(raw: Any) -> PromptMessage:
    role, content = string_of(raw, "role"), object_of(raw, "content")
    if role not in _ROLES or type(content.get("type")) is not str:
        raise _malformed("the prompt", "a message has no role or no content")
    return PromptMessage(role=role, content=content)


def _malformed(subject: str, what: str) -> ProtocolError:
    return ProtocolError(f"{subject} is malformed: {what}", delivery="answered")
