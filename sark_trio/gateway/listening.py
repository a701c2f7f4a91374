"""``subscriptions/listen``, and the streams of sessions: said until somebody has enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio

from sark_trio.errors import GatewayError
from sark_trio.gateway.hearing import Hearing, Say, wanted_in
from sark_trio.gateway.lapse import Ends
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import INVALID_REQUEST, RpcRefused
from sark_trio.gateway.visitor import Put, Visitor
from sark_trio.mcp.changes import ACKNOWLEDGED
from sark_trio.mcp.codec import encode_notification
from sark_trio.mcp.messages import Request
from sark_trio.mcp.meta import SUBSCRIPTION_ID

__all__ = ["listen", "saying", "until"]


async def listen(methods: Methods, call: Request, ends: Ends, visitor: Visitor) -> dict[str, Any]:
    """The result of ``subscriptions/listen``, when there is nothing more to be told.

    2026-07-28, "Subscriptions": what is heard is acknowledged first, and every message says to
    which request it belongs. A result says that the end is no accident.

    :raises RpcRefused: the request is none, or its client takes no stream.
    :raises GatewayError: nothing of it can be heard.
    """
    if visitor.put is None:
        raise RpcRefused(INVALID_REQUEST, "the answer is an event stream", status=406)
    about = {SUBSCRIPTION_ID: call.id}
    say = saying(visitor.put, about)
    hearing = Hearing(methods.roof, wanted_in(call.params), visitor.principal, say)

    async def acknowledge() -> None:
        await say(ACKNOWLEDGED, {"notifications": hearing.heard})

    await until(ends, partial(hearing.run, acknowledge))
    return {"_meta": about}


def saying(put: Put, about: Mapping[str, Any] | None = None) -> Say:
    """Says notifications through *put*, each with *about* in its ``_meta``."""

    async def say(method: str, params: Mapping[str, Any]) -> None:
        full = params if about is None else {**params, "_meta": about}
        await put(encode_notification(method, full))

    return say


async def until(ends: Ends, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* until it ends, or until *ends* does; its failure is raised as it is."""
    failures: list[GatewayError | RpcRefused] = []

    async def do() -> None:
        try:
            await work()
        except (GatewayError, RpcRefused) as exc:
            failures.append(exc)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(do)
        await ends.wait()
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
