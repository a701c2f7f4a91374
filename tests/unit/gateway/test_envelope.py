"""Arguments that a tool wants in headers, too: both must say the same."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.gateway.envelope import check_params
from sark_trio.gateway.refusals import RpcRefused
from sark_trio.mcp.headers import ParamHeader

REGION = ParamHeader("Mcp-Param-Region", ("where", "region"))


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("eu", "eu"),
        ("ä", "=?base64?w6Q=?="),
        ("eu", "=?base64?ZXU=?="),
        (42, "42"),
        (42, "42.0"),
        (True, "true"),
        (None, None),
    ],
)
def test_what_agrees_passes(value: Any, header: str | None) -> None:
    headers = {} if header is None else {"mcp-param-region": header}
    check_params((REGION,), {"where": {"region": value}}, headers)


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        ({"where": {"region": "eu"}}, None),
        ({"where": {"region": "eu"}}, "us"),
        ({"where": {"region": "eu"}}, "=?base64?ZXU?="),
        ({"where": {"region": "42"}}, "42.0"),
        ({"where": {"region": 42}}, "many"),
        ({"where": {"region": 2**60}}, str(2**60)),
        ({"where": {}}, "eu"),
        ({"where": "eu"}, "eu"),
        (None, "eu"),
    ],
)
def test_what_differs_is_refused(arguments: Any, header: str | None) -> None:
    headers = {} if header is None else {"mcp-param-region": header}
    with pytest.raises(RpcRefused) as caught:
        check_params((REGION,), arguments, headers)
    assert (caught.value.code, caught.value.status) == (-32020, 400)
