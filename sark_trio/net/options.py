"""Time limits of a connection."""

from __future__ import annotations

from typing import final

from attrs import field, frozen

from sark_trio.machines.checks import positive

__all__ = ["Timeouts"]


@final
@frozen(kw_only=True)
class Timeouts:
    """In seconds; each of them positive and finite, since nothing waits for ever."""

    #: For name, TCP connection and TLS handshake together.
    connect_s: float = field(default=5.0, validator=positive)
    #: For a free connection of the pool.
    pool_s: float = field(default=5.0, validator=positive)
    #: Without the peer taking a byte.
    write_s: float = field(default=10.0, validator=positive)
    #: Without a byte from the peer.
    read_s: float = field(default=30.0, validator=positive)
    #: For a whole exchange. Bytes that trickle, and progress, do not extend it.
    exchange_s: float = field(default=300.0, validator=positive)
