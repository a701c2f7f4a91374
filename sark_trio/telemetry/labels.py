"""Names as labels of metrics: never more of them than a metrics store can bear.

The original's metrics had a label for every user and every tool that anybody ever named: one
caller with a loop could fill the store.
"""

from __future__ import annotations

from typing import Final, final

from attrs import define, field

from sark_trio.telemetry.events import OTHER, CallInfo

__all__ = ["ToolLabels"]

#: Tools with a label of their own. With eight outcomes and a histogram's fifteen buckets that
#: makes some ten thousand time series, about what one target may have.
TOOLS_MAX: Final = 500


@final
@define(eq=False)
class ToolLabels:
    """The label of each tool: its name for the first :data:`TOOLS_MAX`, ``_other`` for the rest.

    Events name only tools that are on their server's list; but a server may list a hundred
    thousand, and others tomorrow.
    """

    tools_max: int = field(default=TOOLS_MAX)
    _known: set[tuple[str, str]] = field(factory=set, init=False)

    @tools_max.validator
    def _check(self, _: object, value: int) -> None:
        if type(value) is not int or value < 0:
            raise ValueError(f"tools_max must be a whole number of 0 or more, not {value!r}")

    def of(self, call: CallInfo) -> str:
        """The label for the tool of *call*; for a call of another kind, its method."""
        if call.tool is None:
            return call.method
        key = call.server, call.tool
        if call.tool == OTHER or key in self._known:
            return call.tool
        if len(self._known) >= self.tools_max:
            return OTHER
        self._known.add(key)
        return call.tool
