"""Walking the pages of a list: any number of them, in the memory of one."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Self, TypeVar, final

from attrs import define, field

from sark_trio.errors import ProtocolError

__all__ = ["PAGE_SIZE", "Page", "Pages", "RepeatGuard", "page_limit"]

#: Of a page that nobody asked to be larger or smaller: the registry dialect's own default.
PAGE_SIZE: Final = 100
#: The dialect's own bound; registries cut larger pages short.
PAGE_SIZE_MAX: Final = 1_000
#: Items that are collected in one tuple; whoever has more of them streams.
ITEMS_MAX: Final = 100_000
_Item = TypeVar("_Item")

#: The items of one page, and how many there are on all pages, where the registry says so.
Page = tuple[Sequence[_Item], int | None]


def page_limit(page_size: int) -> int:
    """The ``limit`` for a page size.

    :raises ValueError: it is not positive.
    """
    if page_size < 1:
        raise ValueError(f"page_size must be positive, not {page_size!r}")
    return min(page_size, PAGE_SIZE_MAX)


@final
@define(eq=False)
class RepeatGuard:
    """Finds out that pages repeat, whatever the period, in constant memory (Brent, 1980).

    One earlier page is remembered, and replaced by the present one whenever twice as many pages
    have gone by as the last time: a cycle of any length is entered and met.
    """

    _kept: bytes = field(default=b"", init=False)
    _since: int = field(default=0, init=False)
    _power: int = field(default=1, init=False)

    def repeats(self, keys: Sequence[str]) -> bool:
        """Whether the page of items with these *keys* has been seen before."""
        digest = hashlib.sha256("\0".join(keys).encode("utf-8", "surrogatepass")).digest()
        if digest == self._kept:
            return True
        if not self._kept or self._since == self._power:
            self._kept, self._power, self._since = digest, self._power * 2, 0
        self._since += 1
        return False


@final
@define(eq=False)
class Pages(Generic[_Item]):
    """``async for item in pages``: a page is fetched when the one before has been consumed.

    Walked once, by one task. It is no generator: leaving the loop early leaves nothing open. It
    ends at an empty page, or where the registry's own total says so; a short page alone proves
    nothing, since registries have limits of their own.

    :raises ProtocolError: while iterating, where the registry gives the same page again.
    """

    _where: str
    _limit: int
    _fetch: Callable[[int], Awaitable[Page[_Item]]]
    _key: Callable[[_Item], str]
    _offset: int = field(default=0, init=False)
    _at_hand: deque[_Item] = field(factory=deque, init=False)
    _ended: bool = field(default=False, init=False)
    #: The last page had not as many items as were asked for: it may well be all.
    _odd: bool = field(default=False, init=False)
    _guard: RepeatGuard = field(factory=RepeatGuard, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        if not self._at_hand:
            self._at_hand.extend(await self.next_page())
        if not self._at_hand:
            raise StopAsyncIteration
        return self._at_hand.popleft()

    async def next_page(self) -> Sequence[_Item]:
        """The items of the next page; none where there is no further page."""
        if self._ended:
            return ()
        items, total = await self._fetch(self._offset)
        if not items:
            self._ended = True
            return ()
        if self._guard.repeats([self._key(item) for item in items]):
            self._ended = True
            if self._odd:
                return ()  # it gave all that it has the first time, and does not know of offsets
            raise ProtocolError(
                f"{self._where}: the registry repeats itself at offset {self._offset}",
                delivery="answered",
            )
        self._offset += len(items)
        self._odd = len(items) != self._limit
        self._ended = total is not None and self._offset >= total
        return items

    async def collect(self) -> tuple[_Item, ...]:
        """All items that are left.

        :raises ProtocolError: more than :data:`ITEMS_MAX`, or a registry that repeats itself.
        """
        found: list[_Item] = []
        async for item in self:
            found.append(item)
            if len(found) > ITEMS_MAX:
                raise ProtocolError(
                    f"{self._where}: more than {ITEMS_MAX} items; iterate over them instead",
                    delivery="answered",
                )
        return tuple(found)
