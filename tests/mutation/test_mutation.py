"""The tool tells a planted mutant that survives, kills those that die, and keeps its list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.operators import mutants
from tests.mutation.swapping import exchanges, key_of

ROOT = Path(__file__).parents[2]
MODULE = '''
"""A module to make mistakes in."""
LIMIT = 10

def clamp(value):
    """No more than the limit."""
    if value > LIMIT:
        return LIMIT
    return value
'''
TESTS = """
import clamp

def test_what_is_more_is_cut():
    assert clamp.clamp(12) == clamp.LIMIT == 10

def test_what_is_less_stays():
    assert clamp.clamp(3) == 3
"""
#: The same, in a thread of its own.
IN_A_THREAD = f"""
from concurrent.futures import ThreadPoolExecutor
{TESTS.replace("clamp.clamp(", "in_a_thread(clamp.clamp, ")}
def in_a_thread(function, value):
    with ThreadPoolExecutor() as pool:
        return pool.submit(function, value).result()
"""
#: ``clamp(10)`` is 10 either way.
EQUIVALENT = "clamp: if value > LIMIT: -> if value >= LIMIT:"


def mutate(folder: Path, *excused: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "clamp.py").write_text(MODULE)
    (folder / "test_clamp.py").write_text(tests)
    (folder / "pyproject.toml").write_text("[tool.sark]\nwhite_rooms = []\n")
    (folder / "survivors.toml").write_text(
        f'[[survivor]]\nmodule = "clamp.py"\nreason = "equal"\nmutants = {list(excused)}\n'
    )
    command = [sys.executable, "-m", "tests.mutation", "clamp.py", "--tests", "test_clamp.py"]
    return subprocess.run(
        [*command, "--survivors", "survivors.toml"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("tests", [TESTS, IN_A_THREAD], ids=["here", "in a thread"])
def test_only_the_survivor_is_told(tmp_path: Path, tests: str) -> None:
    done = mutate(tmp_path, tests=tests)
    assert done.stdout.splitlines()[1:] == [f"  survived: {EQUIVALENT}"], done.stderr
    assert done.stdout.startswith("clamp.py: 5 mutants, 4 killed, 0 stuck, 1 survived")
    assert done.returncode == 1


def test_a_listed_survivor_is_fine_and_a_listed_dead_one_is_not(tmp_path: Path) -> None:
    assert mutate(tmp_path, EQUIVALENT).returncode == 0
    done = mutate(tmp_path, EQUIVALENT, "clamp: return value -> return None")
    assert "listed, and does not survive: clamp: return value -> return None" in done.stdout
    assert done.returncode == 1


def test_tests_that_fail_without_a_mutant_prove_nothing(tmp_path: Path) -> None:
    done = mutate(tmp_path)
    (tmp_path / "test_clamp.py").write_text(TESTS.replace("== 3", "== 4"))
    broken = subprocess.run(
        done.args,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "do not pass without a mutant" in broken.stderr
    assert broken.returncode == 1


def names(source: str) -> list[str]:
    return [mutant.name for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x = a < b <= c", ["a <= b <= c", "a < b < c"]),
        ("x = a + b", ["a - b"]),
        ("x = a and b", ["a or b"]),
        ("x = not a", ["a"]),
        ("x = min(a, -1)", ["max(a, -1)", "min(a, 1)", "min(a, -2)"]),
        ("x = b if a else 'c'", ["'c' if a else b", "b if a else 'c~'"]),
        ("x = [a for a in b if c]", ["[a for a in b if not c]"]),
    ],
)
def test_every_operator_of_an_expression(source: str, changes: list[str]) -> None:
    assert names(source) == [f"module: {source} -> x = {change}" for change in changes]


def test_every_operator_of_a_statement() -> None:
    source = "def f(a):\n    if a:\n        a += b\n    while a:\n        break\n    return a"
    assert names(source) == [
        "f: if a: -> if not a:",
        "f: a += b -> a -= b",
        "f: a += b -> pass",
        "f: while a: -> while False:",
        "f: break -> pass",
        "f: return a -> return None",
    ]


def test_what_says_nothing_about_behaviour_is_left_alone() -> None:
    source = '''
"""A docstring."""
from __future__ import annotations
__all__ = ["A"]
Word = Literal["a", "b"]

@define(eq=False)
class A:
    """Another."""
    a: int = field(init=False)

    def check_invariants(self):
        self.a += 1

    def f(self, x: Literal["y"]) -> Literal["z"]:
        assert x < 2
        f"{x + 1} words"

class Kind(Enum):
    B = "b"
'''
    assert [name for name in names(source) if "assert" not in name] == [
        "A.f: f'{x + 1} words' -> pass"
    ]


def test_names_of_equal_mutants_differ() -> None:
    found = names("def f():\n    a.b()\n    a.b()")
    assert found == ["f: a.b() -> pass", "f: a.b() -> pass [2]"]


def test_code_is_exchanged_only_inside_of_functions_that_nothing_has_called() -> None:
    def compiled(text: str) -> object:
        return compile(text, "x.py", "exec")

    source = "def f(a=1):\n    return 2\ndef g():\n    return 3\nh = [i + 4 for i in j]\n"
    original = compiled(source)
    for old, new, swappable in [
        ("return 2", "return 9", True),
        ("a=1", "a=9", False),
        ("i + 4", "i - 4", False),
        ("return 3", "return 9", False),
    ]:
        changed = exchanges(original, compiled(source.replace(old, new)), {("g", 3)})
        assert (changed is not None) == swappable, old
    found = exchanges(original, compiled(source.replace("2", "9")), set())
    assert {key: key_of(code) for key, code in found.items()} == {("f", 1): ("f", 1)}
