from __future__ import annotations

import pytest

from sark_trio.auth.challenge import (
    CHALLENGES_MAX,
    HEADER_CHARS_MAX,
    Challenge,
    Challenged,
    oauth_challenge,
    parse_challenges,
)

URL = "https://mcp.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("  ,, ", []),
        ("Bearer", [("bearer", {})]),
        ("Bearer ", [("bearer", {})]),
        (f'Bearer resource_metadata="{URL}"', [("bearer", {"resource_metadata": URL})]),
        (f"Bearer resource_metadata={URL}", [("bearer", {"resource_metadata": URL})]),
        ('bEARER Scope="a b",  ERROR=x', [("bearer", {"scope": "a b", "error": "x"})]),
        ('Bearer a = "b" , c="d"', [("bearer", {"a": "b", "c": "d"})]),
        (r'Bearer realm="a \"b\", c=d\\"', [("bearer", {"realm": r'a "b", c=d\ '[:-1]})]),
        (
            'Basic realm="x", Bearer scope="y"',
            [("basic", {"realm": "x"}), ("bearer", {"scope": "y"})],
        ),
        ("Negotiate, Bearer", [("negotiate", {}), ("bearer", {})]),
        ("Negotiate a87421000492aa==, Bearer a=b", [("negotiate", {}), ("bearer", {"a": "b"})]),
        ("Bearer a=1, a=2", [("bearer", {"a": "1"})]),
        ('a=b, Bearer c="d"', [("bearer", {"c": "d"})]),
        ('Bearer scope="open', [("bearer", {})]),
        ('@@@, Bearer a="b"', [("bearer", {"a": "b"})]),
        ('Bearer a="b" junk, c="d"', [("bearer", {"c": "d"})]),
    ],
)
def test_challenges_are_read(value: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([value]) == tuple(Challenge(*each) for each in expected)


def test_values_are_bounded() -> None:
    assert parse_challenges(["Bearer " + "x" * HEADER_CHARS_MAX, "DPoP"]) == (Challenge("dpop"),)
    assert len(parse_challenges(["Bearer"] * 100)) == CHALLENGES_MAX


def test_the_challenge_with_metadata_is_ours() -> None:
    basic, bearer = Challenge("basic"), Challenge("bearer", {"scope": ""})
    dpop = Challenge("dpop", {"resource_metadata": URL})
    assert oauth_challenge([basic, bearer, dpop]) is dpop
    assert oauth_challenge([basic, bearer]) is bearer
    assert oauth_challenge([basic]) is None
    assert bearer.get("scope") is None


@pytest.mark.parametrize(
    ("status", "value", "reason"),
    [
        (401, "Basic", "unauthorized"),
        (401, 'DPoP error="use_dpop_nonce"', "dpop_nonce"),
        (403, 'Bearer error="insufficient_scope"', "insufficient_scope"),
    ],
)
def test_a_refusal_has_one_word(status: int, value: str, reason: str) -> None:
    told = Challenged(status=status, www_authenticate=(value,))
    assert told.reason == reason
    assert told.challenge.scheme in {"bearer", "dpop"}
