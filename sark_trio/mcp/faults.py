"""JSON-RPC errors of MCP as types of their own, by code: MCP 2026-07-28, "Error Codes".

Each is a :class:`~sark_trio.errors.RemoteError`: whoever catches that catches them all::

    RemoteError
    ├── InvalidParams            -32602
    ├── MethodNotFound           -32601   the server does not offer this
    ├── ResourceNotFound         -32002   until 2025-11-25; since then -32602
    ├── HeaderMismatch           -32020   our headers do not say what the body says
    ├── MissingCapability        -32021   the server needs us to offer something: required
    ├── UnsupportedVersion       -32022   the server speaks other revisions: supported
    └── UrlElicitationRequired   -32042   2025-11-25 only: a person must visit pages first

Two more are no answers of the server's, but ends of a conversation with it::

    GatewayError
    ├── HandlerFailed            a handler of ours did not answer what the server asked
    └── TaskCancelled            the server ended the task that the call had become
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sark_trio.errors import GatewayError, RemoteError

__all__ = [
    "HEADER_MISMATCH",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "MISSING_CAPABILITY",
    "UNSUPPORTED_VERSION",
    "HandlerFailed",
    "HeaderMismatch",
    "InvalidParams",
    "MethodNotFound",
    "MissingCapability",
    "ResourceNotFound",
    "TaskCancelled",
    "UnsupportedVersion",
    "UrlElicitationRequired",
    "remote_error",
]

#: JSON-RPC 2.0, section 5.1.
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
#: Only modern servers give these (2026-07-28, "Error Codes").
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022


class InvalidParams(RemoteError):
    """The server does not take these parameters: an unknown name, a wrong argument or cursor."""


class MethodNotFound(RemoteError):
    """The server does not know the method, or does not offer what it belongs to."""


class ResourceNotFound(RemoteError):
    """The server has no resource of that URI (until 2025-11-25)."""


class HeaderMismatch(RemoteError):
    """The server's tool wants other headers than we sent; its definition changed."""


class MissingCapability(RemoteError):
    """The server can not serve this request to a client that offers so little."""

    @property
    def required(self) -> Mapping[str, Any]:
        """The capabilities that it wants; empty if it does not say."""
        return _member(self.data, "requiredCapabilities")


class UnsupportedVersion(RemoteError):
    """The server does not speak the revision of the request."""

    @property
    def supported(self) -> tuple[str, ...]:
        """The revisions that it says it speaks."""
        named = self.data.get("supported") if isinstance(self.data, Mapping) else None
        return tuple(one for one in named if type(one) is str) if isinstance(named, list) else ()


class UrlElicitationRequired(RemoteError):
    """A person must visit pages before the call can be made (2025-11-25)."""

    @property
    def elicitations(self) -> tuple[Mapping[str, Any], ...]:
        """The parameters of the URL elicitations, as they came."""
        named = self.data.get("elicitations") if isinstance(self.data, Mapping) else None
        listed = named if isinstance(named, list) else []
        return tuple(one for one in listed if isinstance(one, Mapping))


class HandlerFailed(GatewayError):
    """The server asked for input, and the handler that is there for it failed or declined.

    The request stays unanswered. ``__cause__`` is what the handler raised.
    """

    default_delivery = "answered"


class TaskCancelled(GatewayError):
    """The call had become a task, and the server cancelled it. It may have had effects."""


_BY_CODE: Final[Mapping[int, type[RemoteError]]] = {
    METHOD_NOT_FOUND: MethodNotFound,
    INVALID_PARAMS: InvalidParams,
    -32002: ResourceNotFound,
    HEADER_MISMATCH: HeaderMismatch,
    MISSING_CAPABILITY: MissingCapability,
    UNSUPPORTED_VERSION: UnsupportedVersion,
    -32042: UrlElicitationRequired,
}


def remote_error(code: int, message: str, data: Any = None, **fields: Any) -> RemoteError:
    """The :class:`~sark_trio.errors.RemoteError`, or its subclass, for *code*."""
    return _BY_CODE.get(code, RemoteError)(message, code=code, data=data, **fields)


def _member(data: Any, key: str) -> Mapping[str, Any]:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, Mapping) else {}
