from __future__ import annotations

from typing import Any

import pytest

from sark_trio.governance.obligations import (
    LimitResult,
    RequireApproval,
    apply_obligations,
    approval_wanted,
    parse_obligations,
    strip_parameters,
)

REDACT = {"type": "redact_result", "keys": ["ssn"], "patterns": ["email"]}
STRIP = {"type": "strip_parameters", "paths": ["/a/*/secret"]}
LIMIT = {"type": "limit_result", "bytes_max": 100}


def test_none_is_none() -> None:
    assert parse_obligations(None) == ()
    assert parse_obligations([]) == ()


@pytest.mark.parametrize(
    "obligations",
    [
        {},
        "redact_result",
        [REDACT] * 65,
        [None],
        [{}],
        [{"type": ["redact_result"]}],
        [{"type": "notify"}],
        [{"type": "redact_result"}],
        [{**REDACT, "keys": [1]}],
        [{**REDACT, "patterns": ["unknown"]}],
        [{**REDACT, "more": 1}],
        [{"type": "strip_parameters"}],
        [{"type": "strip_parameters", "paths": ["a"]}],
        [{"type": "strip_controls", "only": "bidi"}],
        [{"type": "limit_result"}],
        [{"type": "limit_result", "bytes_max": 1.5}],
        [{"type": "limit_result", "bytes_max": True}],
        [{"type": "limit_result", "bytes_max": -1}],
        [{"type": "require_approval", "message": None}],
        [{"type": "require_approval", "message": "x" * 1025}],
        [{"type": "require_approval", "by": "boss"}],
    ],
)
def test_what_is_not_understood_is_refused(obligations: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_obligations(obligations)


def test_one_word_is_enough_and_takes_nothing_away() -> None:
    both = parse_obligations(
        [REDACT, {"type": "require_approval", "message": "why"}, {"type": "require_approval"}]
    )
    assert approval_wanted(both) == RequireApproval("why")
    assert approval_wanted(both[:1]) is None
    assert apply_obligations({"content": []}, both[1:]).value == {"content": []}
    assert strip_parameters({"a": 1}, both).arguments == {"a": 1}


def test_parsing_does_not_consume_its_input() -> None:
    parse_obligations([REDACT])
    assert set(REDACT) == {"type", "keys", "patterns"}


def test_parameters_are_stripped() -> None:
    filtered = strip_parameters(
        {"a": {"x": {"secret": 1, "y": 2}}, "ssn": 1}, parse_obligations([REDACT, STRIP, LIMIT])
    )
    assert filtered.arguments == {"a": {"x": {"y": 2}}, "ssn": 1}
    assert filtered.removed == ("/a/x/secret",)


@pytest.mark.security(17)
def test_results_are_redacted_first_and_measured_last() -> None:
    obligations = parse_obligations([LIMIT, STRIP, REDACT])
    result = {"structuredContent": {"ssn": "x" * 200}}
    redacted = apply_obligations(result, obligations)
    assert redacted.value == {"structuredContent": {"ssn": "[redacted:key]"}}
    assert redacted.counts == (("key", 1),)
    large = apply_obligations({"content": [{"type": "text", "text": "x" * 200}]}, obligations)
    assert large.counts == (("withheld", 1),)


def test_a_limit_may_be_zero() -> None:
    assert LimitResult(0).bytes_max == 0


@pytest.mark.security(17)
def test_what_hides_a_secret_from_redaction_is_taken_out_first() -> None:
    result = {"content": [{"type": "text", "text": "ann\u200b@example.com \x1b[8mhidden\x1b[0m"}]}
    obligations = parse_obligations([REDACT, LIMIT, {"type": "strip_controls"}])
    shown = apply_obligations(result, obligations)
    assert shown.value["content"][0]["text"] == "[redacted:email] hidden"
    assert shown.counts == (("control", 1), ("email", 1))


def test_lists_and_words_are_as_long_as_is_allowed() -> None:
    assert len(parse_obligations([LIMIT] * 64)) == 64
    (asked,) = parse_obligations([{"type": "require_approval", "message": "x" * 1024}])
    assert asked == RequireApproval("x" * 1024)


def test_whoever_approves_need_not_be_told_why() -> None:
    assert parse_obligations([{"type": "require_approval"}]) == (RequireApproval(""),)
    assert RequireApproval() == RequireApproval("")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"type": "strip_parameters"}, "^paths must be a list of texts$"),
        ({**REDACT, "keys": "ssn"}, "^keys must be a list of texts$"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_obligations([wrong])
