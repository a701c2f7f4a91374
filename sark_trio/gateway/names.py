"""``server__tool``: many servers' tools under one roof, each name leading to exactly one tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sark_trio.client.listing import ToolInfo

__all__ = ["DROPPED", "candidates", "definition", "expose", "resolve", "unmirrored"]

_JOINT: Final = "__"
#: MCP 2026-07-28, "Tool Names".
NAME_CHARS_MAX: Final = 128
_MIRRORED: Final = "x-mcp-header"
#: What of a tool's definition is between the client and the server: tasks of 2025-11-25 are
#: followed to their end by the client, and the gateway has tasks of its own.
DROPPED: Final = frozenset({"execution"})


def candidates(name: str) -> Iterator[tuple[str, str]]:
    """Every server and tool that the exposed *name* can be read as, the longest server first.

    Both names may hold ``__`` themselves. The first one whose server exists counts, always.
    """
    at = name.rfind(_JOINT)
    while at > 0:
        server, tool = name[:at], name[at + len(_JOINT) :]
        if tool:
            yield server, tool
        at = name.rfind(_JOINT, 0, at + 1)


def resolve(name: str, servers: Collection[str]) -> tuple[str, str] | None:
    """Server and tool that the exposed *name* stands for; ``None`` if it stands for none."""
    return next((found for found in candidates(name) if found[0] in servers), None)


def expose(server: str, tool: str, servers: Collection[str]) -> str | None:
    """The name that *tool* of *server* is exposed under.

    ``None`` where that name is too long, or leads to another server: then the tool is not
    offered here, since nobody could tell which one a call means.
    """
    name = f"{server}{_JOINT}{tool}"
    if len(name) > NAME_CHARS_MAX or resolve(name, servers) != (server, tool):
        return None
    return name


def definition(info: ToolInfo, servers: Collection[str]) -> dict[str, Any] | None:
    """*info* as an item of ``tools/list``; ``None`` where it cannot be offered.

    Parameters are not marked for mirroring into headers any more: that was between the client
    and the server, and the client still does it.
    """
    name = expose(info.server_name, info.tool_name, servers)
    if name is None:
        return None
    raw = info.definition.raw
    kept = {key: value for key, value in raw.items() if key not in DROPPED}
    return {**kept, "name": name, "inputSchema": unmirrored(info.input_schema)}


def unmirrored(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema* without ``x-mcp-header``, which may stand at any chain of ``properties``."""
    plain = {key: value for key, value in schema.items() if key != _MIRRORED}
    properties = plain.get("properties")
    if isinstance(properties, Mapping):
        plain["properties"] = {
            name: unmirrored(value) if isinstance(value, Mapping) else value
            for name, value in properties.items()
        }
    return plain
