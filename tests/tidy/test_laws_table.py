"""The table of laws finds gaps: missing, skipped, or failed anywhere."""

from __future__ import annotations

from tests.support.laws import LawTable, required_ids, sort_key


def table(*rows: tuple[str, str, str | None]) -> LawTable:
    made = LawTable()
    for law, test, outcome in rows:
        made.add(law, test, "A sentence.", outcome)
    return made


def test_a_law_with_a_passing_test_is_no_gap() -> None:
    assert table(("B1", "t1", "passed")).gaps(["B1"]) == []


def test_a_law_without_test_is_a_gap() -> None:
    assert table(("B1", "t1", "passed")).gaps(["B1", "B2"]) == ["B2"]


def test_a_law_whose_tests_were_skipped_or_not_run_is_a_gap() -> None:
    assert table(("B1", "t1", "skipped"), ("B2", "t2", None)).gaps(["B1", "B2"]) == ["B1", "B2"]


def test_one_failure_breaks_the_law_whatever_else_passed() -> None:
    rows = [("B1", "t1", "passed"), ("B1", "t1", "failed"), ("B1", "t2", "passed")]
    assert table(*rows).gaps(["B1"]) == ["B1"]


def test_rows_come_in_the_order_of_numbers() -> None:
    made = table(("B10", "t", "passed"), ("A1", "t", "passed"), ("B2", "t", "failed"))
    assert [row["law"] for row in made.rows()] == ["A1", "B2", "B10"]
    assert made.lines()[1].startswith("B2   failed   t")
    assert sorted(["B10", "B9"], key=sort_key) == ["B9", "B10"]


def test_required_ids_are_words_outside_comments() -> None:
    assert required_ids("# B9\nB1 B2 # B3\n\nA1\n") == ["B1", "B2", "A1"]
