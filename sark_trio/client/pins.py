"""Pinned tools: a tool whose definition changed is not called until somebody has approved it.

Descriptions are read by models, so a server that changes one gives a new instruction. What was
approved is kept in a file (:mod:`sark_trio.stores.pins`); a server's whole list is compared with
it whenever it is fetched, before anybody sees it or a call is made by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, final, get_args

import anyio.to_thread
from attrs import define, field, frozen

from sark_trio.errors import ConfigError
from sark_trio.mcp.pins import Definition, Note, PinBook, PinState
from sark_trio.mcp.tools import Tool
from sark_trio.stores.pins import PinFile, PinnedTool, timestamp

__all__ = [
    "Guard",
    "PinKeeper",
    "PinMode",
    "PinnedTool",
    "Pins",
    "check_mode",
    "guard_of",
    "keeper_of",
]

#: ``off``: nothing is compared. ``warn``: what changed is recorded, and used. ``refuse``: what
#: changed is recorded, and neither listed nor called.
PinMode = Literal["off", "warn", "refuse"]

#: Says which of a server's tools may not be used, and why.
Guard = Callable[[Mapping[str, Tool]], Awaitable[Mapping[str, PinState]]]
_Judged = tuple[Mapping[str, PinState], tuple[Note, ...]]


def check_mode(_: Any, attribute: Any, value: str | None) -> None:
    """Validate a :data:`PinMode`, or ``None``.

    :raises ConfigError: it is neither.
    """
    if value is not None and value not in get_args(PinMode):
        known = ", ".join(get_args(PinMode))
        raise ConfigError(f"{value!r} is not one of {known}", source=attribute.name)


@final
@frozen(kw_only=True)
class Pins:
    """Pin the tools of a client's servers.

    :param path: the file of what was approved; made, with mode 0600, where it is not there.
    :param mode: what becomes of a tool that is not as approved, on servers that say nothing of
        their own. What the operator has refused is refused in mode ``warn``, too.
    :param first_use: approve what a server offers when it is first met. Without it every tool
        waits for an operator.
    :param record: say in the client's audit log what was found and decided; without it that
        waits in the file for a client that does.
    :raises ConfigError: no such mode.
    """

    path: Path = field(kw_only=False, converter=Path)
    mode: PinMode = field(default="refuse", validator=check_mode)
    first_use: bool = True
    record: bool = True


@final
@define(eq=False)
class PinKeeper:
    """The pins of a client.

    :param note: records a name and details in the audit log.
    """

    options: Pins
    _note: Callable[[str, Mapping[str, Any]], object]

    @property
    def file(self) -> PinFile:
        """Where the pins are kept."""
        return PinFile(self.options.path)

    async def withheld(
        self, server: str, mode: PinMode, tools: Mapping[str, Tool]
    ) -> dict[str, PinState]:
        """Which of *tools*, all that *server* has, may not be used, and why.

        :raises ConfigError: the file of pins cannot be used: then no tool can.
        """
        states, notes = await anyio.to_thread.run_sync(self._judge, server, tools)
        self._record(notes)
        return _withheld(states, mode)

    async def withheld_of(self, tools: Iterable[tuple[str, Tool]]) -> frozenset[tuple[str, str]]:
        """Which of these may not be used, by server and tool; they need not be whole lists."""
        if self.options.mode == "off":
            return frozenset()
        by_server: dict[str, dict[str, Tool]] = {}
        for server, tool in tools:
            by_server.setdefault(server, {})[tool.name] = tool
        return await anyio.to_thread.run_sync(self._look, by_server)

    async def decide(
        self,
        decide: Callable[..., tuple[str, ...]],
        server: str,
        tool: str | None,
        *,
        by: str,
        fingerprint: str | None,
    ) -> tuple[str, ...]:
        """Approve or refuse, and record that here and now."""

        def work() -> tuple[tuple[str, ...], tuple[Note, ...]]:
            names = decide(self.file, server, tool, by=by, fingerprint=fingerprint)
            return names, self.file.change(self._noted)

        names, notes = await anyio.to_thread.run_sync(work)
        self._record(notes)
        return names

    def _judge(self, server: str, tools: Mapping[str, Tool]) -> _Judged:
        definitions, at = _definitions(tools), timestamp()

        def change(book: PinBook) -> tuple[PinBook, _Judged]:
            first_use = self.options.first_use
            found = book.judge(server, definitions, first_use=first_use, at=at)
            after, notes = self._noted(found.book)
            return after, (found.states, notes)

        return self.file.change(change)

    def _noted(self, book: PinBook) -> tuple[PinBook, tuple[Note, ...]]:
        """What is to be recorded, and the book without it."""
        return (book.recorded(), book.notes) if self.options.record else (book, ())

    def _look(self, tools: Mapping[str, Mapping[str, Tool]]) -> frozenset[tuple[str, str]]:
        book, mode = self.file.read(), self.options.mode
        return frozenset(
            (server, name)
            for server, some in tools.items()
            for name in _withheld(book.look(server, _definitions(some)), mode)
        )

    def _record(self, notes: Iterable[Note]) -> None:
        for note in notes:
            self._note(note.name, note.details)


def keeper_of(
    pins: Pins | Path | str | None, note: Callable[[str, Mapping[str, Any]], object]
) -> PinKeeper | None:
    """The keeper that a client's option stands for; ``None`` where nothing is pinned."""
    if pins is None:
        return None
    return PinKeeper(pins if isinstance(pins, Pins) else Pins(pins), note)


def guard_of(keeper: PinKeeper | None, server: str, mode: PinMode | None) -> Guard | None:
    """What compares the tools of *server*, if something does.

    :param mode: the server's own; ``None``: the client's.
    :raises ConfigError: the client has no pins to compare with.
    """
    if keeper is None:
        if mode in {"warn", "refuse"}:
            raise ConfigError(
                f"pins={mode!r}, and the client has no file of pins: give it pins=...",
                source=f"servers.{server}",
            )
        return None
    chosen = mode or keeper.options.mode
    return None if chosen == "off" else partial(keeper.withheld, server, chosen)


def _withheld(states: Mapping[str, PinState], mode: PinMode) -> dict[str, PinState]:
    stopped = {"refused"} if mode == "warn" else {"changed", "new", "refused"}
    return {name: state for name, state in states.items() if state in stopped}


def _definitions(tools: Mapping[str, Tool]) -> dict[str, Definition]:
    return {name: Definition.of(tool) for name, tool in tools.items()}
