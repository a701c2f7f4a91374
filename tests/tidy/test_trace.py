"""Every promise has its tests: each row of the fault matrix, each law, each line about security."""

from __future__ import annotations

from tests.tidy.security import LINES, holders
from tests.tidy.source import project_files
from tests.tidy.trace import Row, Trace, law_ids, rows, trace

TESTS = project_files(under="tests/", suffix=".py")
ROWS = 64
#: Rows that cannot be played on this kind of machine, and why. This may only shrink.
NOT_HERE: dict[int, str] = {}
#: Laws without a test of their own. This may only shrink.
MISSING: frozenset[str] = frozenset()


def test_the_matrix_is_whole() -> None:
    assert [row.number for row in rows()] == list(range(1, ROWS + 1))
    assert all(row.fault and row.expected for row in rows())


def test_every_row_has_a_test_and_every_mark_a_row() -> None:
    found = set(trace("row", TESTS))
    assert sorted({row.number for row in rows()} - found) == sorted(NOT_HERE)
    assert sorted(found - {row.number for row in rows()}) == []


def test_every_law_has_a_test_and_every_mark_a_law() -> None:
    found = set(trace("law", TESTS))
    assert sorted(set(law_ids()) - found) == sorted(MISSING)
    assert sorted(found - set(law_ids())) == []
    assert len(law_ids()) == len(set(law_ids()))


def test_every_line_about_security_has_a_test() -> None:
    found = trace("security", TESTS)
    assert sorted(found) == list(range(1, LINES + 1))
    theirs = {
        (path, test, number)
        for path, text in TESTS.items()
        for test, numbers in holders(text)
        for number in numbers
    }
    ours = {
        (test.path, test.name.rpartition("::")[2], number)
        for number, tests in found.items()
        for test in tests
    }
    assert theirs == ours


def test_a_law_is_stated_by_a_test_that_says_its_sentence() -> None:
    laws = trace("law", TESTS)
    assert [law for law in law_ids() if not any(test.sentence for test in laws.get(law, []))] == []


# -- the reading itself -----------------------------------------------------------------------

PLANTED = '''
pytestmark = [pytest.mark.anyio, pytest.mark.row(1)]

@pytest.mark.row(2, 3)
@pytest.mark.law("B1")
async def test_a():
    """It holds.

    More.
    """

@pytest.mark.row(4)
class TestB:
    @pytest.mark.row(2)
    def test_c(self): ...

@pytest.mark.row(5)
class TestD(Machine.TestCase):
    """It holds, too."""

@pytest.mark.row(6)
def helper(): ...
'''


def test_marks_are_found_on_modules_classes_and_functions() -> None:
    found = trace("row", {"tests/test_x.py": PLANTED})
    names = {number: [test.name for test in tests] for number, tests in found.items()}
    assert names == {
        1: ["test_a", "TestB::test_c", "TestD"],
        2: ["test_a", "TestB::test_c"],
        3: ["test_a"],
        4: ["TestB::test_c"],
        5: ["TestD"],
    }
    assert trace("law", {"tests/test_x.py": PLANTED}) == {
        "B1": [Trace("tests/test_x.py", "test_a", 6, "It holds.")]
    }
    assert found[5][0].nodeid == "tests/test_x.py::TestD"
    assert trace("row", {"tests/support/x.py": PLANTED}) == {}


def test_a_row_is_a_number_a_fault_and_what_then_is_so() -> None:
    assert rows()[3] == Row(4, "a thousand handshakes cancelled", "no descriptor, no slot is left")
