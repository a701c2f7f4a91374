"""The targets on their corpus and on inputs of chance; ``nox -s fuzz`` looks far deeper."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import DICTIONARY, TARGETS

CORPUS = Path(__file__).parent / "corpus"

#: Words and bytes of chance, one after another.
inputs = st.lists(st.sampled_from(DICTIONARY) | st.binary(max_size=8), max_size=40).map(b"".join)


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert sorted(TARGETS) == NAMES


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    found = sorted((CORPUS / name).iterdir())
    assert found, "each target has examples to begin with"
    for path in found:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=inputs)
@settings(max_examples=60)
def test_inputs_of_chance(name: str, data: bytes) -> None:
    TARGETS[name](data)
