"""Tools as a server describes them: told apart from what may not be offered, and fingerprinted.

A description is data from a stranger that will be shown to a model and to people. One bad tool
never costs the others (2026-07-28, "x-mcp-header"): it is set aside with a reason.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.mcp.headers import ParamHeader
from sark_trio.mcp.schemas import InvalidParamHeader, parse_param_headers

__all__ = [
    "Tool",
    "ToolAnnotations",
    "ToolList",
    "ToolRejected",
    "fingerprint",
    "parse_tool",
    "parse_tools",
    "visible",
]

#: 2026-07-28, "Tool Names".
NAME_CHARS_MAX: Final = 128
#: A title is one line of a user interface.
TITLE_CHARS_MAX: Final = 1024
#: The longest descriptions seen are a tenth of it; a model reads all of it on every turn.
DESCRIPTION_CHARS_MAX: Final = 65_536
#: Hashing, comparing and validating walk every value of a definition.
DEFINITION_NODES_MAX: Final = 20_000

#: Controls, format marks (bidi, zero-width), surrogates, private and unassigned code points,
#: line and paragraph separators: what a reader cannot see, or not see as it is.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Invisible to a reader, too, though Unicode counts them as letters, marks and symbols: Hangul
#: fillers, the combining grapheme joiner, the blank Braille pattern, variation selectors.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
_SHADOWED: Final = "another tool of this server has the same name"
#: All that a user approves when approving a tool: everything that a model or a person reads.
PINNED_MEMBERS: Final = (
    "name",
    "title",
    "description",
    "inputSchema",
    "outputSchema",
    "annotations",
)


@frozen(kw_only=True)
class ToolAnnotations:
    """What a server says of a tool's behaviour; absent hints have the protocol's defaults.

    Hints, and untrusted ones unless the operator trusts the server.
    """

    title: str | None = None
    read_only_hint: bool = False
    destructive_hint: bool = True
    idempotent_hint: bool = False
    open_world_hint: bool = True


@frozen(kw_only=True)
class Tool:
    """One tool that may be offered."""

    name: str
    input_schema: Mapping[str, Any]
    title: str | None = None
    description: str | None = None
    output_schema: Mapping[str, Any] | None = None
    annotations: ToolAnnotations = field(factory=ToolAnnotations)
    meta: Mapping[str, Any] = field(factory=dict)
    #: Arguments that every call over HTTP mirrors into headers.
    param_headers: tuple[ParamHeader, ...] = ()
    #: The definition as it came.
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@frozen
class ToolRejected:
    """One tool that must not be offered. *name* is its own, or an escaped form fit to print."""

    name: str
    reason: str


@frozen(kw_only=True)
class ToolList:
    """A server's tools by name, in the server's order, and those that were set aside."""

    tools: Mapping[str, Tool]
    rejected: tuple[ToolRejected, ...]


class _Reason(Exception):
    """Why a definition is refused."""


def parse_tool(raw: Any, *, over_http: bool = True) -> Tool | ToolRejected:
    """The tool that *raw*, one item of ``tools/list``, describes.

    :param over_http: hold ``x-mcp-header`` to its rules; other transports ignore it.
    """
    try:
        return _parse(raw, over_http=over_http)
    except (_Reason, InvalidParamHeader, jsontext.JSONError) as exc:
        name = raw.get("name") if isinstance(raw, Mapping) else None
        return ToolRejected(_shown(name), str(exc))


def parse_tools(raws: Iterable[Any], *, over_http: bool = True) -> ToolList:
    """All pages of one server's ``tools/list`` together.

    Names that look alike (equal under NFKC) shadow each other, and nobody can say which one
    is meant: none of them is offered. The same definition twice (pages shift) counts once.
    """
    rejected: list[ToolRejected] = []
    alike: dict[str, list[Tool]] = {}
    for raw in raws:
        tool = parse_tool(raw, over_http=over_http)
        if isinstance(tool, ToolRejected):
            rejected.append(tool)
        else:
            alike.setdefault(unicodedata.normalize("NFKC", tool.name), []).append(tool)
    tools: dict[str, Tool] = {}
    for same in alike.values():
        first = same[0]
        if len(same) == 1 or len(set(map(fingerprint, same))) == 1:
            tools[first.name] = first
        else:
            names = dict.fromkeys(tool.name for tool in same)
            rejected.extend(ToolRejected(name, _SHADOWED) for name in names)
    return ToolList(tools=tools, rejected=tuple(rejected))


def fingerprint(tool: Tool) -> str:
    """SHA-256, in hex, of all that a user approves when approving a tool.

    Of the canonical JSON (RFC 8785) of the members name, title, description, inputSchema,
    outputSchema and annotations as they came; absent and null are the same.

    :raises JSONError: a string holds a lone surrogate, as no message that was decoded does.
    """
    pinned = {key: tool.raw.get(key) for key in PINNED_MEMBERS}
    try:
        octets = jsontext.canonical(pinned)
    except jsontext.JSONError:
        # Limits such as 2**63 - 1 have no RFC 8785 form. With every leaf marked by its kind
        # no two definitions meet, and the prefix keeps the two ways apart.
        octets = b"marked:" + jsontext.canonical(_marked(pinned))
    return hashlib.sha256(octets).hexdigest()


def visible(text: str) -> str:
    """*text* on one line, with every character that a reader would not see spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_seen(char) else f"\\u{{{ord(char):x}}}" for char in text)


