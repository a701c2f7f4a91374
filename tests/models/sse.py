"""WHATWG HTML section 9.2.6 read aloud: the whole stream at once, as text, without limits."""

from __future__ import annotations

import re

__all__ = ["interpret"]

Event = tuple[str, str, str, int | None]


def interpret(stream: bytes) -> tuple[list[Event], str, int | None]:
    """The events (type, data, id, retry), the last event id and the reconnection time."""
    text = stream.decode("utf-8", errors="replace").removeprefix("\ufeff")
    *lines, _unterminated = re.split("\r\n|\r|\n", text)
    events: list[Event] = []
    data = event_type = id_buffer = last_id = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            last_id = id_buffer
            if data != "":
                events.append((event_type or "message", data.removesuffix("\n"), last_id, retry))
            data = event_type = ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event_type = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events, last_id, retry
