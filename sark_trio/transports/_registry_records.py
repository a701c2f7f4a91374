"""What a registry says about servers and tools, read strictly: frozen values, or one clear error.

The dialect is the original system's. Members that it does not name are passed over, so that a
registry may say more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, final

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.errors import ProtocolError

__all__ = [
    "RegistryParameter",
    "RegistryServer",
    "RegistryTool",
    "Table",
    "items_of",
    "read_server",
    "read_tool",
    "tool_definition",
    "tool_result",
]

#: As much of a registry's words as a message of ours repeats.
_QUOTE_CHARS_MAX: Final = 80
#: Names of types as registries write them, to those of JSON Schema; others say nothing.
_SCHEMA_TYPES: Final[Mapping[str, str]] = {
    **{name: name for name in ("array", "boolean", "integer", "number", "object", "string")},
    "bool": "boolean",
    "dict": "object",
    "float": "number",
    "int": "integer",
    "list": "array",
    "str": "string",
}
_FAILED: Final = frozenset({"error", "failed", "failure"})
_Item = TypeVar("_Item")


@final
@frozen(kw_only=True)
class RegistryServer:
    """One server, as a registry describes it."""

    server_id: str
    server_name: str
    server_url: str
    sensitivity_level: str = "medium"
    authorized_teams: tuple[str, ...] = ()
    access_restrictions: Mapping[str, Any] | None = None
    health_status: str
    tools_count: int
    created_at: str | None = None
    updated_at: str | None = None


@final
@frozen
class RegistryParameter:
    """One parameter of a tool, as a registry describes it."""

    name: str
    type: str = "string"
    required: bool = False


@final
@frozen(kw_only=True)
class RegistryTool:
    """One tool, as a registry describes it.

    :param input_schema: JSON Schema of the arguments, where the registry is one of ours.
    """

    tool_name: str
    server_name: str
    description: str
    sensitivity_level: str = "medium"
    parameters: tuple[RegistryParameter, ...] = ()
    sensitive_params: tuple[str, ...] = ()
    required_capabilities: tuple[str, ...] = ()
    input_schema: Mapping[str, Any] | None = field(default=None, repr=False)


@final
@frozen
class Table:
    """One JSON object of an answer, and where it stands in it."""

    data: Mapping[str, Any]
    #: Such as ``GET /api/v1/servers: servers[3]``.
    where: str

    @classmethod
    def of(cls, value: Any, where: str) -> Table:
        """*value*, which must be an object."""
        if not isinstance(value, dict):
            raise _malformed(where, "an object", value)
        return cls(value, where)

    def text(self, key: str, default: str | None = None) -> str:
        """The string *key*; required unless it has a *default*."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise _malformed(f"{self.where}.{key}", "a string", value)
        return value

    def name(self, key: str) -> str:
        """The string *key*, which must not be empty."""
        value = self.text(key)
        if not value:
            raise _malformed(f"{self.where}.{key}", "a name", value)
        return value

    def optional(self, key: str) -> str | None:
        """The string *key*; ``None`` where it is absent or null."""
        return None if self.data.get(key) is None else self.text(key)

    def count(self, key: str) -> int:
        """The number *key*, whole and not negative."""
        value = self._get(key, None)
        if type(value) is not int or value < 0:
            raise _malformed(f"{self.where}.{key}", "an integer of 0 or more", value)
        return value

    def items(self, key: str) -> list[Any]:
        """The list *key*; absent or null: empty."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _malformed(f"{self.where}.{key}", "a list", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of strings *key*; absent or null: empty."""
        values = self.items(key)
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise _malformed(f"{self.where}.{key}[{position}]", "a string", value)
        return tuple(values)

    def mapping(self, key: str) -> Mapping[str, Any] | None:
        """The object *key*; ``None`` where it is absent or null."""
        value = self.data.get(key)
        return None if value is None else Table.of(value, f"{self.where}.{key}").data

    def _get(self, key: str, default: Any) -> Any:
        value = self.data.get(key, default)
        if value is None and key not in self.data:
            raise ProtocolError(f"{self.where}: no {key!r}", delivery="answered")
        return value


