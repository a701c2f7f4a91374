"""Which arguments a tool's schema wants mirrored into headers: the ``x-mcp-header`` rules.

Apart from ``headers`` because it reads a schema, where that file writes a request. The walk
looks at shape only: it never follows a ``$ref`` and never validates anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sark_trio.mcp.headers import PARAM_HEADER_PREFIX, ParamHeader

__all__ = ["InvalidParamHeader", "parse_param_headers"]

ANNOTATION: Final = "x-mcp-header"
#: More of them would not fit into the head of a request that common servers accept.
PARAM_HEADERS_MAX: Final = 64

#: RFC 9110, section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_PRIMITIVES: Final = frozenset({"string", "integer", "boolean"})
#: Their keys are names of the author's choice, each with a schema below it.
_MAPS: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
#: What stands below these is data, in which our annotation is an ordinary key.
_DATA: Final = frozenset({"const", "default", "enum", "examples"})

_Path = tuple[str, ...]


class InvalidParamHeader(ValueError):
    """An ``x-mcp-header`` breaks a rule; the message says which and where."""


def parse_param_headers(input_schema: Mapping[str, Any]) -> tuple[ParamHeader, ...]:
    """The arguments to mirror, in the order of the schema; usually none.

    :raises InvalidParamHeader: the tool must not be offered to HTTP clients.
    """
    found: dict[str, ParamHeader] = {}
    for path, schema in _annotated(input_schema):
        name = _checked_name(path, schema)
        key = name.lower()
        if key in found:
            raise InvalidParamHeader(f"{_where(path)}: {ANNOTATION} {name!r} is used twice")
        if len(found) == PARAM_HEADERS_MAX:
            raise InvalidParamHeader(f"more than {PARAM_HEADERS_MAX} {ANNOTATION} annotations")
        found[key] = ParamHeader(PARAM_HEADER_PREFIX + name, path)
    return tuple(found.values())


def _checked_name(path: _Path, schema: Mapping[str, Any]) -> str:
    name = schema[ANNOTATION]
    if type(name) is not str:
        raise InvalidParamHeader(f"{_where(path)}: {ANNOTATION} is not a string")
    if _TOKEN.fullmatch(name) is None:
        raise InvalidParamHeader(f"{_where(path)}: {ANNOTATION} is not a header name token")
    kind = schema.get("type")
    if type(kind) is not str or kind not in _PRIMITIVES:
        raise InvalidParamHeader(
            f"{_where(path)}: {ANNOTATION} is allowed on string, integer and boolean only"
        )
    return name


def _annotated(root: Mapping[str, Any]) -> Iterator[tuple[_Path, Mapping[str, Any]]]:
    """Every annotated schema with its path of ``properties`` keys, in document order.

    :raises InvalidParamHeader: one is reachable in another way, or stands at the root.
    """
    # A stack of our own: a schema can be nested deeper than Python would recurse.
    stack: list[tuple[_Path | None, Any]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, list):
            stack.extend((None, item) for item in node)
        elif isinstance(node, Mapping):
            if ANNOTATION in node:
                if not path:
                    raise InvalidParamHeader(
                        f"{ANNOTATION} stands where no chain of 'properties' leads"
                    )
                yield path, node
            stack.extend(reversed(list(_below(path, node))))


def _below(path: _Path | None, schema: Mapping[str, Any]) -> Iterator[tuple[_Path | None, Any]]:
    for keyword, value in schema.items():
        if keyword in _DATA:
            continue
        if keyword in _MAPS and isinstance(value, Mapping):
            chain = path if keyword == "properties" else None
            for name, below in value.items():
                yield None if chain is None else (*chain, name), below
        else:
            # Unknown keywords too: an annotation below one is still not where it may be.
            yield None, value


def _where(path: _Path) -> str:
    return f"property {'.'.join(path)!r}"
