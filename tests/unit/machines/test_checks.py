"""Validators of options refuse what is no number, and numbers out of bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from attrs import field, frozen

from sark_trio.machines.checks import between, positive, whole


@frozen
class Options:
    share: Any = field(default=0.5, validator=between(0, 1))
    count: Any = field(default=1, validator=whole(1, 9))
    wait_s: Any = field(default=1.0, validator=positive)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"share": True}, TypeError),
        ({"share": "1"}, TypeError),
        ({"share": math.nan}, ValueError),
        ({"share": 1.1}, ValueError),
        ({"count": 1.0}, TypeError),
        ({"count": True}, TypeError),
        ({"count": 10}, ValueError),
        ({"wait_s": 0}, ValueError),
        ({"wait_s": math.inf}, ValueError),
        ({"wait_s": math.nan}, ValueError),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Options(**options)


def test_bounds_are_within() -> None:
    assert Options(share=1, count=9, wait_s=1e-9) == Options(1, 9, 1e-9)
