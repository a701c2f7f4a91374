"""Requests and notifications in the application's own words: governed like every tool call.

Policy is asked about the method (``context.method``) and its parameters, and each goes the way
of :class:`~sark_trio.client.call.Call`. What such a request does is known to its author alone:
it is never sent again once it may have arrived.

``tools/call`` is none of them. It has one way through this package, and the chapters take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from sark_trio.client.requests import Wanted, nothing
from sark_trio.errors import InvalidArguments
from sark_trio.governance.query import NOTIFY, REQUEST
from sark_trio.machines.retry import Safety

__all__ = ["TOOL_CALL", "check_method", "raw_notification", "raw_request"]

T = TypeVar("T")

TOOL_CALL: Final = "tools/call"
_NOTIFICATION: Final = "notifications/"
_METHOD: Final = re.compile(r"[A-Za-z][A-Za-z0-9._$/-]{0,127}")
#: The life of a connection, and of the requests on it, is the transport's to speak of: said by
#: anybody else, these would end other callers' requests.
_OURS: Final = frozenset({"initialize", "notifications/initialized", "notifications/cancelled"})


def check_method(method: str, *, notification: bool) -> None:
    """Whether an application may send *method* as such a message.

    A server that ignores case, or runs what comes without an id, must not be led around the
    policy on tools: what only looks like ``tools/call`` is refused.

    :raises InvalidArguments: it may not.
    """
    if not _METHOD.fullmatch(str(method)):
        raise InvalidArguments(f"{method!r:.80} is no name of a method")
    if method in _OURS:
        raise InvalidArguments(f"{method!r} is said by the transport, when it is time")
    if method != TOOL_CALL and method.casefold() == TOOL_CALL:
        raise InvalidArguments(
            f"{method!r} is not {TOOL_CALL!r}, and some servers would take it so"
        )
    if method.startswith(_NOTIFICATION) is not notification:
        kind = "begins" if notification else "does not begin"
        raise InvalidArguments(f"{method!r}: such a message's method {kind} with 'notifications/'")


def raw_request(method: str, params: Mapping[str, Any], **common: Any) -> Wanted[dict[str, Any]]:
    """*method* as it is, and its result as it comes.

    :param common: what every request has: see :class:`~sark_trio.client.plans.Asked`.
    """
    return _raw(method, params, dict, action=REQUEST, **common)


def raw_notification(method: str, params: Mapping[str, Any], **common: Any) -> Wanted[None]:
    """*method* as it is, and no result."""
    return _raw(method, params, nothing, action=NOTIFY, is_notification=True, **common)


def _raw(
    method: str, params: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], T], **more: Any
) -> Wanted[T]:
    return Wanted(
        method=method,
        as_is=True,
        what=repr(method),
        params=params,
        parse=parse,
        safety=Safety.UNSAFE,
        context={"method": method},
        **more,
    )
