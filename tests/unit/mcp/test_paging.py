"""Walking a list: as far as it goes, and no further."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import ProtocolError
from sark_trio.mcp import paging
from sark_trio.mcp.paging import PageWalk


def page(*items: Any, cursor: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"things": list(items)}
    return made if cursor is None else {**made, "nextCursor": cursor}


@given(st.lists(st.lists(st.integers(), max_size=4), min_size=1, max_size=8))
def test_every_page_is_taken_once_and_in_order(pages: list[list[int]]) -> None:
    walk, found, asked = PageWalk("things"), [], []
    for number, items in enumerate(pages):
        asked.append(walk.params())
        last = number == len(pages) - 1
        found += walk.take(page(*items, cursor=None if last else f"c{number}"))
        walk.check_invariants()
    assert walk.done
    assert found == [item for items in pages for item in items]
    assert asked == [{}, *({"cursor": f"c{n}"} for n in range(len(pages) - 1))]


def test_an_empty_cursor_is_a_cursor() -> None:
    walk = PageWalk("things")
    walk.take(page(1, cursor=""))
    assert not walk.done
    assert walk.params() == {"cursor": ""}


@pytest.mark.parametrize("cursors", [["a", "a"], ["a", "b", "a"]])
def test_a_cursor_that_comes_back_ends_the_walk(cursors: list[str]) -> None:
    walk = PageWalk("things")
    with pytest.raises(ProtocolError, match="repeats"):
        for cursor in cursors:
            walk.take(page(cursor=cursor))


def test_a_walk_can_begin_anywhere_and_not_come_back_there() -> None:
    walk = PageWalk("things", "here")
    assert walk.params() == {"cursor": "here"}
    with pytest.raises(ProtocolError, match="repeats"):
        walk.take(page(cursor="here"))


def test_lists_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (paging.PAGES_MAX, paging.ITEMS_MAX) == (1_000, 100_000)
    monkeypatch.setattr(paging, "PAGES_MAX", 3)
    for last in (None, "2"):
        walk = PageWalk("things")
        walk.take(page(cursor="0"))
        walk.take(page(cursor="1"))
        if last is None:
            walk.take(page(cursor=None))
            assert repr(walk) == "<PageWalk things done pages=3 items=0>"
            continue
        with pytest.raises(ProtocolError, match="does not end") as caught:
            walk.take(page(cursor=last))
        assert caught.value.delivery == "answered"
    monkeypatch.setattr(paging, "ITEMS_MAX", 3)
    PageWalk("things").take(page(1, 2, 3, cursor="x"))
    with pytest.raises(ProtocolError, match="does not end"):
        PageWalk("things").take(page(1, 2, 3, 4, cursor="x"))
    PageWalk("things").take(page(cursor="x" * 8_192))
    with pytest.raises(ProtocolError, match="cursor of more than"):
        PageWalk("things").take(page(cursor="x" * 8_193))


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not a list"):
        PageWalk("things").take({"others": []})
    assert repr(PageWalk("things")) == "<PageWalk things under way pages=0 items=0>"
