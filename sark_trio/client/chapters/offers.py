"""What the chapters on resources, prompts and completions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve

from sark_trio.client.chapters.base import Chapter, check_timeout
from sark_trio.client.handlers import Handlers
from sark_trio.client.lists import Offers
from sark_trio.client.plans import Asked
from sark_trio.client.walk import Walk
from sark_trio.governance.principal import Principal

__all__ = ["OfferChapter"]

T = TypeVar("T")


class OfferChapter(Chapter):
    """Asking for one thing, and walking through a list of them."""

    def _common(
        self,
        principal: Principal | None,
        timeout_s: float | None,
        context: Mapping[str, Any] | None,
        handlers: Handlers | None = None,
    ) -> dict[str, Any]:
        check_timeout(timeout_s)
        return {
            "principal": principal or self._principal,
            "timeout_s": timeout_s,
            "context": context or {},
            "handlers": handlers,
        }

    async def _ask(self, server_name: str, asked: Asked[T]) -> T:
        upstream, timeout_s = await self._reach(server_name, asked.timeout_s)
        return await self._caller.invoke(upstream, evolve(asked, timeout_s=timeout_s))

    def _walk(
        self,
        server_name: str,
        principal: Principal | None,
        *,
        method: str,
        key: str,
        parse: Callable[[Any], T | None],
        action: str,
        about: Callable[[T], Mapping[str, Any]],
    ) -> Walk[T]:
        self._engine.open_tasks()
        offers = Offers(
            upstream=self._engine.upstream(server_name),
            caller=self._caller,
            cache=self._cache,
            principal=principal or self._principal,
            method=method,
            key=key,
            parse=parse,
            action=action,
            about=about,
        )
        return Walk(offers.next_batch)
