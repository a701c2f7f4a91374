"""Validators of options: a number must be one, finite, and within its bounds."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from attrs import Attribute

__all__ = ["Validator", "between", "positive", "whole"]

Validator = Callable[[Any, "Attribute[Any]", Any], Any]


def between(low: float, high: float) -> Validator:
    """A number of [*low*, *high*]; no bool, no NaN."""

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        # Options come from files, too: a string must be refused here, not when it is compared.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{attribute.name} must be a number, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{attribute.name} must be from {low} to {high}, not {value!r}")

    return check


def positive(_: object, attribute: Attribute[Any], value: float) -> None:
    """A finite number above zero, such as a time limit: nothing waits for ever."""
    if not 0 < value < inf:
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


def whole(low: int, high: int) -> Validator:
    """A whole number of [*low*, *high*]; no bool."""
    in_range = between(low, high)

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be a whole number, not {value!r}")
        in_range(instance, attribute, value)

    return check
