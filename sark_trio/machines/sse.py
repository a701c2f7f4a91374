"""Event streams: bytes in, events out, as WHATWG HTML section 9.2 says, with limits.

Total: every byte string is a stream, so nothing that a server sends is an error here but its
size. The standard decodes first and parses then; parsing bytes and decoding values gives the
same, since whatever the parser looks for (CR, LF, colon, space) is ASCII and no malformed
UTF-8 sequence ever swallows an ASCII byte. Only CR, LF and CRLF end lines: U+2028 does not.

Linear in the bytes fed, however they are cut. Between calls the parser holds one event at
most: the data it has, and the line at hand.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Final, Literal, NamedTuple, final

from attrs import Factory, define, field, frozen, setters

from sark_trio.machines.checks import whole

__all__ = ["SSEEvent", "SSEParser", "TooLarge"]

#: One JSON-RPC message per event: the default limit of the MCP SDKs, 1 MiB, for both.
LINE_BYTES_MAX: Final = 1024 * 1024
EVENT_BYTES_MAX: Final = 1024 * 1024
#: An id comes back to the server as a header line; servers commonly refuse more than 8 KiB.
ID_BYTES_MAX: Final = 1024
#: Larger ``retry`` values count as this one: 31 years say "never" as well as any number.
RETRY_MS_MAX: Final = 10**12


class SSEEvent(NamedTuple):
    """One dispatched event. (A tuple, for it is made once per message on the hot path.)"""

    #: Its type; ``message`` where the server named none.
    event: str
    #: Its data lines joined by LF: valid UTF-8, with U+FFFD for what was not.
    data: bytes
    #: The last event id as of this event: it persists until the server sends another.
    id: str
    #: The reconnection time as of this event, milliseconds; ``None`` if never set.
    retry_ms: int | None

    @property
    def text(self) -> str:
        """The data as text."""
        return self.data.decode()


@frozen
class TooLarge:
    """A line, event or id is longer than ``limit_bytes``. The parser takes nothing more."""

    what: Literal["line", "event", "id"]
    limit_bytes: int


@final
@define(eq=False, repr=False, kw_only=True, on_setattr=setters.NO_OP)  # no hook on hot sets
class SSEParser:
    """The parser of one stream; a new connection needs a new one.

    :param line_bytes_max: longest line.
    :param event_bytes_max: most that is held for one event: its ``data`` and ``event`` lines
        so far, field names included, and the line at hand.
    :param id_bytes_max: longest event id.
    :raises ValueError: a limit is no whole number of 1 byte to 1 GiB.
    """

    line_bytes_max: int = field(default=LINE_BYTES_MAX, validator=whole(1, 2**30))
    event_bytes_max: int = field(default=EVENT_BYTES_MAX, validator=whole(1, 2**30))
    id_bytes_max: int = field(default=ID_BYTES_MAX, validator=whole(1, 2**30))

    # The line at hand. A bytearray: a list of parts would cost 8 bytes for each byte fed singly.
    _tail: bytearray = field(factory=bytearray, init=False)
    #: Bytes that may yet turn out to be a BOM; ``None`` once that is settled.
    _start: bytes | None = field(default=b"", init=False)
    #: The last byte was CR: a LF that follows ends the same line.
    _after_cr: bool = field(default=False, init=False)
    # The event at hand. ``None``: no data line so far, which is not the same as an empty one.
    _data: bytes | bytearray | None = field(default=None, init=False)
    _type: str = field(default="", init=False)
    #: How many more bytes it may have; each of its lines took one for its end, too.
    _left: int = field(
        default=Factory(lambda self: self.event_bytes_max, takes_self=True), init=False
    )
    # What outlives events.
    _next_id: str = field(default="", init=False)
    _last_id: str = field(default="", init=False)
    _retry_ms: int | None = field(default=None, init=False)
    _too_large: TooLarge | None = field(default=None, init=False)

    @property
    def last_event_id(self) -> str:
        """The id to resume from: that of the last *complete* block, dispatched or not."""
        return self._last_id

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server asked for, milliseconds."""
        return self._retry_ms

    @property
    def finished(self) -> bool:
        """A limit was exceeded: whatever is fed from now on is ignored."""
        return self._too_large is not None

    @property
    def held_bytes(self) -> int:
        """How many bytes of the stream the parser holds."""
        return len(self._tail) + self.event_bytes_max - self._left

    def feed(self, chunk: bytes) -> list[SSEEvent | TooLarge]:
        """Parse the next bytes: the events that they complete, and ``TooLarge`` last if so."""
        out: list[SSEEvent | TooLarge] = []
        if self._too_large is not None:
            return out
        if self._start is not None:
            chunk = self._without_bom(self._start + chunk)
        if not chunk:
            return out
        # A CR ends its line at once: to wait for a LF would delay the event by a whole read.
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        lines = chunk.splitlines()  # of bytes: at LF, CR and CRLF, and nowhere else
        self._after_cr = chunk.endswith(b"\r")
        rest = b"" if not chunk or chunk.endswith((b"\r", b"\n")) else lines.pop()
        if self._tail and lines:
            self._tail += lines[0]
            lines[0] = bytes(self._tail)
            self._tail.clear()
        if self._take(lines, out):
            self._tail += rest
            if rest and len(self._tail) > min(self.line_bytes_max, self._left):
                out.append(self._give_up())
        return out

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"held={self.held_bytes}"
        return f"<SSEParser {state} id={self._last_id!r} retry_ms={self._retry_ms}>"

    def check_invariants(self) -> None:
        """Assert that what is held is within the limits."""
        assert len(self._tail) <= min(self.line_bytes_max, max(0, self._left))
        assert -1 <= self._left <= self.event_bytes_max  # -1: the end of its last line
        assert len(self._data or b"") <= self.event_bytes_max - self._left
        assert not (self.finished and self.held_bytes)

    def _without_bom(self, start: bytes) -> bytes:
        # Section 9.2.5: one leading BOM is ignored. It may come in pieces.
        if BOM_UTF8.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(BOM_UTF8)

    def _give_up(self) -> TooLarge:
        # Named is the limit that any cut of the same bytes would have met first.
        if self.line_bytes_max <= self._left:
            return self._finish(TooLarge("line", self.line_bytes_max))
        return self._finish(TooLarge("event", self.event_bytes_max))

    def _finish(self, too_large: TooLarge) -> TooLarge:
        self._too_large = too_large
        self._tail.clear()
        self._data = None
        self._left = self.event_bytes_max
        return too_large

    def _take(self, lines: list[bytes], out: list[SSEEvent | TooLarge]) -> bool:
        # The hot loop: section 9.2.6, the most frequent lines first. False: finished.
        line_bytes_max = self.line_bytes_max
        for line in lines:
            if not line:
                self._dispatch(out)
            elif len(line) > line_bytes_max or len(line) > self._left:
                out.append(self._give_up())
                return False
            elif line[:6] == b"data: ":
                self._add_data(line[6:], len(line))
            elif line[0] != 58:  # a colon first: a comment
                too_large = self._take_field(line)
                if too_large is not None:
                    out.append(self._finish(too_large))
                    return False
        return True

    def _dispatch(self, out: list[SSEEvent | TooLarge]) -> None:
        self._last_id = last_id = self._next_id
        if self._data is not None:
            data = _valid(self._data)
            out.append(SSEEvent(self._type or "message", data, last_id, self._retry_ms))
            self._data = None
        self._type = ""
        self._left = self.event_bytes_max

    def _add_data(self, value: bytes, line_bytes: int) -> None:
        self._left -= line_bytes + 1
        if self._data is None:
            self._data = value
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += b"\n"
        self._data += value

    def _take_field(self, line: bytes) -> TooLarge | None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(value, len(line))
        elif name == b"event":
            self._type = value.decode(errors="replace")
            self._left -= len(line) + 1
        elif name == b"id" and b"\0" not in value:
            if len(value) > self.id_bytes_max:
                return TooLarge("id", self.id_bytes_max)
            self._next_id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():
            # Leading zeros and long numbers first: int() refuses more than 4300 digits.
            digits = value.lstrip(b"0")
            self._retry_ms = int(digits or b"0") if len(digits) < 13 else RETRY_MS_MAX
        return None


def _valid(data: bytes | bytearray) -> bytes:
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return data.decode(errors="replace").encode()
    return bytes(data)
