"""Walking a list page by page, as far as a list can be: MCP 2026-07-28, "Pagination".

A cursor is opaque, and an empty one is a cursor. A server that hands out one that it handed
out before would be followed for ever; one that never stops is stopped here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from attrs import define, field

from sark_trio.errors import ProtocolError
from sark_trio.mcp.results import page_of

__all__ = ["PageWalk"]

#: No server has more pages or items than this; one that does repeats itself.
PAGES_MAX: Final = 1_000
ITEMS_MAX: Final = 100_000
#: A cursor comes back to the server in a request; it is kept for each page.
CURSOR_CHARS_MAX: Final = 8_192


@final
@define(eq=False, repr=False)
class PageWalk:
    """The walk through one list.

    :param key: the member of each page that holds its items.
    :param cursor: where to begin; ``None`` at the beginning.
    """

    key: str
    cursor: str | None = None
    #: The last page was taken.
    done: bool = field(default=False, init=False)
    _seen: set[str] = field(factory=set, init=False)
    _items: int = field(default=0, init=False)
    _pages: int = field(default=0, init=False)

    def params(self) -> dict[str, str]:
        """The parameters of the next request."""
        return {} if self.cursor is None else {"cursor": self.cursor}

    def take(self, result: Mapping[str, Any]) -> list[Any]:
        """The items of the page *result*; then ``done``, or ``params`` are those of the next.

        :raises ProtocolError: it is no page, its cursor came before, or the list does not end.
        """
        items, cursor = page_of(result, self.key)
        self._pages += 1
        self._items += len(items)
        if cursor is None:
            self.done = True
        elif cursor in self._seen or cursor == self.cursor:
            raise self._endless("repeats a cursor")
        elif len(cursor) > CURSOR_CHARS_MAX:
            raise self._endless(f"has a cursor of more than {CURSOR_CHARS_MAX} characters")
        elif self._pages >= PAGES_MAX or self._items > ITEMS_MAX:
            raise self._endless("does not end")
        else:
            self._seen.add(cursor)
        self.cursor = cursor
        return items

    def __repr__(self) -> str:
        state = "done" if self.done else "under way"
        return f"<PageWalk {self.key} {state} pages={self._pages} items={self._items}>"

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` if this state cannot be."""
        assert len(self._seen) <= self._pages <= PAGES_MAX
        assert not self.done or self.cursor is None

    def _endless(self, what: str) -> ProtocolError:
        return ProtocolError(f"the list of {self.key} {what}", delivery="answered")
