"""The four kinds of JSON-RPC message, and what peers agree on. Frozen values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = [
    "Agreed",
    "Failure",
    "Fault",
    "InputRequired",
    "Message",
    "Notification",
    "Request",
    "RequestId",
    "Success",
]

RequestId = int | str


@frozen
class Request:
    """A message that wants an answer."""

    id: RequestId
    method: str
    params: Mapping[str, Any] = field(factory=dict)


@frozen
class Notification:
    """A message that wants none."""

    method: str
    params: Mapping[str, Any] = field(factory=dict)


@frozen
class Success:
    """An answer with a result."""

    id: RequestId
    result: dict[str, Any]


@frozen
class Failure:
    """An answer with an error. ``id`` is ``None`` where the peer could not read it."""

    id: RequestId | None
    code: int
    message: str
    data: Any = None


Message = Request | Notification | Success | Failure


@frozen
class InputRequired:
    """A result that is a question: MCP 2026-07-28, "Multi Round-Trip Requests".

    The request is over. Whoever wants to go on sends it again under a new id, with the
    answers under ``inputResponses`` and ``request_state`` byte for byte under ``requestState``.
    """

    #: Server-chosen key to request object (``method``, ``params``).
    input_requests: Mapping[str, Mapping[str, Any]]
    #: Meant for the server alone: never parsed, never shown, never sent anywhere else.
    request_state: str | None = field(default=None, repr=False)


@frozen
class Fault:
    """What a machine of this room answers to an input that its state does not allow.

    Nothing was changed. ``reason`` is one sentence for whoever drives it.
    """

    reason: str


@frozen(kw_only=True)
class Agreed:
    """What was agreed with a server: MCP 2026-07-28, "Versioning and Compatibility"."""

    version: str
    #: 2026-07-28 and later: stateless, version and capabilities in every request.
    modern: bool
    #: The server's own words about itself; never used to decide anything.
    server_info: Mapping[str, Any] = field(factory=dict)
    capabilities: Mapping[str, Any] = field(factory=dict)
    instructions: str | None = None
