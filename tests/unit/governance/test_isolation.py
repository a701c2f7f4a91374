from __future__ import annotations

from typing import Any

import pytest

from sark_trio import errors, jsontext
from sark_trio.governance.isolation import Isolation
from sark_trio.governance.rego import Rego

TEXT = "package p\nimport rego.v1\nallow := true\n"


@pytest.mark.security(25)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluation_s", 0),
        ("evaluation_s", 60.1),
        ("evaluation_s", float("inf")),
        ("evaluation_s", float("nan")),
        ("evaluation_s", "1"),
        ("memory_bytes_max", (16 << 20) - 1),
        ("memory_bytes_max", 1 << 47),
        ("processes", 0),
        ("processes", 65),
        ("processes", 1.5),
    ],
)
def test_an_option_that_bounds_nothing_is_refused(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        Isolation(**{name: value})


def test_bounds_are_exact_and_defaults_are_the_documented_ones() -> None:
    least = Isolation(evaluation_s=0.001, memory_bytes_max=16 << 20, processes=1)
    most = Isolation(evaluation_s=60, memory_bytes_max=1 << 46, processes=64)
    assert (least.memory_bytes_max, most.processes) == (16_777_216, 64)
    assert Isolation() == Isolation(evaluation_s=0.5, memory_bytes_max=268_435_456, processes=2)


def test_an_isolated_policy_is_never_loaded_into_this_process() -> None:
    policy = Rego(texts={"p.rego": TEXT}, isolation=Isolation())
    with pytest.raises(errors.ConfigError, match="GatewayClient"):
        policy.load()
    assert Rego(texts={"p.rego": TEXT}).load().evaluate({}).allow


def test_a_program_is_all_that_another_process_needs() -> None:
    policy = Rego(texts={"p.rego": TEXT}, data={"a": 1}, v0=True)
    isolation = Isolation(evaluation_s=1.5, memory_bytes_max=1 << 27)
    assert jsontext.decode(policy.parse().program(isolation)) == {
        "sources": [["p.rego", TEXT]],
        "data": '{"a":1}',
        "v0": True,
        "query": "data.p",
        "answer_bytes_max": 1 << 20,
        "evaluation_s": 1.5,
        "memory_bytes_max": 1 << 27,
    }
