"""A test of the tests: each planted bug makes each of the laws fail that are there against it."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from hypothesis import Phase, settings

from tests.laws.planted import PLANTED, Planted, copy, load

#: The same examples each time, enough of them, and no effort to make a known bug small.
_SEARCH = settings(
    max_examples=500,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
)
_CASES = [
    pytest.param(bug, law, id=f"{bug.name}-{law}") for bug in PLANTED for law in bug.caught_by
]
_LAWS = sorted({(bug.laws, bug.module, law) for bug in PLANTED for law in bug.caught_by})


def failures(
    laws: str, module: str, law: str, subject: ModuleType, search: settings = _SEARCH
) -> list[str]:
    """The tests that state *law* and fail with *subject* in the place of the real *module*."""
    home = importlib.import_module(f"tests.laws.test_{laws}")
    failed = []
    stated = [name for name in dir(home) if name.startswith(f"test_{law}_")]
    assert stated
    with pytest.MonkeyPatch.context() as patch:
        assert getattr(home, module).__name__ == f"sark_trio.machines.{module}"
        patch.setattr(home, module, subject)
        for name in stated:
            test = getattr(home, name)
            if hasattr(test, "hypothesis"):
                patch.setattr(test, "_hypothesis_internal_use_settings", search)
            try:
                test()
            except AssertionError:
                failed.append(name)
    return failed


@pytest.mark.parametrize(("bug", "law"), _CASES)
def test_the_law_sees_the_bug(bug: Planted, law: str) -> None:
    assert failures(bug.laws, bug.module, law, load(bug)) != []


@pytest.mark.parametrize(("laws", "module", "law"), _LAWS)
def test_the_law_sees_nothing_in_a_faithful_copy(laws: str, module: str, law: str) -> None:
    # The law has its own test; here it is only about the way in which bugs are planted.
    few = settings(_SEARCH, max_examples=30)
    assert failures(laws, module, law, copy(module), few) == []


def test_at_least_nine_bugs_are_planted() -> None:
    assert len({bug.name for bug in PLANTED}) == len(PLANTED) >= 9
