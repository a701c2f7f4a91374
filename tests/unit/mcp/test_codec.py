"""Messages to bytes and back, and the many things that are no message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.errors import InvalidArguments, ProtocolError, RemoteError
from sark_trio.mcp import codec
from sark_trio.mcp.codec import (
    decode,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    readable_id,
    result_of,
)
from sark_trio.mcp.messages import (
    Failure,
    InputRequired,
    Message,
    Notification,
    Request,
    Success,
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_request(1, "m", {"a": [1]}), Request(1, "m", {"a": [1]})),
        (encode_request("x", "m"), Request("x", "m")),
        (encode_request("", "", {}), Request("", "")),
        (encode_notification("n", {"a": "ä"}), Notification("n", {"a": "ä"})),
        (encode_notification("n"), Notification("n")),
        (encode_result(0, {}), Success(0, {})),
        (encode_result(-(2**63), {"r": None}), Success(-(2**63), {"r": None})),
        (encode_error(7, -32601, "no"), Failure(7, -32601, "no")),
        (encode_error(None, -32700, "?", [1]), Failure(None, -32700, "?", [1])),
    ],
)
def test_what_goes_out_comes_back(data: bytes, message: Message) -> None:
    assert decode(data) == message
    # One line, however it is framed (2026-07-28, stdio).
    assert b"\n" not in data
    # Spaces, other member orders and other kinds of buffer are the same message.
    members = json.loads(data)
    assert decode(json.dumps(members, indent=2).encode()) == message
    assert decode(json.dumps(dict(reversed(members.items()))).encode()) == message
    assert decode(bytearray(data)) == message
    assert decode(memoryview(data)) == message
    assert decode(b" \r\n" + data + b"\r\n") == message


def test_empty_params_are_left_out() -> None:
    assert encode_request(1, "m", {}) == b'{"jsonrpc":"2.0","id":1,"method":"m"}'
    assert encode_notification("m", {}) == b'{"jsonrpc":"2.0","method":"m"}'


def test_what_is_not_json_is_the_callers_mistake() -> None:
    for params in ({"a": object()}, {"a": "\ud800"}):
        with pytest.raises(InvalidArguments) as caught:
            encode_request(1, "m", params)
        assert caught.value.delivery == "not_sent"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"jsonrpc":"2.0","method":"n","params":null}', Notification("n")),
        ('{"jsonrpc":"2.0","error":{"code":1,"message":""}}', Failure(None, 1, "")),
        ('{"jsonrpc":"2.0","id":1,"result":{},"_extra":{"a":1}}', Success(1, {})),
        (
            '{"jsonrpc":"2.0","id":1,"result":{"a":1e2,"b":"\\u0041"}}',
            Success(1, {"a": 100.0, "b": "A"}),
        ),
        ('{"jsonrpc":"2\\u002e0","id":1,"result":{}}', Success(1, {})),
    ],
)
def test_unusual_but_legal(text: str, message: Message) -> None:
    assert decode(text.encode()) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "7",
        '"text"',
        "[]",
        # A batch, even of one.
        '[{"jsonrpc":"2.0","id":1,"result":{}}]',
        "{}",
        '{"id":1,"result":{}}',
        '{"jsonrpc":"1.0","id":1,"result":{}}',
        '{"jsonrpc":2.0,"id":1,"result":{}}',
        '{"jsonrpc":null,"id":1,"result":{}}',
        '{"jsonrpc":"2.0"}',
        '{"jsonrpc":"2.0","id":1}',
        # Neither one thing nor the other.
        '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
        '{"jsonrpc":"2.0","id":1,"result":{},"error":null}',
        '{"jsonrpc":"2.0","id":1,"method":"m","result":{}}',
        '{"jsonrpc":"2.0","id":1,"method":"m","error":{"code":1,"message":""}}',
        # Ids.
        '{"jsonrpc":"2.0","result":{}}',
        '{"jsonrpc":"2.0","id":null,"result":{}}',
        '{"jsonrpc":"2.0","id":1.0,"result":{}}',
        '{"jsonrpc":"2.0","id":1e0,"result":{}}',
        '{"jsonrpc":"2.0","id":true,"result":{}}',
        '{"jsonrpc":"2.0","id":{},"result":{}}',
        '{"jsonrpc":"2.0","id":[1],"result":{}}',
        '{"jsonrpc":"2.0","id":null,"method":"m"}',
        '{"jsonrpc":"2.0","id":false,"method":"m"}',
        '{"jsonrpc":"2.0","id":0.5,"error":{"code":1,"message":""}}',
        # Members of the wrong type.
        '{"jsonrpc":"2.0","method":null}',
        '{"jsonrpc":"2.0","method":7}',
        '{"jsonrpc":"2.0","method":"m","params":[]}',
        '{"jsonrpc":"2.0","method":"m","params":"x"}',
        '{"jsonrpc":"2.0","id":1,"result":null}',
        '{"jsonrpc":"2.0","id":1,"result":[]}',
        '{"jsonrpc":"2.0","id":1,"result":"ok"}',
        '{"jsonrpc":"2.0","id":1,"error":null}',
        '{"jsonrpc":"2.0","id":1,"error":"bad"}',
        '{"jsonrpc":"2.0","id":1,"error":{}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1}}',
        '{"jsonrpc":"2.0","id":1,"error":{"message":""}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1.0,"message":""}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":""}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":null}}',
        # Not JSON.
        '{"jsonrpc":"2.0","id":1,"result":{}',
        '{"jsonrpc":"2.0","id":1,"result":{}}x',
        '{"jsonrpc":"2.0","id":1,"result":{}}{"jsonrpc":"2.0","id":2,"result":{}}',
        "{'jsonrpc':'2.0','id':1,'result':{}}",
        '{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":Infinity}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":1e999}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":01}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":"\n"}}',
        '{"jsonrpc":"2.0","id":1,"result":{},"x":NaN}',
        '\ufeff{"jsonrpc":"2.0","id":1,"result":{}}',
        # No character at all.
        '{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}',
        '{"jsonrpc":"2.0","id":"\\udc00","result":{}}',
    ],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a JSON-RPC message: "):
        decode(text.encode())


@pytest.mark.parametrize(
    "data",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"\xed\xa0\x80":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"unknown member":"\xff"}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 100_000 + b"0" + b"}" * 100_000 + b"}",
        b'{"jsonrpc":"2.0","id":1,"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"jsonrpc":"2.0","id":' + b"9" * 100_000 + b',"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"9" * 100_000 + b"}}",
        b"\x00" * 100,
    ],
)
def test_bytes_that_break_parsers(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert len(str(caught.value)) < 300
    assert readable_id(data) in {1, None}


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"result":{}}',
        '{"jsonrpc":"2.0","id":2,"id":1,"result":{}}',
        '{"jsonrpc":"2.0","id":2,"\\u0069d":1,"result":{}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":1}}',
        '{"jsonrpc":"2.0","id":1,"result":{"a":[{"b":{"c":1,"\\u0063":2}}]}}',
        # Shorter spellings elsewhere must not hide the second member.
        '{"jsonrpc":"2.0","id":1,"result":{"a":1e300,"a":1e300}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":2,"message":""}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"a":1,"a":2}}}',
        '{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
        '{"jsonrpc":"2.0","id":0,"id":1,"method":""}',
        '{"jsonrpc":"2.0","id":0,"id":1,"method":"","params":{}}',
        '{"jsonrpc":"2.0","id":0,"id":1,"error":{"code":1,"message":""}}',
        '{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":1}}',
        '{"jsonrpc":"2.0","method":"m","params":{"a":1,"a":1}}',
        '{"jsonrpc":"2.0","method":"m","params":{},"params":{}}',
        '{"jsonrpc":"2.0","id":1,"result":{},"x":{"a":1,"a":2}}',
    ],
)
def test_a_key_that_stands_twice_is_refused_at_every_depth(text: str) -> None:
    for data in (text.encode(), text.replace(",", ", ").encode()):
        with pytest.raises(ProtocolError, match="twice"):
            decode(data)


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"id": 1, "method": "m", "result": {}}, "'method' beside 'result' or 'error'"),
        ({"id": 1, "method": "m", "params": []}, "'params' is not an object"),
        ({"id": 1, "result": {}, "error": {}}, "'result' beside 'error'"),
        ({"result": {}}, "a result without an id"),
        ({"id": 1, "result": []}, "'result' is not an object"),
        ({"id": 1}, "none of 'method', 'result' and 'error'"),
        ({"id": 1, "error": []}, "'error' is not an object"),
        ({"id": 1, "error": {"message": ""}}, "the error's code is not an integer"),
        ({"id": 1, "error": {"code": 1}}, "the error's message is not a string"),
        ({"id": True, "result": {}}, "'id' is neither an integer nor a string"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(members: dict[str, Any], what: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(json.dumps({"jsonrpc": "2.0", **members}).encode())
    assert str(caught.value) == f"not a JSON-RPC message: {what}"


def test_a_peers_words_are_quoted_and_cut() -> None:
    with pytest.raises(ProtocolError) as caught:
        result_of(Success(1, {"resultType": "x" * 300}))
    assert str(caught.value) == f"unknown resultType '{'x' * 200}'"


@pytest.mark.parametrize(
    "data",
    [
        encode_request(1, "tools/call", {"name": "a"}),
        encode_request("one", "tools/list"),
        encode_notification("notifications/progress", {"progress": 1}),
        encode_notification("notifications/initialized"),
        encode_result(1, {"content": []}),
        encode_error(1, -32601, "no"),
        encode_error(None, -32601, "no"),
    ],
)
def test_what_is_compact_is_read_once(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reading costs many times the first. Room for a second ``"id":0`` calls for it."""
    read: list[bytes] = []
    monkeypatch.setattr(codec, "_refuse_duplicates", read.append)
    decode(data)
    decode(data + b" " * len(',"id":'))
    assert not read
    decode(data + b" " * len(',"id":0'))
    assert read


