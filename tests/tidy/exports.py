"""What a module promises: ``__all__``, literal, without doubles, of names that it has."""

from __future__ import annotations

import ast

__all__ = ["defined_names", "exported_names", "problems"]


def exported_names(tree: ast.Module) -> list[str] | None:
    """The strings of ``__all__``; ``None`` if there is none.

    :raises ValueError: it is not a literal, so no reader (and no tool) can see what it holds.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def defined_names(tree: ast.Module) -> set[str]:
    """Names that the module's top level binds by definition or assignment (not by import)."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(t.id for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def problems(path: str, text: str) -> list[str]:
    """What is wrong with the promises of the module at *path*; none for a private module."""
    if path.rpartition("/")[2].startswith("_") and not path.endswith("__init__.py"):
        return []
    tree = ast.parse(text)
    try:
        exported = exported_names(tree)
    except ValueError:
        return [f"{path}: __all__ is not a literal"]
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, functions) and not node.name.startswith("_")
    }
    if exported is None:
        return [f"{path}: no __all__"] if defined else []
    doubles = sorted({name for name in exported if exported.count(name) > 1})
    # Constants may stay out of __all__; a class or function without underscore is a promise.
    forgotten = sorted(defined - set(exported))
    return [
        *(f"{path}: {name} stands twice in __all__" for name in doubles),
        *(f"{path}: {name} is neither private nor in __all__" for name in forgotten),
    ]
