"""Lists of what a server offers beside tools, as policy lets one see them.

A list is asked for in the client's own name, page by page, through the cache; each page is put
to the policy at once, and what the policy does not let its reader see is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar, final

from attrs import define, field

from sark_trio.client.cached import Cache
from sark_trio.client.caller import Caller
from sark_trio.client.permitted import permitted
from sark_trio.client.upstream import Upstream
from sark_trio.errors import CallTimeout
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query
from sark_trio.mcp.paging import PageWalk

__all__ = ["Offers"]

Item = TypeVar("Item")
#: Longest wait for one page.
PAGE_TIMEOUT_S: Final = 30.0


@final
@define(eq=False, kw_only=True)
class Offers(Generic[Item]):
    """One list of one server's: ``Walk(offers.next_batch)``.

    :param method: lists them.
    :param key: the member of a page that holds them.
    :param parse: reads one; ``None``: it is none, and left out.
    :param action: what policy is asked about each.
    :param about: what policy is shown of one.
    """

    upstream: Upstream
    caller: Caller
    cache: Cache
    principal: Principal
    method: str
    key: str
    parse: Callable[[Any], Item | None]
    action: str
    about: Callable[[Item], Mapping[str, Any]]
    _walk: PageWalk = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._walk = PageWalk(self.key)

    async def next_batch(self) -> Sequence[Item] | None:
        """Those of the next page that may be seen, perhaps none; ``None``: there is no page.

        :raises GatewayError: the server could not be asked, or the policy could not decide.
        """
        if self._walk.done:
            return None
        with self.caller.bounded(PAGE_TIMEOUT_S, self._late) as scope:
            return await self._page(scope.deadline)

    def _late(self) -> CallTimeout:
        text = f"{self.upstream.name}: no page of {self.method} within {PAGE_TIMEOUT_S:g} s"
        return CallTimeout(text, server=self.upstream.name)

    async def _page(self, deadline: float) -> Sequence[Item]:
        governor, name = self.caller.governor, self.upstream.name
        block = governor.blocks.covering(name, None, self.principal.id)
        if block is not None:
            raise block.denial()
        params = self._walk.params()
        ask = partial(self.upstream.read, self.method, params, deadline)
        page = await self.cache.fetch(self.upstream, self.method, params, ask, principal=None)
        items = [one for one in map(self.parse, self._walk.take(page.value)) if one is not None]
        asked = [self._query(item) for item in items]
        seen = {id(query) for query in await permitted(governor, asked)}
        return [item for item, query in zip(items, asked, strict=True) if id(query) in seen]

    def _query(self, item: Item) -> Query:
        return Query(
            principal=self.principal,
            action=self.action,
            server=self.upstream.name,
            arguments=dict(self.about(item)),
            sensitivity=self.upstream.server.sensitivity,
        )
