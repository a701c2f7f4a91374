"""The Retry-After header: RFC 9110, section 10.2.3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import mktime_tz
from typing import Final

__all__ = ["parse_retry_after"]

#: Longer numbers mean the same: not in the life of this process.
_DIGITS_MAX: Final = 9
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_MONTH = f"(?P<month>{'|'.join(re.findall('...', _MONTHS))})"
_CLOCK = "(?P<clock>[0-2][0-9]:[0-5][0-9]:[0-6][0-9])"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
#: RFC 9110, section 5.6.7: senders use the first form, recipients must know all three.
_DATES: Final = tuple(
    re.compile(form)
    for form in (
        rf"{_DAY}, (?P<day>[0-3][0-9]) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT",
        rf"[MTWFS][a-z]{{2,5}}day, (?P<day>[0-3][0-9])-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ 0-3][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})",
    )
)
_YEAR_S: Final = 31_556_952


def parse_retry_after(values: Sequence[str], wall_now: float) -> float | None:
    """Seconds to wait, from all values of the header: the longest counts, garbage does not.

    :param wall_now: seconds since the epoch, for values that are dates; past ones are 0.
    :return: ``None`` if no value says anything. Clamped to 10**9 seconds.
    """
    parsed = (_seconds(value.strip(" \t"), wall_now) for value in values)
    return max((seconds for seconds in parsed if seconds is not None), default=None)


def _seconds(value: str, wall_now: float) -> float | None:
    if value.isascii() and value.isdigit():
        digits = value.lstrip("0")
        return float(digits or 0) if len(digits) <= _DIGITS_MAX else 10.0**_DIGITS_MAX
    for form in _DATES:
        if (match := form.fullmatch(value)) is not None:
            at = _epoch(match, wall_now)
            return None if at is None else min(max(0.0, at - wall_now), 10.0**_DIGITS_MAX)
    return None


def _epoch(match: re.Match[str], wall_now: float) -> float | None:
    year, month = int(match["year"]), _MONTHS.index(match["month"]) // 3 + 1
    if len(match["year"]) == 2:
        year = _century(year, wall_now)
    hour, minute, second = map(int, match["clock"].split(":"))
    try:
        return float(mktime_tz((year, month, int(match["day"]), hour, minute, second, 0, 1, -1, 0)))
    except (ValueError, OverflowError):
        return None


def _century(year: int, wall_now: float) -> int:
    """RFC 9110, section 5.6.7: the latest such year that is not more than 50 years ahead."""
    latest = 1970 + int(wall_now // _YEAR_S) + 50
    return latest - (latest - year) % 100
