"""What makes one definition of a tool another one, to be read by whoever has to approve it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

from attrs import frozen

from sark_trio import jsontext
from sark_trio.mcp.pins import Definition
from sark_trio.mcp.tools import visible

__all__ = ["Difference", "differences"]


@final
@frozen
class Difference:
    """One value that is not what it was, on one line, with hidden characters spelled out.

    :param path: a JSON pointer into the definition (RFC 6901).
    :param before: ``None``: it was not there.
    :param after: ``None``: it is gone.
    """

    path: str
    before: str | None
    after: str | None


def differences(before: Definition | None, after: Definition) -> tuple[Difference, ...]:
    """All that makes *after* another definition than *before*, in its order."""
    old = {} if before is None else dict(_leaves(before.members))
    new = dict(_leaves(after.members))
    paths = [*new, *(path for path in old if path not in new)]
    return tuple(
        Difference(visible(path), old.get(path), new.get(path))
        for path in paths
        if old.get(path) != new.get(path)
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value that holds no other; as deep as a definition may be, which is bounded."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            step = key.replace("~", "~0").replace("/", "~1")
            yield from _leaves(below, f"{path}/{step}")
    elif isinstance(value, list) and value:
        for number, below in enumerate(value):
            yield from _leaves(below, f"{path}/{number}")
    else:
        yield path, visible(jsontext.encode(value).decode())
