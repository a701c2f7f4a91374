"""Which definitions of a server's tools somebody has approved, and what was found instead.

A tool is approved as it describes itself, and a server may describe it differently tomorrow: a
description is read by a model, so a new one is a new instruction ("rug pull"). What is approved
is a fingerprint of everything that a model or a person reads (:func:`fingerprint`); the members
themselves are kept beside it, so that a change can be shown.

White: a book of pins is a value, and every change of it makes another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, final

from attrs import evolve, field, frozen

from sark_trio import jsontext
from sark_trio.mcp.tools import PINNED_MEMBERS, Tool, fingerprint

__all__ = [
    "Definition",
    "Judgement",
    "Note",
    "Pin",
    "PinBook",
    "PinState",
    "decode_book",
    "encode_book",
]

#: ``pinned``: as approved; ``changed``: approved once, and different now; ``new``: never
#: approved; ``refused``: what it is now was refused by the operator.
PinState = Literal["pinned", "changed", "new", "refused"]

VERSION: Final = 1
#: Names in one note: a record of the audit log is bounded, too.
NOTED_MAX: Final = 100
#: Notes that wait to be recorded; beyond it the oldest go. Whoever decides a thousand times
#: without running a client once keeps a list of their own.
NOTES_MAX: Final = 1_000


@final
@frozen
class Definition:
    """A tool as it describes itself: the members that are pinned, and their fingerprint."""

    fingerprint: str
    members: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, tool: Tool) -> Definition:
        """What is pinned of *tool*; an absent member and null are the same."""
        members = {key: tool.raw[key] for key in PINNED_MEMBERS if tool.raw.get(key) is not None}
        return cls(fingerprint(tool), members)


@final
@frozen(kw_only=True)
class Pin:
    """What is known of one tool.

    :param approved: the definition that may be used, if one may.
    :param found: another one, which the server had in its last list.
    :param refused: the operator has refused *found*.
    :param by: who approved: a name, or ``first use``.
    :param at: when, as a date and time (RFC 3339).
    """

    approved: Definition | None = None
    found: Definition | None = None
    refused: bool = False
    by: str = ""
    at: str = ""

    @property
    def state(self) -> PinState:
        """What became of the tool, as far as the book knows."""
        if self.found is None:
            return "pinned"
        if self.refused:
            return "refused"
        return "new" if self.approved is None else "changed"

    def of(self, now: Definition) -> PinState:
        """What the tool is, described as *now*."""
        if _same(self.approved, now):
            return "pinned"
        if self.refused and _same(self.found, now):
            return "refused"
        return "new" if self.approved is None else "changed"

    def met(self, now: Definition) -> Pin:
        """The pin after the server described the tool as *now*."""
        if _same(self.approved, now):
            # What was refused stays refused, should it come back.
            return self if self.refused else evolve(self, found=None)
        return self if _same(self.found, now) else evolve(self, found=now, refused=False)


@final
@frozen
class Note:
    """Something that the audit log has to know: its name and details there."""

    name: str
    details: Mapping[str, Any]


@final
@frozen(kw_only=True)
class Judgement:
    """What a list of tools is worth.

    :param book: the book as it is from now on.
    :param states: of every tool in the list.
    """

    book: PinBook
    states: Mapping[str, PinState]


@final
@frozen
class PinBook:
    """The pins of any number of servers, by the names of servers and tools.

    :param notes: what happened and no audit log knows of yet.
    """

    servers: Mapping[str, Mapping[str, Pin]] = field(factory=dict)
    notes: tuple[Note, ...] = ()

    def look(self, server: str, tools: Mapping[str, Definition]) -> dict[str, PinState]:
        """What the book says of *tools*, and nothing is learned: they may be a part of a list.

        Of a server that it does not know it says nothing.
        """
        pins = self.servers.get(server)
        return {} if not pins else {n: pins.get(n, _UNKNOWN).of(now) for n, now in tools.items()}

    def judge(
        self, server: str, tools: Mapping[str, Definition], *, first_use: bool, at: str
    ) -> Judgement:
        """Compare the whole list of a server's tools with the book, and take note of it.

        :param first_use: approve all tools of a server of which nothing is known.
        :param at: date and time.
        """
        known = self.servers.get(server, {})
        pins = dict(_decisions(known))
        if first_use and not known:
            pins = {n: Pin(approved=now, by="first use", at=at) for n, now in tools.items()}
            notes: tuple[Note, ...] = (_first_use(server, tools),)
        else:
            pins |= {n: known.get(n, _UNKNOWN).met(now) for n, now in tools.items()}
            notes = _changes(server, known, pins)
        states = {n: pins[n].of(now) for n, now in tools.items()}
        if pins == known:
            return Judgement(book=self, states=states)
        return Judgement(book=self._with(server, pins, notes), states=states)

    def recorded(self) -> PinBook:
        """The book without its notes."""
        return evolve(self, notes=()) if self.notes else self

    def pending(self, server: str) -> dict[str, Pin]:
        """Tools of *server* that are waiting for a decision."""
        pins = self.servers.get(server, {})
        return {name: pin for name, pin in pins.items() if pin.state in {"changed", "new"}}

    def approve(self, server: str, tool: str, *, by: str, at: str) -> PinBook:
        """Let *tool* be used as it was found.

        :raises LookupError: there is nothing to approve.
        """
        pin = self.servers.get(server, {}).get(tool)
        if pin is None or pin.found is None:
            raise LookupError(f"nothing of tool {tool!r} of {server!r} waits for approval")
        approved = Pin(approved=pin.found, by=by, at=at)
        return self._decided("tool_approved", server, tool, pin, approved)

    def refuse(self, server: str, tool: str, *, by: str, at: str) -> PinBook:
        """Do not let *tool* be used as it was found; if nothing was, not as it was approved.

        :raises LookupError: the tool is not known.
        """
        pin = self.servers.get(server, {}).get(tool)
        if pin is None:
            raise LookupError(f"no tool {tool!r} of {server!r} is known")
        if pin.found is None:
            refused = Pin(found=pin.approved, refused=True, by=by, at=at)
        else:
            refused = evolve(pin, refused=True)
        return self._decided("tool_refused", server, tool, pin, refused, by=by, at=at)

    def _decided(
        self, what: str, server: str, tool: str, before: Pin, after: Pin, **who: str
    ) -> PinBook:
        details = {
            "server": server,
            "tool": tool,
            "approved": None if before.approved is None else before.approved.fingerprint,
            "found": None if before.found is None else before.found.fingerprint,
            **(who or {"by": after.by, "at": after.at}),
        }
        pins = {**self.servers[server], tool: after}
        return self._with(server, pins, (Note(what, details),))

    def _with(self, server: str, pins: Mapping[str, Pin], notes: tuple[Note, ...]) -> PinBook:
        return PinBook({**self.servers, server: pins}, (*self.notes, *notes)[-NOTES_MAX:])


_UNKNOWN: Final = Pin()


def _same(one: Definition | None, other: Definition) -> bool:
    return one is not None and one.fingerprint == other.fingerprint


def _decisions(known: Mapping[str, Pin]) -> Iterator[tuple[str, Pin]]:
    """What was approved or refused. What else was found is forgotten unless it is found again, so
    that a server which makes up new names in every list does not fill the book.
    """
    for name, pin in known.items():
        if pin.refused:
            yield name, pin
        elif pin.approved is not None:
            yield name, evolve(pin, found=None)


def _first_use(server: str, tools: Mapping[str, Definition]) -> Note:
    named = {n: now.fingerprint for n, now in list(tools.items())[:NOTED_MAX]}
    return Note("tools_pinned", {"server": server, "count": len(tools), "tools": named})


def _changes(server: str, known: Mapping[str, Pin], pins: Mapping[str, Pin]) -> tuple[Note, ...]:
    """One note of all that is not as it was when the last list came."""
    found: dict[str, dict[str, str | None]] = {}
    for name, pin in pins.items():
        now, before = pin.found, known.get(name, _UNKNOWN)
        if now is not None and not _same(before.found, now):
            was = None if pin.approved is None else pin.approved.fingerprint
            found[name] = {"approved": was, "found": now.fingerprint}
    if not found:
        return ()
    named = dict(list(found.items())[:NOTED_MAX])
    return (Note("tools_changed", {"server": server, "count": len(found), "tools": named}),)


# -- as bytes ---------------------------------------------------------------------------------


def encode_book(book: PinBook) -> bytes:
    """*book* as JSON."""
    servers = {
        server: {tool: _pin_json(pin) for tool, pin in pins.items()}
        for server, pins in book.servers.items()
    }
    notes = [{"name": note.name, "details": note.details} for note in book.notes]
    return jsontext.encode({"version": VERSION, "servers": servers, "notes": notes})


def decode_book(data: bytes) -> PinBook:
    """The book that *data* is.

    :raises ValueError: it is none, or of another version.
    """
    value = jsontext.decode(data)
    try:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']!r:.20} is not {VERSION}")
        servers = {
            str(server): {str(tool): _pin(pin) for tool, pin in pins.items()}
            for server, pins in value["servers"].items()
        }
        notes = tuple(Note(str(one["name"]), dict(one["details"])) for one in value["notes"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a book of pins: {type(exc).__name__}: {exc}") from exc
    return PinBook(servers, notes)


def _pin_json(pin: Pin) -> dict[str, Any]:
    return {
        "approved": _definition_json(pin.approved),
        "found": _definition_json(pin.found),
        "refused": pin.refused,
        "by": pin.by,
        "at": pin.at,
    }


def _definition_json(one: Definition | None) -> dict[str, Any] | None:
    return None if one is None else {"fingerprint": one.fingerprint, "members": one.members}


def _pin(value: Any) -> Pin:
    return Pin(
        approved=_definition(value["approved"]),
        found=_definition(value["found"]),
        refused=value["refused"] is not False,
        by=str(value["by"]),
        at=str(value["at"]),
    )


def _definition(value: Any) -> Definition | None:
    return None if value is None else Definition(str(value["fingerprint"]), dict(value["members"]))
