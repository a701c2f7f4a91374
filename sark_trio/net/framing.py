"""Heads of messages: writing a request's, and the strict reading of a response's. White.

h11 reads responses, but lets pass what we do not: two parsers that disagree on where a message
ends are how responses get smuggled (RFC 9112, section 11.2), so everything that a lenient one
could read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import final

from attrs import frozen

from sark_trio.errors import InvalidArguments, MessageTooLarge, ProtocolError

__all__ = [
    "HEADERS_MAX",
    "HEAD_BYTES_MAX",
    "ChunkWaste",
    "HeadReader",
    "Request",
    "ResponseHead",
    "check_framing",
    "check_head",
    "request_head",
]

#: Status line and headers. nginx and Node refuse more than 8 and 16 KiB; Go takes 1 MiB.
HEAD_BYTES_MAX = 64 * 1024
#: As http.client, nginx and Go's default come nowhere near it in honest answers.
HEADERS_MAX = 100

_BEGINNING = b"HTTP/1."
_END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_FOLDED = re.compile(rb"\r\n[ \t]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
# RFC 9112, sections 3 and 5; no obs-text, which servers read in different charsets.
_REQUEST = re.compile(
    rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e\t]*\r\n)+\r\n"
)


@final
@frozen
class Request:
    """One request; ``Content-Length`` is added to its headers, ``Host`` must be among them."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""


@final
@frozen
class ResponseHead:
    """Status and headers of a response; header names are lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> str | None:
        """The value of header *name* (lower case); several are joined by commas."""
        values = [value for key, value in self.headers if key == name]
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def content_type(self) -> str:
        """The media type, lower case and without parameters; empty where there is none."""
        return (self.get(b"content-type") or "").partition(";")[0].strip().lower()


def request_head(request: Request) -> bytes:
    """The head of *request*, checked as a whole: 3 us, where h11 takes 30 for it.

    :raises InvalidArguments: a part of it could be read as something else (CR, LF, NUL, ...).
    """
    lines = [b"%b %b HTTP/1.1" % (request.method, request.target)]
    lines += [b"%b: %b" % header for header in request.headers]
    # GET and DELETE have no body; a POST of nothing says so (RFC 9110, section 8.6).
    if request.body or request.method == b"POST":
        lines.append(b"Content-Length: %d" % len(request.body))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    # The count: a line that ends within a value is well-formed, but is not ours.
    if _REQUEST.fullmatch(head) is None or head.count(b"\n") != len(lines) + 1:
        raise InvalidArguments("the request's target or a header cannot be sent as it is")
    return head


@final
class HeadReader:
    """Collects bytes until a head is complete. Linear, whatever the pieces."""

    __slots__ = ("_buffer", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take *data*; the checked head once it is complete, blank line included.

        :raises ProtocolError: a bare CR or LF, a folded line, two lengths, no status line.
        :raises MessageTooLarge: more than :data:`HEAD_BYTES_MAX` without an end.
        """
        buffer = self._buffer
        buffer += data
        end = buffer.find(_END, max(0, self._scanned - len(_END) + 1))
        size = end + len(_END) if end >= 0 else len(buffer)
        if size > HEAD_BYTES_MAX:
            raise MessageTooLarge(
                f"the response's head is larger than {HEAD_BYTES_MAX} bytes",
                limit_bytes=HEAD_BYTES_MAX,
            )
        if end < 0:
            # Refused now, because the end that we look for might never come.
            if not buffer.startswith(_BEGINNING[: len(buffer)]):
                raise ProtocolError("the peer does not speak HTTP/1.x")
            if _BARE_LF.search(buffer, self._scanned) is not None:
                raise ProtocolError("the response's head has a bare LF")
            self._scanned = len(buffer)
            return None
        head = bytes(buffer[:size])
        del buffer[:size]
        self._scanned = 0
        check_head(head)
        return head

    def take_rest(self) -> bytes:
        """The bytes that came after the head; they are handed out once."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def __bool__(self) -> bool:
        return bool(self._buffer)


def check_head(head: bytes) -> None:
    """Refuse what h11 would repair: bare CR and LF, obs-fold, repeated lengths.

    :raises ProtocolError: as above; RFC 9112, sections 2.2, 5.2 and 6.3.
    """
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise ProtocolError("the response's head has a bare CR or LF")
    if lines - 2 > HEADERS_MAX:
        raise ProtocolError(f"the response has more than {HEADERS_MAX} headers")
    if _STATUS_LINE.match(head) is None:
        raise ProtocolError("the response does not begin with an HTTP/1.1 status line")
    if _FOLDED.search(head) is not None:
        raise ProtocolError("the response has a folded header line")
    lengths = _CONTENT_LENGTH.findall(head)
    if len(lengths) > 1 or (lengths and not lengths[0].strip().isdigit()):
        raise ProtocolError("the response has several or malformed Content-Length values")


def check_framing(version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a response whose end two readers could find in two places.

    :raises ProtocolError: Content-Length beside Transfer-Encoding, or the latter in HTTP/1.0.
    """
    names = {name for name, _ in headers}
    if b"transfer-encoding" in names and (b"content-length" in names or version != b"1.1"):
        raise ProtocolError("the response has Transfer-Encoding and another framing")


@final
class ChunkWaste:
    """How many bytes of a body were not data: chunk headers, extensions, trailers.

    Go's net/http counts alike: so much per chunk and per byte of data is usual, and so much
    more is borne before it is called an attack.
    """

    PER_CHUNK = 16
    BYTES_MAX = 64 * 1024

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def on_data(self, size: int, *, new_chunk: bool) -> None:
        """So much of what was read turned out to be data."""
        self._bytes = max(0, self._bytes - size - (self.PER_CHUNK if new_chunk else 0))

    def on_read(self, size: int) -> None:
        """So much was read, of which nothing is known yet.

        :raises ProtocolError: there is too much that was no data.
        """
        if self._bytes > self.BYTES_MAX:
            raise ProtocolError("the response has more chunk headers than data")
        self._bytes += size
