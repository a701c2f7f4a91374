"""The rules of docs/explanation/architecture.md about who may import what, as a checker.

:func:`violations` looks at the text of one module; :func:`cycles` at all of them together.
Each finding is one line that says where, what, and which rule.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping

from tests.tidy.source import PACKAGE, Import, imports

__all__ = ["ALLOWED_ROOMS", "colour", "cycles", "room", "violations"]

_BASE = frozenset({"errors", "jsontext"})
_LOGIC = _BASE | {"machines"}
#: Room to the rooms that it may import (always itself, too).
ALLOWED_ROOMS: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "jsontext": frozenset(),
    "machines": _BASE,
    "mcp": _LOGIC,
    "governance": _LOGIC,
    "auth": _LOGIC,
    "telemetry": _LOGIC,
    "net": _LOGIC | {"telemetry"},
    "stores": _LOGIC | {"mcp", "governance", "auth", "telemetry"},
    "transports": _LOGIC | {"mcp", "auth", "telemetry", "net"},
    "client": _LOGIC | {"mcp", "governance", "auth", "telemetry", "net", "stores", "transports"},
    "gateway": _LOGIC | {"mcp", "auth", "telemetry", "client", "root"},
    "testing": _LOGIC
    | {"mcp", "governance", "auth", "telemetry", "net", "stores", "transports", "client", "root"},
    # `stores`: reading and verifying an audit log needs no client.
    "cli": _LOGIC | {"mcp", "telemetry", "stores", "client", "gateway", "root"},
    # The package itself only re-exports what it promises.
    "root": _LOGIC | {"mcp", "governance", "auth", "telemetry", "net", "stores", "client"},
    "__main__": frozenset({"cli"}),
}

_WHITE_ROOMS = {"errors", "jsontext", "machines", "mcp", "governance", "auth"}
_GREY_ROOMS = {"telemetry"}
#: They may await a callable that they are handed; all other rules of white hold.
_GREY_FILES = {"governance/opa.py", "governance/pipeline.py", "governance/jwt.py"}

#: All that a white or grey room may import from outside: pure, without clock, chance or I/O.
PURE = frozenset(
    (  # noqa: SIM905 -- forty lines of one word each say less
        "__future__ abc array attrs attrs.validators base64 binascii bisect codecs collections"
        " collections.abc contextlib copy dataclasses decimal email.utils enum fnmatch fractions"
        " functools hashlib heapq hmac html ipaddress itertools json math msgspec operator re"
        " string struct textwrap types typing unicodedata urllib.parse zlib"
    ).split()
)
#: Third parties of the black rooms. Each is a base dependency of pyproject.toml.
BASE_DEPENDENCIES = frozenset({"anyio", "attrs", "h11", "httpcore", "msgspec"})
#: Where an optional extra may be imported, and only inside a function.
EXTRAS: Mapping[str, frozenset[str]] = {
    "regorus": frozenset({"governance/rego.py", "client/rego_child.py"}),
    "joserfc": frozenset({"governance/jwt.py", "client/authorizing/keys.py"}),
    "keyring": frozenset({"stores/tokens_keyring.py"}),
    "hypercorn": frozenset({"gateway/serve.py"}),
    "uvloop": frozenset({"cli/main.py"}),
    "opentelemetry": frozenset({"telemetry/otel.py"}),
    # One library for each event loop; the conversation asks whether they are there.
    "trio_websocket": frozenset({"transports/_websocket_trio.py", "transports/websocket_talk.py"}),
    "wsproto": frozenset({"transports/_websocket_trio.py"}),
    "websockets": frozenset({"transports/_websocket_asyncio.py", "transports/websocket_talk.py"}),
}
#: (file, module): why this one import breaks the rule for its room.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("client/lifetime.py", "asyncio"): "leaving from another task is something only asyncio has",
    ("telemetry/aside.py", "threading"): "a hook that may block is told in a thread",
    ("telemetry/logs.py", "logging"): "it is the adapter to the standard library's logging",
    ("testing/steps.py", "trio"): "steps of its scheduler are told to trio's instruments",
    ("testing/steps.py", "asyncio"): "steps of its scheduler are callbacks of its loop",
    ("transports/_websocket_trio.py", "trio"): "trio-websocket runs in a nursery of trio's",
}
_RUNTIMES = frozenset({"asyncio", "trio", "sniffio", "uvloop", "curio"})
_WIRES = frozenset({"http", "sse", "stdio", "websocket", "registry", "memory"})
_MEDIATOR = "client/upstream.py"
#: Makes transports, for the mediator and nobody else.
_MAKER = "client/wires.py"
#: Transports that only listen: no call can travel on them, so there is nothing to mediate.
_LISTENERS: Mapping[str, str] = {"events": "client/chapters/events.py"}
#: No wire, but what a transport is made of: children that are certain to end.
_CHILDREN = {("client/isolated.py", "process"), ("client/programs.py", "process")}


def room(path: str) -> str:
    """The room of a path: ``machines``, ``errors``, ...; ``root`` for the package itself."""
    first = path.partition("/")[0].removesuffix(".py")
    return "root" if first == "__init__" else first


def colour(path: str) -> str:
    """``white``, ``grey`` or ``black``."""
    if path in _GREY_FILES or room(path) in _GREY_ROOMS:
        return "grey"
    return "white" if room(path) in _WHITE_ROOMS else "black"


def violations(path: str, text: str) -> list[str]:
    """What the module at *path* (inside the package) does against the rules of its room."""
    if room(path) not in ALLOWED_ROOMS:
        return [f"{path}:1: no such room: {room(path)}"]
    found = [
        f"{path}:{item.line}: {problem}"
        for item in imports(text, path)
        if (problem := _import_problem(path, item))
    ]
    tree = ast.parse(text)
    found.extend(f"{path}:{line}: {what}" for line, what in _forbidden_syntax(path, tree))
    found.extend(f"{path}:{line}: {what}" for line, what in _import_time_reads(tree))
    return found


def _import_problem(path: str, item: Import) -> str | None:
    if (path, item.module) in EXCEPTIONS:
        return None
    if item.module == PACKAGE or item.module.startswith(f"{PACKAGE}."):
        return _inner_problem(path, item)
    return _outer_problem(path, item)


def _inner_problem(path: str, item: Import) -> str | None:
    parts = item.module.split(".")[1:]
    if not parts:
        # `from sark_trio import machines` names a room, `from sark_trio import Denied` the root.
        named_room = item.name in ALLOWED_ROOMS and item.name != "root"
        parts = [str(item.name)] if named_room else ["root"]
    elif len(parts) == 1 and item.name is not None:
        parts.append(item.name)
    mine, theirs = room(path), parts[0]
    if theirs != mine and theirs not in ALLOWED_ROOMS[mine]:
        return f"{mine} must not import {theirs}"
    if theirs == "transports":
        return _wire_problem(path, parts[1] if len(parts) > 1 else "")
    if "/".join(parts[:2]) == _MAKER.removesuffix(".py") and path != _MEDIATOR:
        return f"only {_MEDIATOR} may import {_MAKER}"
    private = item.name is not None and re.match("_(?!_)", item.name)
    # A private module is its room's own; a private name is its module's.
    if private and not item.module.endswith(f"{PACKAGE}.{mine}"):
        return f"{item.name} is private to {item.module}"
    return None


def _wire_problem(path: str, module: str) -> str | None:
    """Only the mediator touches a wire; the contract in ``base`` carries no byte."""
    wire = module.partition("_")[0]
    mine = room(path)
    if mine == "transports":
        family = path.split("/")[1].removesuffix(".py").split("_")[0]
        if wire in _WIRES and wire != family:
            return f"a transport must not import another one ({module})"
        return None
    if _LISTENERS.get(module) == path or (path, module) in _CHILDREN:
        return None
    if module != "base" and mine != "testing" and path not in {_MEDIATOR, _MAKER}:
        return f"only {_MEDIATOR} and testing may import a transport"
    return None


def _outer_problem(path: str, item: Import) -> str | None:
    top = item.module.split(".")[0]
    if top in EXTRAS:
        if path not in EXTRAS[top]:
            return f"the extra {top} is imported only in {', '.join(sorted(EXTRAS[top]))}"
        if not (item.lazy or item.typing_only):
            return f"the extra {top} is imported only inside a function"
        return None
    if colour(path) != "black":
        # `from urllib import parse` and `from collections import abc` are the same modules.
        spellings = {item.module, f"{item.module}.{item.name}"}
        allowed = bool(spellings & PURE)
        return None if allowed else f"{colour(path)} room imports {item.module}"
    if top in _RUNTIMES:
        return f"black rooms speak anyio, not {top}"
    if top not in sys.stdlib_module_names and top not in BASE_DEPENDENCIES:
        return f"{top} is not a dependency"
    return None


_IMPURE_BUILTINS = {"open", "print", "input", "breakpoint", "id"}
#: Each name that it imports by a string it also imports for type checkers, and that is looked at;
#: test_exports.py holds the two together.
_LAZY = {"__init__.py"}
_DYNAMIC = {"__import__", "eval", "exec", "import_module", "importlib.import_module"}


def _forbidden_syntax(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    hue = colour(path)
    for node in ast.walk(tree):
        if hue == "white" and _is_async(node):
            yield _line(node), "white room is async"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in _DYNAMIC and path not in _LAZY:
                yield node.lineno, f"{called}() hides an import"
            if hue != "black" and called in _IMPURE_BUILTINS:
                yield node.lineno, f"{hue} room calls {called}()"


def _is_async(node: ast.AST) -> bool:
    syntax = ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await
    return isinstance(node, syntax) or bool(getattr(node, "is_async", 0))


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0) or getattr(getattr(node, "target", None), "lineno", 0))


def _import_time_reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Environment and files are never read by an import, in whatever room."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call) else ""
        if text.startswith(("os.environ", "os.getenv(", "open(")) or ".read_text(" in text:
            yield _line(node), f"read when imported: {text}"
        else:
            yield from _import_time_reads(node)


def cycles(files: Mapping[str, str]) -> list[str]:
    """Modules of the package that import each other when imported (typing does not count)."""
    names = {_module_name(path): path for path in files}
    graph = {
        name: sorted(
            {
                target
                for item in imports(files[path], path)
                if not item.lazy and not item.typing_only
                if (target := _target(item, names)) in names and target != name
            }
        )
        for name, path in names.items()
    }
    return sorted({" -> ".join(loop) for name in graph for loop in _loops(graph, name)})


def _target(item: Import, names: Mapping[str, str]) -> str:
    """The module that is meant: ``from a import b`` is ``a.b`` where that is a module."""
    submodule = f"{item.module}.{item.name}"
    return submodule if submodule in names else item.module


def _loops(graph: Mapping[str, list[str]], start: str) -> Iterator[list[str]]:
    """The shortest way from *start* back to itself, told once: from its smallest member."""
    paths = [[start]]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        for target in graph[path[-1]]:
            if target == start and start == min(path):
                yield [*path, start]
                return
            if target not in seen:
                seen.add(target)
                paths.append([*path, target])


def _module_name(path: str) -> str:
    return ".".join([PACKAGE, *path.removesuffix(".py").split("/")]).removesuffix(".__init__")
