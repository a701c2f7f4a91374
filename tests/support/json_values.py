"""Hypothesis strategies for JSON, dense enough that rules and values meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["NAMES", "any_json", "objects", "paths", "small_json"]

#: Few names, so that paths hit; one that only looks like another, one that needs escaping.
NAMES = ("a", "b", "secret", "\uff41b", "x/y~z", "0")

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just("[redacted]")
)


def small_json() -> st.SearchStrategy[Any]:
    """JSON values over :data:`NAMES`."""
    return st.recursive(
        _LEAVES,
        lambda below: (
            st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(NAMES), below, max_size=4)
        ),
        max_leaves=12,
    )


def objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects over :data:`NAMES`: arguments of a call."""
    return st.dictionaries(st.sampled_from(NAMES), small_json(), max_size=5)


def any_json() -> st.SearchStrategy[Any]:
    """JSON values with any names at all."""
    return st.recursive(
        _LEAVES,
        lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=6), below),
        max_leaves=12,
    )


def paths() -> st.SearchStrategy[list[str]]:
    """A few paths over :data:`NAMES` and ``*``, as texts."""
    segment = st.sampled_from([*NAMES, "*", "A", "SECRET"]).map(
        lambda name: name.replace("~", "~0").replace("/", "~1")
    )
    path = st.lists(segment, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
    return st.lists(path, max_size=4)
