"""One HTTP request and its whole answer over our own pool: for policy, keys and metadata.

What a tool call travels on is ``transports/http.py``; this is the plain errand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import anyio
from attrs import define

from sark_trio.net.connection import Request
from sark_trio.net.pool import ConnectionPool
from sark_trio.net.sending import Reason, send
from sark_trio.net.url import parse_url

__all__ = ["Exchange"]

#: A decision, a key set and a metadata document are each far smaller.
ANSWER_BYTES_MAX = 1024 * 1024


@final
@define(eq=False)
class Exchange:
    """``await exchange(method, url, headers, body, timeout_s)``; no redirect is followed."""

    pool: ConnectionPool

    async def __call__(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        timeout_s: float,
    ) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        """Status, headers (lower case) and body of the answer.

        :raises TimeoutError: there was none within *timeout_s*.
        :raises GatewayError: there was none at all; see :func:`~sark_trio.net.sending.send`.
        """
        target = parse_url(url)
        request = Request(
            method=method.encode(),
            target=target.target.encode(),
            headers=(
                (b"host", target.origin.authority.encode()),
                *((name.encode(), value.encode()) for name, value in headers),
            ),
            body=body,
        )

        async def again(reason: Reason) -> bool:
            return reason == "not_sent" or method == "GET"

        with anyio.fail_after(timeout_s):
            lease, head = await send(self.pool, target.origin, lambda: request, again=again)
            with lease:
                answer = await lease.connection.read_body(ANSWER_BYTES_MAX)
        decoded = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers
        ]
        return head.status, decoded, answer
