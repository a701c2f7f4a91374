"""Which tools may somebody see? Asked of one server, or of all at once."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from sark_trio.client.listing import ToolInfo, ToolListing, tool_info
from sark_trio.client.upstream import Upstream
from sark_trio.errors import CallTimeout, GatewayError
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import DISCOVER, Query

__all__ = ["tools_of", "tools_of_all"]


async def tools_of(
    upstream: Upstream, principal: Principal, governor: Governor
) -> tuple[ToolInfo, ...]:
    """The tools of one server that policy lets *principal* see.

    :raises GatewayError: the server could not be asked, or the policy could not decide.
    """
    listing = await upstream.catalogue.listing()
    infos = {name: tool_info(upstream, tool) for name, tool in listing.tools.items()}
    queries = [
        Query(
            principal=principal,
            action=DISCOVER,
            server=upstream.name,
            tool=name,
            sensitivity=info.sensitivity_level,
        )
        for name, info in infos.items()
    ]
    allowed = await governor.filter_list(anyio.current_time(), queries)
    return tuple(infos[query.tool] for query in allowed if query.tool is not None)


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
