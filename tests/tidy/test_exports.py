"""What the package promises exists, is documented, and imports without side effects."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys

import pytest

import sark_trio
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


def loaded_by(statement: str) -> set[str]:
    """The modules that a process has after *statement*."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys\n{statement}\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


#: They take longer to import than all else that a short command does.
HEAVY = {"anyio", "asyncio", "httpcore", "trio", f"{PACKAGE}.client.servers"}


def test_importing_the_package_loads_no_extra_and_no_event_loop() -> None:
    # All of it. asyncio costs most of a start; anyio loads a backend only when one runs.
    loaded = loaded_by(f"from {PACKAGE} import *")
    assert "httpcore" in loaded
    assert not loaded & {
        "regorus",
        "joserfc",
        "uvloop",
        "opentelemetry",
        "anyio._backends._asyncio",
    }


def test_importing_the_package_loads_what_errors_need_and_no_more() -> None:
    loaded = loaded_by(f"import {PACKAGE}")
    assert {name for name in loaded if name.partition(".")[0] == PACKAGE} == {
        PACKAGE,
        f"{PACKAGE}.errors",
    }
    assert not loaded & {*HEAVY, "attr", "msgspec"}
    assert f"{PACKAGE}.client.gateway" not in loaded_by(f"from {PACKAGE} import Principal")


@pytest.mark.parametrize(
    "words",
    ["--help", "--version", "call --help", "serve --help", "bogus", "audit verify nowhere"],
)
def test_a_command_imports_only_what_it_works_with(words: str) -> None:
    run = f"import contextlib\nfrom {PACKAGE}.cli.main import main\n"
    loaded = loaded_by(f"{run}with contextlib.suppress(SystemExit): main({words.split()})\n")
    # Reading a log needs the room that writes it, and that waits by anyio.
    assert not loaded & (HEAVY if "audit" not in words else HEAVY - {"anyio", "asyncio"})


def test_the_package_finds_at_run_time_what_type_checkers_see() -> None:
    tree = ast.parse(FILES["__init__.py"])
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{PACKAGE}.")
        for alias in node.names
    }
    assert sorted(seen) == list(sark_trio.__all__)
    found = {name: f"{PACKAGE}.{home}" for name, home in sark_trio._HOME_OF.items()}
    errors = {name: home for name, home in seen.items() if home == f"{PACKAGE}.errors"}
    assert found | errors == seen
    for name, home in found.items():
        assert getattr(sark_trio, name) is getattr(importlib.import_module(home), name)


def test_the_package_looks_like_any_other() -> None:
    assert set(sark_trio.__all__) <= set(dir(sark_trio))
    assert pickle.loads(pickle.dumps(sark_trio.GatewayClient)) is sark_trio.GatewayClient
    assert not hasattr(sark_trio, "GatewayClinet")
    with pytest.raises(ImportError, match="cannot import name 'GatewayClinet'"):
        exec("from sark_trio import GatewayClinet")


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
