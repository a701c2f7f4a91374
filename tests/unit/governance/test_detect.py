from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.governance import detect
from sark_trio.governance.detect import PATTERNS, find

KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "mail bob@example.com.", ["bob@example.com"]),
        ("email", "<a.b+c@x.co.uk>,d@e.org", ["a.b+c@x.co.uk", "d@e.org"]),
        ("email", "jürgen@müller.example", ["jürgen@müller.example"]),
        ("email", "@ a@ @b.com a@b @@", []),
        ("email", "@ bob@example.com", ["bob@example.com"]),
        ("email", "x" * 70 + "@example.com", ["x" * 64 + "@example.com"]),
        ("credit_card", "card 4111111111111111.", ["4111111111111111"]),
        ("credit_card", "2024 4111 1111 1111 1111", ["4111 1111 1111 1111"]),
        ("credit_card", "5-4111-1111-1111-1111", ["4111-1111-1111-1111"]),
        ("credit_card", "3782 822463 10005", ["3782 822463 10005"]),
        ("credit_card", "5555 5555 5555 4444", ["5555 5555 5555 4444"]),
        ("credit_card", "4111111111111112 0000000000000000 14111111111111111111111", []),
        ("us_ssn", "078-05-1120 078 05 1121", ["078-05-1120", "078 05 1121"]),
        ("us_ssn", "000-12-3456 666-12-3456 900-12-3456 123-00-4567 1078-05-1120", []),
        ("iban", "to DE89 3704 0044 0532 0130 00 is", ["DE89 3704 0044 0532 0130 00"]),
        ("iban", "AB12 pay GB82WEST12345698765432 now", ["GB82WEST12345698765432"]),
        ("iban", "DE88370400440532013000 DE893704004405320130001 ZZ89370400440532013000", []),
        ("iban", "DE89 3704 0044 053", []),
        ("phone", "+49 (30) 1234-5678 or (555) 123-4567", ["+49 (30) 1234-5678", "(555) 123-4567"]),
        ("phone", "555-123-4567", ["555-123-4567"]),
        ("phone", "+1 2 1234567890123456789 12345", []),
        ("aws_key", "id=AKIAIOSFODNN7EXAMPLE;", ["AKIAIOSFODNN7EXAMPLE"]),
        ("aws_key", "XAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPLEX", []),
        ("bearer", "Authorization: Bearer abcdefghijklmnop==", ["Bearer abcdefghijklmnop=="]),
        ("bearer", "the bearer of news", []),
        ("jwt", f"t={JWT}!", [JWT]),
        ("jwt", "eyJhbGciOiJI.x.y eyJ", []),
        ("private_key", f"a{KEY}b", [KEY]),
        ("private_key", "x-----BEGIN PRIVATE KEY-----\nMII", ["-----BEGIN PRIVATE KEY-----\nMII"]),
        ("private_key", f"{KEY}{KEY}", [KEY + KEY]),
    ],
)
def test_find(kind: str, text: str, found: list[str]) -> None:
    spans = find(text, [kind])
    assert "".join(text[start:end] for start, end, _ in spans) == "".join(found)
    assert len(spans) == (2 if found == [KEY + KEY] else len(found))


def test_what_overlaps_becomes_one() -> None:
    text = f"Bearer {JWT} bob@example.com"
    assert find(text, PATTERNS) == [
        (0, 7 + len(JWT), "bearer"),
        (8 + len(JWT), len(text), "email"),
    ]


def test_what_lies_inside_another_does_not_shorten_it() -> None:
    text = f"Bearer {JWT}+tail/of+the+secret end"
    assert find(text, PATTERNS) == [(0, len(text) - 4, "bearer")]


def test_what_begins_inside_another_makes_it_longer() -> None:
    text = "+49 30 1234567@example.com"
    assert [(text[a:b], kind) for a, b, kind in find(text, ["phone"])] == [(text[:14], "phone")]
    assert find(text, PATTERNS) == [(0, len(text), "email")]


@pytest.mark.parametrize("prefix", ["AKIA", "ASIA", "AGPA", "AIDA", "AROA"])
def test_every_kind_of_aws_key_is_found(prefix: str) -> None:
    key = f"{prefix}IOSFODNN7EXAMPLE"
    assert find(f"id={key};", ["aws_key"]) == [(3, 23, "aws_key")]


#: Characters of an IBAN by country, as ISO 13616's registry lists them.
IBAN_CHARS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18
    DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23
    IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27
    MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19
    SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""


def iban(country: str, size: int) -> str:
    """One whose check digits are right (ISO 7064, MOD 97-10)."""
    account = "1" * (size - 4)
    check = 98 - int("".join(str(int(c, 36)) for c in f"{account}{country}00")) % 97
    return f"{country}{check:02}{account}"


def test_an_iban_is_exactly_as_long_as_its_country_has_it() -> None:
    for each in IBAN_CHARS.split():
        country, size = each[:2], int(each[2:])
        assert find(iban(country, size), ["iban"]) == [(0, size, "iban")], country
        for other in (size - 1, size + 1):
            assert find(iban(country, other), ["iban"]) == [], country


@pytest.mark.parametrize("before", ["", " ", "to "])
def test_an_iban_of_no_country_is_none_wherever_it_stands(before: str) -> None:
    assert find(before + iban("ZZ", 22), ["iban"]) == []
    assert find(before + iban("DE", 22), ["iban"]) == [(len(before), len(before) + 22, "iban")]


@given(
    text=st.text(alphabet="aA1@.- +eyJ_=4", max_size=80),
    kinds=st.sets(st.sampled_from([*PATTERNS])),
)
def test_spans_are_disjoint_ordered_and_inside(text: str, kinds: set[str]) -> None:
    done = 0
    for start, end, kind in find(text, kinds):
        assert done <= start < end <= len(text)
        assert kind in kinds
        done = end


def _unbounded_inside(tokens: Any, *, repeated: bool = False) -> bool:
    """Does an unbounded repetition stand inside another repetition?"""
    for op, argument in tokens:
        name = str(op)
        if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            _, most, below = argument
            if repeated and most == parser.MAXREPEAT:
                return True
            if _unbounded_inside(below, repeated=repeated or most > 1):
                return True
        elif (
            (name == "SUBPATTERN" and _unbounded_inside(argument[3], repeated=repeated))
            or (
                name == "BRANCH"
                and any(_unbounded_inside(t, repeated=repeated) for t in argument[1])
            )
            or (
                name in {"ASSERT", "ASSERT_NOT"}
                and _unbounded_inside(argument[1], repeated=repeated)
            )
        ):
            return True
    return False


def _backtracks_without_bound(tokens: Any) -> bool:
    return any(
        str(op) in {"MAX_REPEAT", "MIN_REPEAT"} and argument[1] == parser.MAXREPEAT
        for op, argument in tokens
    )


def test_no_expression_repeats_without_bound_inside_a_repetition() -> None:
    expressions = [value for value in vars(detect).values() if isinstance(value, re.Pattern)]
    assert len(expressions) >= 9
    for expression in expressions:
        tokens = parser.parse(expression.pattern, expression.flags)
        assert not _unbounded_inside(tokens), expression.pattern
        assert not _backtracks_without_bound(tokens), expression.pattern
    assert _unbounded_inside(parser.parse("(a+)+"))
    assert _backtracks_without_bound(parser.parse("a+b"))
