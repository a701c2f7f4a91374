"""Undoing a response's content coding, within a bound. White."""

from __future__ import annotations

import zlib
from typing import final

from sark_trio.errors import MessageTooLarge, ProtocolError

__all__ = ["ACCEPT_ENCODING", "GzipDecoder", "body_too_large", "decoder_for"]

#: What we ask for. A list of 200 tools is 133 KB plain and some 10 KB compressed.
ACCEPT_ENCODING = b"gzip"
_GZIP = 16 + zlib.MAX_WBITS


@final
class GzipDecoder:
    """One gzip member (RFC 1952), piece by piece."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP)

    def decode(self, data: bytes, bytes_max: int) -> bytes:
        """*data* decoded, at most *bytes_max* bytes: a bomb costs no more than its fuse.

        :raises MessageTooLarge: there would be more.
        :raises ProtocolError: it is not gzip, or something follows the end.
        """
        if self._zlib.eof and data:
            raise ProtocolError("the response's body goes on after the end of its gzip data")
        try:
            # One byte more than allowed tells "exactly full" from "too much".
            plain = self._zlib.decompress(data, bytes_max + 1)
        except zlib.error as exc:
            raise ProtocolError(f"the response's body is not gzip: {exc}") from exc
        if len(plain) > bytes_max:
            raise body_too_large(bytes_max)
        if self._zlib.unused_data:
            raise ProtocolError("the response's body goes on after the end of its gzip data")
        return plain

    def finish(self) -> None:
        """The body has ended.

        :raises ProtocolError: but its gzip data has not.
        """
        if not self._zlib.eof:
            raise ProtocolError("the response's body ends within its gzip data")


def decoder_for(content_encoding: str | None) -> GzipDecoder | None:
    """The decoder for a ``Content-Encoding``, ``None`` where nothing is to be undone.

    :raises ProtocolError: any coding that we did not ask for.
    """
    coding = (content_encoding or "").strip().lower()
    if coding in {"", "identity"}:
        return None
    if coding in {"gzip", "x-gzip"}:
        return GzipDecoder()
    raise ProtocolError(f"the response has the content coding {coding[:40]!r}, not gzip")


def body_too_large(bytes_max: int) -> MessageTooLarge:
    """The error for a body that is larger, decoded, than allowed."""
    return MessageTooLarge(
        f"the response's body is larger than {bytes_max} bytes", limit_bytes=bytes_max
    )
