"""Newline framing of a whole stream at once."""

from __future__ import annotations

__all__ = ["split"]


def split(stream: bytes, line_bytes_max: int) -> list[bytes | None]:
    """The lines; ``None`` for one that is too long, terminated or not."""
    *lines, rest = stream.split(b"\n")
    found: list[bytes | None] = []
    for line in lines:
        if len(line) > line_bytes_max:
            found.append(None)
        elif line not in {b"", b"\r"}:
            found.append(line.removesuffix(b"\r"))
    if len(rest) > line_bytes_max:
        found.append(None)
    return found
