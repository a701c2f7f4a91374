from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.governance.redact import PATTERN_NAMES, Redactor, cap_result
from tests.support.json_values import any_json, small_json


def test_content_and_structured_content_alike() -> None:
    rows = {"user": {"name": "Bob", "ssn": "078-05-1120"}, "note": "mail bob@example.com"}
    result = {
        "content": [
            {"type": "text", "text": json.dumps(rows)},
            {"type": "text", "text": "call +49 30 12345678 or bob@example.com"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "eve@example.com"}},
            {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
        ],
        "structuredContent": rows,
        "isError": True,
    }
    redactor = Redactor(paths=["/user/name"], keys=["SSN"], patterns=["email", "phone"])
    redacted = redactor.result(result)
    masked = {
        "user": {"name": "[redacted:path]", "ssn": "[redacted:key]"},
        "note": "mail [redacted:email]",
    }
    assert redacted.value == {
        "content": [
            {"type": "text", "text": json.dumps(masked, separators=(",", ":"))},
            {"type": "text", "text": "call [redacted:phone] or [redacted:email]"},
            {
                "type": "resource",
                "resource": {"uri": "file:///a", "text": "[redacted:email]"},
            },
            {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
        ],
        "structuredContent": masked,
        "isError": True,
    }
    assert dict(redacted.counts) == {"path": 2, "key": 2, "email": 4, "phone": 1}
    assert result["structuredContent"] == rows


def test_a_key_in_content_is_met_too() -> None:
    redacted = Redactor(keys=["owner"]).result({"_meta": {"Owner": "bob"}, "content": []})
    assert redacted.value == {"_meta": {"Owner": "[redacted:key]"}, "content": []}


def test_only_what_is_binary_is_left_alone() -> None:
    octets = "AKIAIOSFODNN7EXAMPLE"  # Base64, and an accident
    blocks = [
        {"type": "audio", "data": octets},
        {"type": "image", "data": octets},
        {"type": "text", "text": "", "data": octets},
        {"type": "resource", "resource": {"uri": "file:///a", "blob": octets}},
        {"blob": octets, "_meta": {"data": octets, "mimeType": octets}},
    ]
    redacted = Redactor(patterns=["aws_key"]).result({"content": blocks})
    assert dict(redacted.counts) == {"aws_key": 4}
    assert redacted.value["content"][0] == blocks[0]
    assert redacted.value["content"][1] == blocks[1]
    assert redacted.value["content"][3] == blocks[3]


@pytest.mark.parametrize("data", ["aGVs\r\nbG8=\r\n", "aGVsbG8", "a-b_", "aa==", ""])
def test_every_spelling_of_base64_is_binary(data: str) -> None:
    result = {"content": [{"type": "image", "data": data}]}
    assert Redactor(keys=["ssn"], patterns=["email"]).result(result).value == result


@pytest.mark.parametrize(
    "data",
    ["bob@example.com", {"ssn": "1"}, [{"ssn": "1"}], '{"ssn":"1"}', "aGVsbG8= bob@example.com"],
)
@pytest.mark.parametrize("block", [{"type": "image"}, {"type": "audio"}, {"uri": "file:///a"}])
def test_what_is_no_base64_is_not_binary_wherever_it_stands(
    block: dict[str, Any], data: Any
) -> None:
    member = "blob" if "uri" in block else "data"
    redacted = Redactor(keys=["ssn"], patterns=["email"]).result({"x": {**block, member: data}})
    assert dict(redacted.counts) in ({"email": 1}, {"key": 1})
    assert redacted.value["x"][member] != data


def test_a_name_that_stands_twice_in_a_text_hides_nothing() -> None:
    text = '{"note":"bob@example.com","note":"ok"}'
    assert Redactor(keys=["x"], patterns=["email"]).text(text).value == (
        '{"note":"[redacted:email]","note":"ok"}'
    )


def test_texts_that_only_look_like_json() -> None:
    redactor = Redactor(keys=["x"], patterns=["email"])
    assert redactor.text("[note] bob@example.com").value == "[note] [redacted:email]"
    assert redactor.text('{"n": "\\ud800 a@x.org"}').value == '{"n": "\\ud800 [redacted:email]"}'


def test_escapes_hide_nothing() -> None:
    text = '{"note": "bob\\u0040example.com"}'
    redacted = Redactor(keys=["x"], patterns=["email"]).text(text)
    assert redacted.value == '{"note":"[redacted:email]"}'


def test_names_and_numbers_are_data() -> None:
    value = {"a@x.org": 1, "b@x.org": 2, "[redacted:email]#1": 3, "card": 4111111111111111, "n": 12}
    redacted = Redactor(patterns=["email", "credit_card"]).value(value)
    assert redacted.value == {
        "[redacted:email]": 1,
        "[redacted:email]#2": 2,
        "[redacted:email]#1": 3,
        "card": "[redacted:credit_card]",
        "n": 12,
    }
    assert redacted.counts == (("credit_card", 1), ("email", 2))


def test_the_shortest_card_is_one_without_quotes_too() -> None:
    redactor = Redactor(patterns=["credit_card"])
    value = [1_000_000_000_009, -4_222_222_222_222, 999_999_999_991, 1.0, True, None]
    card = "[redacted:credit_card]"
    assert redactor.value(value).value == [card, f"-{card}", *value[2:]]


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_values_are_read_as_deep_as_any_value_of_ours_may_be(wrap: Any) -> None:
    redactor = Redactor(keys=["ssn"], patterns=["email"])
    deep: Any = "bob@example.com"
    for _ in range(64):
        deep = wrap(deep)
    for redact in (
        redactor.value,
        lambda value: redactor.result({"structuredContent": value}),
        lambda value: redactor.result({"content": value}),
    ):
        assert dict(redact(deep).counts) == {"email": 1}
        assert dict(redact(wrap(deep)).counts) == {"depth": 1}


def test_a_text_is_read_as_json_only_where_a_rule_asks_for_names() -> None:
    text = '{"a" : "bob@example.com", "ssn" : [ 1 ]}'
    masked = text.replace("bob@example.com", "[redacted:email]")
    assert Redactor(patterns=["email"]).text(text).value == masked
    both = '{"a":"[redacted:email]","ssn":"[redacted:key]"}'
    assert Redactor(keys=["ssn"], patterns=["email"]).text(text).value == both
    assert Redactor(paths=["/ssn"]).text(text).counts == (("path", 1),)
    assert Redactor(keys=["ssn"]).text(' \n[{"ssn":1}]').value == '[{"ssn":"[redacted:key]"}]'
    # What was not touched is not written anew.
    assert Redactor(keys=["other"]).text(text).value == text


def test_a_value_too_deep_to_read_is_masked() -> None:
    deep: Any = "bob@example.com"
    for _ in range(80):
        deep = [deep]
    for redacted in (
        Redactor(patterns=["email"]).value(deep),
        Redactor(patterns=["email"]).result({"content": deep}),
    ):
        assert redacted.counts == (("depth", 1),)
        assert "bob" not in str(redacted.value)


def test_no_rule_changes_nothing() -> None:
    result = {"content": [{"type": "text", "text": '{"a": 1}'}], "structuredContent": {"a": [1.5]}}
    redacted = Redactor().result(result)
    assert (redacted.value, redacted.counts) == (result, ())


@pytest.mark.parametrize(
    "rules",
    [
        {"paths": ["a"]},
        {"keys": "ssn"},
        {"keys": [1]},
        {"keys": [str(i) for i in range(1_001)]},
        {"patterns": ["nope"]},
        {"patterns": ["email, iban"]},
    ],
)
def test_bad_rules_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"path|keys|pattern"):
        Redactor(**rules)


