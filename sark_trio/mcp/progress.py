"""Notifications that belong to a request: ``notifications/progress`` and ``.../message``.

Both come from a peer and are told apart from garbage here, once. Whether a token is ours and
whether progress moved forward is for those who hold the request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

from attrs import frozen

from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.meta import LOG_LEVELS, LogLevel

__all__ = [
    "LOG",
    "PROGRESS",
    "LogMessage",
    "Progress",
    "number_of",
    "parse_log_message",
    "parse_progress",
]

PROGRESS: Final = "notifications/progress"
LOG: Final = "notifications/message"


@frozen
class Progress:
    """How far a request has come."""

    token: RequestId
    #: Grows with every notification of a request.
    progress: float
    #: What ``progress`` will be at the end, where the server knows.
    total: float | None = None
    message: str | None = None


@frozen
class LogMessage:
    """One log line of a server: data from a stranger, never a format string."""

    level: LogLevel
    data: Any
    logger: str | None = None


def parse_progress(params: Mapping[str, Any]) -> Progress | None:
    """The progress in *params*, or ``None`` where they hold none: count it and drop it."""
    token = params.get("progressToken")
    progress = number_of(params.get("progress"))
    if type(token) not in {int, str} or progress is None:
        return None
    message = params.get("message")
    return Progress(
        token=cast("RequestId", token),
        progress=progress,
        total=number_of(params.get("total")),
        message=message if type(message) is str else None,
    )


def parse_log_message(params: Mapping[str, Any]) -> LogMessage | None:
    """The log message in *params*, or ``None`` where they hold none: count it and drop it."""
    level = params.get("level")
    if type(level) is not str or level not in LOG_LEVELS or "data" not in params:
        return None
    logger = params.get("logger")
    return LogMessage(
        level=level,
        data=params["data"],
        logger=logger if type(logger) is str else None,
    )


def number_of(value: Any) -> float | None:
    """*value* as a double, if a peer's JSON has a number there that is one."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is int:
        # A peer's integer can be too long for a double.
        return float(value) if -(2**63) <= value < 2**63 else None
    return None
