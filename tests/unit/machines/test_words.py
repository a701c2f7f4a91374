"""The words of the machines are public: snapshots, audit records, metrics and users have them."""

from __future__ import annotations

from enum import StrEnum

import pytest

from sark_trio.machines import adaptive, circuit, failure, streams, supervision

KINDS = [
    *(circuit.CircuitState, circuit.Mode, circuit.Outcome, circuit.Why),
    *(failure.Safety, failure.Situation),
    *(streams.End, streams.Phase, supervision.Phase, adaptive.Signal),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_word_is_its_name(kind: type[StrEnum]) -> None:
    assert [str(word) for word in kind] == [word.name.lower() for word in kind]
