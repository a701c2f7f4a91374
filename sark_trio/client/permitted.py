"""What of many things may somebody see? Policy is asked about each, several questions at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import anyio

from sark_trio.errors import GatewayError
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.query import Query
from sark_trio.net.clock import lasting_time

__all__ = ["permitted"]

#: Questions under way for one list. OPA's API takes one input in a request, so that a list of
#: hundreds would wait for as many round trips, one after the other; calls need OPA meanwhile.
AT_ONCE: Final = 8


async def permitted(governor: Governor, queries: Iterable[Query]) -> list[Query]:
    """Those of *queries* that the policy allows, in their order, one question for each.

    :raises PolicyUnavailable: the policy could not decide on one of them. A list cut short by an
        outage would pass for the whole.
    :raises InvalidArguments: one of them asks about what cannot be.
    """
    asked = list(queries)
    allowed: dict[int, Query] = {}
    failures: list[GatewayError] = []
    places = iter(range(len(asked)))  # each taken by whichever task comes first

    async def ask() -> None:
        for at in places:
            try:
                verdict = await governor.decide(lasting_time(), asked[at])
                if verdict.fault is not None:
                    raise verdict.denial()
            except GatewayError as exc:
                failures.append(exc)
                asking.cancel_scope.cancel()
                return
            if verdict.allow:
                allowed[at] = asked[at]

    async with anyio.create_task_group() as asking:
        for _ in range(min(AT_ONCE, len(asked)) - 1):
            asking.start_soon(ask)
        await ask()
    if failures:
        raise failures[0]
    return [allowed[at] for at in sorted(allowed)]
