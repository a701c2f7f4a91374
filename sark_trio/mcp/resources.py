"""Resources as a server lists and hands them out: MCP 2026-07-28, "Resources".

Everything in here is a stranger's word, checked for its shape and nothing else. One malformed
entry of a list is left out and costs no other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.errors import ProtocolError
from sark_trio.mcp.members import object_of, string_of

__all__ = [
    "Resource",
    "ResourceContents",
    "ResourceResult",
    "ResourceTemplate",
    "parse_resource",
    "parse_resource_result",
    "parse_template",
]

#: A URI travels in a header of its own (``Mcp-Name``).
URI_CHARS_MAX: Final = 8_192


@final
@frozen(kw_only=True)
class Resource:
    """One resource that can be read."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size_bytes: int | None = None
    annotations: Mapping[str, Any] = field(factory=dict)
    meta: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen(kw_only=True)
class ResourceTemplate:
    """A family of resources: a URI template (RFC 6570)."""

    uri_template: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    annotations: Mapping[str, Any] = field(factory=dict)
    meta: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen(kw_only=True)
class ResourceContents:
    """What stands in one resource: a text or bytes."""

    uri: str
    mime_type: str | None = None
    text: str | None = field(default=None, repr=False)
    blob: bytes | None = field(default=None, repr=False)
    meta: Mapping[str, Any] = field(factory=dict)


@final
@frozen(kw_only=True)
class ResourceResult:
    """What reading one URI gave: a directory, say, has several contents."""

    contents: tuple[ResourceContents, ...]
    meta: Mapping[str, Any] = field(factory=dict)
    raw: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def text(self) -> str:
        """The texts, one after another on lines of their own."""
        return "\n".join(one.text for one in self.contents if one.text is not None)


def parse_resource(raw: Any) -> Resource | None:
    """One item of ``resources/list``; ``None`` if it is none."""
    uri, name = string_of(raw, "uri"), string_of(raw, "name")
    if not uri or name is None or len(uri) > URI_CHARS_MAX:
        return None
    size = raw.get("size")
    return Resource(
        uri=uri,
        name=name,
        size_bytes=size if type(size) is int and size >= 0 else None,
        **_described(raw),
    )


def parse_template(raw: Any) -> ResourceTemplate | None:
    """One item of ``resources/templates/list``; ``None`` if it is none."""
    template, name = string_of(raw, "uriTemplate"), string_of(raw, "name")
    if not template or name is None or len(template) > URI_CHARS_MAX:
        return None
    return ResourceTemplate(uri_template=template, name=name, **_described(raw))


def parse_resource_result(result: Mapping[str, Any]) -> ResourceResult:
    """The result of a ``resources/read``.

    :raises ProtocolError: it is not one; ``delivery`` is ``answered``.
    """
    contents = result.get("contents")
    if not isinstance(contents, list):
        raise _malformed("'contents' is not a list")
    return ResourceResult(
        contents=tuple(map(_contents, contents)), meta=object_of(result, "_meta"), raw=result
    )


def _contents(raw: Any) -> ResourceContents:
    uri = string_of(raw, "uri")
    if uri is None:
        raise _malformed("contents without a 'uri'")
    text, blob = string_of(raw, "text"), string_of(raw, "blob")
    if (text is None) == (blob is None):
        raise _malformed("contents need either 'text' or 'blob'")
    return ResourceContents(
        uri=uri,
        mime_type=string_of(raw, "mimeType"),
        text=text,
        blob=None if blob is None else _bytes(blob),
        meta=object_of(raw, "_meta"),
    )


def _bytes(blob: str) -> bytes:
    try:
        return base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("a 'blob' is not Base64") from None


def _described(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": string_of(raw, "title"),
        "description": string_of(raw, "description"),
        "mime_type": string_of(raw, "mimeType"),
        "annotations": object_of(raw, "annotations"),
        "meta": object_of(raw, "_meta"),
        "raw": raw,
    }


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the resource is malformed: {what}", delivery="answered")
