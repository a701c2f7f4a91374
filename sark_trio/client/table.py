"""Reads a table of a configuration file key by key, so that every mistake is named and placed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, time
from typing import Any, Final, TypeVar, final, overload

from attrs import define, field, fields

from sark_trio.errors import ConfigError

__all__ = ["Table"]

_MISSING = object()


def _nowhere(_: Sequence[str]) -> None:
    """The place of what stands in no file."""


_Made = TypeVar("_Made")
_VARIABLE = re.compile(
    r"\$\{(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{input:[^}]*\}"
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
#: As many keys are told to whoever wrote one that is like none of them.
_TOLD_MAX: Final = 12
#: As much of a wrong value is repeated.
_SHOWN_CHARS: Final = 60


@final
@define
class Table:
    """One table (or object) of the file *source*.

    :param data: its members.
    :param source: file name, for messages.
    :param path: the keys that lead to the table in the file.
    :param environ: what ``${NAME}`` in a string stands for.
    :param locate: the line of what stands at such a path.
    """

    data: Mapping[str, Any]
    source: str
    path: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    locate: Callable[[Sequence[str]], int | None] = field(default=_nowhere, repr=False)

    def error(self, message: str, *keys: str, at: str | None = None) -> ConfigError:
        """A :class:`ConfigError` that names file, line and key.

        :param at: the member on whose line it is, if not on that of *keys*.
        """
        path = (*self.path, *keys)
        where = ".".join(key if _BARE.fullmatch(key) else f'"{key}"' for key in path)
        message = f"{where}: {message}" if where else message
        line = self.locate(path if at is None else (*path, at))
        return ConfigError(message, source=self.source, line=line)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = _MISSING) -> Any:
        """The member *key*, which must be of *kind*; absent: *default*, or an error."""
        if key not in self.data:
            if default is _MISSING:
                raise self.error("missing", key)
            return default
        value = self.data[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            names = " or ".join(dict.fromkeys(_NAMES.get(one, one.__name__) for one in kinds))
            seconds = names == "a number" and key.endswith("_s") and key != "per_s"
            unit = " of seconds" if seconds else ""
            raise self.error(f"expected {names}{unit}, got {_shown(value)}", key)
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
                raise self.error(f"expected strings, got {_shown(item)}", key)
        return tuple(self.expand(item, key) for item in items)

    def mapping(self, key: str) -> dict[str, str]:
        """The table of strings *key*, empty when absent."""
        pairs: dict[str, str] = {}
        for name, value in self.take(key, dict, {}).items():
            if not isinstance(value, str):
                raise self.error(f"expected a string, got {_shown(value)}", key, name)
            pairs[name] = self.expand(value, key, name)
        return pairs

    def table(self, key: str) -> Table:
        """The table *key*, empty when absent."""
        return self._below(self.take(key, dict, {}), key)

    def tables(self, key: str) -> dict[str, Table]:
        """The tables in the table *key*, by name."""
        found = {}
        for name, value in self.take(key, dict, {}).items():
            if not isinstance(value, dict):
                raise self.error(f"expected a table, got {_shown(value)}", key, name)
            found[name] = self._below(value, key, name)
        return found

    def options(self, key: str, kind: type[_Made], **inner: type) -> _Made | None:
        """The table *key* as the options of a machine, by their own names; ``None`` if absent.

        :param inner: those of its members that are tables of options themselves.
        """
        if key not in self.data:
            return None
        below = self.table(key)
        below.only(*_names(kind))
        for name, options in inner.items():
            below.table(name).only(*_names(options))
        return below.made(kind, **below.data)

    def made(self, kind: type[_Made], *args: Any, **options: Any) -> _Made:
        """Make *kind*, and say where in the file the value stands that it refuses."""
        try:
            return kind(*args, **options)
        except (ConfigError, TypeError, ValueError) as exc:
            # What attrs raises has more arguments, for debuggers.
            said = exc.message if isinstance(exc, ConfigError) else str(exc.args[0])
            member = said.partition(" ")[0].rstrip(":")
            raise self.error(said, at=member if member in self.data else None) from exc

    def expand(self, text: str, *keys: str) -> str:
        """*text* with each ``${NAME}`` replaced by that variable of the environment.

        ``${NAME:-TEXT}`` is *TEXT* where there is no such variable.
        """

        def value_of(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if name is None:
                raise self.error(f"nobody is asked for {match[0]}: use ${{NAME}}", *keys)
            if name not in self.environ and default is None:
                raise self.error(f"the environment has no variable {name}: set it", *keys)
            return self.environ.get(name, default)

        return _VARIABLE.sub(value_of, text)

    def only(self, *known: str) -> None:
        """Refuse members of other names: a misspelt limit must not be no limit."""
        for key in self.data:
            if key not in known:
                near = _nearest(key, known)
                hint = f"; did you mean {near!r}?" if near else ""
                if not hint and len(known) <= _TOLD_MAX:
                    hint = f"; there are {', '.join(known)}"
                raise self.error(f"unknown key{hint}", key)

    def instead(self, *known: str) -> ConfigError | None:
        """What is wrong with the first member that nearly has one of the names *known*."""
        for key in self.data:
            if near := _nearest(key, known):
                return self.error(f"unknown key; did you mean {near!r}?", key)
        return None

    def for_kind(self, kind: str, keys: Mapping[str, Collection[str]]) -> None:
        """Refuse members that are, by *keys*, for other kinds of table than *kind*."""
        for key in self.data:
            owners = [one for one, names in keys.items() if key in names]
            if owners and kind not in owners:
                words = " and ".join(map(repr, owners))
                raise self.error(f"is for {words}, not for {kind!r}", key)

    def _below(self, data: Mapping[str, Any], *keys: str) -> Table:
        return Table(data, self.source, (*self.path, *keys), self.environ, self.locate)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(one.alias for one in fields(kind) if one.init)


def _nearest(key: str, known: Collection[str]) -> str | None:
    spelt = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key.lower().replace("-", "_"), spelt, n=1)
    return spelt[near[0]] if near else None


def _shown(value: object) -> str:
    """*value* as the file has it; not what is in lists and tables, which may be secret."""
    match value:
        case dict() | list():
            return _NAMES[type(value)]
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case date() | time():
            return "a date or time"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


_NAMES = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
