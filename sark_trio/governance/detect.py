"""Where secrets and personal data stand in a text: one finder for each kind.

White. Every finder is linear in the text: expressions are bounded or possessive, and what needs
an unbounded search looks for fixed words. A finder yields spans in order; checks that only
arithmetic can make (Luhn, ISO 7064) are made here, so that a number is not called a card because
it is long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

__all__ = ["PATTERNS", "find"]

Span = tuple[int, int]
Finder = Callable[[str], Iterable[Span]]

# RFC 5321 4.5.3.1: local part 64, domain 255 octets; labels 63 (RFC 1035 2.3.4).
_LOCAL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]")
_DOMAIN: Final = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}")
_CARD: Final = re.compile(
    # Looked for at every place: a year before a card must not hide the card.
    r"(?<!\d)(?=(\d{13,19}+(?!\d)"
    r"|\d{4}([ -])\d{4}\2\d{4}\2\d{4}(?:\2\d{3})?(?!\d)"
    r"|\d{4}([ -])\d{6}\3\d{4,5}(?!\d)))"
)
_SSN: Final = re.compile(r"(?<!\d)(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?!\d)")
_PHONE: Final = re.compile(
    r"\+\d(?:[ .()/-]{0,2}+\d){7,14}+(?!\d)"
    r"|(?<![\d+])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\d)"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}+))")
_AWS_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}(?![A-Z0-9])"
)
_BEARER: Final = re.compile(r"(?i)\bbearer[ \t]{1,8}+[A-Za-z0-9._~+/-]{16,}+={0,2}+")
_JWT: Final = re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+")
_KEY_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")

#: ISO 13616 registry: countries by the length of their IBANs.
_IBAN_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_CHARS: Final = {
    code: size for size, codes in _IBAN_COUNTRIES.items() for code in codes.split()
}


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    floor = 0
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None:
            start = at
            while start > max(floor, at - 64) and _LOCAL.match(text, start - 1):
                start -= 1
            if start < at:
                floor = domain.end()
                yield start, floor
        at = text.find("@", max(at + 1, floor))


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        if _luhn(match[1]):
            yield match.span(1)


def _luhn(number: str) -> bool:
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    doubled = (d * 2 - 9 if d > 4 else d * 2 for d in digits[1::2])
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        start, last = match.span(1)
        missing = _IBAN_CHARS.get(text[start : start + 2].upper(), math.inf)
        end = start
        while missing and end < last:
            missing -= text[end] != " "
            end += 1
        if not missing and not text[end : end + 1].isalnum() and _mod97(text[start:end]):
            yield start, end


def _mod97(iban: str) -> bool:
    """ISO 7064 MOD 97-10, as ISO 13616 uses it."""
    plain = iban.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _private_keys(text: str) -> Iterator[Span]:
    begin = _KEY_BEGIN.search(text)
    while begin is not None:
        end = _KEY_END.search(text, begin.end())
        if end is None:  # cut short: what follows is still key
            yield begin.start(), len(text)
            return
        yield begin.start(), end.end()
        begin = _KEY_BEGIN.search(text, end.end())


def _by(expression: re.Pattern[str], *words: str) -> Finder:
    """Finds of *expression*; looked for only where one of *words* (any case) stands at all."""

    def finder(text: str) -> Iterator[Span]:
        if words:
            lower = text.lower()
            if not any(word in lower for word in words):
                return
        for match in expression.finditer(text):
            yield match.span()

    return finder


#: Every kind by name, in the order in which overlapping finds are named.
PATTERNS: Final[dict[str, Finder]] = {
    "private_key": _private_keys,
    "bearer": _by(_BEARER, "bearer"),
    "jwt": _by(_JWT, "eyj"),
    "aws_key": _by(_AWS_KEY, "akia", "asia", "agpa", "aida", "aroa"),
    "email": _emails,
    "iban": _ibans,
    "credit_card": _cards,
    "us_ssn": _by(_SSN),
    "phone": _by(_PHONE),
}


def find(text: str, kinds: Iterable[str]) -> list[tuple[int, int, str]]:
    """Disjoint spans of *text*, in order, with the kind that names each.

    Spans that overlap become one, so that no end of a secret is left beside another's mark.
    """
    order = {kind: rank for rank, kind in enumerate(PATTERNS)}
    spans = sorted(
        (start, end, order[kind]) for kind in kinds for start, end in PATTERNS[kind](text)
    )
    names = list(PATTERNS)
    merged: list[tuple[int, int, int]] = []
    for start, end, rank in spans:
        if merged and start < merged[-1][1]:
            first, last, best = merged[-1]
            merged[-1] = (first, max(last, end), min(best, rank))
        else:
            merged.append((start, end, rank))
    return [(start, end, names[rank]) for start, end, rank in merged]
