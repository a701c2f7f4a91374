"""What is told of one server's state."""

from __future__ import annotations

from typing import Literal, final

from attrs import frozen

from sark_trio.machines.adaptive import AdaptiveStatistics
from sark_trio.machines.circuit import BreakerStatistics
from sark_trio.transports.base import TransportStatistics

__all__ = ["State", "UpstreamStatistics"]

State = Literal["idle", "running", "failed", "closing", "closed"]


@final
@frozen(kw_only=True)
class UpstreamStatistics:
    """A snapshot of one server's state.

    :param concurrency: calls that are let out to it at once; ``None`` where nothing limits them.
    """

    name: str
    transport: str
    state: State
    protocol_version: str | None
    breaker: BreakerStatistics
    wire: TransportStatistics
    concurrency: AdaptiveStatistics | None = None
