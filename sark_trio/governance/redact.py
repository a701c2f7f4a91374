"""Secrets and personal data taken out of results: by path, by name, by what they look like.

White. A tool's result says the same thing twice, as text for a model and as ``structuredContent``
for a program, and the text is often the JSON of the other. Rules therefore meet ``content`` (a
text that is JSON is read as JSON), embedded resources and ``structuredContent`` alike, and they
meet errors as they meet answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio import jsontext
from sark_trio.governance.detect import PATTERNS, find
from sark_trio.governance.paths import MARK, PathSet, fold, loose_paths

__all__ = ["PATTERN_NAMES", "Redacted", "Redactor", "cap_result"]

#: Every kind of finding that a rule may name.
PATTERN_NAMES: Final = frozenset(PATTERNS)
#: Names of one rule set; more is a list that wants to be a policy.
KEYS_MAX: Final = 1_000
#: All that a number can be without any other sign in it is a card, of 13 digits or more.
_CARD_MIN: Final = 10**12
#: RFC 4648, sections 4 and 5, with the line ends of MIME.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\r\n-]*+={0,2}+[\r\n]*+")
_NO_PATHS: Final = PathSet.of([], loose=True)


@final
@frozen
class Redacted:
    """A result without what was redacted, and how much of each kind that was."""

    value: Any = field(repr=False)
    counts: tuple[tuple[str, int], ...] = ()


def _folded(keys: Iterable[str]) -> frozenset[str]:
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise ValueError("keys must be a list of texts")
    names = frozenset(fold(key) for key in keys)
    if len(names) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    return names


def _known(patterns: Iterable[str]) -> tuple[str, ...]:
    names = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for name in names:
        if name not in PATTERN_NAMES:
            known = ", ".join(sorted(PATTERN_NAMES))
            raise ValueError(f"no pattern is called {name!r}; there are {known}")
    return tuple(name for name in PATTERNS if name in names)


@final
@frozen(kw_only=True)
class Redactor:
    """Rules over the result of a call.

    :param paths: paths in the structured value (and in texts that are JSON), as ``/user/ssn``.
    :param keys: names of members, at any depth, without regard to case or width.
    :param patterns: kinds of :data:`PATTERN_NAMES` that are replaced wherever a text holds them.
    :raises ValueError: a path is no path, or a pattern is not known.
    """

    paths: PathSet = field(default=_NO_PATHS, converter=loose_paths, repr=False)
    keys: frozenset[str] = field(default=frozenset(), converter=_folded)
    patterns: tuple[str, ...] = field(default=(), converter=_known)

    def result(self, result: Mapping[str, Any]) -> Redacted:
        """*result* of a tool, resource or prompt, an ``isError`` one too, redacted in a copy."""
        pass_ = _Pass(self)
        value = {
            name: pass_.tree(item, self.paths) if name == "structuredContent" else pass_.block(item)
            for name, item in result.items()
        }
        return Redacted(value, pass_.counts())

    def value(self, value: Any) -> Redacted:
        """A plain JSON value (the ``data`` of a JSON-RPC error), redacted in a copy."""
        pass_ = _Pass(self)
        return Redacted(pass_.tree(value, self.paths), pass_.counts())

    def text(self, text: str) -> Redacted:
        """A text (the message of an error), redacted."""
        pass_ = _Pass(self)
        return Redacted(pass_.text(text), pass_.counts())


def _is_binary(block: dict[str, Any], key: str, item: Any) -> bool:
    """Base64 of MCP: a pattern found in it is an accident, and replacing it breaks an image.

    Only where it is Base64: a server may write anything into those members.
    """
    if key == "data":
        place = block.get("type") in ("image", "audio")
    else:
        place = key == "blob" and isinstance(block.get("uri"), str)
    return place and isinstance(item, str) and _BASE64.fullmatch(item) is not None


@final
class _Pass:
    """One walk over one result; counts what it replaces."""

    __slots__ = ("_counter", "_rules")

    def __init__(self, rules: Redactor) -> None:
        self._rules = rules
        self._counter: Counter[str] = Counter()

    def counts(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted(self._counter.items()))

    def block(self, value: Any, depth: int = 0) -> Any:
        """Anything of a result but its structured value."""
        if depth > jsontext.DEPTH_MAX:
            return self._mark("depth")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._members(value, lambda key, item: self._part(value, key, item, depth))
        if isinstance(value, list | tuple):
            return [self.block(item, depth + 1) for item in value]
        return self._number(value)

    def _part(self, block: dict[str, Any], key: str, item: Any, depth: int) -> Any:
        # Data about the data, too: an "owner" in _meta or annotations is still an owner.
        if fold(key) in self._rules.keys:
            return self._mark("key")
        return item if _is_binary(block, key, item) else self.block(item, depth + 1)

    def tree(self, value: Any, paths: PathSet | None, depth: int = 0) -> Any:
        """A structured value: paths are counted from its root."""
        if paths is not None and paths.ends:
            return self._mark("path")
        if depth > jsontext.DEPTH_MAX:
            return self._mark("depth")
        if isinstance(value, dict):
            return self._members(
                value, lambda key, item: self._tree_member(key, item, paths, depth)
            )
        if isinstance(value, list | tuple):
            below = paths and paths.element()
            return [self.tree(item, below, depth + 1) for item in value]
        return self._plain(value) if isinstance(value, str) else self._number(value)

    def _tree_member(self, key: str, item: Any, paths: PathSet | None, depth: int) -> Any:
        if fold(key) in self._rules.keys:
            return self._mark("key")
        return self.tree(item, paths and paths.member(key), depth + 1)

    def _members(self, value: dict[str, Any], member: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Each member through *member*; names are data too (``{"bob@example.com": 1}``)."""
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = self._plain(key)
            unique = name
            if name != key:
                unique = next(
                    n
                    for i in range(len(value))
                    if (n := f"{name}#{i}" if i else name) not in kept and (n not in value)
                )
            kept[unique] = member(key, item)
        return kept

    def text(self, text: str) -> str:
        """A text; where paths or names are to be met and it is JSON, through its values."""
        if (self._rules.keys or self._rules.paths) and text.lstrip()[:1] in {"{", "["}:
            try:
                value = jsontext.decode(text)
            except jsontext.JSONError:
                return self._plain(text)
            before = self._counter.total()
            value = self.tree(value, self._rules.paths)
            if self._counter.total() != before:
                return jsontext.encode(value).decode()
        # The text itself too: a name that stands twice in an object was read once above.
        return self._plain(text)

    def _plain(self, text: str) -> str:
        spans = find(text, self._rules.patterns) if self._rules.patterns else ()
        if not spans:
            return text
        parts: list[str] = []
        done = 0
        for start, end, kind in spans:
            parts += [text[done:start], self._mark(kind)]
            done = end
        return "".join([*parts, text[done:]])

    def _number(self, value: Any) -> Any:
        """A card number is one, quotes or not."""
        if type(value) is not int or abs(value) < _CARD_MIN:
            return value
        text = str(value)
        left = self._plain(text)
        return value if left == text else left

    def _mark(self, kind: str) -> str:
        self._counter[kind] += 1
        return f"{MARK[:-1]}:{kind}]"


def cap_result(result: Mapping[str, Any], bytes_max: int) -> Redacted:
    """*result*, or a word in its place where its JSON is longer than *bytes_max*.

    Half a result is not the result: it is withheld whole, as an error that a model can read.
    """
    try:
        size = len(jsontext.encode(result))
    except jsontext.JSONError:
        notice = "[withheld: the result is not JSON]"
    else:
        if size <= bytes_max:
            return Redacted(result)
        notice = f"[withheld: a result of {size} bytes, {bytes_max} are allowed]"
    withheld = {"content": [{"type": "text", "text": notice}], "isError": True}
    return Redacted(withheld, (("withheld", 1),))
