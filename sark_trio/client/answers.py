"""What the response cache hands out: answers, and the right to put one there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import define, field, frozen

from sark_trio import jsontext
from sark_trio.machines.freshness import CacheKey, ResponseCache
from sark_trio.net.clock import lasting_time

__all__ = ["Answer", "Ticket", "entry_bytes"]

#: What an entry costs beside its value: key, digest, and their places in two tables.
ENTRY_BYTES: Final = 512


@final
@frozen
class Answer:
    """What a fetch gave: the ``result`` member, in a copy of its own, and where it is from.

    :param cached: it was at hand; the server was not asked.
    :param stale: its time is over: it stands in for a server that could not be asked.
    """

    value: dict[str, Any]
    cached: bool = False
    stale: bool = False
    age_s: float = 0.0


@final
@define(eq=False)
class Ticket:
    """The right to put an answer into the cache that was looked for and not found.

    Settled once, by :meth:`keep` or :meth:`drop`.
    """

    _machine: ResponseCache[bytes]
    _key: CacheKey
    _flight: int
    _waiter: int
    _settled: bool = field(default=False, init=False)

    def keep(self, value: Mapping[str, Any], ttl_s: float) -> None:
        """Keep *value* for *ttl_s* seconds."""
        if self._settled:
            return
        self._settled = True
        encoded = jsontext.encode(value)
        now, size = lasting_time(), entry_bytes(self._key, encoded)
        self._machine.tick(now)
        self._machine.store(now, self._flight, encoded, size_bytes=size, ttl_s=ttl_s)

    def drop(self) -> None:
        """There is nothing to keep."""
        if not self._settled:
            self._settled = True
            self._machine.abandon(self._flight, self._waiter)


def entry_bytes(key: CacheKey, encoded: bytes) -> int:
    """What an entry holds, about."""
    return len(encoded) + sys.getsizeof(key.params) + ENTRY_BYTES
