"""Events as log records: the standard library's logging, or structlog.

::

    client = GatewayClient(..., hooks=[LogHook()])        # logger "sark_trio.events"
    client = GatewayClient(..., hooks=[StructlogHook(structlog.get_logger())])

A record's message is the event's name and its fields; the same fields are in the record's
``sark`` attribute (``extra``), for handlers that keep structure, such as :class:`JsonFormatter`.
Handlers run where the event happens: one that may block belongs behind a ``QueueHandler``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, final

from attrs import define, field

from sark_trio.telemetry import events
from sark_trio.telemetry.events import Event, fields_of

__all__ = ["JsonFormatter", "LogHook", "StructlogHook", "level_of"]

#: Events that are worth a line in production; all that is not here is for debugging.
_LEVELS: Final[Mapping[type[Event], int]] = {
    events.CallFinished: logging.INFO,
    events.CallRetried: logging.INFO,
    events.BreakerChanged: logging.INFO,
    events.ServerConnected: logging.INFO,
    events.SessionRenewed: logging.INFO,
    events.ProcessStarted: logging.INFO,
    events.ProcessExited: logging.INFO,
    events.StreamConnected: logging.INFO,
    events.StreamReconnecting: logging.WARNING,
    events.AuditFailed: logging.ERROR,
    events.HookDisabled: logging.ERROR,
}
_CALL_LEVELS: Final[Mapping[events.CallOutcome, int]] = {
    "denied": logging.WARNING,
    "rejected": logging.WARNING,
    "timeout": logging.ERROR,
    "unknown": logging.ERROR,
    "error": logging.ERROR,
}


def level_of(event: Event) -> int:
    """The level of *event*, as ``logging`` numbers them."""
    match event:
        case events.CallFinished(outcome=outcome):
            return _CALL_LEVELS.get(outcome, logging.INFO)
        case (
            events.BreakerChanged(target="open")
            | events.PoolWaited(granted=False)
            | events.ProcessExited(expected=False)
            | events.TokenChecked(ok=False)
            | events.ListFetched(error_type=str())
            | events.CheckpointTaken(error_type=str())
        ):
            return logging.WARNING
    return _LEVELS.get(type(event), logging.DEBUG)


def _logger() -> logging.Logger:
    return logging.getLogger("sark_trio.events")


@final
@define(eq=False)
class LogHook:
    """A hook that logs.

    :param logger: where to; default: ``sark_trio.events``.
    """

    logger: logging.Logger = field(factory=_logger)

    def __call__(self, event: Event) -> None:
        """Log *event*, if its level is wanted."""
        level = level_of(event)
        if self.logger.isEnabledFor(level):
            fields = fields_of(event)
            said = [event.name, *(f"{key}={_plain(value)}" for key, value in fields.items())]
            extra = {"sark": {"event": event.name, **fields}}
            self.logger.log(level, "%s", " ".join(said), extra=extra)


def _plain(value: object) -> str:
    """*value* as one word: a name that a server chose must not look like a field, or a line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else ascii(text)


class _Bound(Protocol):
    """What we need of a structlog logger."""

    def log(self, level: int, event: str, /, **fields: Any) -> Any:
        """Log *event* with its fields."""


@final
@define(eq=False)
class StructlogHook:
    """A hook that tells a structlog logger: the event's name, and its fields as key and value."""

    logger: _Bound

    def __call__(self, event: Event) -> None:
        """Log *event*."""
        self.logger.log(level_of(event), event.name, **fields_of(event))


@final
class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts`` (seconds since 1970), ``level``, ``logger``, and the fields
    of an event, or else ``message``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of *record*."""
        line: dict[str, Any] = {
            "ts": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "sark", None)
        line |= fields if isinstance(fields, dict) else {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII: whoever reads it in a terminal is shown no control and no direction of the peer's.
        return json.dumps(line, default=str)
