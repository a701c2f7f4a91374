"""What our client sent, read back from copies of the wire, and judged by the official models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import h11
from attrs import field, frozen
from mcp_types import PROTOCOL_VERSION_META_KEY, jsonrpc, methods
from mcp_types.version import LATEST_HANDSHAKE_VERSION as LEGACY
from pydantic import BaseModel, TypeAdapter, ValidationError
from wsproto.connection import SERVER, Connection
from wsproto.events import TextMessage

from tests.interop.relay import Copied

__all__ = ["Sent", "faults_in", "http_messages", "line_messages", "websocket_messages"]

_NOTHING_YET: Final = (type(h11.NEED_DATA), type(h11.PAUSED), h11.ConnectionClosed)
#: Which question of a server's a result of ours answers, by a member that only it has.
_ANSWERS: Final = {
    "action": "elicitation/create",
    "model": "sampling/createMessage",
    "roots": "roots/list",
}


@frozen
class Sent:
    """One message of our client's."""

    body: bytes
    #: Of the request that carried it, names in lower case; empty where none did.
    headers: Mapping[str, str] = field(factory=dict)
    #: The media type that the server answered it with, if it did.
    answered_with: str = ""

    @property
    def method(self) -> str | None:
        """What it asks for or tells."""
        method = json.loads(self.body).get("method")
        return None if method is None else str(method)


# -- reading ------------------------------------------------------------------------------------


def line_messages(copied: bytes) -> list[Sent]:
    """Those that went to a process; what follows the last newline was cut off."""
    return [Sent(line) for line in copied.split(b"\n")[:-1] if line]


def http_messages(connections: Iterable[Copied]) -> list[Sent]:
    """Those that were POSTed."""
    return [sent for copied in connections for sent in _posted(copied)]


def websocket_messages(connections: Iterable[Copied]) -> list[Sent]:
    """Those that went through WebSockets, behind the opening handshake."""
    found = list[Sent]()
    for copied in connections:
        _, _, frames = bytes(copied.asked).partition(b"\r\n\r\n")
        text = ""
        for event in Connection(SERVER, trailing_data=frames).events():
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    found.append(Sent(text.encode()))
                    text = ""
    return found


def _posted(copied: Copied) -> Iterator[Sent]:
    requests = _requests(bytes(copied.asked))
    answers = _media_types(bytes(copied.answered), [request for request, _ in requests])
    for (request, body), answer in zip(requests, answers, strict=True):
        if request.method == b"POST" and body:
            headers = {name.decode(): value.decode() for name, value in request.headers}
            yield Sent(body, headers, answer)


def _requests(data: bytes) -> list[tuple[h11.Request, bytes]]:
    """The requests that came whole."""
    machine, found = h11.Connection(h11.SERVER), list[tuple[h11.Request, bytes]]()
    if not data:  # which the machine would take for the end
        return found
    machine.receive_data(data)
    body = bytearray()
    while not isinstance(event := machine.next_event(), _NOTHING_YET):
        if isinstance(event, h11.Request):
            request, body = event, bytearray()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            found.append((request, bytes(body)))
            # The machine wants an answer given before it reads on.
            machine.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            machine.send(h11.EndOfMessage())
            if machine.our_state is not h11.DONE:
                break
            machine.start_next_cycle()
    return found


def _media_types(data: bytes, requests: Sequence[h11.Request]) -> list[str]:
    """The media type of the answer to each of *requests*, as far as they were answered."""
    machine, found = h11.Connection(h11.CLIENT), list[str]()
    if data:
        machine.receive_data(data)
    for request in requests:
        target, method = request.target, request.method
        machine.send(h11.Request(method=method, target=target, headers=[("host", "relay")]))
        machine.send(h11.EndOfMessage())
        media_type = b""
        while not isinstance(event := machine.next_event(), _NOTHING_YET):
            if isinstance(event, h11.Response):
                media_type = dict(event.headers).get(b"content-type", b"")
            elif isinstance(event, h11.EndOfMessage):
                break
        found.append(media_type.decode().partition(";")[0])
        if (machine.our_state, machine.their_state) != (h11.DONE, h11.DONE):
            break
        machine.start_next_cycle()
    return found + [""] * (len(requests) - len(found))


# -- judging ------------------------------------------------------------------------------------


def faults_in(messages: Iterable[Sent], version: str) -> list[str]:
    """What the official models of *version*, which was agreed, object to.

    A message is right if its model takes it and knows every member of it.
    """
    found = []
    for sent in messages:
        try:
            _check(sent, version)
        except (AssertionError, KeyError, ValueError, ValidationError) as exc:
            found.append(f"{sent.body[:200]!r}: {type(exc).__name__}: {exc}")
    return found


def _check(sent: Sent, version: str) -> None:
    envelope = jsonrpc.jsonrpc_message_adapter.validate_json(sent.body)
    message = json.loads(sent.body)
    if isinstance(envelope, jsonrpc.JSONRPCError):
        return
    if isinstance(envelope, jsonrpc.JSONRPCResponse):
        _check_answer(message["result"], version)
        return
    params = message.get("params", {})
    version = _version_of(envelope.method, params, version)
    if isinstance(envelope, jsonrpc.JSONRPCRequest):
        model = methods.CLIENT_REQUESTS[envelope.method, version]
    else:
        model = methods.CLIENT_NOTIFICATIONS[envelope.method, version]
    _check_known(model.model_validate(message, by_name=False), message)
    named = sent.headers.get("mcp-protocol-version", version)
    assert envelope.method == "initialize" or named == version, "the header says otherwise"


def _version_of(method: str, params: Mapping[str, Any], agreed: str) -> str:
    """The revision that a message is of: what it says itself counts."""
    if method == "initialize":
        return str(params["protocolVersion"])
    return str(params.get("_meta", {}).get(PROTOCOL_VERSION_META_KEY, agreed))


def _check_answer(result: Mapping[str, Any], version: str) -> None:
    asked = next((_ANSWERS[name] for name in _ANSWERS if name in result), "ping")
    # A server that agreed on the oldest revision may ask what came later, if we offered it.
    known = (asked, version) if (asked, version) in methods.CLIENT_RESULTS else (asked, LEGACY)
    model = TypeAdapter[Any](methods.CLIENT_RESULTS[known])
    _check_known(model.validate_python(result, by_name=False), result)


def _check_known(read: BaseModel, written: Mapping[str, Any]) -> None:
    """Nothing was left out in reading: all of it means something."""
    again = read.model_dump(by_alias=True, mode="json", exclude_unset=True)
    assert again == written, f"read as {again}"
