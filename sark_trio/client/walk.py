"""Walking through lists that are too long to hold: what is here first, then page after page."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, Self, TypeVar, final

from attrs import define, field

from sark_trio.errors import GatewayError, UsageError

__all__ = ["ITEMS_MAX", "Walk"]

_Item = TypeVar("_Item")
#: Items that are collected in one tuple; whoever has more of them iterates.
ITEMS_MAX: Final = 100_000


@final
@define(eq=False)
class Walk(Generic[_Item]):
    """``async for item in walk``: a page is fetched when the one before has been consumed.

    Walked once, by one task, in the memory of one page. It is no generator: leaving the loop
    early leaves nothing open, and no scope is held while its user does something else.

    :param next_batch: the next items, perhaps none; ``None``: there are no more.
    :param failures: filled meanwhile: who could not be asked.
    """

    _next_batch: Callable[[], Awaitable[Sequence[_Item] | None]]
    failures: Mapping[str, GatewayError] = field(factory=dict)
    _at_hand: deque[_Item] = field(factory=deque, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        while not self._at_hand:
            batch = await self._next_batch()
            if batch is None:
                raise StopAsyncIteration
            self._at_hand.extend(batch)
        return self._at_hand.popleft()

    async def collect(self) -> tuple[_Item, ...]:
        """All items that are left.

        :raises UsageError: there are more than :data:`ITEMS_MAX`.
        """
        found: list[_Item] = []
        async for item in self:
            if len(found) == ITEMS_MAX:
                raise UsageError(f"more than {ITEMS_MAX} items: iterate over them instead")
            found.append(item)
        return tuple(found)
