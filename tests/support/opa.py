"""How a test hands :class:`~sark_trio.governance.opa.Opa` an HTTP exchange that is not ours."""

from __future__ import annotations

import httpcore

from sark_trio.governance.opa import Headers

__all__ = ["http_exchange"]


async def http_exchange(
    method: str, url: str, headers: Headers, body: bytes, timeout_s: float
) -> tuple[int, Headers, bytes]:
    """One HTTP exchange, as a client hands it over."""
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
    async with httpcore.AsyncConnectionPool() as pool:
        answer = await pool.request(
            method, url, headers=list(headers), content=body, extensions={"timeout": timeouts}
        )
    names = [(name.decode(), value.decode()) for name, value in answer.headers]
    return answer.status, names, answer.content
