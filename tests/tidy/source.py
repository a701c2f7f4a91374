"""The project's files, and the few questions about a syntax tree that all tidy checks share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Import", "imports", "package_files", "project_files"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "sark_trio"
#: Folders and files at the top level that are the project's; all else is made by machines.
_TOP = (PACKAGE, "tests", "benchmarks", "docs", ".ci", "noxfile.py", "pyproject.toml")
_TOP_TEXTS = ("README.md", "CHANGELOG.md", "LICENSE", ".gitignore")
_MADE = {"__pycache__", "_build", "_generated", "results"} | {
    *(".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
}


def package_files() -> dict[str, str]:
    """Path inside the package (``machines/breaker.py``) and text of each of its modules."""
    base = ROOT / PACKAGE
    return {
        path.relative_to(base).as_posix(): path.read_text("utf-8")
        for path in sorted(base.rglob("*.py"))
    }


def project_files(*, under: str = "", suffix: str = "") -> dict[str, str]:
    """Path from the top level and text of each file that people wrote."""
    found: dict[str, str] = {}
    for top in (*_TOP, *_TOP_TEXTS):
        start = ROOT / top
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            name = path.relative_to(ROOT).as_posix()
            wanted = name.startswith(under) and name.endswith(suffix)
            if wanted and path.is_file() and not _MADE.intersection(path.parts):
                found[name] = path.read_text("utf-8", errors="replace")
    return found


@dataclass(frozen=True)
class Import:
    """One imported module or name: ``from a.b import c`` is ``a.b`` with the name ``c``."""

    module: str
    name: str | None
    line: int
    #: Inside a function, so it happens when that is called.
    lazy: bool
    #: Inside ``if TYPE_CHECKING:``, so it never happens.
    typing_only: bool


def imports(text: str, path: str) -> Iterator[Import]:
    """All imports of the module at *path* inside the package: absolute, relative, wherever."""
    yield from _imports(ast.parse(text), path, lazy=False, typing_only=False)


def _imports(node: ast.AST, path: str, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, None, node.lineno, lazy, typing_only)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(node, path)
        for alias in node.names:
            yield Import(module, alias.name, node.lineno, lazy, typing_only)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _imports(child, path, lazy=lazy, typing_only=True)
        for child in node.orelse:
            yield from _imports(child, path, lazy=lazy, typing_only=typing_only)
    else:
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, path, lazy=inside, typing_only=typing_only)


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module or ""
    package = [PACKAGE, *path.split("/")[:-1]]  # an __init__.py is its own package
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])
