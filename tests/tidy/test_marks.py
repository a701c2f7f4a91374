"""Marks are honest: each law has its sentence, and every fault of the forerunner is refuted."""

from __future__ import annotations

from tests.support.laws import sort_key
from tests.tidy.marks import Marked, marked
from tests.tidy.source import project_files

TESTS = project_files(under="tests/", suffix=".py")
#: All that were found in the system before this one.
REFUTED = set(range(1, 53))


def test_every_law_says_its_sentence() -> None:
    silent = [
        f"{path}::{test.name}"
        for path, text in TESTS.items()
        for test in marked(text, "law")
        if not test.documented
    ]
    assert silent == []


def test_a_law_begins_its_name_with_its_id() -> None:
    for path, text in TESTS.items():
        if not path.startswith("tests/laws/"):
            continue
        for test in marked(text, "law"):
            if test.name.startswith("test_"):
                letters, number = sort_key(test.arguments[0])
                assert test.name.startswith(f"test_{letters.lower()}{number:02}_"), path


def test_every_fault_has_a_test_that_refutes_it() -> None:
    found = {
        number
        for text in TESTS.values()
        for test in marked(text, "fault")
        for number in test.arguments
    }
    assert sorted(REFUTED - found) == []


def test_marks_are_found_on_functions_and_classes() -> None:
    text = (
        "@pytest.mark.law('B1', 'B2')\ndef test_a():\n    'It holds.'\n"
        "@pytest.mark.fault(7)\nclass TestB:\n    @pytest.mark.law('B3')\n"
        "    async def test_c(self): ...\n"
    )
    assert list(marked(text, "law")) == [
        Marked("test_a", ("B1", "B2"), documented=True),
        Marked("test_c", ("B3",), documented=False),
    ]
    assert list(marked(text, "fault")) == [Marked("TestB", (7,), documented=False)]
