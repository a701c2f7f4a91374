"""The ``_meta`` of a request: what the gateway owns, and what a caller may add."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.errors import InvalidArguments
from sark_trio.mcp.meta import (
    LOG_LEVELS,
    SERVER_INFO,
    SUBSCRIPTION_ID,
    TRACE_KEYS,
    request_meta,
    with_meta,
)
from sark_trio.mcp.versions import LEGACY, MODERN

INFO = {"name": "client", "version": "1"}
TRACE = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


def meta(version: str = MODERN, **options: Any) -> dict[str, Any]:
    return request_meta(version, client_info=INFO, client_capabilities={}, **options)


def test_a_modern_request_says_who_asks_in_which_version() -> None:
    assert meta() == {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": INFO,
        "io.modelcontextprotocol/clientCapabilities": {},
    }


def test_the_words_of_the_protocol() -> None:
    assert SERVER_INFO == "io.modelcontextprotocol/serverInfo"
    assert SUBSCRIPTION_ID == "io.modelcontextprotocol/subscriptionId"
    assert TRACE_KEYS == ("traceparent", "tracestate", "baggage")
    levels = "debug info notice warning error critical alert emergency"
    assert " ".join(LOG_LEVELS) == levels


def test_a_modern_request_asks_for_logs_and_progress_where_wanted() -> None:
    full = meta(log_level="warning", progress_token=0, trace={**TRACE, "baggage": "a=b", "x": "y"})
    assert full["io.modelcontextprotocol/logLevel"] == "warning"
    assert full["progressToken"] == 0
    assert full["traceparent"] == TRACE["traceparent"]
    assert full["baggage"] == "a=b"
    assert "x" not in full


def test_a_legacy_request_has_progress_and_trace_only() -> None:
    assert meta(LEGACY[0]) == {}
    assert meta(LEGACY[0], log_level="debug", progress_token="p", trace=TRACE) == {
        "progressToken": "p",
        **TRACE,
    }


def test_the_callers_own_members_stay_and_nothing_is_mutated() -> None:
    own = {"com.example/key": [1], "com.example.mcp/key": 2, "plain": 3, "mcp/x": 4}
    before = dict(own)
    merged = meta(own=own, progress_token=1)
    assert own == before
    assert {key: merged[key] for key in own} == own
    assert merged["progressToken"] == 1


def test_the_trace_of_the_inner_hop_replaces_the_callers() -> None:
    assert meta(own={"traceparent": "theirs"}, trace=TRACE)["traceparent"] == TRACE["traceparent"]
    assert meta(own={"traceparent": "theirs"})["traceparent"] == "theirs"


@pytest.mark.parametrize(
    "key",
    [
        "progressToken",
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/anything",
        "dev.mcp/",
        "org.modelcontextprotocol.api/x",
        "com.mcp.tools/a/b",
    ],
)
@pytest.mark.parametrize("version", [MODERN, LEGACY[0]])
def test_a_reserved_key_is_refused(key: str, version: str) -> None:
    with pytest.raises(InvalidArguments, match="reserved"):
        meta(version, own={key: 1})


def test_own_meta_must_be_an_object_with_string_keys() -> None:
    with pytest.raises(InvalidArguments, match="object, not list"):
        meta(own=[1])
    with pytest.raises(InvalidArguments, match="string, not int"):
        meta(own={1: 2})


def test_params_get_the_meta_and_stay_as_they_were() -> None:
    params = {"name": "t", "_meta": {"old": 1}}
    assert with_meta(params, {"new": 1}) == {"name": "t", "_meta": {"new": 1}}
    assert with_meta(params, {}) == {"name": "t"}
    assert with_meta({}, {}) == {}
    assert params == {"name": "t", "_meta": {"old": 1}}
