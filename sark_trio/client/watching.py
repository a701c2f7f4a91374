"""Asking a server to tell of changes of a resource, and to stop: until 2025-11-25.

A server may take two requests at once, and the later one first. So whoever wants to hear of a
resource waits until the server has answered whoever did not want to any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio

from sark_trio.client.upstream import Upstream
from sark_trio.errors import GatewayError, ReadTimeout

__all__ = ["ask_to_watch", "stop_watching"]


async def ask_to_watch(upstream: Upstream, uri: str, limit_s: float) -> None:
    """Have the server tell of changes of *uri*.

    :raises ReadTimeout: it does not answer within *limit_s* seconds: a failure of the wire, after
        which the stream is made anew rather than given up.
    :raises GatewayError: it refuses.
    """
    deadline = anyio.current_time() + limit_s
    with anyio.CancelScope(deadline=deadline):
        await upstream.ears.wait_left(uri)
        await upstream.read("resources/subscribe", {"uri": uri}, deadline)
        return
    text = f"{upstream.name}: resources/subscribe was not answered within {limit_s:g} s"
    raise ReadTimeout(text, server=upstream.name)


async def stop_watching(
    upstream: Upstream, uris: Sequence[str], patience_s: float, limit_s: float
) -> None:
    """One less wants to hear of *uris*; the server is told of those that nobody wants to any more.

    :param patience_s: for which the caller waits. It is told all the same, for *limit_s* seconds.
    """
    ears = upstream.ears
    nobodys = [uri for uri in uris if ears.unwatch(uri)]
    if not nobodys:
        return
    told = [ears.leaving(uri) for uri in nobodys]
    try:
        upstream.spawn(partial(_take_leave, upstream, nobodys, limit_s))
    except GatewayError:  # the upstream is closed, or is being closed
        for uri in nobodys:
            ears.left(uri)
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + patience_s):
        for each in told:
            await each.wait()


async def _take_leave(upstream: Upstream, uris: Sequence[str], limit_s: float) -> None:
    deadline = anyio.current_time() + limit_s
    try:
        with anyio.CancelScope(deadline=deadline):
            for uri in uris:
                await upstream.read("resources/unsubscribe", {"uri": uri}, deadline)
    except GatewayError:
        pass  # a courtesy
    finally:
        for uri in uris:
            upstream.ears.left(uri)
