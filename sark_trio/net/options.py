"""Time limits of a connection."""

from __future__ import annotations

from math import isfinite
from typing import final

from attrs import Attribute, field, frozen

__all__ = ["Timeouts"]


def _positive(_: object, attribute: Attribute[float], value: float) -> None:
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


@final
@frozen(kw_only=True)
class Timeouts:
    """In seconds; each of them positive and finite, since nothing waits for ever."""

    #: For name, TCP connection and TLS handshake together.
    connect_s: float = field(default=5.0, validator=_positive)
    #: For a free connection of the pool.
    pool_s: float = field(default=5.0, validator=_positive)
    #: Without the peer taking a byte.
    write_s: float = field(default=10.0, validator=_positive)
    #: Without a byte from the peer.
    read_s: float = field(default=30.0, validator=_positive)
    #: For a whole exchange. Bytes that trickle, and progress, do not extend it.
    exchange_s: float = field(default=300.0, validator=_positive)
