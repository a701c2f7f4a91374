"""What the package promises exists, is documented, and imports without side effects."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from tests.tidy.exports import problems
from tests.tidy.source import PACKAGE, ROOT, package_files

FILES = package_files()
MODULES = sorted(
    ".".join([PACKAGE, *path.removesuffix(".py").split("/")]).removesuffix(".__init__")
    for path in FILES
    if not path.endswith("__main__.py")
)


@pytest.mark.parametrize("path", FILES)
def test_module_says_what_it_promises(path: str) -> None:
    assert problems(path, FILES[path]) == []


@pytest.mark.parametrize("path", FILES)
def test_module_has_a_docstring(path: str) -> None:
    compiled = compile(FILES[path], path, "exec", dont_inherit=True)
    assert "__doc__" in compiled.co_names, f"{path} does not say what it is"


@pytest.mark.parametrize("name", MODULES)
def test_promised_names_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    promised = getattr(module, "__all__", [])
    missing = [each for each in promised if not hasattr(module, each)]
    assert missing == []
    silent = [
        each
        for each in promised
        if (inspect.isclass(thing := getattr(module, each)) or inspect.isfunction(thing))
        and thing.__module__.startswith(PACKAGE)
        and not inspect.getdoc(thing)
    ]
    assert silent == []


def test_importing_the_package_loads_no_extra_and_no_event_loop() -> None:
    # asyncio costs most of a start; anyio loads a backend only when one runs.
    script = f"import sys, {PACKAGE}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "regorus",
        "joserfc",
        "uvloop",
        "opentelemetry",
        "anyio._backends._asyncio",
    }


PLANTED = [
    ("a.py", "def f(): ...", "a.py: no __all__"),
    ("a.py", "__all__ = []\nclass A: ...", "a.py: A is neither private nor in __all__"),
    ("a.py", "__all__ = ['x', 'x']\nx = 1", "a.py: x stands twice in __all__"),
    ("a.py", "__all__ = [*b.__all__]", "a.py: __all__ is not a literal"),
    ("m/__init__.py", "def f(): ...", "m/__init__.py: no __all__"),
]


@pytest.mark.parametrize(("path", "text", "problem"), PLANTED)
def test_planted_problem_is_found(path: str, text: str, problem: str) -> None:
    assert problems(path, text) == [problem]


def test_private_modules_and_constants_promise_nothing() -> None:
    assert problems("_a.py", "def f(): ...") == []
    assert problems("a.py", "__all__ = ['f']\nLIMIT = 3\ndef f(): ...\ndef _g(): ...") == []
    assert problems("a.py", '"""Only words."""') == []
