"""What the code says about itself: rooms, who imports whom, transition tables, promises."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.tidy.exports import defined_names, exported_names
from tests.tidy.layers import ALLOWED_ROOMS, colour, room
from tests.tidy.source import PACKAGE, imports, package_files

__all__ = [
    "Module",
    "Name",
    "Room",
    "Table",
    "public_modules",
    "public_names",
    "rooms",
    "transition_tables",
]

#: A machine keeps its table under one of these names.
TABLE_NAMES = ("TRANSITIONS", "TABLE")


@dataclass(frozen=True)
class Room:
    """A folder (or single file) of the package and the rooms that it really imports."""

    name: str
    colour: str
    summary: str
    imports: tuple[str, ...]


def rooms() -> list[Room]:
    """The rooms that are there, from the bottom of the house to its roof."""
    files = package_files()
    present: dict[str, list[str]] = {}
    for path in files:
        present.setdefault(room(path), []).append(path)
    order = [name for name in ALLOWED_ROOMS if name in present and name not in {"root", "__main__"}]
    return [
        Room(name, _colours(present[name]), _summary(files, name), _imported(files, name, order))
        for name in order
    ]


def _colours(paths: list[str]) -> str:
    found = {colour(path) for path in paths}
    return "white, some grey" if found == {"white", "grey"} else found.pop()


def _summary(files: Mapping[str, str], name: str) -> str:
    text = files.get(f"{name}/__init__.py", files.get(f"{name}.py", ""))
    return (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")


def _imported(files: Mapping[str, str], name: str, order: list[str]) -> tuple[str, ...]:
    found: set[str] = set()
    for path, text in files.items():
        if room(path) != name:
            continue
        for item in imports(text, path):
            module, _, rest = item.module.partition(".")
            if module == PACKAGE:
                found.add(rest.partition(".")[0] or str(item.name))
    return tuple(each for each in order if each in found and each != name)


@dataclass(frozen=True)
class Table:
    """A machine's literal table: for a state and an event, what may come of it."""

    module: str
    summary: str
    cells: Mapping[tuple[str, str], tuple[str, ...]]

    @property
    def slug(self) -> str:
        return self.module.removeprefix(f"{PACKAGE}.").replace(".", "-")

    @property
    def states(self) -> list[str]:
        return list(dict.fromkeys(state for state, _ in self.cells))

    @property
    def events(self) -> list[str]:
        return list(dict.fromkeys(event for _, event in self.cells))

    @property
    def is_diagram(self) -> bool:
        """Whether the cells are states (and not moves that the machine then makes)."""
        return any(set(targets) & set(self.states) for targets in self.cells.values())


def transition_tables() -> list[Table]:
    """Each table that is defined in ``machines`` or ``mcp``."""
    found = []
    for path, text in package_files().items():
        if room(path) not in {"machines", "mcp"}:
            continue
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if ast.unparse(target) in TABLE_NAMES:
                    found.append(_table(path, ast.unparse(target), tree))
    return found


def _table(path: str, name: str, tree: ast.Module) -> Table:
    module = f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}"
    value = getattr(importlib.import_module(module), name)
    cells: dict[tuple[str, str], tuple[str, ...]] = {}
    for state, event, targets in _rows(value):
        key = (_word(state), _word(event))
        words = tuple(_word(target) for target in targets)
        cells[key] = tuple(dict.fromkeys((*cells.get(key, ()), *words)))
    summary = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")
    return Table(module, summary, cells)


def _rows(value: Any) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
    """State, event, results: from ``{(state, event): ...}``, nested mappings, or edges."""
    if not isinstance(value, Mapping):
        for edge in value:
            yield edge.source, edge.why, _several(edge.target)
        return
    for outer, inner in value.items():
        if isinstance(inner, Mapping):
            # ``{event: {state: states}}``: the event is outside.
            for state, target in inner.items():
                yield state, outer, _several(target)
        else:
            state, event = outer
            yield state, event, _several(inner)


def _several(target: Any) -> tuple[Any, ...]:
    return tuple(target) if isinstance(target, tuple | list | frozenset | set) else (target,)


def _word(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name.lower()
    return value.__name__ if isinstance(value, type) else str(value)


@dataclass(frozen=True)
class Name:
    """A name that ``sark_trio`` itself re-exports, where it is documented, and its first line."""

    name: str
    home: str | None
    summary: str


def public_names() -> list[Name]:
    """What an application imports from the package itself."""
    package = importlib.import_module(PACKAGE)
    found = []
    for name in getattr(package, "__all__", []):
        thing = getattr(package, name)
        if isinstance(thing, type) or inspect.isfunction(thing):
            summary = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
            found.append(Name(name, f"{thing.__module__}.{thing.__qualname__}", summary))
        else:
            found.append(Name(name, None, ""))
    return found


@dataclass(frozen=True)
class Module:
    """A module that promises something."""

    name: str
    exported: tuple[str, ...]


def public_modules() -> dict[str, list[Module]]:
    """Room to its modules and what they promise of their own; what they re-export is elsewhere."""
    found: dict[str, list[Module]] = {}
    for path, text in package_files().items():
        tree = ast.parse(text)
        own = defined_names(tree)
        # Limits and defaults are worth reading although nobody needs to import them.
        constants = sorted(name for name in own if re.fullmatch("[A-Z][A-Z0-9_]+", name))
        exported = [each for each in exported_names(tree) or [] if each in own]
        exported += [each for each in constants if each not in exported]
        if exported:
            name = f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}"
            found.setdefault(room(path), []).append(Module(name, tuple(exported)))
    return found
