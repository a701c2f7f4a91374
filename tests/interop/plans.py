"""What to ask of one server, so that each operation of the script shows what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, fields, frozen

__all__ = ["Call", "Changes", "Completes", "Plan", "Prompt", "Resource"]


@frozen
class Call:
    """A call of a tool, and a part of the text that it answers with."""

    tool: str
    arguments: Mapping[str, Any] = field(factory=dict)
    says: str = ""


@frozen
class Resource:
    """A resource to read, and a part of what stands there; a template, if there are any."""

    uri: str
    says: str
    template: str | None = None


@frozen
class Prompt:
    """A prompt to get, and a part of its first message."""

    name: str
    arguments: Mapping[str, str]
    says: str


@frozen(kw_only=True)
class Completes:
    """An argument of a prompt's, or of a template's, and one of the values that complete it."""

    argument: str
    value: str
    says: str | None
    prompt: str | None = None
    template: str | None = None


@frozen
class Changes:
    """A resource to watch, and the call that has it change; without one it does so by itself."""

    uri: str
    call: Call | None = None


@frozen(kw_only=True)
class Plan:
    """What each operation uses; where there is nothing, the server has nothing for it."""

    call: Call
    #: Answers with structured content, of which ``says`` is a part.
    structured: Call | None = None
    #: Answers that it failed.
    fails: Call | None = None
    #: Tells progress.
    progress: Call | None = None
    #: Writes log messages.
    logs: Call | None = None
    #: Takes much longer than anybody waits.
    lasts: Call | None = None
    resource: Resource | None = None
    prompt: Prompt | None = None
    completes: Completes | None = None
    changes: Changes | None = None
    #: Asks for a form to be filled in, for a page to be visited, for a model, for the roots.
    form: Call | None = None
    visit: Call | None = None
    model: Call | None = None
    roots: Call | None = None

    def filled(self, facts: Mapping[str, str]) -> Plan:
        """With *facts* for ``{names}`` of them, in arguments that are strings."""
        found = {one.name: getattr(self, one.name) for one in fields(Plan)}
        asked = {name: part for name, part in found.items() if isinstance(part, Call | Prompt)}
        changes: dict[str, Any] = {
            name: evolve(part, arguments=_filled(part.arguments, facts))
            for name, part in asked.items()
        }
        return evolve(self, **changes)


def _filled(arguments: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: value.format(**facts) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
