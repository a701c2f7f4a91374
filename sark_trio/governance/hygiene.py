"""Arguments that two parsers can not read differently, and that do not cost too much to read.

White. What passes here can be filtered, hashed, decided on and sent, and means the same to the
policy engine, to this library and to the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from sark_trio import errors, jsontext
from sark_trio.governance.paths import Trail, fold, trail_pointer

__all__ = ["check_arguments"]


def check_arguments(arguments: Any) -> None:
    """Refuse what two parsers may read differently, and what would cost too much to read.

    :raises errors.InvalidArguments: the message begins with the RFC 6901 path of the fault: not
        a JSON type, not finite, an integer beyond 2**53, a lone surrogate, names in one object
        that differ only by case, width or invisible characters, a name that reaches into the
        object model of a server's language (``__proto__``, ``__class__``), deeper than 64, more
        than 100,000 values.
    """
    if type(arguments) is not dict:
        raise errors.InvalidArguments("the arguments of a call must be an object")
    nodes = 1
    level: list[tuple[Any, Trail | None]] = [(arguments, None)]
    for _ in range(jsontext.DEPTH_MAX):
        below: list[tuple[Any, Trail | None]] = []
        for value, trail in level:
            nodes += len(value)
            if nodes > jsontext.NODES_MAX:
                raise errors.InvalidArguments(f"more than {jsontext.NODES_MAX} values")
            if type(value) is dict:
                _check_names(value, trail)
                members: Iterable[tuple[Any, Any]] = value.items()
            else:
                members = enumerate(value)
            for name, item in members:
                kind = type(item)
                if kind is dict or kind is list or kind is tuple:
                    below.append((item, (trail, name)))
                else:
                    _check_leaf(item, (trail, name))
        if not below:
            return
        level = below
    raise errors.InvalidArguments(
        f"{trail_pointer(level[0][1])}: nested deeper than {jsontext.DEPTH_MAX} levels"
    )


def _check_leaf(value: Any, trail: Trail) -> None:
    fault = None
    if type(value) is str:
        fault = None if value.isascii() or _encodable(value) else "holds a lone surrogate"
    elif type(value) is float:
        fault = None if math.isfinite(value) else f"{value!r} is not a JSON number"
    elif type(value) is int:
        # RFC 8785 knows doubles only: such a number has no digest that binds it.
        if not -(2**53) < value < 2**53:
            fault = "an integer beyond 2**53 - 1 must be sent as a text"
    elif value is not None and type(value) is not bool:
        fault = f"{type(value).__name__} is not a JSON type"
    if fault is not None:
        raise errors.InvalidArguments(f"{trail_pointer(trail)}: {fault}")


def _check_names(value: dict[Any, Any], trail: Trail | None) -> None:
    if len(value) > 1:
        _check_collisions(value, trail)
    for name, item in value.items():
        fault = None
        if type(name) is not str:
            fault = "the name of a member is not a text"
        elif not name.isascii() and not _encodable(name):
            fault = "the name of a member holds a lone surrogate"
        elif name.startswith("__") and name.endswith("__") and len(name) > 4:
            fault = f"the name {name!r} is refused: it reaches into a server's object model"
        elif name == "constructor" and isinstance(item, dict) and "prototype" in item:
            fault = "constructor.prototype is refused: it reaches into a server's object model"
        if fault is not None:
            raise errors.InvalidArguments(f"{trail_pointer(trail) or 'arguments'}: {fault}")


def _check_collisions(value: dict[Any, Any], trail: Trail | None) -> None:
    folded: dict[str, str] = {}
    for name in value:
        if type(name) is str:
            other = folded.setdefault(fold(name), name)
            if other != name:
                raise errors.InvalidArguments(
                    f"{trail_pointer(trail) or 'arguments'}: {other!r} and {name!r} differ only by "
                    "case, width or invisible characters"
                )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
