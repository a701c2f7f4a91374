"""JSON: strict in, canonical out, bounded both ways."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.jsontext import (
    DEPTH_MAX,
    Canonical,
    JSONError,
    canonical,
    check_bounds,
    decode,
    decode_strict,
    encode,
)

# RFC 8785, appendix B: the bits of a double, and how ECMAScript writes it.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
    # Ours.
    ("3ff0000000000000", "1"),
    ("3ff8000000000000", "1.5"),
    ("4058ff0a3d70a3d7", "99.985"),
    ("3fe0000000000000", "0.5"),
    ("3fa999999999999a", "0.05"),
    ("415e848000000000", "8000000"),
    ("7e41eb2d66005835", "1.5e+300"),
    ("01a56e1fc2f8f359", "1e-300"),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_canonical_writes_numbers_as_ecmascript_does(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number).decode() == text


def test_canonical_sorts_keys_by_utf16_code_units() -> None:
    # RFC 8785, section 3.2.3: a surrogate pair sorts before U+FB33, a code point after it.
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}
    assert list(json.loads(canonical(value)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_canonical_escapes_only_what_it_must() -> None:
    text = '\x00\x08\t\n\x0c\r\x1f"\\/\x7f\u2028é'
    expected = '"\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\/\x7f\u2028é"'
    assert canonical(text).decode() == expected
    assert canonical([text, 0.5]).decode() == f"[{expected},0.5]"


@given(JSON)
def test_canonical_is_a_fixed_point_and_keeps_the_value(value: object) -> None:
    data = canonical(value)
    # As RFC 8785 reads it: a number is a double.
    again = json.loads(data, parse_int=lambda text: float(text) if len(text) > 15 else int(text))
    assert canonical(again) == data
    assert canonical(value) == data


@given(JSON)
def test_what_encode_writes_decode_reads(value: object) -> None:
    assert decode(encode(value)) == value
    assert decode_strict(encode(value)) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"NaN", "not JSON"),
        (b"Infinity", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 10_000, "not JSON"),
        (b"1e400", "JSON"),
    ],
)
def test_both_decoders_refuse_with_the_one_error(text: bytes, words: str) -> None:
    for decoder in (decode, decode_strict):
        with pytest.raises(JSONError, match=words):
            decoder(text)


@pytest.mark.security(26)
def test_only_the_strict_decoder_minds_a_key_that_stands_twice() -> None:
    assert decode(b'{"a":1,"a":2}') == {"a": 2}
    with pytest.raises(JSONError, match="key 'a' stands twice"):
        decode_strict(b'[{"b":0},{"b":0,"a":1,"a":2}]')


def test_the_strict_decoder_says_where() -> None:
    with pytest.raises(JSONError, match="line 2 column 3"):
        decode_strict("{\n  oops}")


@pytest.mark.security(26)
@pytest.mark.parametrize("text", ['"\ud800"', '{"\udfff":1}', '["a", "\udc80"]'])
def test_a_text_with_a_lone_surrogate_is_no_json(text: str) -> None:
    for decoder in (decode, decode_strict):
        with pytest.raises(JSONError, match="not JSON"):
            decoder(text)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_read(make: type) -> None:
    for decoder in (decode, decode_strict):
        assert decoder(make(b'{"a":"\\u00e9\xc3\xa9"}')) == {"a": "\u00e9\u00e9"}


def test_integers_are_exact() -> None:
    assert decode(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert encode(2**70) == b"1180591620717411303424"


def test_an_integer_without_a_canonical_form_is_refused() -> None:
    assert canonical(2**53 - 1) == b"9007199254740991"
    assert canonical([2**53, -(2**60)]) == b"[9007199254740992,-1152921504606847000]"
    for value, shown in (
        (2**53 + 1, "9007199254740993"),
        (2**128 - 1, "340282366920938463463374607431768211455"),
        (2**128 + 1, "of 129 bits"),
        (10**400, "of 1329 bits"),
        (-(10**5_000), "of 16610 bits"),  # more digits than Python writes
    ):
        with pytest.raises(JSONError, match=f"integer {shown} is no exact double"):
            canonical({"n": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1: 2}, {"a": object()}])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(JSONError):
        canonical(value)
    with pytest.raises(JSONError):
        check_bounds(value)


@pytest.mark.parametrize("value", [object(), "\ud800", {"k": "\udfff"}])
def test_what_cannot_be_encoded_is_refused(value: object) -> None:
    with pytest.raises(JSONError, match="not encodable"):
        encode(value)


def test_a_lone_surrogate_has_no_canonical_form() -> None:
    with pytest.raises(JSONError, match="not encodable"):
        canonical(["\ud800"])


@pytest.mark.parametrize("value", [{"\ud800": 0}, {"é": 0, "\udfff": 0.5}])
def test_a_key_with_a_lone_surrogate_has_none_either(value: object) -> None:
    with pytest.raises(JSONError, match="not encodable"):
        canonical(value)


def test_only_integers_that_every_parser_reads_exactly_are_plain() -> None:
    assert check_bounds([2**53 - 1, -(2**53) + 1])
    assert not check_bounds(2**53)
    assert not check_bounds(-(2**53))


def test_what_is_canonical_already_stands_inside_only_where_it_is_asked_for() -> None:
    made = Canonical(b'{"a":1}')
    assert canonical({"z": made, "b": 1}, nested=True) == b'{"b":1,"z":{"a":1}}'
    for refuse in (canonical, check_bounds):
        with pytest.raises(JSONError, match="Raw is not a JSON type"):
            refuse({"z": made})
        with pytest.raises(JSONError, match="bytes is not a JSON type"):
            refuse(b"x", nested=True)


@pytest.mark.security(25)
def test_depth_and_size_are_bounded_exactly() -> None:
    deep: object = 0
    for _ in range(DEPTH_MAX):
        deep = [deep]
    assert check_bounds(deep)
    with pytest.raises(JSONError, match="nested deeper than 64 levels"):
        check_bounds([deep])
    assert check_bounds([0] * 9, nodes_max=10)
    # Not one of too many is looked at.
    for item in (0, b"no JSON"):
        with pytest.raises(JSONError, match="more than 10 values"):
            check_bounds([item] * 10, nodes_max=10)
    assert check_bounds([0] * 99_999)
    with pytest.raises(JSONError, match="more than 100000 values"):
        check_bounds([0] * 100_000)


def test_bounds_hold_before_a_loop_would_run_for_ever() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(JSONError, match="nested deeper"):
        check_bounds(loop)
