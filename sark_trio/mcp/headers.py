"""What of a request is mirrored into HTTP headers: MCP 2026-07-28, "Request Metadata".

A mirrored value is the body's value or its Base64 form, so nothing that a caller or a server
wrote can end a header line. The body remains the truth; a server compares.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.versions import sends_version_header

__all__ = [
    "NAME_MEMBERS",
    "PROTOCOL_VERSION_HEADER",
    "SESSION_ID_HEADER",
    "ParamHeader",
    "check_session_id",
    "decode_value",
    "encode_value",
    "legacy_headers",
    "modern_headers",
    "param_headers",
]

PROTOCOL_VERSION_HEADER: Final = "MCP-Protocol-Version"
METHOD_HEADER: Final = "Mcp-Method"
NAME_HEADER: Final = "Mcp-Name"
PARAM_HEADER_PREFIX: Final = "Mcp-Param-"
SESSION_ID_HEADER: Final = "Mcp-Session-Id"

#: The member of ``params`` that ``Mcp-Name`` mirrors; other methods have no such header.
NAME_MEMBERS: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    # The extension io.modelcontextprotocol/tasks, "Routing Headers".
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}

#: One encoded value. Servers commonly read no longer header lines (nginx and Apache: 8 KiB).
VALUE_CHARS_MAX: Final = 8192
#: No real session id comes near it; it is kept, compared and sent with every request.
SESSION_ID_CHARS_MAX: Final = 1024

#: JSON numbers beyond it lose digits in peers that hold them as doubles.
_SAFE_INTEGER: Final = 2**53 - 1
_PREFIX: Final = "=?base64?"
_SUFFIX: Final = "?="
# RFC 9110, section 5.5, less the tab: an inner tab is allowed, but proxies rewrite it.
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


@frozen
class ParamHeader:
    """One argument that a tool wants mirrored (``x-mcp-header``)."""

    #: The whole header name, such as ``Mcp-Param-Region``.
    name: str
    #: The ``properties`` keys that lead to the argument.
    path: tuple[str, ...]


def encode_value(value: str) -> str:
    """*value* as it stands in a header: itself, or ``=?base64?...?=`` where it could not.

    :raises InvalidArguments: it has no UTF-8 form, or is longer than ``VALUE_CHARS_MAX``.
    """
    text = value
    is_sentinel = value.startswith(_PREFIX) and value.endswith(_SUFFIX)
    if value and (is_sentinel or _PLAIN.fullmatch(value) is None):
        try:
            octets = value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidArguments("a header value holds a lone surrogate") from None
        text = f"{_PREFIX}{base64.b64encode(octets).decode('ascii')}{_SUFFIX}"
    if len(text) > VALUE_CHARS_MAX:
        raise InvalidArguments(f"a header value is longer than {VALUE_CHARS_MAX} characters")
    return text


def decode_value(text: str) -> str:
    """The inverse of :func:`encode_value`.

    :raises ProtocolError: the sentinel holds no canonical Base64 of UTF-8 text.
    """
    if not (text.startswith(_PREFIX) and text.endswith(_SUFFIX)):
        return text
    payload = text[len(_PREFIX) : -len(_SUFFIX)]
    try:
        octets = base64.b64decode(payload)
        value = octets.decode("utf-8")
    except (binascii.Error, ValueError):
        raise ProtocolError("a header value is not Base64 of UTF-8 text") from None
    # Two spellings of one value would let a proxy and a server disagree on what they saw.
    if base64.b64encode(octets).decode("ascii") != payload:
        raise ProtocolError("a header value is not canonical Base64")
    return value


def modern_headers(
    version: str, method: str, params: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """The metadata headers of a POST in a modern *version*, ``Mcp-Param-*`` excepted.

    :raises InvalidArguments: *method* cannot be a header, or the name or URI is no string.
    """
    if _VISIBLE.fullmatch(method) is None:
        raise InvalidArguments("a method must be visible ASCII characters")
    required = ((PROTOCOL_VERSION_HEADER, version), (METHOD_HEADER, method))
    member = NAME_MEMBERS.get(method)
    if member is None:
        return required
    value = params.get(member)
    if type(value) is not str:
        raise InvalidArguments(f"{method} needs a string {member!r}")
    return (*required, (NAME_HEADER, encode_value(value)))


def legacy_headers(
    version: str | None = None, session_id: str | None = None
) -> tuple[tuple[str, str], ...]:
    """The headers of a legacy request once *version* was agreed; none for ``initialize``.

    :raises ProtocolError: *session_id* is not one (see :func:`check_session_id`).
    """
    headers: list[tuple[str, str]] = []
    if version is not None and sends_version_header(version):
        headers.append((PROTOCOL_VERSION_HEADER, version))
    if session_id is not None:
        headers.append((SESSION_ID_HEADER, check_session_id(session_id)))
    return tuple(headers)


def check_session_id(value: str) -> str:
    """*value* itself, if a server may hand it out as a session id (2025-11-25, Transports).

    :raises ProtocolError: empty, too long, or not visible ASCII. The id is not quoted: whoever
        holds it may be taken for us.
    """
    if len(value) > SESSION_ID_CHARS_MAX:
        raise ProtocolError(f"the session id is longer than {SESSION_ID_CHARS_MAX} characters")
    if _VISIBLE.fullmatch(value) is None:
        raise ProtocolError("the session id is not made of visible ASCII characters")
    return value


def param_headers(
    wanted: tuple[ParamHeader, ...], arguments: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """The ``Mcp-Param-*`` headers of one call. Absent and null arguments have none.

    :raises InvalidArguments: an argument to be mirrored is no string, boolean or integer
        within +-(2**53 - 1), or too long. The message names the header, never the value.
    """
    headers: list[tuple[str, str]] = []
    for header in wanted:
        value = _at(header.path, arguments)
        if value is not None:
            headers.append((header.name, encode_value(_as_text(header.name, value))))
    return tuple(headers)


def _at(path: tuple[str, ...], arguments: Mapping[str, Any]) -> Any:
    value: Any = arguments
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _as_text(name: str, value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    # JSON Schema counts 42.0 as an integer; a server compares numerically.
    if kind is int or (kind is float and value.is_integer()):
        if -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
            return str(int(value))
        raise InvalidArguments(f"{name}: an integer beyond 2**53 - 1 cannot be mirrored")
    raise InvalidArguments(f"{name}: a {kind.__name__} cannot be mirrored into a header")
