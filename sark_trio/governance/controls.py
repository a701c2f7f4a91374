"""Characters in results that nobody sees, and that terminals and models obey, taken out. White."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import frozen

from sark_trio import jsontext
from sark_trio.governance.redact import Redacted

__all__ = ["ControlStripper"]

#: Sequences that a terminal obeys (ECMA-48, 5.4; with the ends of OSC, as terminals have them),
#: whole; and characters that are not seen: C0 but for tab and line ends, DEL, C1, those that turn
#: the direction of writing (UAX #9), invisible ones, tags and the variation selectors of plane 14,
#: in which whole texts can be hidden. The joiners U+200C and U+200D are letters to Persian, to the
#: scripts of India, and to emoji: they stay.
_UNSEEN: Final = re.compile(
    r"\x1b\[[0-?]*+[ -/]*+[@-~]|\x1b\][^\x07\x1b]*+(?:\x07|\x1b\\)|\x9b[0-?]*+[ -/]*+[@-~]"
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
_KIND: Final = "control"


@final
@frozen
class ControlStripper:
    """Takes them out of every text, and out of names. Counts texts, as ``control``."""

    def result(self, result: Mapping[str, Any]) -> Redacted:
        """*result* without them, in a copy.

        :raises ValueError: two names of an object differ in nothing else.
        """
        return self.value(dict(result))

    def value(self, value: Any) -> Redacted:
        """A JSON value without them. Raises as :meth:`result` does."""
        walk = _Walk()
        return Redacted(walk.clean(value), walk.counts())

    def text(self, text: str) -> Redacted:
        """A text without them."""
        walk = _Walk()
        return Redacted(walk.text(text), walk.counts())


@final
class _Walk:
    """One walk over one value."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found = 0

    def counts(self) -> tuple[tuple[str, int], ...]:
        return ((_KIND, self._found),) if self._found else ()

    def text(self, text: str) -> str:
        if text.isascii() and text.isprintable():
            return text
        kept = _UNSEEN.sub("", text)
        self._found += kept != text
        return kept

    def clean(self, value: Any, depth: int = 0) -> Any:
        if depth > jsontext.DEPTH_MAX:
            raise ValueError("too deep")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.clean(item, depth + 1) for item in value]
        if isinstance(value, dict):
            kept = {self.text(key): self.clean(item, depth + 1) for key, item in value.items()}
            if len(kept) != len(value):
                raise ValueError("two names differ in nothing that can be seen")
            return kept
        return value
