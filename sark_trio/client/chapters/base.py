"""What every chapter of the client may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from sark_trio.client.cached import Cache
from sark_trio.client.call import TIMEOUT_MAX_S
from sark_trio.client.caller import Caller
from sark_trio.client.engine import Engine
from sark_trio.client.link import GatewayLink
from sark_trio.client.pins import PinKeeper
from sark_trio.client.upstream import Upstream
from sark_trio.errors import CallTimeout, UsageError
from sark_trio.governance.principal import Principal
from sark_trio.mcp.messages import Agreed

__all__ = ["Chapter", "check_timeout"]

T = TypeVar("T")


def check_timeout(timeout_s: object) -> None:
    """Refuse what is no number of seconds; ``None`` stands for the configured one.

    :raises UsageError: it is none.
    """
    if timeout_s is None:
        return
    if not isinstance(timeout_s, int | float) or not timeout_s >= 0:  # nor is NaN
        raise UsageError(f"timeout_s={timeout_s!r} is no number of seconds")


class Chapter:
    """Some methods of a client. ``GatewayClient`` sets what they share.

    Where an operation uses the gateway, or a transport that a mode can forbid, it begins with
    the link's checks: ``self._gateway.check("stdio", "connect_local_server")``, and
    ``self._gateway.base_url("stream_events")`` for the URL. A server that somebody names for a
    call is ``await self._reach(name, timeout_s)``: configured, or one of the gateway's.
    """

    #: Every server, and the task group that they live in.
    _engine: Engine
    #: Makes governed calls.
    _caller: Caller
    #: Who calls when a call does not say.
    _principal: Principal
    #: The way to the gateway: URL, key, transport mode, and connections that lead there.
    _gateway: GatewayLink
    #: Answers to lists and reads: ``await self._cache.fetch(upstream, method, params, ask,
    #: principal=who)``, after policy has let *who* ask, and before the answer is redacted.
    _cache: Cache
    #: What is known of tools that were approved; ``None`` where nothing is pinned.
    _pins: PinKeeper | None

    async def _leave(self, upstream: Upstream) -> None:
        """Close a server's transport. However that ends, its answers are not current any more."""
        try:
            await upstream.aclose()
        finally:
            self._cache.invalidate(upstream.name)

    async def _reach(
        self, server_name: str, timeout_s: float | None
    ) -> tuple[Upstream, float | None]:
        """The upstream, and the time that a call then has: there is one deadline for both.

        :raises UnknownServer: there is no server of that name.
        """
        engine = self._engine
        engine.open_tasks()
        if engine.offered is None or engine.is_at_hand(server_name):
            return engine.upstream(server_name), timeout_s
        find = partial(engine.offered.find, server_name)
        silence = "the gateway did not say whether it knows it"
        return await self._beforehand(find, server_name, timeout_s, silence)

    async def _agree(
        self, upstream: Upstream, timeout_s: float | None
    ) -> tuple[Agreed, float | None]:
        """What is agreed with the server, and the time that a call then has."""
        if upstream.agreed is not None:
            return upstream.agreed, timeout_s
        return await self._beforehand(upstream.connect, upstream.name, timeout_s, "no connection")

    async def _beforehand(
        self,
        work: Callable[[], Awaitable[T]],
        server: str,
        timeout_s: float | None,
        silence: str,
    ) -> tuple[T, float | None]:
        limit_s = self._caller.timeout_s if timeout_s is None else min(timeout_s, TIMEOUT_MAX_S)

        def late() -> CallTimeout:
            text = f"{server}: {silence} within {limit_s:g} s"
            return CallTimeout(text, phase="connect", delivery="not_sent", server=server)

        with self._caller.bounded(limit_s, late) as scope:
            found = await work()
        return found, max(0.0, scope.deadline - anyio.current_time())
