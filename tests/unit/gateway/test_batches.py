"""What is in a batch, against what JSON-RPC 2.0 says of one (section 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sark_trio.gateway.batches import MESSAGES_MAX, Batch, is_batch
from sark_trio.gateway.refusals import RpcRefused
from sark_trio.mcp.messages import Notification, Success

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ANSWER = {"jsonrpc": "2.0", "id": "ask-1", "result": {}}


def test_messages_are_told_apart() -> None:
    mixed = [PING, NOTE, ANSWER, 1, [PING], {**PING, "id": 2, "jsonrpc": "1.0"}]
    batch = Batch.of(json.dumps(mixed).encode())
    assert [one.id for one in batch.requests] == [1]
    assert [type(one) for one in batch.others] == [Notification, Success]
    refused = [json.loads(one) for one in batch.refusals]
    assert [one["error"]["code"] for one in refused] == [-32600] * 3
    assert [one["id"] for one in refused] == [None, None, 2]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[", -32700),
        (b'[{"a":1,"a":2}]', -32700),
        (b"[\xff]", -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (json.dumps([PING] * (MESSAGES_MAX + 1)).encode(), -32600),
    ],
)
def test_what_is_no_batch_is_refused_whole(body: bytes, code: int) -> None:
    with pytest.raises(RpcRefused) as caught:
        Batch.of(body)
    assert (caught.value.code, caught.value.status) == (code, 400)


@pytest.mark.parametrize(
    ("body", "expected"), [(b" \r\n\t[", True), (b"[]", True), (b"{[", False), (b"", False)]
)
def test_an_array_is_known_by_its_beginning(body: bytes, expected: Any) -> None:
    assert is_batch(body) is expected
