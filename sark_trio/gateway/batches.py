"""Batches of JSON-RPC messages, which revision 2025-03-26 has and no other."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from sark_trio import jsontext
from sark_trio.errors import ProtocolError
from sark_trio.gateway.refusals import INVALID_REQUEST, PARSE_ERROR, RpcRefused
from sark_trio.gateway.rpc import malformed
from sark_trio.mcp.codec import decode
from sark_trio.mcp.messages import Failure, Notification, Request, Success

__all__ = ["BATCHED", "Batch", "is_batch", "joined"]

#: The revision whose servers must take batches (2025-03-26, "Batching").
BATCHED: Final = "2025-03-26"
#: A host asks for a page of each list and a few calls at once; more is a flood.
MESSAGES_MAX: Final = 64


@final
@frozen
class Batch:
    """What is in one.

    :param requests: to be answered, all in one array.
    :param others: notifications and answers; those get none.
    :param refusals: answers to what is no message.
    """

    requests: tuple[Request, ...]
    others: tuple[Notification | Success | Failure, ...]
    refusals: tuple[bytes, ...]

    @classmethod
    def of(cls, body: bytes) -> Batch:
        """The messages in *body*, which is an array, each by itself (JSON-RPC 2.0, section 6).

        :raises RpcRefused: HTTP 400; it is no batch, is empty, or holds too many.
        """
        try:
            parts = jsontext.decode_strict(body)
        except jsontext.JSONError as exc:
            raise RpcRefused(PARSE_ERROR, "this is not JSON", status=400) from exc
        if not isinstance(parts, list) or not 0 < len(parts) <= MESSAGES_MAX:
            words = f"a batch holds 1 to {MESSAGES_MAX} messages"
            raise RpcRefused(INVALID_REQUEST, words, status=400)
        requests: list[Request] = []
        others: list[Notification | Success | Failure] = []
        refusals: list[bytes] = []
        for part in map(jsontext.encode, parts):
            try:
                message = decode(part)
            except ProtocolError:
                refusals.append(malformed(part))
                continue
            if isinstance(message, Request):
                requests.append(message)
            else:
                others.append(message)
        return cls(tuple(requests), tuple(others), tuple(refusals))


def is_batch(body: bytes) -> bool:
    """Whether *body* is an array, if it is JSON at all."""
    return body.lstrip(b" \t\r\n").startswith(b"[")


def joined(answers: list[bytes]) -> bytes:
    """*answers* as one array."""
    return b"[" + b",".join(answers) + b"]"
