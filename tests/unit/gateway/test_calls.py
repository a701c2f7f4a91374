"""Requests under way: found by exactly their own id, and cancelled by nothing else."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sark_trio.gateway.calls import Calls
from sark_trio.gateway.refusals import RpcRefused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "wrong", [True, 1.0, "1", None, [1], {"a": 1}, [], {}, 2, float("nan")], ids=repr
)
async def test_a_cancellation_of_something_else_is_passed_over(wrong: Any) -> None:
    calls, scope = Calls(), anyio.CancelScope()
    with calls.under_way(1, scope):
        calls.on_cancelled({"requestId": wrong})
        calls.on_cancelled({})
        assert not scope.cancel_called
        calls.on_cancelled({"requestId": 1})
        assert scope.cancel_called
    assert len(calls) == 0
    calls.on_cancelled({"requestId": 1})  # it has ended


async def test_an_id_is_under_way_once() -> None:
    calls = Calls()
    with calls.under_way("1", anyio.CancelScope()), calls.under_way(1, anyio.CancelScope()):
        assert len(calls) == 2
        with pytest.raises(RpcRefused, match="under way"):
            calls.under_way(1, anyio.CancelScope()).__enter__()
        assert len(calls) == 2
    with calls.under_way(1, anyio.CancelScope()):
        assert len(calls) == 1
