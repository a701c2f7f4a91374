"""Retry-After in all its forms (RFC 9110, sections 5.6.7 and 10.2.3)."""

from __future__ import annotations

import pytest

from sark_trio.machines.retry_after import parse_retry_after

#: Sun, 06 Nov 1994 08:49:37 GMT, the example of the RFC.
AT = 784_111_777.0


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["120"], 120.0),
        (["0"], 0.0),
        ([" 7\t"], 7.0),
        (["000000000000000000007"], 7.0),
        (["9" * 5_000], 1e9),
        (["999999999"], 999_999_999.0),
        (["1000000000000"], 1e9),
        (["Sun, 06 Nov 1994 08:49:37 GMT"], 10.0),
        (["Sunday, 06-Nov-94 08:49:37 GMT"], 10.0),
        (["Sun Nov  6 08:49:37 1994"], 10.0),
        (["Fri, 31 Dec 9999 23:59:59 GMT"], 1e9),
        (["Sun, 06 Nov 1994 08:49:00 GMT"], 0.0),
        (["Thu, 01 Jan 1970 00:00:00 GMT"], 0.0),
        # A two-digit year more than 50 years ahead is in the century before.
        (["Friday, 06-Nov-44 08:49:37 GMT"], 1e9),
        (["Sunday, 06-Nov-45 08:49:37 GMT"], 0.0),
        (["5", "30", "10"], 30.0),
        (["-5", "garbage", "10"], 10.0),
        (["10", "Sun, 06 Nov 1994 08:49:37 GMT"], 10.0),
    ],
)
def test_what_says_something_is_heard(values: list[str], seconds: float) -> None:
    assert parse_retry_after(values, AT - 10) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "+1", "~7", "1.5", "1e3", "1_000", "soon", "5, 10", "٣", "²", "inf", "nan"),
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Now 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT; Sun, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_garbage_is_not_heard(value: str) -> None:
    assert parse_retry_after([value], AT) is None


@pytest.mark.parametrize(
    ("wall_now", "seconds"),
    [
        (12_622_780_800.0, 1e9),  # the first second of 2370: the year 20 is 2420
        (12_622_780_799.0, 0.0),  # the last one of 2369: it is 2320
        (-1.0, 0.0),  # the last one of 1969: it is 1920
    ],
)
def test_a_century_turns_with_the_year(wall_now: float, seconds: float) -> None:
    assert parse_retry_after(["Wednesday, 01-Jan-20 00:00:00 GMT"], wall_now) == seconds


def test_no_value_says_nothing() -> None:
    assert parse_retry_after([], AT) is None
