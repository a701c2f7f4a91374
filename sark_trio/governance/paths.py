"""Paths into JSON values: JSON Pointers (RFC 6901) in which ``*`` stands for any one member.

White. ``/user/ssn`` names one member, ``/items/*/secret`` that member of each item. Elements
of an array are met by ``*`` only: a rule by index would hit another element after the first one
was removed, and filtering twice would not equal filtering once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final, final

from attrs import field, frozen

__all__ = [
    "MARK",
    "PathSet",
    "Trail",
    "compile_paths",
    "fold",
    "loose_paths",
    "parse_path",
    "pointer",
    "trail_pointer",
]

#: Stands where a value stood. Redacting it again changes nothing.
MARK: Final = "[redacted]"
#: Segments of one path: no value of ours is nested deeper (``jsontext.DEPTH_MAX``).
SEGMENTS_MAX: Final = 64
#: Paths in one set of rules; more is a list that wants to be a policy.
PATHS_MAX: Final = 256
#: Characters of one path: keys longer than this are no names.
PATH_CHARS_MAX: Final = 1_024
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")
#: Code points that Unicode says to ignore where they cannot be shown, and that are no format
#: marks (DerivedCoreProperties, Default_Ignorable_Code_Point; NFKC_Casefold drops them, too).
_IGNORABLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | frozenset(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)

#: How a walk got where it is: the last step and the trail before it. Costs one tuple a step, and
#: becomes a text only where somebody has to be told.
Trail = tuple["Trail | None", str | int]


def fold(name: str) -> str:
    """*name* as a careless peer may read it: no case, no width, no invisible characters."""
    if name.isascii():
        return name.lower()
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf" and c not in _IGNORABLE)
    # Folding may leave text that NFKC composes again, hence twice.
    once = unicodedata.normalize("NFKC", visible).casefold()
    return unicodedata.normalize("NFKC", once).casefold()


def parse_path(text: str) -> tuple[str, ...]:
    """The segments of a path.

    :raises ValueError: it does not begin with ``/``, is too long, or holds a bad escape.
    """
    if not text.startswith("/"):
        raise ValueError(f"path {text!r} must begin with '/'")
    if len(text) > PATH_CHARS_MAX:
        raise ValueError(f"path of {len(text)} characters is longer than {PATH_CHARS_MAX}")
    segments = text[1:].split("/")
    if len(segments) > SEGMENTS_MAX:
        raise ValueError(f"path {text[:80]!r} has more than {SEGMENTS_MAX} segments")
    return tuple(_unescape(segment, text) for segment in segments)


def pointer(segments: Iterable[str | int]) -> str:
    """The RFC 6901 text of *segments*; the root is the empty text."""
    return "".join("/" + str(segment).replace("~", "~0").replace("/", "~1") for segment in segments)


def trail_pointer(trail: Trail | None) -> str:
    """The RFC 6901 text of a trail."""
    segments: list[str | int] = []
    while trail is not None:
        trail, segment = trail
        segments.append(segment)
    return pointer(reversed(segments))


def _unescape(segment: str, path: str) -> str:
    if _BAD_ESCAPE.search(segment):
        raise ValueError(f"path {path!r} holds '~' that is neither '~0' nor '~1'")
    return segment.replace("~1", "/").replace("~0", "~")


@final
@frozen
class PathSet:
    """A set of paths, walked one member at a time; the order they were given in is lost.

    A walk holds the paths that still match, as an automaton holds its states: no set of paths
    costs more than its own length at each member.

    :param loose: meet names by :func:`fold`, so that ``Password`` does not slip past a rule
        against ``password``. Right for rules that take away, wrong for rules that let pass.
    """

    #: The value here is named by some path.
    ends: bool
    loose: bool
    _named: dict[str, list[tuple[str, ...]]] = field(repr=False)
    _any: tuple[tuple[str, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, paths: Iterable[tuple[str, ...]], *, loose: bool = False) -> PathSet:
        """The set of *paths*, each as :func:`parse_path` gives it."""
        named: dict[str, list[tuple[str, ...]]] = {}
        ends = False
        for path in paths:
            if path:
                named.setdefault(fold(path[0]) if loose else path[0], []).append(path[1:])
            else:
                ends = True
        anything = named.pop("*", [])
        return cls(ends, loose, named, tuple(anything))

    def member(self, name: str) -> PathSet | None:
        """The paths below member *name* of an object; ``None`` if there are none."""
        if not self._named:
            return self.element()
        below = self._named.get(fold(name) if self.loose else name)
        return PathSet.of([*below, *self._any], loose=self.loose) if below else self.element()

    def element(self) -> PathSet | None:
        """The paths below each element of an array; ``None`` if there are none."""
        return PathSet.of(self._any, loose=self.loose) if self._any else None

    def __bool__(self) -> bool:
        return self.ends or bool(self._named) or bool(self._any)


def compile_paths(texts: Any) -> tuple[tuple[str, ...], ...]:
    """Parse a list of paths.

    :raises ValueError: it is no list of texts, holds a bad path, or too many.
    """
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("paths must be a list of texts")
    if len(texts) > PATHS_MAX:
        raise ValueError(f"more than {PATHS_MAX} paths")
    return tuple(parse_path(text) for text in texts)


def loose_paths(paths: PathSet | Iterable[str]) -> PathSet:
    """The set of paths of a rule that takes away, as options give it.

    :raises ValueError: as :func:`compile_paths`.
    """
    if isinstance(paths, PathSet):
        return paths
    return PathSet.of(compile_paths(tuple(paths)), loose=True)
