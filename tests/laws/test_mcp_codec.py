"""Laws of messages and header values: what goes out comes back, and anything may come in."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio import jsontext
from sark_trio.errors import ProtocolError
from sark_trio.mcp.codec import (
    decode,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    readable_id,
)
from sark_trio.mcp.headers import decode_value, encode_value
from sark_trio.mcp.messages import Failure, Notification, Request, Success
from sark_trio.mcp.tools import Tool, ToolRejected, fingerprint, parse_tool

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4)
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
IDS = st.integers(-(2**63), 2**64 - 1) | TEXTS


@st.composite
def messages(draw: st.DrawFn) -> tuple[Any, bytes]:
    request_id, text, members = draw(IDS), draw(TEXTS), draw(OBJECTS)
    code, data = draw(st.integers(-(2**53), 2**53)), draw(JSON)
    return draw(
        st.sampled_from(
            [
                (Request(request_id, text, members), encode_request(request_id, text, members)),
                (Notification(text, members), encode_notification(text, members)),
                (Success(request_id, members), encode_result(request_id, members)),
                (Failure(request_id, code, text, data), encode_error(request_id, code, text, data)),
            ]
        )
    )


@given(messages())
def test_every_message_comes_back_as_it_went_out(pair: tuple[Any, bytes]) -> None:
    """Decoding what was encoded gives the same message."""
    message, data = pair
    assert decode(data) == message


@given(messages(), st.sampled_from([None, 2, "\t"]), st.booleans())
def test_the_spelling_of_a_message_does_not_matter(
    pair: tuple[Any, bytes], indent: Any, ascii_only: bool
) -> None:
    """Spaces and escapes change nothing about what a message says."""
    message, data = pair
    spelled = json.dumps(json.loads(data), indent=indent, ensure_ascii=ascii_only)
    assert decode(spelled.encode()) == message


@given(st.binary() | messages().map(lambda pair: pair[1]), st.data())
def test_row_27_any_bytes_are_a_message_or_a_protocol_error(data: bytes, draw: Any) -> None:
    """Any bytes are a message or a ProtocolError with few words; nothing else is raised."""
    at = draw.draw(st.integers(0, len(data)))
    mutated = (
        data[:at] + draw.draw(st.binary(max_size=3)) + data[draw.draw(st.integers(at, len(data))) :]
    )
    for octets in (data, mutated):
        try:
            message = decode(octets)
        except ProtocolError as exc:
            assert len(exc.message) < 300
        else:
            assert isinstance(message, Request | Notification | Success | Failure)
        assert readable_id(octets) is None or isinstance(readable_id(octets), int | str)


@given(JSON)
def test_row_28_only_exact_ids_are_ids(value: Any) -> None:
    """1, "1", 1.0 and true are four things, and two of them are ids."""
    data = jsontext.encode({"jsonrpc": "2.0", "id": value, "result": {}})
    if type(value) in {int, str}:
        message = decode(data)
        assert isinstance(message, Success)
        assert type(message.id) is type(value)
        assert message.id == value
    else:
        with pytest.raises(ProtocolError):
            decode(data)


@pytest.mark.security(26)
@given(OBJECTS, TEXTS, JSON, JSON, st.sampled_from(["", " ", "\n"]), st.data())
def test_row_27_a_key_that_stands_twice_is_refused_wherever_it_stands(
    members: dict[str, Any], key: str, first: Any, second: Any, space: str, data: Any
) -> None:
    """However it is spelled and however deep it stands, a second key of one name is refused."""
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in key)
    again = data.draw(st.sampled_from([json.dumps(key), f'"{escaped}"']))
    twice = f"{{{json.dumps(key)}:{json.dumps(first)},{space}{again}:{json.dumps(second)}}}"
    path = data.draw(st.sampled_from(["%s", '{"a":%s}', '{"a":[1,{"b":%s}]}']))
    inner = path.replace("%s", twice)
    rest = jsontext.encode(members).decode()
    for text in (
        f'{{"jsonrpc":"2.0","id":1,"result":{{"x":{rest},"y":{inner}}}}}',
        f'{{"jsonrpc":"2.0","method":"m","params":{{"y":{inner}}}}}',
        f'{{"jsonrpc":"2.0","id":1,"error":{{"code":1,"message":"","data":{inner}}}}}',
        f'{{"jsonrpc":"2.0","id":1,"result":{{}},"other":{inner}}}',
    ):
        with pytest.raises(ProtocolError, match="twice"):
            decode(text.encode())


@pytest.mark.parametrize("spare", range(12))
def test_row_27_no_room_for_a_second_member_goes_unseen(spare: int) -> None:
    """The proof by length: with any amount of space, an extra member or a second id is seen."""
    space = " " * spare
    plain = f'{{"jsonrpc":"2.0","id":1,"result":{{}}{space}}}'
    assert decode(plain.encode()) == Success(1, {})
    with pytest.raises(ProtocolError, match="twice"):
        decode(f'{{"jsonrpc":"2.0","id":0,"id":1,"result":{{}}{space}}}'.encode())


@pytest.mark.security(22)
@given(TEXTS)
def test_header_values_come_back_and_cannot_end_a_line(value: str) -> None:
    """Any text becomes printable ASCII without a space at its ends, and comes back."""
    text = encode_value(value)
    assert decode_value(text) == value
    assert re.fullmatch(r"[\x20-\x7e]*", text)
    assert text == text.strip()


@given(st.text())
def test_header_values_of_a_stranger_have_one_spelling(text: str) -> None:
    """A sentinel is read only in the one form in which it would be written."""
    try:
        value = decode_value(text)
    except ProtocolError:
        return
    if text.startswith("=?base64?") and text.endswith("?="):
        assert encode_value(value) in {text, value}


DEFINITIONS = st.fixed_dictionaries(
    {"name": TEXTS | st.just("get"), "inputSchema": st.just({"type": "object"}) | OBJECTS},
    optional={
        "title": TEXTS,
        "description": TEXTS,
        "outputSchema": OBJECTS,
        "annotations": st.dictionaries(
            st.sampled_from(["readOnlyHint", "destructiveHint"]), st.booleans()
        ),
        "_meta": OBJECTS,
    },
)


@given(JSON | DEFINITIONS)
def test_any_definition_is_a_tool_or_a_reason(definition: Any) -> None:
    """Any JSON is a tool or a reason why not; nothing is raised."""
    parsed = parse_tool(definition)
    assert isinstance(parsed, Tool | ToolRejected)
    if isinstance(parsed, ToolRejected):
        assert parsed.reason


@pytest.mark.security(14)
@given(DEFINITIONS, DEFINITIONS)
def test_row_62_fingerprints_are_equal_exactly_where_the_pinned_members_are(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    """A change of any pinned member changes the fingerprint, and nothing else does."""
    tools = [parse_tool(each) for each in (first, second)]
    if not all(isinstance(tool, Tool) for tool in tools):
        return
    pinned = [
        jsontext.encode(_sorted({key: value for key, value in each.items() if key != "_meta"}))
        for each in (first, second)
    ]
    same = fingerprint(tools[0]) == fingerprint(tools[1])  # type: ignore[arg-type]
    assert same == (pinned[0] == pinned[1])


def _sorted(value: Any) -> Any:
    """Keys in order; floats that are integers as such, since RFC 8785 has one kind of number."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(below) for below in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value
