"""The one way in which getting a token fails, and what of a peer's words may be repeated in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sark_trio import jsontext
from sark_trio.errors import AuthenticationRequired

__all__ = ["failed", "object_in", "said"]

#: Of a peer's error text; the rest says no more.
_WORDS_MAX: Final = 200
#: RFC 6749, section 5.2: what an error may consist of.
_UNFIT: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def failed(why: str) -> AuthenticationRequired:
    """The error for *why* there is no token. The MCP server itself is not to blame."""
    return AuthenticationRequired(f"not authorized: {why}", status=401)


def said(answer: Mapping[str, Any], secrets: Iterable[str] = ()) -> str:
    """The error in *answer* (RFC 6749, section 5.2), fit to be shown.

    A description that repeats one of *secrets* is left out: some servers echo what they got.
    """
    words = []
    for name in ("error", "error_description"):
        text = answer.get(name)
        if isinstance(text, str) and text and not any(one and one in text for one in secrets):
            words.append(_UNFIT.sub("?", text[:_WORDS_MAX]))
    return ": ".join(words) or "it does not say why"


def object_in(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object *body*.

    :raises AuthenticationRequired: it is none. Duplicate keys make it none: no two readers
        would agree on what it says.
    """
    try:
        value = jsontext.decode_strict(body)
    except jsontext.JSONError:
        value = None
    if not isinstance(value, dict):
        raise failed(f"{what} is not a JSON object")
    return value
