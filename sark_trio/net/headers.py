"""What a header may hold, and what one header says; for every HTTP client of ours."""

from __future__ import annotations

import re
import time
from typing import Final

from sark_trio.errors import InvalidArguments
from sark_trio.machines.retry_after import parse_retry_after
from sark_trio.net.framing import ResponseHead

__all__ = ["api_key_header", "bearer_header", "can_be_sent", "retry_after_s"]

#: RFC 9110, sections 5.6.2 and 5.5; of the latter only what is ASCII.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")


def can_be_sent(name: str, value: str) -> bool:
    """Whether a header can be sent as it is: nothing folded, trimmed or injected."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value))


def api_key_header(api_key: str) -> tuple[bytes, bytes]:
    """``X-API-Key``, by which a gateway or a registry knows us.

    :raises ValueError: the key cannot be sent.
    """
    if _VISIBLE.fullmatch(api_key) is None:
        raise ValueError("api_key must be visible ASCII characters")
    return b"X-API-Key", api_key.encode("ascii")


def bearer_header(token: str) -> tuple[bytes, bytes]:
    """``Authorization``, by which it knows a user.

    :raises InvalidArguments: the token cannot be sent.
    """
    if _VISIBLE.fullmatch(token) is None:
        raise InvalidArguments("the user's token cannot be sent in a header")
    return b"Authorization", b"Bearer " + token.encode("ascii")


def retry_after_s(head: ResponseHead) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3), if it does."""
    values = [value.decode("latin-1") for name, value in head.headers if name == b"retry-after"]
    return parse_retry_after(values, time.time()) if values else None
