"""A mutant in the place of functions that are there already: their code is exchanged.

That is much faster than to import everything anew, and as good where the mutation is inside a
function which nothing has called so far. Elsewhere (a default, a table, a decorator's helper)
what it made may have been used already, and the module has to be loaded with the mutant.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType

__all__ = ["Key", "exchange", "exchanges", "functions_of", "key_of"]

#: Qualified name and first line.
Key = tuple[str, int]


def key_of(code: CodeType) -> Key:
    """What names a function's code in its file."""
    return code.co_qualname, code.co_firstlineno


def exchanges(
    original: CodeType, mutated: CodeType, called: Collection[Key]
) -> dict[Key, CodeType] | None:
    """New code by function, if the two modules differ in functions alone and none of *called*."""
    if _outline(original) != _outline(mutated):
        return None
    found = {}
    for old, new in zip(_functions(original), _functions(mutated), strict=True):
        if old == new:
            continue
        one_of_its_name = sum(key_of(each) == key_of(old) for each in _functions(original)) == 1
        lasting = old.co_name == "<lambda>" or not old.co_name.startswith("<")
        same_cells = old.co_freevars == new.co_freevars
        if not (one_of_its_name and lasting and same_cells) or key_of(old) in called:
            return None
        found[key_of(old)] = new
    return found or None


def functions_of(path: Path) -> list[FunctionType]:
    """Every function of the file at *path* that there is."""
    name = str(path.resolve())
    every = (each for each in gc.get_objects() if type(each) is FunctionType)
    return [function for function in every if function.__code__.co_filename == name]


def exchange(functions: Iterable[FunctionType], new: Mapping[Key, CodeType]) -> None:
    """Give those of the *functions* their new code that have one."""
    for function in functions:
        key = key_of(function.__code__)
        if key in new:
            function.__code__ = new[key]


def _functions(code: CodeType) -> Iterator[CodeType]:
    """The outermost functions of a module, methods included."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & CO_OPTIMIZED:
                yield constant
            else:
                yield from _functions(constant)


def _outline(code: CodeType) -> tuple[object, ...]:
    """What a module or class does outside of its functions."""
    inner = tuple(
        _outline(constant)
        if isinstance(constant, CodeType) and not constant.co_flags & CO_OPTIMIZED
        else (type(constant), None if isinstance(constant, CodeType) else constant)
        for constant in code.co_consts
    )
    return code.co_code, code.co_names, inner
