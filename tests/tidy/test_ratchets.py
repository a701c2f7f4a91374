"""Sizes stay small, words stay honest, tests neither mock nor sleep."""

from __future__ import annotations

import pytest

from tests.tidy import ratchets
from tests.tidy.source import PACKAGE, project_files

PROJECT = project_files()
PYTHON = {path: text for path, text in PROJECT.items() if path.endswith(".py")}
CODE = {path: text for path, text in PYTHON.items() if path.startswith(f"{PACKAGE}/")}
TESTS = {path: text for path, text in PYTHON.items() if path.startswith("tests/")}

#: These lists may only shrink.
LONG_FILES = {
    # One tree, drawn and defined in one place, so that a reader sees all of it.
    "sark_trio/errors.py": 481,
}
LONG_FUNCTIONS: dict[str, int] = {}
#: They wait for a foreign thing that has no clock of ours, or are foreign things themselves.
REAL_TIME = (
    "tests/peers/servers/",
    "tests/support/stdio_servers/",
    # A load is a number of calls in real time, and so is how long a stranger's client takes.
    *(f"tests/soak/{name}.py" for name in ("desks", "load", "run")),
    "tests/probes/child.py",
)
#: All time in here is virtual.
VIRTUAL_TIME = ("tests/simulation/", "tests/sweep/")


def test_files_are_short() -> None:
    sizes = {path: len(text.splitlines()) for path, text in CODE.items()}
    found = {path: size for path, size in sizes.items() if size > ratchets.FILE_LINES_MAX}
    assert ratchets.ratchet(found, LONG_FILES) == []


def test_functions_are_short() -> None:
    found = dict(
        pair for path, text in CODE.items() for pair in ratchets.long_functions(path, text)
    )
    assert ratchets.ratchet(found, LONG_FUNCTIONS) == []


@pytest.mark.parametrize("path", PROJECT)
def test_no_forbidden_words(path: str) -> None:
    assert ratchets.forbidden_words(path, PROJECT[path]) == []


def test_tests_do_not_sleep() -> None:
    found = [
        line
        for path, text in TESTS.items()
        if not path.startswith(REAL_TIME + VIRTUAL_TIME)
        for line in ratchets.sleeps(path, text)
    ]
    assert found == []


def test_every_test_file_lives_in_a_known_room() -> None:
    rooms = {path.split("/")[1] for path in TESTS if path.split("/")[-1].startswith("test_")}
    known = {
        "conformance",
        "docs",
        "drivers",
        "e2e",
        "fuzz",
        "interop",
        "laws",
        "mutation",
        "probes",
        "simulation",
        "soak",
        "sweep",
        "tidy",
        "unit",
    }
    assert rooms <= known


# The planted words are assembled like those in the checker, for the same reason.
PLANTED_WORDS = [
    ("x = 1  # TO" + "DO: more", "a note for later"),
    ("# FIX" + "ME", "a note for later"),
    ("x = 1  # pragma: no cov" + "er", "code hidden from coverage"),
    ("x = f()  # type: igno" + "re", "a type error ignored without its code"),
    ("x = f()  # no" + "qa", "a lint finding ignored without its code"),
    ("path = '/op" + "t/thing'", "a path of one machine"),
    ("path = '/hom" + "e/ann/x'", "a path of one machine"),
    ("from unittest.mo" + "ck import patch", "a mock"),
    ("thing = Async" + "Mock()", "a mock"),
]


@pytest.mark.parametrize(("line", "what"), PLANTED_WORDS)
def test_planted_word_is_found(line: str, what: str) -> None:
    assert ratchets.forbidden_words("tests/a.py", f"\n{line}\n") == [f"tests/a.py:2: {what}"]


def test_reasoned_exceptions_are_no_forbidden_words() -> None:
    text = "x = f()  # type: ignore[arg-type]\ny = g()  # noqa: S101\nz = a/opt/b\n"
    assert ratchets.forbidden_words("tests/a.py", text) == []


def test_planted_sleep_is_found() -> None:
    text = "import time, anyio\nasync def f():\n    time.sleep(1)\n    await anyio.sleep(0.1)\n"
    assert ratchets.sleeps("a.py", text) == ["a.py:3: time.sleep(1)", "a.py:4: anyio.sleep(0.1)"]
    free = "async def f(autojump_clock):\n    await anyio.sleep(9)\n    await asyncio.sleep(0)\n"
    assert ratchets.sleeps("a.py", free) == []


def test_planted_long_function_is_found() -> None:
    body = "        pass\n" * ratchets.FUNCTION_LINES_MAX
    text = f"class A:\n    async def long(self):\n{body}\n    def short(self):\n        pass\n"
    assert list(ratchets.long_functions("a.py", text)) == [("a.py::A.long", 71)]


def test_ratchet_only_goes_down() -> None:
    assert ratchets.ratchet({"a": 10}, {"a": 10}) == []
    assert ratchets.ratchet({"a": 10}, {}) == ["a has 10 lines"]
    assert ratchets.ratchet({"a": 11}, {"a": 10}) == ["a has 11 lines, 10 are excused"]
    assert ratchets.ratchet({"a": 9}, {"a": 10}) == ["the ratchet of a can go down from 10 to 9"]
    assert ratchets.ratchet({}, {"a": 10}) == ["the ratchet of a can go down from 10 to nothing"]
