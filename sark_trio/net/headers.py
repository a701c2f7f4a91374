"""What a header may hold, and what one header says; for every HTTP client of ours."""

from __future__ import annotations

import re
import time
from typing import Final

from sark_trio.machines.retry_after import parse_retry_after
from sark_trio.net.framing import ResponseHead

__all__ = ["can_be_sent", "retry_after_s"]

#: RFC 9110, sections 5.6.2 and 5.5; of the latter only what is ASCII.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")


def can_be_sent(name: str, value: str) -> bool:
    """Whether a header can be sent as it is: nothing folded, trimmed or injected."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value))


def retry_after_s(head: ResponseHead) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3), if it does."""
    values = [value.decode("latin-1") for name, value in head.headers if name == b"retry-after"]
    return parse_retry_after(values, time.time()) if values else None