def test_rules_are_as_many_as_are_allowed_and_are_told_in_words() -> None:
    assert len(Redactor(keys=[str(i) for i in range(1_000)]).keys) == 1_000
    with pytest.raises(
        ValueError, match="no pattern is called 'nope'; there are aws_key, bearer, "
    ):
        Redactor(patterns=["nope"])


def test_neither_rules_nor_results_are_shown() -> None:
    redactor = Redactor(paths=["/hunter2"], patterns=["email"])
    assert "hunter2" not in repr(redactor) + repr(redactor.text("hunter2"))


def test_one_pattern_may_be_a_text() -> None:
    assert Redactor(patterns="email") == Redactor(patterns=["email"])


def test_no_rule_is_the_same_however_it_is_said() -> None:
    assert Redactor() == Redactor(paths=[], keys=[], patterns=[])


def test_results_over_the_limit_are_withheld_whole() -> None:
    small = {"content": []}
    assert cap_result(small, 14).value is small
    withheld = cap_result(small, 13)
    said = "[withheld: a result of 14 bytes, 13 are allowed]"
    assert withheld.value == {"content": [{"type": "text", "text": said}], "isError": True}
    assert withheld.counts == (("withheld", 1),)
    unsendable = cap_result({"a": "\ud800"}, 100)
    assert unsendable.counts == (("withheld", 1),)
    assert unsendable.value["content"][0]["text"] == "[withheld: the result is not JSON]"


CANARIES = {
    "email": "canary@example.com",
    "credit_card": "4111 1111 1111 1111",
    "us_ssn": "078-05-1120",
    "iban": "DE89 3704 0044 0532 0130 00",
    "phone": "+49 30 12345678",
    "aws_key": "AKIAIOSFODNN7EXAMPLE",
    "bearer": "Bearer abcdefghijklmnopqrst",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----",
}


@pytest.mark.security(7)
@given(
    kind=st.sampled_from(sorted(CANARIES)),
    before=small_json(),
    where=st.lists(st.sampled_from(["list", "member", "name", "json"]), max_size=4),
)
def test_no_canary_survives_wherever_it_stands(kind: str, before: Any, where: list[str]) -> None:
    value: Any = f"a {CANARIES[kind]} b"
    for place in where:
        if place == "list":
            value = [before, value]
        elif place == "member":
            value = {"a": before, "b": value}
        elif place == "name" and isinstance(value, str):
            value = {value: before}
        elif place == "json" and not isinstance(value, str):
            value = json.dumps(value)
    rules = Redactor(patterns=PATTERN_NAMES, keys=["nothing"])
    text = value if isinstance(value, str) else json.dumps(value)
    result = {"content": [{"type": "text", "text": text}], "structuredContent": {"v": value}}
    redacted = rules.result(result)
    assert CANARIES[kind] not in repr(redacted.value)
    assert json.dumps(CANARIES[kind])[1:-1] not in repr(redacted.value)


@given(value=any_json(), patterns=st.sets(st.sampled_from(sorted(PATTERN_NAMES))))
def test_redacting_is_total_and_idempotent(value: Any, patterns: set[str]) -> None:
    rules = Redactor(patterns=patterns, keys=["a"], paths=["/b/*"])
    once = rules.result(
        {"content": [{"type": "text", "text": str(value)}], "structuredContent": value}
    )
    assert rules.result(once.value).value == once.value