def test_a_large_integer_is_exact() -> None:
    big = 2**64 + 1
    assert decode(b'{"jsonrpc":"2.0","id":1,"result":{"a": %d}}' % big) == Success(1, {"a": big})


@pytest.mark.parametrize(
    ("data", "request_id"),
    [
        (b'{"jsonrpc":"2.0","id":5,"result":[]}', 5),
        (b'{"id":"x","result":{},"error":{}}', "x"),
        (b'{"jsonrpc":"2.0","id":5.0,"result":[]}', None),
        (b'{"jsonrpc":"2.0","id":true,"result":[]}', None),
        (b'{"jsonrpc":"2.0","id":5,"method":"m","params":[]}', None),
        (b'{"id":5', None),
        (b"[]", None),
        (b'{"id":"\xff"}', None),
    ],
)
def test_whose_a_broken_answer_is(data: bytes, request_id: Any) -> None:
    assert readable_id(data) == request_id


def test_a_result_is_complete_unless_it_says_otherwise() -> None:
    for result in ({}, {"a": 1}, {"resultType": "complete", "a": 1}):
        assert result_of(Success(1, result)) is result


def test_a_result_can_be_a_question() -> None:
    requests = {
        "login": {"method": "elicitation/create", "params": {}},
        "r": {"method": "roots/list"},
    }
    asked = {"resultType": "input_required", "inputRequests": requests, "requestState": "s"}
    assert result_of(Success(1, asked)) == InputRequired(requests, "s")
    stateless = {"resultType": "input_required", "inputRequests": {}}
    assert result_of(Success(1, stateless)) == InputRequired({}, None)
    state_only = {"resultType": "input_required", "requestState": ""}
    assert result_of(Success(1, state_only)) == InputRequired({}, "")
    assert "secret" not in repr(InputRequired({}, "secret"))


@pytest.mark.parametrize(
    "members",
    [
        {"resultType": "task"},
        {"resultType": "Complete"},
        {"resultType": None},
        {"resultType": ["complete"]},
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": []},
        {"resultType": "input_required", "inputRequests": {"a": 1}},
        {"resultType": "input_required", "inputRequests": {"a": {}}},
        {"resultType": "input_required", "inputRequests": {"a": {"method": "m", "params": 1}}},
        {"resultType": "input_required", "requestState": 1},
    ],
)
def test_a_result_of_an_unknown_or_broken_type_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        result_of(Success(1, members))
    assert caught.value.delivery == "answered"
    # Earlier revisions gave the member no meaning: there it is the result's own.
    assert result_of(Success(1, members), modern=False) is members


def test_an_error_is_raised() -> None:
    with pytest.raises(RemoteError) as caught:
        result_of(Failure(1, -32602, "bad", {"a": 1}))
    assert (caught.value.code, caught.value.data) == (-32602, {"a": 1})
    assert str(caught.value) == "bad"
    assert caught.value.delivery == "answered"
