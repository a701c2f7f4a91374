"""Members of objects that a stranger sent: there and of their type, or as good as not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["object_of", "string_of"]


def string_of(raw: Any, key: str) -> str | None:
    """The string *key* of *raw*; ``None`` if that is no object, or has none of that name."""
    value = raw.get(key) if isinstance(raw, Mapping) else None
    return value if type(value) is str else None


def object_of(raw: Any, key: str) -> Mapping[str, Any]:
    """The object *key* of *raw*; empty if that is no object, or has none of that name."""
    value = raw.get(key) if isinstance(raw, Mapping) else None
    return value if isinstance(value, Mapping) else {}
