"""Results as tools and lists give them: checked once, then values.

Content is data from a stranger; nothing here interprets it. Kinds of content that this
revision does not know pass through, since a later one may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from sark_trio.errors import ProtocolError

__all__ = ["ToolResult", "page_of", "parse_tool_result"]

#: Members, all strings, that a block of content of a kind that we know must have.
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
}


@frozen(kw_only=True)
class ToolResult:
    """What a tool gave back."""

    content: tuple[Mapping[str, Any], ...]
    #: Any JSON value; ``None`` if absent, or if it is null (``raw`` tells them apart).
    structured_content: Any = None
    #: The tool ran and failed. Not an error of ours: the model is meant to read it.
    is_error: bool = False
    meta: Mapping[str, Any] = field(factory=dict)
    #: The result as it came.
    raw: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def text(self) -> str:
        """The text blocks, one after another on lines of their own."""
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")


def parse_tool_result(result: Mapping[str, Any]) -> ToolResult:
    """The result of a ``tools/call``.

    :raises ProtocolError: it is not one; ``delivery`` is ``answered``.
    """
    content = result.get("content")
    if not isinstance(content, list):
        raise _malformed("'content' is not a list")
    for block in content:
        _check_block(block)
    is_error = result.get("isError")
    if is_error is not None and type(is_error) is not bool:
        raise _malformed("'isError' is not a boolean")
    meta = result.get("_meta")
    return ToolResult(
        content=tuple(content),
        structured_content=result.get("structuredContent"),
        is_error=is_error is True,
        meta=meta if isinstance(meta, Mapping) else {},
        raw=result,
    )


def page_of(result: Mapping[str, Any], key: str) -> tuple[list[Any], str | None]:
    """The items under *key* in one page of a list, and the cursor of the next page, if any.

    An empty cursor is a cursor (2026-07-28, "Pagination").

    :raises ProtocolError: it is no such page; ``delivery`` is ``answered``.
    """
    items = result.get(key)
    if not isinstance(items, list):
        raise _malformed(f"{key!r} is not a list")
    cursor = result.get("nextCursor")
    if cursor is not None and type(cursor) is not str:
        raise _malformed("'nextCursor' is not a string")
    return items, cursor


def _check_block(block: Any) -> None:
    if not isinstance(block, Mapping) or type(block.get("type")) is not str:
        raise _malformed("a block of content has no type")
    kind = block["type"]
    for member in _MEMBERS.get(kind, ()):
        if type(block.get(member)) is not str:
            raise _malformed(f"a block of {kind} content has no {member!r}")
    if kind == "resource":
        resource = block.get("resource")
        if not isinstance(resource, Mapping) or type(resource.get("uri")) is not str:
            raise _malformed("a block of resource content has no 'uri'")


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the result is malformed: {what}", delivery="answered")
