"""JSON in and out, strict and bounded: the one place that knows the JSON library.

White. Three doors:

- :func:`encode` and :func:`decode` for messages (fast; integers exact, UTF-8 only, no NaN);
- :func:`decode_strict` for what decides something (policy answers, tokens, configuration):
  duplicate keys are refused too;
- :func:`canonical` for what is hashed (RFC 8785).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

__all__ = [
    "Canonical",
    "JSONError",
    "canonical",
    "check_bounds",
    "decode",
    "decode_strict",
    "encode",
]

#: Deeper values are refused: no tool needs them, and recursion would pay for each level.
DEPTH_MAX = 64
#: More nodes than this in one value of ours are refused: hashing and filtering walk them all.
NODES_MAX = 100_000
#: RFC 8785 numbers are IEEE doubles; integers beyond this lose digits in other parsers.
_SAFE_INTEGER = 2**53 - 1
#: Longer integers are not repeated in a message.
_SHOWN_BITS_MAX = 128

_encoder = msgspec.json.Encoder()
_sorting_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()


#: Bytes that :func:`canonical` made, to stand inside a further value of its as they are.
Canonical = msgspec.Raw


class JSONError(ValueError):
    """The text is not JSON, or the value can not be JSON; the message says where."""


def encode(value: Any) -> bytes:
    """*value* as compact UTF-8 JSON.

    :raises JSONError: it holds something that is not JSON (NaN, bytes, lone surrogates, ...).
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as exc:
        raise JSONError(f"not encodable as JSON: {exc}") from exc


def decode(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text. Duplicate keys: the last one counts.

    :raises JSONError: not UTF-8, not JSON, too deep, or a number out of range.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as exc:
        raise JSONError(f"not JSON: {exc}") from exc


def decode_strict(data: bytes | bytearray | memoryview | str) -> Any:
    """As :func:`decode`, and a key that stands twice in one object is refused.

    :raises JSONError: as :func:`decode`, or a duplicate key.
    """
    try:
        text = data if isinstance(data, str) else str(data, "utf-8")
        value = _strict_decoder.decode(text)
        if isinstance(data, str) or "\\u" in text:
            _encoder.encode(value)  # a lone surrogate, escaped or not, has no UTF-8 form
    except (ValueError, RecursionError) as exc:
        raise JSONError(f"not JSON: {exc}") from exc
    check_bounds(value)
    return value


def canonical(value: Any, *, nested: bool = False) -> bytes:
    """*value* in the JSON Canonicalization Scheme (RFC 8785): equal values, equal bytes.

    :param nested: *value* may hold :data:`Canonical` members, which are taken as they are.
    :raises JSONError: not JSON, or an integer that a double cannot hold exactly.
    """
    plain = check_bounds(value, nested=nested)
    if plain:
        return _encode_sorted(value)
    return "".join(_canonical_parts(value)).encode("utf-8")


def check_bounds(
    value: Any,
    *,
    depth_max: int = DEPTH_MAX,
    nodes_max: int = NODES_MAX,
    nested: bool = False,
) -> bool:
    """Check depth, node count, finiteness and key types of *value*.

    :param nested: :data:`Canonical` members were checked when they were made.
    :return: whether the plain sorted encoding is already canonical: no floats, no integers
        beyond 2**53, and only ASCII keys (for which code point order is UTF-16 order).
    :raises JSONError: a bound is passed, a key is no string, or a leaf is not JSON.
    """
    plain = True
    nodes = 0
    level: list[Any] = [value]
    for _ in range(depth_max + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str or item is None or kind is bool:
                continue
            if kind is dict:
                plain = _keys_ascii(item) and plain
                below += item.values()
            elif kind is list or kind is tuple:
                below += item
            elif kind is float:
                if not math.isfinite(item):
                    raise JSONError(f"{item!r} is not a JSON number")
                plain = False
            elif kind is int:
                plain = plain and -_SAFE_INTEGER <= item <= _SAFE_INTEGER
            elif not (nested and kind is Canonical):
                raise JSONError(f"{kind.__name__} is not a JSON type")
        nodes += len(level)
        if nodes + len(below) > nodes_max:
            raise JSONError(f"more than {nodes_max} values")
        if not below:
            return plain
        level = below
    raise JSONError(f"nested deeper than {depth_max} levels")


def _keys_ascii(value: dict[Any, Any]) -> bool:
    try:
        return "".join(value).isascii()  # one call for all keys: this is a hot path
    except TypeError:
        odd = next(key for key in value if not isinstance(key, str))
        raise JSONError(f"object key {odd!r} is not a string") from None


def _encode_sorted(value: Any) -> bytes:
    try:
        return _sorting_encoder.encode(value)
    except (TypeError, ValueError, UnicodeEncodeError) as exc:
        raise JSONError(f"not encodable as JSON: {exc}") from exc


def _canonical_parts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield "{"
        for position, key in enumerate(sorted(value, key=_utf16)):
            yield f"{',' if position else ''}{_encode_sorted(key).decode()}:"
            yield from _canonical_parts(value[key])
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for position, item in enumerate(value):
            if position:
                yield ","
            yield from _canonical_parts(item)
        yield "]"
    elif isinstance(value, float):
        yield _es_number(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value) if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else _as_double(value)
    else:
        yield _encode_sorted(value).decode()


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _as_double(value: int) -> str:
    """Beyond 2**53 two integers may be one double, and would share a canonical form."""
    try:
        double = float(value)
    except OverflowError:
        double = math.inf
    if double != value:
        bits = value.bit_length()  # Python itself refuses to write thousands of digits
        shown = f"{value}" if bits <= _SHOWN_BITS_MAX else f"of {bits} bits"
        raise JSONError(f"integer {shown} is no exact double and has no canonical form")
    return _es_number(double)


def _es_number(value: float) -> str:
    """ECMAScript Number::toString (ECMA-262, 6.1.6.1.20), as RFC 8785 section 3.2.2.3 asks."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}e0".partition("e")
    exponent = exponent.removesuffix("e0")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        tail = f".{digits[point:]}" if len(digits) > point else ""
        return f"{sign}{digits[:point].ljust(point, '0')}{tail}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} stands twice in one object")
    return members


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
