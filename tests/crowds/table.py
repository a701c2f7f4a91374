"""The fault matrix under a thousand calls: faults by row, and why a transport has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from tests.crowds.fault import TRANSPORTS, Fault
from tests.crowds.said import SAID
from tests.crowds.strikes import STRIKES
from tests.tidy.trace import rows

__all__ = ["BACKENDS", "NOT_THERE", "Cell", "cells", "every_change", "faults", "reason"]

BACKENDS = ("asyncio", "trio")

_NO_NETWORK = {
    "stdio": "a pipe: no network is between",
    "in process": "a function: no network is between",
}
_NO_HTTP = {
    "stdio": "no HTTP is spoken",
    "WebSocket": "no HTTP is spoken once it is open",
    "in process": "no HTTP is spoken",
}
_NO_EVENTS = {
    "stdio": "lines, no events",
    "WebSocket": "frames, no events",
    "in process": "no stream at all",
}
_ONE_STREAM = "its one stream carries all calls, and has no end of its own: row 19"
_NO_PROCESS = {name: "no process of ours runs the server" for name in TRANSPORTS if name != "stdio"}
_NO_BYTES = "no bytes are sent: what a function returns is a value"

#: By row and transport: why there is no cell.
NOT_THERE: Mapping[int, Mapping[str, str]] = {
    **dict.fromkeys((1, 2, 3, 4, 60), _NO_NETWORK),
    64: {"in process": "a function: no network is between"},
    5: {"stdio": "a pipe is not reset: rows 8 and 35"},
    **{
        row: _NO_HTTP | {"HTTP+SSE": "posted messages are short, or refused: row 15"}
        for row in (6,)
    },
    7: _NO_HTTP | {"HTTP+SSE": "answers come on another connection than questions: row 5"},
    8: {"in process": _NO_BYTES},
    9: _NO_HTTP | {"HTTP+SSE": "what trickles there is nobody's answer: row 10"},
    10: {"stdio": "a process that stops is row 36", "in process": "a call that hangs is row 58"},
    11: _NO_HTTP,
    12: _NO_HTTP | {"HTTP+SSE": "the answer to what is posted has no body: row 29"},
    13: _NO_HTTP | {"HTTP+SSE": "the stream is not compressed: row 22"},
    14: _NO_HTTP,
    15: {"in process": "an error is an exception of the function's"},
    16: _NO_HTTP,
    17: dict.fromkeys(_NO_HTTP, "no status says that it fails; its connection ends: row 5"),
    18: _NO_HTTP | {"HTTP+SSE": "the stream is the session: row 19"},
    19: {"stdio": "a process that is killed is row 35", "in process": "it ends with us"},
    20: _NO_EVENTS | {"HTTP+SSE": _ONE_STREAM},
    21: _NO_EVENTS | {"HTTP+SSE": "its stream is cut within an event in row 8"},
    22: _NO_EVENTS | {"stdio": "a line without end is row 41", "WebSocket": "row 44"},
    **{row: _NO_EVENTS | {"HTTP+SSE": "its stream cannot be gone on with"} for row in (23, 24)},
    25: {
        name: "where to post is not told by an event" for name in TRANSPORTS if name != "HTTP+SSE"
    },
    **{row: {"in process": _NO_BYTES} for row in (26, 27, 28)},
    29: {"in process": "there are no ids: a call and its answer are one"},
    30: {"in process": "a function returns once"},
    31: {"in process": "a function is asked, and asks by itself"},
    33: {"in process": "what a call says belongs to that call"},
    **dict.fromkeys((34, 35, 36, 37, 38, 39, 40, 41, 42, 43), _NO_PROCESS),
    44: {name: "no frames" for name in TRANSPORTS if name != "WebSocket"},
    50: {
        name: "no log knows which wire was written to: once is enough"
        for name in TRANSPORTS
        if name != "HTTP"
    },
    53: {"stdio": "chance delays attempts, and a process is started again without"},
    56: dict.fromkeys(
        TRANSPORTS, "the crowd ends as in row 54; the signal itself is `e2e/test_lifetimes.py`"
    ),
    62: {"stdio": "it is not the transport that is asked: as on the others"},
    63: _NO_NETWORK | {"HTTP+SSE": "the same connections as HTTP's"},
}


@frozen
class Cell:
    """One fault of one row on one wire and one event loop."""

    row: int
    fault: Fault
    wire: str
    backend: str

    @property
    def name(self) -> str:
        return f"{self.row:02}-{self.fault.name.replace(' ', '_')}-{self.wire}-{self.backend}"


def faults() -> dict[int, tuple[Fault, ...]]:
    """By row."""
    found = {
        row.number: (*SAID.get(row.number, ()), *STRIKES.get(row.number, ())) for row in rows()
    }
    return {number: each for number, each in found.items() if each}


def cells() -> Iterator[Cell]:
    """Every one."""
    for row, each in faults().items():
        for fault in each:
            for wire in fault.wires:
                for backend in BACKENDS:
                    yield Cell(row, fault, wire, backend)


def every_change() -> list[Cell]:
    """One of each row that is not slow: the rows take turns with wires and event loops."""
    chosen: list[Cell] = []
    taken = dict.fromkeys((wire for wires in TRANSPORTS.values() for wire in wires), 0)
    for place, row in enumerate(faults()):
        backend = BACKENDS[place % len(BACKENDS)]
        mine = [
            cell
            for cell in cells()
            if cell.row == row and cell.backend == backend and not cell.fault.slow
        ]
        if mine:
            one = min(mine, key=lambda cell: taken[cell.wire])
            taken[one.wire] += 1
            chosen.append(one)
    return chosen


def reason(row: int, transport: str) -> str | None:
    """Why that row has no cell on that transport; ``None`` where it has."""
    if any(cell.row == row and cell.wire in TRANSPORTS[transport] for cell in cells()):
        return None
    return NOT_THERE.get(row, {}).get(transport)