def _is_seen(char: str) -> bool:
    kind = unicodedata.category(char)
    return not (kind in _UNSEEN or char in _BLANK or (kind == "Zs" and char != " "))


def _check_name(name: Any) -> str:
    """*name* itself, if it can be a tool's: exact, visible, one line.

    Any script is allowed; what is refused is what a reader would not see.
    """
    if type(name) is not str or not name:
        raise _Reason("the name is no string, or empty")
    if len(name) > NAME_CHARS_MAX:
        raise _Reason(f"the name is longer than {NAME_CHARS_MAX} characters")
    for char in name:
        if not _is_seen(char):
            raise _Reason(f"the name holds U+{ord(char):04X}, which cannot be seen")
    if name != name.strip():
        raise _Reason("the name begins or ends with a space")
    return name


def _parse(raw: Any, *, over_http: bool) -> Tool:
    if not isinstance(raw, Mapping):
        raise _Reason("the definition is not an object")
    jsontext.check_bounds(raw, nodes_max=DEFINITION_NODES_MAX)
    input_schema = _schema(raw, "inputSchema")
    if input_schema is None:
        raise _Reason("inputSchema is missing")
    # Arguments are an object anyway, so a missing type says no less.
    if input_schema.get("type", "object") != "object":
        raise _Reason("inputSchema describes no object")
    meta = raw.get("_meta")
    return Tool(
        name=_check_name(raw.get("name")),
        title=_text(raw, "title", TITLE_CHARS_MAX),
        description=_text(raw, "description", DESCRIPTION_CHARS_MAX),
        input_schema=input_schema,
        output_schema=_schema(raw, "outputSchema"),
        annotations=_annotations(raw.get("annotations")),
        meta=meta if isinstance(meta, Mapping) else {},
        param_headers=parse_param_headers(input_schema) if over_http else (),
        raw=raw,
    )


def _schema(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    schema = raw.get(key)
    if schema is not None and not isinstance(schema, Mapping):
        raise _Reason(f"{key} is not an object")
    return schema


def _text(raw: Mapping[str, Any], key: str, chars_max: int) -> str | None:
    text = raw.get(key)
    if text is None:
        return None
    if type(text) is not str:
        raise _Reason(f"{key} is not a string")
    if len(text) > chars_max:
        raise _Reason(f"{key} is longer than {chars_max} characters")
    return text


def _annotations(raw: Any) -> ToolAnnotations:
    if raw is None:
        return ToolAnnotations()
    if not isinstance(raw, Mapping):
        raise _Reason("annotations is not an object")
    return ToolAnnotations(
        title=_text(raw, "title", TITLE_CHARS_MAX),
        read_only_hint=_hint(raw, "readOnlyHint", default=False),
        destructive_hint=_hint(raw, "destructiveHint", default=True),
        idempotent_hint=_hint(raw, "idempotentHint", default=False),
        open_world_hint=_hint(raw, "openWorldHint", default=True),
    )


def _hint(raw: Mapping[str, Any], key: str, *, default: bool) -> bool:
    hint = raw.get(key)
    if hint is None:
        return default
    if type(hint) is not bool:
        raise _Reason(f"{key} is not a boolean")
    return hint


def _marked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _marked(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_marked(below) for below in value]
    if type(value) is str:
        return f"s{value}"
    if type(value) is int:
        return f"i{value}"
    return value


def _shown(name: Any) -> str:
    try:
        return _check_name(name)
    except _Reason:
        # ascii: what a name was refused for hiding must not hide in a log either.
        return ascii(name[:NAME_CHARS_MAX])[1:-1] if type(name) is str else "?"
