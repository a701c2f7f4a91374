"""Lists of steps that are long enough to matter."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

__all__ = ["traces"]

T = TypeVar("T")


def traces(step: st.SearchStrategy[T], *, most: int) -> st.SearchStrategy[list[T]]:
    """Lists of up to *most* steps, half of them long.

    Of a list without a ``min_size`` Hypothesis draws some five elements, whatever ``max_size``
    says: too few for five failures in a row, a full queue, or a window that turns over.
    """
    any_length = st.lists(step, max_size=most)
    return st.one_of(any_length, st.lists(step, min_size=most // 2, max_size=most))
