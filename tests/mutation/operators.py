"""Mutants: a module's syntax tree with one small thing wrong in it, one after the other.

What is left alone says what a machine *is declared to be* and not what it does, or is itself a
check: annotations, decorators, docstrings, ``__all__``, the wording of errors and of ``repr``,
``check_invariants`` and every other ``assert`` (what one asserts never happens, so that a weaker
one is seen by nothing), and how attrs fields are declared (``init=False`` and the like).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

__all__ = ["Mutant", "mutants"]

_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_UNTOUCHED_FIELDS = {"annotation", "returns", "decorator_list", "bases", "func_doc", "exc"}
_UNTOUCHED_KEYWORDS = {"alias", "eq", "hash", "init", "kw_only", "order", "repr", "takes_self"}
_UNTOUCHED_CALLS = {"TypeVar", "ParamSpec", "NewType", "cast"}
_UNTOUCHED_FUNCTIONS = {"check_invariants"}
#: Longest text of a mutated statement in a name; of a longer one only what is near the change.
_TEXT_MAX = 80


@frozen
class Mutant:
    """One mutant. Its name has no line number: it survives edits elsewhere in the module.

    The tree belongs to the generator and is this mutant only until the next one is asked for.
    """

    name: str
    tree: ast.Module


@frozen
class _Place:
    """A node, how to put another one in its place, and where it is."""

    node: ast.AST
    put: Callable[[Any], None]
    statement: ast.stmt
    scope: str
    in_function: bool


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(source)
    names: Counter[str] = Counter()
    for place in _places(tree, ast.Pass(), "", in_function=False):
        for new in _replacements(place):
            before = _text(place.statement)
            place.put(new)
            whole = new if place.node is place.statement else place.statement
            name = f"{place.scope or 'module'}: {_arrow(before, _text(whole))}"
            names[name] += 1
            again = f" [{names[name]}]" if names[name] > 1 else ""
            yield Mutant(name + again, ast.fix_missing_locations(tree))
            place.put(place.node)


def _places(
    node: ast.AST, statement: ast.stmt, scope: str, *, in_function: bool
) -> Iterator[_Place]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        scope = f"{scope}.{node.name}".lstrip(".")
        in_function = in_function or not isinstance(node, ast.ClassDef)
    for child, put in _children(node):
        if _untouched(child, node):
            continue
        at = child if isinstance(child, ast.stmt) else statement
        yield _Place(child, put, at, scope, in_function)
        yield from _places(child, at, scope, in_function=in_function)


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, Callable[[Any], None]]]:
    for name, value in ast.iter_fields(node):
        if name in _UNTOUCHED_FIELDS:
            continue
        if isinstance(value, ast.AST):
            yield value, lambda new, name=name: setattr(node, name, new)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield item, lambda new, value=value, index=index: value.__setitem__(index, new)


def _untouched(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.JoinedStr():
            return True
        case ast.FunctionDef(name=name):
            return name in _UNTOUCHED_FUNCTIONS
        case ast.Expr(value=ast.Constant()):  # a docstring, or the dots of a protocol
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Subscript(value=ast.Name(id="Literal" | "Callable")):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _UNTOUCHED_CALLS
        case ast.keyword(arg=name):
            return name in _UNTOUCHED_KEYWORDS
        case ast.Assign():  # the members of a plain Enum are themselves; their values say nothing
            return isinstance(parent, ast.ClassDef) and "Enum" in map(ast.unparse, parent.bases)
    return False


def _replacements(place: _Place) -> Iterator[ast.AST]:
    node = place.node
    if isinstance(node, ast.stmt):
        yield from _of_statement(node, in_function=place.in_function)
    elif isinstance(node, ast.expr):
        yield from _of_expression(node)
    elif isinstance(node, ast.comprehension):
        for index, test in enumerate(node.ifs):
            tests = [*node.ifs[:index], _negated(test), *node.ifs[index + 1 :]]
            yield ast.comprehension(node.target, node.iter, tests, node.is_async)


def _of_statement(node: ast.stmt, *, in_function: bool) -> Iterator[ast.AST]:
    match node:
        case ast.If(test=test, body=body, orelse=orelse) if not _flips(test):
            yield ast.If(_negated(test), body, orelse)
        case ast.While(body=body, orelse=orelse):
            yield ast.While(ast.Constant(value=False), body, orelse)
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(value=None))
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _ARITHMETIC:
            yield ast.AugAssign(target, _ARITHMETIC[type(op)](), value)
    match node:
        case ast.Continue() | ast.Break() | ast.Return(value=None):
            yield ast.Pass()
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Delete() | ast.Raise():
            if in_function:
                yield ast.Pass()


def _of_expression(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, op in enumerate(ops):
                other = [*ops[:index], _COMPARISONS[type(op)](), *ops[index + 1 :]]
                yield ast.Compare(left, other, comparators)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            yield ast.BinOp(left, _ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _OPPOSITES:
            yield ast.Call(ast.Name(_OPPOSITES[name], ast.Load()), args, keywords)
        case ast.Constant(value=value) if (other := _other(value)) is not None:
            yield ast.Constant(value=other)


def _other(value: object) -> object:
    """Another value of the same type, or ``None``."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}~"
        case bytes():
            return value + b"~"
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _flips(test: ast.expr) -> bool:
    """Whether a mutant of the test alone is its negation already."""
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Compare(ops=[op]):
            return isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return False


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _text(node: ast.AST) -> str:
    """A statement in one line; of a compound one its head."""
    match node:
        case ast.FunctionDef(name=name, args=args):
            return f"def {name}({ast.unparse(args)})"
        case ast.If() | ast.While() | ast.For():
            return ast.unparse(node).partition("\n")[0]
    return " ".join(ast.unparse(node).split())


def _arrow(before: str, after: str) -> str:
    """Both texts; of long ones what differs, with as much around it as makes it findable."""
    if max(len(before), len(after)) <= _TEXT_MAX or before == after:
        return f"{before} -> {after}"
    pairs = list(zip(before, after, strict=False))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    shared = list(zip(before[first:][::-1], after[first:][::-1], strict=False))
    last = next((i for i, (a, b) in enumerate(shared) if a != b), len(shared))
    start, room = max(0, first - 30), 20
    ends = (len(before) - last, len(after) - last)
    return f"..{before[start : ends[0] + room]}.. -> ..{after[start : ends[1] + room]}.."
