"""Headers: what is mirrored, how it is encoded, and what never becomes a header."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.headers import (
    SESSION_ID_CHARS_MAX,
    VALUE_CHARS_MAX,
    ParamHeader,
    check_session_id,
    decode_value,
    encode_value,
    legacy_headers,
    modern_headers,
    param_headers,
)
from sark_trio.mcp.versions import HTTP_SSE, MODERN

REGION = ParamHeader("Mcp-Param-Region", ("region",))
NESTED = ParamHeader("Mcp-Param-Shard", ("target", "shard"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # The specification's own examples ("Value Encoding").
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        # Ours.
        ("", ""),
        ("a b", "a b"),
        ("a\tb", "=?base64?YQli?="),
        ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="),
        ("\0", "=?base64?AA==?="),
        ("\x7f", "=?base64?fw==?="),
        ("=?base64?open", "=?base64?open"),
        ("open?=", "open?="),
        ("=?BASE64?x?=", "=?BASE64?x?="),
        ("a\n", "=?base64?YQo=?="),
    ],
)
def test_a_value_goes_out_and_comes_back(value: str, text: str) -> None:
    assert encode_value(value) == text
    assert decode_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "=?base64?a?=",
        "=?base64?YQ?=",
        "=?base64?YQ==YQ==?=",
        "=?base64?Y Q==?=",
        "=?base64?YR==?=",  # the unused bits are not zero
        "=?base64?/w==?=",  # not UTF-8
        "=?base64?é?=",
    ],
)
def test_a_broken_sentinel_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_value(text)


def test_the_shortest_sentinels() -> None:
    assert decode_value("=?base64??=") == ""
    # Prefix and suffix may not share the question mark.
    assert decode_value("=?base64?=") == ""


def test_a_value_without_a_form_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="surrogate"):
        encode_value("\ud800")
    with pytest.raises(InvalidArguments, match="longer"):
        encode_value("x" * (VALUE_CHARS_MAX + 1))
    assert len(encode_value("x" * VALUE_CHARS_MAX)) == VALUE_CHARS_MAX == 8_192


def test_every_modern_request_names_version_and_method() -> None:
    assert modern_headers(MODERN, "tools/list", {}) == (
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", "tools/list"),
    )


@pytest.mark.parametrize(
    ("method", "params", "value"),
    [
        ("tools/call", {"name": "get"}, "get"),
        ("prompts/get", {"name": "hé"}, "=?base64?aMOp?="),
        ("resources/read", {"uri": "file:///a"}, "file:///a"),
        ("tasks/get", {"taskId": "t"}, "t"),
        ("tasks/update", {"taskId": "t"}, "t"),
        ("tasks/cancel", {"taskId": "t"}, "t"),
    ],
)
def test_some_requests_name_their_subject(method: str, params: Any, value: str) -> None:
    assert modern_headers(MODERN, method, params)[2:] == (("Mcp-Name", value),)


@pytest.mark.parametrize("method", ["", "a b", "a\r\nX: y", "é", "a\n"])
def test_a_method_that_is_no_header_is_refused(method: str) -> None:
    with pytest.raises(InvalidArguments, match="visible ASCII"):
        modern_headers(MODERN, method, {})


def test_a_subject_must_be_a_string() -> None:
    for params in ({}, {"name": 1}, {"name": None}):
        with pytest.raises(InvalidArguments, match="needs a string 'name'"):
            modern_headers(MODERN, "tools/call", params)


def test_legacy_headers_follow_what_was_agreed() -> None:
    assert legacy_headers() == ()
    assert legacy_headers("2025-03-26", "s") == (("Mcp-Session-Id", "s"),)
    assert legacy_headers(HTTP_SSE) == ()
    assert legacy_headers("2025-06-18", "s") == (
        ("MCP-Protocol-Version", "2025-06-18"),
        ("Mcp-Session-Id", "s"),
    )


@pytest.mark.security(12)
@pytest.mark.parametrize("value", ["", "a b", "a\r\nb", "é", "\x7f", "a\n", "\0"])
def test_a_session_id_is_visible_ascii(value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_session_id(value)
    assert not value or value not in str(caught.value)
    with pytest.raises(ProtocolError):
        legacy_headers("2025-11-25", value)


@pytest.mark.security(12)
def test_a_session_id_is_bounded() -> None:
    longest = "~" * SESSION_ID_CHARS_MAX
    assert check_session_id(longest) == longest
    assert len(longest) == 1_024
    with pytest.raises(ProtocolError, match="longer"):
        check_session_id(longest + "!")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eu", "eu"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (-7, "-7"),
        (42.0, "42"),
        (2**53 - 1, "9007199254740991"),
        (-(2**53) + 1, "-9007199254740991"),
    ],
)
def test_an_argument_is_mirrored_by_its_type(value: Any, text: str) -> None:
    assert param_headers((REGION,), {"region": value}) == (("Mcp-Param-Region", text),)


@pytest.mark.parametrize("value", [2**53, -(2**53), 1e300, 0.5, [], {}, float("nan"), b"x"])
def test_an_argument_that_cannot_be_mirrored_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments, match="Mcp-Param-Region"):
        param_headers((REGION,), {"region": value})


@pytest.mark.parametrize("value", [2**53, -(2**53), 1e300])
def test_an_integer_that_loses_digits_is_refused_as_such(value: Any) -> None:
    with pytest.raises(InvalidArguments, match="beyond"):
        param_headers((REGION,), {"region": value})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"region": None},
        {"target": {}},
        {"target": None},
        {"target": "x"},
        {"target": {"shard": None}},
    ],
)
def test_absent_and_null_arguments_have_no_header(arguments: Any) -> None:
    assert param_headers((REGION, NESTED), arguments) == ()


def test_a_nested_argument_is_found_at_its_exact_path() -> None:
    arguments = {"shard": "wrong", "target": {"shard": 3}}
    assert param_headers((REGION, NESTED), arguments) == (("Mcp-Param-Shard", "3"),)
