"""What a header may hold, and how long a server asks to wait."""

from __future__ import annotations

import pytest

from sark_trio.errors import InvalidArguments
from sark_trio.net.framing import ResponseHead
from sark_trio.net.headers import api_key_header, bearer_header, can_be_sent, retry_after_s


@pytest.mark.parametrize(
    ("name", "value", "sendable"),
    [
        ("X-Key", "abc", True),
        ("X-Key", "a b\tc", True),
        ("X-Key", "", True),
        ("X-Key", " a", False),
        ("X-Key", "a ", False),
        ("X-Key", "a\r\nEvil: 1", False),
        ("X-Key", "a\n", False),
        ("X-Key", "a\0", False),
        ("X-Key", "é", False),
        ("X Key", "a", False),
        ("X:", "a", False),
        ("X-Key\n", "a", False),
        ("", "a", False),
    ],
)
def test_a_header_is_sent_as_it_is_or_not_at_all(name: str, value: str, sendable: bool) -> None:
    assert can_be_sent(name, value) is sendable


@pytest.mark.parametrize(
    ("values", "seconds"),
    [((), None), ((b"7",), 7.0), ((b"7", b"9"), 9.0), ((b"soon",), None), ((b"-1",), None)],
)
def test_the_server_says_how_long_to_wait(values: tuple[bytes, ...], seconds: float | None) -> None:
    head = ResponseHead(503, tuple((b"retry-after", value) for value in values))
    assert retry_after_s(head) == seconds


@pytest.mark.parametrize("secret", ["", "a b", "a\r\nEvil: 1", "\u00e9"])
def test_credentials_that_cannot_be_sent_are_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="api_key must be visible ASCII") as key:
        api_key_header(secret)
    with pytest.raises(InvalidArguments, match="token cannot be sent") as token:
        bearer_header(secret)
    assert token.value.delivery == "not_sent"
    assert not secret or (secret not in str(key.value) and secret not in str(token.value))
    assert api_key_header("k3y") == (b"X-API-Key", b"k3y")
    assert bearer_header("t0k") == (b"Authorization", b"Bearer t0k")
