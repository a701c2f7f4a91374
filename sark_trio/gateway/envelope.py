"""The envelope of a modern request: its headers must say what its body says (2026-07-28,
"Server Validation"), or a proxy that decides by the headers decides about something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused
from sark_trio.gateway.visitor import meta_of
from sark_trio.mcp.faults import HEADER_MISMATCH, UNSUPPORTED_VERSION
from sark_trio.mcp.headers import NAME_MEMBERS, ParamHeader, decode_value, param_headers
from sark_trio.mcp.messages import Request
from sark_trio.mcp.meta import CLIENT_CAPABILITIES, PROTOCOL_VERSION
from sark_trio.mcp.versions import HTTP_SSE, LEGACY, MODERN

__all__ = [
    "VERSION",
    "check_envelope",
    "check_meta",
    "check_params",
    "check_version",
    "is_modern_call",
    "names_modern",
]

VERSION: Final = "mcp-protocol-version"
_LEGACY: Final = frozenset({*LEGACY, HTTP_SSE})


def is_modern_call(message: Any, headers: Mapping[str, str]) -> bool:
    """Whether *message* is to be held to the modern rules.

    It names a version in its ``_meta``, or its header names one that is no legacy one.
    """
    return _meta_of(message).get(PROTOCOL_VERSION) is not None or names_modern(headers)


def names_modern(headers: Mapping[str, str]) -> bool:
    """Whether *headers* name a version, and none of those with sessions."""
    named = headers.get(VERSION)
    return named is not None and named not in _LEGACY


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse a version that this gateway does not speak without a handshake.

    :raises RpcRefused: HTTP 400, ``UnsupportedProtocolVersionError``.
    """
    _check_version(headers.get(VERSION))


def check_meta(call: Request) -> None:
    """Hold *call* to what every modern request must say, where there are no headers (stdio).

    :raises RpcRefused: the version is not spoken, or ``_meta`` lacks something.
    """
    meta = _meta_of(call)
    _check_version(meta.get(PROTOCOL_VERSION))
    _check_capabilities(meta)


def _check_version(named: Any) -> None:
    if named != MODERN:
        raise RpcRefused(
            UNSUPPORTED_VERSION,
            "this protocol version is not spoken here",
            data={"supported": [MODERN], "requested": named},
            status=400,
        )


def check_envelope(call: Request, headers: Mapping[str, str]) -> None:
    """Hold *call* to its headers.

    :raises RpcRefused: HTTP 400; a header is missing or differs, the version is not spoken, or
        ``_meta`` lacks what every request must say.
    """
    meta = _meta_of(call)
    version = meta.get(PROTOCOL_VERSION)
    if VERSION not in headers:
        raise _mismatch("MCP-Protocol-Version is missing")
    if version is not None and version != headers[VERSION]:
        raise _mismatch("MCP-Protocol-Version differs from the body's")
    check_version(headers)
    _check_capabilities(meta)
    if headers.get("mcp-method") != call.method:
        raise _mismatch("Mcp-Method differs from the body's method, or is missing")
    member = NAME_MEMBERS.get(call.method)
    if member is not None:
        _check_name(call.params.get(member), headers.get("mcp-name"))


def check_params(
    wanted: tuple[ParamHeader, ...], arguments: Any, headers: Mapping[str, str]
) -> None:
    """Hold the arguments of a call to the headers that its tool wants them in, too.

    2026-07-28, "Custom Headers from Tool Parameters": a header that is there for no argument, or
    missing for one, differs.

    :raises RpcRefused: HTTP 400; they do not agree.
    """
    given = arguments if isinstance(arguments, Mapping) else {}
    for one in wanted:
        said = headers.get(one.name.lower())
        try:
            due = dict(param_headers((one,), given)).get(one.name)
            agree = (said is None) == (due is None)
            if said is not None and due is not None:
                agree = _same(said, due, number=_is_number(one.path, given))
        except (InvalidArguments, ProtocolError):
            agree = False
        if not agree:
            raise _mismatch(f"{one.name} differs from the body's argument, or is missing")


def _same(said: str, due: str, *, number: bool) -> bool:
    said, due = decode_value(said), decode_value(due)
    if said == due or not number:
        return said == due
    try:
        return float(said) == float(due)  # 42 is 42.0 ("Value Encoding")
    except ValueError:
        return False


def _is_number(path: tuple[str, ...], arguments: Any) -> bool:
    for key in path:
        arguments = arguments.get(key) if isinstance(arguments, Mapping) else None
    return isinstance(arguments, int | float) and not isinstance(arguments, bool)


def _check_capabilities(meta: Mapping[str, Any]) -> None:
    named = meta.get(PROTOCOL_VERSION)
    if named is None or not isinstance(meta.get(CLIENT_CAPABILITIES), Mapping):
        message = f"_meta must hold {PROTOCOL_VERSION} and {CLIENT_CAPABILITIES}"
        raise RpcRefused(INVALID_PARAMS, message, status=400)


def _check_name(named: Any, header: str | None) -> None:
    try:
        said = None if header is None else decode_value(header)
    except ProtocolError as exc:
        raise _mismatch("Mcp-Name cannot be decoded") from exc
    if said is None or said != named:
        raise _mismatch("Mcp-Name differs from the body's name, or is missing")


def _meta_of(message: Any) -> Mapping[str, Any]:
    return meta_of(getattr(message, "params", {}))


def _mismatch(what: str) -> RpcRefused:
    return RpcRefused(HEADER_MISMATCH, f"header mismatch: {what}", status=400)
