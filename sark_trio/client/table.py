"""Reads a table of a configuration file key by key, so that every mistake is named and placed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, final, overload

from attrs import define, field

from sark_trio.errors import ConfigError

__all__ = ["Table"]

_MISSING = object()
_Made = TypeVar("_Made")
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")


@final
@define
class Table:
    """One table (or object) of the file *source*.

    :param data: its members.
    :param source: file name, for messages.
    :param path: dotted path of the table in the file.
    :param environ: what ``${NAME}`` in a string stands for.
    """

    data: Mapping[str, Any]
    source: str
    path: str = ""
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    _taken: set[str] = field(factory=set, init=False)

    def error(self, message: str, key: str = "") -> ConfigError:
        """A :class:`ConfigError` that names file and key."""
        where = ".".join(part for part in (self.path, key) if part)
        return ConfigError(f"{where}: {message}" if where else message, source=self.source)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = _MISSING) -> Any:
        """The member *key*, which must be of *kind*; absent: *default*, or an error."""
        self._taken.add(key)
        if key not in self.data:
            if default is _MISSING:
                raise self.error("missing", key)
            return default
        value = self.data[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            names = " or ".join(dict.fromkeys(_NAMES.get(one, one.__name__) for one in kinds))
            raise self.error(f"expected {names}, got {value!r}", key)
        return self.expand(value, key) if isinstance(value, str) else value

    @overload
    def number(self, key: str) -> float | None: ...

    @overload
    def number(self, key: str, default: float) -> float: ...

    def number(self, key: str, default: float | None = None) -> float | None:
        """The number *key*, or *default*."""
        value = self.take(key, (int, float), default)
        return None if value is None else float(value)

    def strings(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """The list of strings *key*; one string stands for a list of one."""
        value = self.take(key, (str, list), _MISSING if default is None else list(default))
        items = [value] if isinstance(value, str) else value
        for item in items:
            if not isinstance(item, str):
                raise self.error(f"expected strings, got {item!r}", key)
        return tuple(self.expand(item, key) for item in items)

    def mapping(self, key: str) -> dict[str, str]:
        """The table of strings *key*, empty when absent."""
        pairs: dict[str, str] = {}
        for name, value in self.take(key, dict, {}).items():
            if not isinstance(value, str):
                raise self.error(f"expected a string, got {value!r}", f"{key}.{name}")
            pairs[name] = self.expand(value, f"{key}.{name}")
        return pairs

    def table(self, key: str) -> Table:
        """The table *key*, empty when absent."""
        return Table(self.take(key, dict, {}), self.source, self._below(key), self.environ)

    def tables(self, key: str) -> dict[str, Table]:
        """The tables in the table *key*, by name."""
        found = {}
        for name, value in self.take(key, dict, {}).items():
            if not isinstance(value, dict):
                raise self.error(f"expected a table, got {value!r}", f"{key}.{name}")
            found[name] = Table(value, self.source, self._below(f"{key}.{name}"), self.environ)
        return found

    def options(self, key: str, kind: type[_Made]) -> _Made | None:
        """The table *key* as the options of a machine, by their own names; ``None`` if absent."""
        if key not in self.data:
            return None
        below = self.table(key)
        return below.made(kind, **below.data)

    def made(self, kind: type[_Made], *args: Any, **options: Any) -> _Made:
        """Make *kind*, and say where in the file the value stands that it refuses."""
        try:
            return kind(*args, **options)
        except ConfigError as exc:
            raise self.error(exc.message) from exc
        except (TypeError, ValueError) as exc:
            said = str(exc.args[0])  # what attrs raises has more arguments, for debuggers
            raise self.error(said.replace(f"{kind.__name__}.__init__() ", "")) from exc

    def expand(self, text: str, key: str) -> str:
        """*text* with each ``${NAME}`` replaced by that variable of the environment."""

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self.environ:
                raise self.error(f"the environment has no variable {name}", key)
            return self.environ[name]

        return _VARIABLE.sub(value_of, text)

    def finish(self, *, ignore: Iterable[str] = ()) -> None:
        """Refuse members that nothing asked for: a misspelt limit must not be no limit."""
        for key in self.data:
            if key not in self._taken and key not in ignore:
                near = difflib.get_close_matches(key, self._taken, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise self.error(f"unknown key{hint}", key)

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


_NAMES = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
