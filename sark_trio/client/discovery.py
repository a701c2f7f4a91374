"""Which tools may somebody see? Asked of one server, or of all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio

from sark_trio.client.listing import ServerInfo, ToolInfo, ToolListing, tool_info
from sark_trio.client.permitted import permitted
from sark_trio.client.upstream import Upstream
from sark_trio.errors import CallTimeout, GatewayError
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import DISCOVER, LIST_SERVERS, Query

__all__ = ["servers_seen_by", "tools_of", "tools_of_all", "tools_seen_by"]


async def tools_of(
    upstream: Upstream, principal: Principal, governor: Governor
) -> tuple[ToolInfo, ...]:
    """The tools of one server that policy lets *principal* see.

    :raises GatewayError: the server could not be asked, or the policy could not decide.
    """
    if governor.blocks.covering(upstream.name, None, principal.id) is not None:
        return ()
    upstream.users += 1
    try:
        listing = await upstream.catalogue.listing()
    finally:
        upstream.users -= 1
    infos = [tool_info(upstream, tool) for tool in listing.tools.values()]
    return await tools_seen_by(principal, infos, governor)


async def tools_seen_by(
    principal: Principal, infos: Iterable[ToolInfo], governor: Governor
) -> tuple[ToolInfo, ...]:
    """Those of *infos* that policy lets *principal* see.

    :raises PolicyUnavailable: it could not decide about one of them.
    """
    named = {(info.server_name, info.tool_name): info for info in infos}
    queries = [
        Query(
            principal=principal,
            action=DISCOVER,
            server=server,
            tool=tool,
            sensitivity=info.sensitivity_level,
        )
        for (server, tool), info in named.items()
    ]
    allowed = await permitted(governor, queries)
    return tuple(named[query.server or "", query.tool or ""] for query in allowed)


async def servers_seen_by(
    principal: Principal | None, infos: Iterable[ServerInfo], governor: Governor
) -> tuple[ServerInfo, ...]:
    """Those of *infos* that policy lets *principal* see; ``None``: nobody asks, so all.

    :raises PolicyUnavailable: it could not decide about one of them.
    """
    if principal is None:
        return tuple(infos)
    named = {info.server_name: info for info in infos}
    queries = [
        Query(
            principal=principal,
            action=LIST_SERVERS,
            server=name,
            sensitivity=info.sensitivity_level,
        )
        for name, info in named.items()
    ]
    allowed = await permitted(governor, queries)
    return tuple(named[query.server or ""] for query in allowed)


async def tools_of_all(
    upstreams: Sequence[Upstream], principal: Principal, governor: Governor, *, timeout_s: float
) -> ToolListing:
    """The tools of all servers; one that cannot be asked in time is named, and costs no other."""
    found: dict[str, tuple[ToolInfo, ...]] = {}
    failures: dict[str, GatewayError] = {}

    async def ask(upstream: Upstream) -> None:
        try:
            found[upstream.name] = await tools_of(upstream, principal, governor)
        except GatewayError as exc:
            failures[upstream.name] = exc

    with anyio.move_on_after(timeout_s):
        async with anyio.create_task_group() as asking:
            for upstream in upstreams:
                asking.start_soon(ask, upstream)
    for upstream in upstreams:
        if upstream.name not in found and upstream.name not in failures:
            failures[upstream.name] = CallTimeout(
                f"{upstream.name}: no list of tools within {timeout_s:g} s", server=upstream.name
            )
    tools = tuple(tool for upstream in upstreams for tool in found.get(upstream.name, ()))
    return ToolListing(tools=tools, failures=failures)
