"""Cross-origin requests of pages in browsers (Fetch, "CORS protocol"), for origins on the list.

The one origin that asks is named, and never all of them; credentials of the browser's own (cookies)
are not let through, since this gateway knows none: what a page may do is what the token or key
proves that it sends itself.
"""

from __future__ import annotations

from typing import Final

from sark_trio.gateway.asgi import Reply, Request

__all__ = ["headers_for", "is_preflight", "preflight"]

_Headers = tuple[tuple[str, str], ...]
#: How long a browser may remember the answer; a list that got shorter counts again after that.
PREFLIGHT_S: Final = 600
#: Of Streamable HTTP in both eras, and of this gateway's own dialect.
_REQUEST_HEADERS: Final = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
    "MCP-Protocol-Version",
    "Mcp-Session-Id",
    "X-API-Key",
)
#: Names of arguments that are mirrored (2026-07-28, "Custom Headers from Tool Parameters").
_MIRRORED: Final = "mcp-param-"
#: What scripts may read beside the few that they always may.
_RESPONSE_HEADERS: Final = (
    "Allow",
    "Mcp-Session-Id",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
)
_VARY: Final = ("vary", "Origin")


def headers_for(origin: str | None) -> _Headers:
    """What lets a page of *origin*, which is on the list, read the answer.

    ``None``: somebody else asks, and nobody between may hand that answer to a page.
    """
    if origin is None:
        return (_VARY,)
    exposed = ", ".join(_RESPONSE_HEADERS)
    shared = ("access-control-allow-origin", origin)
    return (_VARY, shared, ("access-control-expose-headers", exposed))


def is_preflight(request: Request) -> bool:
    """Whether a browser asks what a page may ask."""
    return request.method == "OPTIONS" and "access-control-request-method" in request.headers


def preflight(request: Request, methods: tuple[str, ...]) -> Reply:
    """The answer: *methods*, and the headers that mean something here."""
    wanted = request.headers.get("access-control-request-headers", "").lower().split(",")
    mirrored = sorted({one.strip() for one in wanted if one.strip().startswith(_MIRRORED)})
    allowed = (
        ("access-control-allow-methods", ", ".join(methods)),
        ("access-control-allow-headers", ", ".join((*_REQUEST_HEADERS, *mirrored))),
        ("access-control-max-age", str(PREFLIGHT_S)),
    )
    return Reply.empty(204, allowed)
