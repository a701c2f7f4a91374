"""Every error has a status and a word, and none says more than it may."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sark_trio import errors
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConnectTimeout,
    Denied,
    GatewayError,
    OutcomeUnknown,
    PolicyUnavailable,
    ReadTimeout,
    RemoteError,
)
from sark_trio.gateway.faults import Refused, fault_of
from sark_trio.gateway.refusals import RpcRefused

NEEDED: dict[str, dict[str, Any]] = {"RemoteError": {"code": 1}, "HTTPStatusError": {"status": 500}}
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, GatewayError)
]


def make(kind: type[GatewayError]) -> GatewayError:
    fields: dict[str, Any] = {}
    for base in kind.__mro__:
        fields.update(NEEDED.get(base.__name__, {}))
    error = kind("a secret of the operator's", **fields)
    error.request_id = "r-1"
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_shown_without_its_message(kind: type[GatewayError]) -> None:
    fault = fault_of(make(kind))
    assert 400 <= fault.status <= 504
    assert fault.kind.isidentifier()
    assert fault.message
    assert fault.data["request_id"] == "r-1"
    assert fault.data["delivery"] in {"not_sent", "unknown", "answered"}
    if kind is not RemoteError:
        assert "secret" not in repr(fault)
        assert "secret" not in repr(vars(RpcRefused.of(make(kind))))


@pytest.mark.parametrize("reason", ["Because: alice may not", "", "x" * 65, "a\nb", "Word", None])
def test_a_reason_that_is_no_word_is_left_out(reason: str | None) -> None:
    fault = fault_of(Denied("no", reason=reason))
    assert fault.reason == ("denied" if reason is None else None)
    assert fault_of(PolicyUnavailable("no", reason="timeout")).data["reason"] == "timeout"


def test_time_that_ran_out_is_a_timeout_wherever_it_did() -> None:
    unknown = OutcomeUnknown("x")
    unknown.__cause__ = ReadTimeout("x")
    for error in (CallTimeout("x"), ReadTimeout("x"), ConnectTimeout("x"), unknown):
        assert fault_of(error).status == 504
    assert fault_of(OutcomeUnknown("x")).status == 502


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.2, "1"), (1.0, "1"), (1.1, "2"), (30.0, "30"), (None, None)]
)
def test_retry_after_is_whole_seconds(seconds: float | None, header: str | None) -> None:
    headers = dict(fault_of(CircuitOpen("x", retry_after_s=seconds)).headers)
    assert headers.get("retry-after") == header


def test_what_is_refused_here_says_why() -> None:
    refused = Refused(401, "unauthenticated", "who?", reason="key_invalid", headers=(("a", "b"),))
    assert refused.fault.data == {"type": "unauthenticated", "reason": "key_invalid"}
    assert (refused.fault.status, refused.headers) == (401, (("a", "b"),))


@pytest.mark.parametrize(
    ("code", "shown"),
    [(-32602, -32602), (-32601, -32601), (-32020, -32603), (-32000, -32603), (-31999, -31999)],
)
def test_codes_that_are_reserved_are_not_passed_on(code: int, shown: int) -> None:
    refused = RpcRefused.of(RemoteError("said", code=code))
    assert (refused.code, refused.message) == (shown, "said")
    assert refused.data["upstream_code"] == code
