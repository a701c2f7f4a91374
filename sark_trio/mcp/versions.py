"""The protocol revisions that we speak, and which of two peers' revisions both of them know.

Revisions are dates, but they are an enumerated set and not an ordered scalar: an unknown
string never compares as newer than a known one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

__all__ = ["HTTP_SSE", "LEGACY", "MODERN", "SPOKEN", "choose", "is_modern", "sends_version_header"]

#: Stateless: version and capabilities stand in the ``_meta`` of every request.
MODERN: Final = "2026-07-28"
#: Handshake with ``initialize``, newest first.
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
#: The revision of the old HTTP+SSE transport. Never our first offer; its handshake is the
#: same, so a server that answers ``initialize`` with it is understood.
HTTP_SSE: Final = "2024-11-05"
#: All that we speak, in the order in which we prefer them.
SPOKEN: Final = (MODERN, *LEGACY, HTTP_SSE)


def is_modern(version: str) -> bool:
    """Whether *version* is one we speak without a handshake. Unknown versions are not."""
    return version == MODERN


def choose(supported: Iterable[Any], spoken: Iterable[str] = SPOKEN) -> str | None:
    """The first of *spoken* that stands in the peer's list, ``None`` if none does.

    *supported* comes from a peer: whatever in it is no string is passed over.
    """
    theirs = frozenset(version for version in supported if type(version) is str)
    return next((version for version in spoken if version in theirs), None)


def sends_version_header(version: str) -> bool:
    """Whether requests over HTTP name this agreed *version* in ``MCP-Protocol-Version``.

    The header came with 2025-06-18 (Transports, "Protocol Version Header"); older servers
    never saw it, and some refuse what they do not know.
    """
    return version in SPOKEN and version not in {HTTP_SSE, LEGACY[-1]}
