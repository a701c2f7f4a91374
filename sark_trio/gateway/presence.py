"""Work for a caller, for as long as that caller is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from sark_trio.gateway.asgi import Request

__all__ = ["while_there"]

T = TypeVar("T")


async def while_there(request: Request, work: Callable[[], Awaitable[T]]) -> T | None:
    """The result of *work*; ``None`` if the caller of *request* went away, which cancels it.

    Nobody would read the answer, and somebody may count on a call that is given up to end. The
    body of *request* must have been read: what comes of it from now on is thrown away.
    """
    results: list[T] = []
    failures: list[Exception] = []

    async def watch() -> None:
        await request.gone()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            results.append(await work())
        except Exception as exc:  # noqa: BLE001 - raised below as it is, and not in a group
            failures.append(exc)
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return results[0] if results else None