def items_of(
    answer: Any, where: str, key: str, read: Callable[[Table], _Item]
) -> tuple[tuple[_Item, ...], int | None]:
    """The items of one page, and how many there are on all pages where the registry says so.

    :raises ProtocolError: it is no such page.
    """
    page = Table.of(answer, where)
    if not isinstance(page.data.get(key), list):
        raise _malformed(f"{where}: {key}", "a list", page.data.get(key))
    items = tuple(
        read(Table.of(item, f"{where}: {key}[{position}]"))
        for position, item in enumerate(page.data[key])
    )
    total = page.data.get("total")
    return items, total if type(total) is int and total >= 0 else None


def read_server(table: Table) -> RegistryServer:
    """The server that *table* describes."""
    return RegistryServer(
        server_id=table.name("server_id"),
        server_name=table.name("server_name"),
        server_url=table.text("server_url"),
        sensitivity_level=table.text("sensitivity_level", "medium"),
        authorized_teams=table.texts("authorized_teams"),
        access_restrictions=table.mapping("access_restrictions"),
        health_status=table.text("health_status"),
        tools_count=table.count("tools_count"),
        created_at=table.optional("created_at"),
        updated_at=table.optional("updated_at"),
    )


def read_tool(table: Table) -> RegistryTool:
    """The tool that *table* describes."""
    return RegistryTool(
        tool_name=table.name("tool_name"),
        server_name=table.name("server_name"),
        description=table.text("description"),
        sensitivity_level=table.text("sensitivity_level", "medium"),
        parameters=tuple(
            _read_parameter(Table.of(value, f"{table.where}.parameters[{position}]"))
            for position, value in enumerate(table.items("parameters"))
        ),
        sensitive_params=table.texts("sensitive_params"),
        required_capabilities=table.texts("required_capabilities"),
        input_schema=table.mapping("input_schema"),
    )


def _read_parameter(table: Table) -> RegistryParameter:
    required = table.data.get("required", False)
    if not isinstance(required, bool):
        raise _malformed(f"{table.where}.required", "true or false", required)
    return RegistryParameter(table.name("name"), table.text("type", "string"), required)


def tool_definition(tool: RegistryTool) -> dict[str, Any]:
    """*tool* as an item of MCP's ``tools/list``."""
    schema = tool.input_schema
    if schema is None:
        properties: dict[str, Any] = {}
        for one in tool.parameters:
            known = _SCHEMA_TYPES.get(one.type.lower())
            properties[one.name] = {} if known is None else {"type": known}
        required = [one.name for one in tool.parameters if one.required]
        schema = {"type": "object", "properties": properties, "required": required}
    return {"name": tool.tool_name, "description": tool.description, "inputSchema": schema}


def tool_result(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What ``/invoke`` answered, as a result of MCP's ``tools/call``.

    A result that is MCP's own passes as it is; any other JSON becomes structured content, and
    text for those who read no other.
    """
    failed = answer.get("status") in _FAILED
    value: Any = answer.get("result", answer.get("error") if failed else answer)
    for found in (answer, value):
        if isinstance(found, dict) and isinstance(found.get("content"), list):
            return {**found, "isError": True} if failed else found
    text = value if isinstance(value, str) else jsontext.encode(value).decode()
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if isinstance(value, dict):
        result["structuredContent"] = value
    if failed:
        result["isError"] = True
    return result


def _malformed(where: str, expected: str, value: Any) -> ProtocolError:
    # ascii: a registry's newlines and escapes must not dress up our message.
    said = ascii(value)[:_QUOTE_CHARS_MAX]
    return ProtocolError(f"{where}: expected {expected}, got {said}", delivery="answered")
