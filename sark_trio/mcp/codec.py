"""JSON-RPC 2.0 messages to bytes and back, as strictly as the wire deserves.

What a peer sends is a message or a :class:`~sark_trio.errors.ProtocolError`, never another
exception. Batches, which one revision knew (2025-03-26), are refused: a gateway that took one
would have to decide about calls that it cannot answer one by one.

Keys that stand twice are refused at every depth, since two parsers may differ on which one
counts. No fast JSON parser reports them, so :func:`decode` proves their absence instead: a
member whose value, encoded again, gives the very bytes that came cannot hold any, and an
envelope with no room for a second ``"id":0`` has none. Only what fails that proof (spaces,
unusual escapes, unknown members) is read a second time by a parser that does report them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sark_trio import jsontext
from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.faults import remote_error
from sark_trio.mcp.messages import (
    Failure,
    InputRequired,
    Message,
    Notification,
    Request,
    RequestId,
    Success,
)

__all__ = [
    "decode",
    "encode_error",
    "encode_notification",
    "encode_request",
    "encode_result",
    "readable_id",
    "result_of",
]

#: ``{"jsonrpc":"2.0"}``, and what each further member takes besides its value.
_BARE: Final = 17
_ID: Final = len(',"id":')
_METHOD: Final = len(',"method":""')
_PARAMS: Final = len(',"params":')
_RESULT: Final = len(',"result":')
_ERROR: Final = len(',"error":')
#: No member can stand a second time in less than this: ``,"id":0``.
_DUPLICATE: Final = 7
#: As much of a parser's or a peer's words as a message of ours repeats.
_QUOTE_CHARS_MAX: Final = 200


class _Envelope(msgspec.Struct, gc=False):
    """The members of all four kinds of message; others are passed over."""

    jsonrpc: str | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Answer(msgspec.Struct, gc=False):
    """Just enough of an answer to say whose it is."""

    id: int | str
    method: UnsetType = UNSET


_envelopes = msgspec.json.Decoder(_Envelope)
_answers = msgspec.json.Decoder(_Answer)
_values = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def encode_request(
    request_id: RequestId, method: str, params: Mapping[str, Any] | None = None
) -> bytes:
    """One request; empty *params* are left out.

    :raises InvalidArguments: something in *params* is not JSON.
    """
    return _encode({"jsonrpc": "2.0", "id": request_id, "method": method}, params)


def encode_notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """One notification; empty *params* are left out.

    :raises InvalidArguments: something in *params* is not JSON.
    """
    return _encode({"jsonrpc": "2.0", "method": method}, params)


def encode_result(request_id: RequestId, result: Mapping[str, Any]) -> bytes:
    """The answer to a request of the peer's.

    :raises InvalidArguments: something in *result* is not JSON.
    """
    return _encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def encode_error(request_id: RequestId | None, code: int, message: str, data: Any = None) -> bytes:
    """The refusal of a request of the peer's; *data* of ``None`` is left out.

    :param request_id: ``None`` where the request was too broken to have one.
    :raises InvalidArguments: *data* is not JSON.
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return _encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The one message in *data*; space around it is allowed, a second message is not.

    Linear in the length of *data*, which the caller bounds.

    :raises ProtocolError: it is not exactly one JSON-RPC 2.0 message. ``delivery`` is
        ``unknown``: only the caller knows how far its own request got.
    """
    try:
        envelope = _envelopes.decode(data)
        if envelope.jsonrpc != "2.0":
            raise ProtocolError("not a JSON-RPC message: 'jsonrpc' is not \"2.0\"")
        if type(envelope.method) is str:
            message, certain = _read_call(envelope, envelope.method, len(data))
        else:
            message, certain = _read_answer(envelope, len(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolError(f"not a JSON-RPC message: {_quote(exc)}") from None
    if not certain:
        _refuse_duplicates(data)
    return message


def readable_id(data: bytes | bytearray | memoryview) -> RequestId | None:
    """The id in an answer that :func:`decode` refused, if it can be read.

    So that on a shared channel a broken answer can fail the call that it was meant for,
    instead of leaving it to its timeout.
    """
    try:
        return _answers.decode(data).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def result_of(message: Success | Failure, *, modern: bool = True) -> dict[str, Any] | InputRequired:
    """The result in an answer, or the question that it is instead.

    :param modern: whether ``resultType`` has a meaning; in legacy results it has none.
    :raises RemoteError: the answer is an error.
    :raises ProtocolError: a ``resultType`` that no revision or extension of ours defines.
    """
    if isinstance(message, Failure):
        raise remote_error(message.code, message.message, message.data)
    result = message.result
    # Absent: an earlier revision's server (2026-07-28, "ResultType").
    kind = result.get("resultType", "complete") if modern else "complete"
    if kind == "complete":
        return result
    if kind == "input_required":
        return _read_question(result)
    raise ProtocolError(f"unknown resultType {_quote(kind)}", delivery="answered")


def _encode(message: dict[str, Any], params: Mapping[str, Any] | None = None) -> bytes:
    if params:
        message["params"] = params
    try:
        return jsontext.encode(message)
    except jsontext.JSONError as exc:
        raise InvalidArguments(str(exc)) from exc


def _read_call(envelope: _Envelope, method: str, size: int) -> tuple[Message, bool]:
    if type(envelope.result) is Raw or type(envelope.error) is Raw:
        _refuse("'method' beside 'result' or 'error'")
    spare = size - _BARE - _METHOD - len(method)
    params: Any = None
    certain = True
    if type(envelope.params) is Raw:
        params, certain = _read_value(envelope.params)
        spare -= _PARAMS + len(envelope.params)
    if params is None:
        # null as if absent: harmless, and serializers without omit-if-null are common.
        params = {}
    elif type(params) is not dict:
        _refuse("'params' is not an object")
    if type(envelope.id) is not Raw:
        return Notification(method, params), certain and spare < _DUPLICATE
    spare -= _ID + len(envelope.id)
    request = Request(_read_id(envelope.id), method, params)
    return request, certain and spare < _DUPLICATE


def _read_answer(envelope: _Envelope, size: int) -> tuple[Message, bool]:
    if type(envelope.result) is Raw:
        if type(envelope.error) is Raw:
            _refuse("'result' beside 'error'")
        if type(envelope.id) is not Raw:
            _refuse("a result without an id")
        result, certain = _read_value(envelope.result)
        if type(result) is not dict:
            _refuse("'result' is not an object")
        spare = size - _BARE - _ID - _RESULT - len(envelope.id) - len(envelope.result)
        return Success(_read_id(envelope.id), result), certain and spare < _DUPLICATE
    if type(envelope.error) is not Raw:
        _refuse("none of 'method', 'result' and 'error'")
    error, certain = _read_value(envelope.error)
    spare = size - _BARE - _ERROR - len(envelope.error)
    request_id: RequestId | None = None
    if type(envelope.id) is Raw:
        spare -= _ID + len(envelope.id)
        # The only message whose id may be null: the peer could not read ours.
        request_id = None if bytes(envelope.id) == b"null" else _read_id(envelope.id)
    return _read_failure(request_id, error), certain and spare < _DUPLICATE


def _read_failure(request_id: RequestId | None, error: Any) -> Failure:
    if type(error) is not dict:
        _refuse("'error' is not an object")
    code, text = error.get("code"), error.get("message")
    if type(code) is not int:
        _refuse("the error's code is not an integer")
    if type(text) is not str:
        _refuse("the error's message is not a string")
    return Failure(request_id, code, text, error.get("data"))


def _read_id(raw: Raw) -> RequestId:
    value = _values.decode(raw)
    # By type, not isinstance: True is no 1, and 1.0 is not the id that we sent.
    if type(value) is not int and type(value) is not str:
        _refuse("'id' is neither an integer nor a string")
    return value


def _read_value(raw: Raw) -> tuple[Any, bool]:
    """The value, and whether its text is proven to hold no key twice."""
    value = _values.decode(raw)
    return value, Raw(_encoder.encode(value)) == raw


def _read_question(result: dict[str, Any]) -> InputRequired:
    requests, state = result.get("inputRequests"), result.get("requestState")
    if requests is None and state is None:
        raise ProtocolError("input is required, but none is named", delivery="answered")
    if requests is None:
        requests = {}
    if type(requests) is not dict or not all(map(_is_request, requests.values())):
        raise ProtocolError("'inputRequests' is malformed", delivery="answered")
    if state is not None and type(state) is not str:
        raise ProtocolError("'requestState' is not a string", delivery="answered")
    return InputRequired(requests, state)


def _is_request(value: Any) -> bool:
    return (
        type(value) is dict
        and type(value.get("method")) is str
        and type(value.get("params", {})) is dict
    )


def _refuse(what: str) -> NoReturn:
    raise ProtocolError(f"not a JSON-RPC message: {what}")


def _refuse_duplicates(data: bytes | bytearray | memoryview) -> None:
    try:
        _duplicates.decode(str(data, "utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"not a JSON-RPC message: {_quote(exc)}") from None


def _check_keys(pairs: list[tuple[str, None]]) -> None:
    """An object of the second reading: looked at and forgotten."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice in one object")


def _ignore(_digits: str) -> None:
    return None


def _quote(words: object) -> str:
    # ascii: a peer's newlines, bidi marks and escapes must not dress up our message.
    return ascii(str(words)[:_QUOTE_CHARS_MAX])


_duplicates = json.JSONDecoder(
    object_pairs_hook=_check_keys, parse_int=_ignore, parse_float=_ignore, parse_constant=_ignore
)
