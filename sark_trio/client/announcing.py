"""What hooks are told of one server. Made only where there are hooks: see ``telemetry``."""

from __future__ import annotations

from typing import final

from attrs import define, field

from sark_trio.machines.circuit import Fault, Transition
from sark_trio.telemetry.events import BreakerChanged, ServerConnected
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports.base import Transport

__all__ = ["ServerSignals"]


@final
@define(eq=False)
class ServerSignals:
    """The events of one server that are not its transport's own."""

    _report: Reporter
    _told_version: str | None = field(default=None, init=False)

    def moved(self, transition: Transition | Fault | None) -> None:
        """What the breaker answered; a move is told."""
        if isinstance(transition, Transition):
            self._report.emit(
                BreakerChanged(
                    server=self._report.server,
                    source=transition.source.value,
                    target=transition.target.value,
                    why=transition.why.value,
                )
            )

    def connected(self, transport: Transport) -> None:
        """Tell which revision was agreed, where there is one that was not told yet."""
        agreed = transport.agreed
        if agreed is not None and agreed.version != self._told_version:
            self._told_version = agreed.version
            self._report.emit(
                ServerConnected(
                    server=self._report.server,
                    transport=transport.kind,
                    protocol_version=agreed.version,
                )
            )
