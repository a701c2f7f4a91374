"""Newline framing, as MCP's stdio transport has it: bytes in, lines out, with a limit.

Total: a line that is too long is skipped to its end and reported once, and the next one is
read as if nothing had been. What a line means, even whether it is UTF-8, is not asked here,
so no content can stop the reading. Linear in the bytes fed, however they are cut.
"""

from __future__ import annotations

from typing import Final, Literal, final

from attrs import define, field, frozen, setters

from sark_trio.machines.checks import whole

__all__ = ["LineSplitter", "TooLong"]

#: Room for a screenful of base64 images in one JSON-RPC message; a server that writes more in
#: one line has usually lost its newlines.
LINE_BYTES_MAX: Final = 4 * 1024 * 1024


@frozen
class TooLong:
    """A line was longer than ``limit_bytes``; it was dropped, the lines after it were not."""

    limit_bytes: int

    def __bool__(self) -> Literal[False]:
        """False, as no line is: the empty ones are left out."""
        return False


@final
@define(eq=False, repr=False, kw_only=True, on_setattr=setters.NO_OP)  # no hook on hot sets
class LineSplitter:
    """The framer of one byte stream.

    :param line_bytes_max: longest line, its CR included and its LF not.
    :raises ValueError: the limit is no whole number of 1 byte to 1 GiB.
    """

    line_bytes_max: int = field(default=LINE_BYTES_MAX, validator=whole(1, 2**30))
    # The line at hand. A bytearray: a list of parts would cost 8 bytes for each byte fed singly.
    _tail: bytearray = field(factory=bytearray, init=False)
    #: The line at hand is too long and was reported: drop the rest of it.
    _skipping: bool = field(default=False, init=False)
    _dropped: int = field(default=0, init=False)

    @property
    def held_bytes(self) -> int:
        """Bytes of the line at hand; at the end of the stream, of a line that was cut off."""
        return len(self._tail)

    @property
    def dropped(self) -> int:
        """Lines that were too long."""
        return self._dropped

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """The lines that *chunk* completes, without their LF or CRLF; empty ones are left out."""
        out: list[bytes | TooLong] = []
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._skipping:
            self._skipping = False
            lines[0] = b""
        elif lines and self._tail:
            self._tail += lines[0]
            lines[0] = bytes(self._tail)
            self._tail.clear()
        for line in lines:
            if len(line) > self.line_bytes_max:
                out.append(self._too_long())
            elif text := line.removesuffix(b"\r"):
                out.append(text)
        if not self._skipping:
            self._tail += rest
            if len(self._tail) > self.line_bytes_max:
                self._tail.clear()
                self._skipping = True
                out.append(self._too_long())
        return out

    def _too_long(self) -> TooLong:
        self._dropped += 1
        return TooLong(self.line_bytes_max)

    def check_invariants(self) -> None:
        """Assert that what is held is within the limit."""
        assert len(self._tail) <= self.line_bytes_max
        assert not (self._skipping and self._tail)

    def __repr__(self) -> str:
        state = "skipping" if self._skipping else f"held={self.held_bytes}"
        return f"<LineSplitter {state} dropped={self._dropped}>"
