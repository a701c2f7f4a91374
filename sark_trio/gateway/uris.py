"""``mcp://server/`` before a URI: many servers' resources under one roof, each leading to one.

The prefix says whose a resource is, so that no server can take another one's URIs, and nothing
has to be remembered. What stands behind it is the server's own URI, or its template, unchanged:
expanding the one is expanding the other (RFC 6570). Results name resources, too, and those are to
be read through the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

__all__ = ["exposed", "exposed_in", "own"]

_SCHEME: Final = "mcp://"


def exposed(server: str, uri: str) -> str:
    """The URI, or template, that *uri* of *server* is exposed under."""
    return f"{_SCHEME}{quote(server, safe='')}/{uri}"


def own(uri: str) -> tuple[str, str] | None:
    """The server, and its own URI, that *uri* stands for; ``None`` if it was never exposed."""
    if not uri.startswith(_SCHEME):
        return None
    server, slash, rest = uri[len(_SCHEME) :].partition("/")
    return (unquote(server), rest) if slash and server and rest else None


def exposed_in(result: Mapping[str, Any], expose: Callable[[str], str]) -> dict[str, Any]:
    """*result* of a call, a prompt or a read, whose resources are named as they are exposed.

    Those are the contents of a read, links to resources, and resources that are embedded in
    content or messages (MCP 2026-07-28, "Resource Links", "Embedded Resources").
    """
    shown = dict(result)
    if isinstance(contents := result.get("contents"), list):
        shown["contents"] = [_named(one, expose) for one in contents]
    if isinstance(blocks := result.get("content"), list):
        shown["content"] = [_block(one, expose) for one in blocks]
    if isinstance(messages := result.get("messages"), list):
        shown["messages"] = [_message(one, expose) for one in messages]
    return shown


def _message(message: Any, expose: Callable[[str], str]) -> Any:
    if not isinstance(message, Mapping):
        return message
    return {**message, "content": _block(message.get("content"), expose)}


def _block(block: Any, expose: Callable[[str], str]) -> Any:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind == "resource_link":
        return _named(block, expose)
    return (
        {**block, "resource": _named(block.get("resource"), expose)}
        if kind == "resource"
        else block
    )


def _named(value: Any, expose: Callable[[str], str]) -> Any:
    uri = value.get("uri") if isinstance(value, Mapping) else None
    return {**value, "uri": expose(uri)} if isinstance(uri, str) else value
