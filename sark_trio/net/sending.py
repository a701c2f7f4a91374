"""One request on a connection of the pool, and the one case in which it is sent a second time.

A server may close a connection that was kept alive just as we begin to use it (RFC 9112, section
9.3.1). Where that happens before a byte of a response has come, whoever sends is asked whether
the request may go out again, on a connection that nobody has used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from sark_trio.errors import GatewayError, ServerDisconnected
from sark_trio.net.connection import Request
from sark_trio.net.framing import ResponseHead
from sark_trio.net.lease import Lease
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.url import Origin

__all__ = ["Reason", "send"]

#: No byte of the first sending went out; or some did, and it may have arrived.
Reason = Literal["not_sent", "stale_connection"]


def _nobody() -> None:
    """Nobody wants to know that something was sent."""


async def send(
    pool: ConnectionPool,
    origin: Origin,
    make: Callable[[], Request],
    *,
    again: Callable[[Reason], Awaitable[bool]],
    on_sent: Callable[[], None] | None = None,
    stream: bool = False,
) -> tuple[Lease, ResponseHead]:
    """Send one request: the connection, now the caller's, and the response's head.

    :param make: the request; called when there is a connection, for each sending.
    :param again: asked, with the reason, before a second sending.
    :param on_sent: called when the kernel has taken the first bytes, maybe more than once.
    :param stream: the response will be held for long.
    :raises GatewayError: see ``ConnectionPool.lease`` and ``Connection.send``; ``delivery`` is
        that of both sendings together.
    """
    told = on_sent or _nobody
    lease = pool.lease_nowait(origin, stream=stream) or await pool.lease(origin, stream=stream)
    try:
        return lease, await lease.connection.send(make(), told)
    except ServerDisconnected as exc:
        lease.discard()
        connection = lease.connection
        if connection.exchanges < 2 or connection.answered:
            raise
        reason: Reason = "not_sent" if exc.delivery == "not_sent" else "stale_connection"
        if not await again(reason):
            raise
    except BaseException:
        lease.discard()
        raise
    try:
        return await _send_afresh(pool, origin, make(), told, stream=stream)
    except GatewayError as exc:
        if exc.delivery == "not_sent" and reason != "not_sent":
            exc.delivery = "unknown"  # the first sending may have arrived
        raise


async def _send_afresh(
    pool: ConnectionPool,
    origin: Origin,
    request: Request,
    on_sent: Callable[[], None],
    *,
    stream: bool,
) -> tuple[Lease, ResponseHead]:
    lease = await pool.lease(origin, stream=stream, fresh=True)
    try:
        return lease, await lease.connection.send(request, on_sent)
    except BaseException:
        lease.discard()
        raise
