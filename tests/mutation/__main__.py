"""Mutation testing of the white rooms: is there a test against every small mistake?

    python -m tests.mutation                                  # every module of the rooms
    python -m tests.mutation sark_trio/machines/breaker.py    # these only

A mutant that no test of its module kills is a missing test, or equivalent to the original. The
latter are listed, with the reason, in ``tests/mutation/survivors.toml``. The run fails on a
survivor that is not listed, and on an entry of the list that does not survive.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutation.running import Broken, Verdict, judge

SURVIVORS = Path(__file__).parent / "survivors.toml"


def modules_of(room: str) -> list[Path]:
    """The modules of a white room, without those that are only a docstring.

    A room may be one module, too: ``errors.py``.
    """
    place = Path("sark_trio") / room
    if place.suffix:
        return [place]
    return sorted(path for path in place.rglob("*.py") if path.name != "__init__.py")


def tests_of(path: Path, also: Mapping[str, Sequence[str]]) -> list[Path]:
    """A module's own tests, and those of others that are as much about it."""
    room, name = Path(*path.parts[1:-1]), path.stem
    names = [name, *also.get((room / name).as_posix(), [])]
    unit = [Path("tests/unit") / room / f"test_{each}.py" for each in names]
    laws = [Path("tests/laws") / f"test_{each}.py" for each in (*names, f"{room.name}_{name}")]
    return [test for test in (*unit, *laws) if test.exists()]


def excused(path: Path, survivors: Path) -> dict[str, str]:
    """The mutants of the module that may survive, each with the reason."""
    if not survivors.exists():
        return {}
    entries = tomllib.loads(survivors.read_text("utf-8")).get("survivor", [])
    mine = [entry for entry in entries if entry["module"] == path.as_posix()]
    return {mutant: entry["reason"] for entry in mine for mutant in entry["mutants"]}


def complaints(verdicts: Sequence[Verdict], excuses: Mapping[str, str]) -> list[str]:
    """Survivors that are not excused, and excuses of what does not survive."""
    survived = [verdict.mutant for verdict in verdicts if verdict.fate == "survived"]
    new = [f"survived: {mutant}" for mutant in survived if mutant not in excuses]
    gone = [f"listed, and does not survive: {name}" for name in excuses if name not in survived]
    return new + gone


def run(path: Path, tests: Sequence[Path], survivors: Path) -> bool:
    """Judge one module and print how it went; whether there is nothing to complain about."""
    began, excuses = time.monotonic(), excused(path, survivors)
    if not tests:
        print(f"{path}: no tests of its own", file=sys.stderr)
        return False
    try:
        verdicts = judge(path, tests)
    except Broken as error:
        print(error, file=sys.stderr)
        return False
    fates = Counter(verdict.fate for verdict in verdicts)
    found = complaints(verdicts, excuses)
    print(
        f"{path}: {len(verdicts)} mutants, {fates['killed']} killed, {fates['stuck']} stuck,"
        f" {fates['survived']} survived, {len(excuses)} of them listed;"
        f" {time.monotonic() - began:.0f} s"
    )
    for line in found:
        print(f"  {line}")
    sys.stdout.flush()
    return not found


def _apart(path: Path, arguments: Sequence[str]) -> bool:
    """Judge one module in a process of its own, for each wants one that has imported nothing."""
    command = [sys.executable, "-m", "tests.mutation", path.as_posix(), *arguments]
    # The order of sets of strings must not decide what is found.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    return os.spawnve(os.P_WAIT, sys.executable, command, environment) == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", type=Path, help="paths (default: all white rooms)")
    parser.add_argument("--tests", nargs="+", type=Path, help="instead of the modules' own")
    parser.add_argument("--survivors", type=Path, default=SURVIVORS, help="the list of excuses")
    options = parser.parse_args()
    project: dict[str, Any] = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    config = project["tool"]["sark"]
    modules = options.modules or [
        path for room in config["white_rooms"] for path in modules_of(room)
    ]
    if len(modules) == 1 and os.environ.get("PYTHONHASHSEED") == "0":
        (path,) = modules
        tests = options.tests or tests_of(path, config["mutation"]["also"])
        return 0 if run(path, tests, options.survivors) else 1
    passed_on = [*("--survivors", str(options.survivors))]
    if options.tests:
        passed_on += ["--tests", *map(str, options.tests)]
    bad = [path for path in modules if not _apart(path, passed_on)]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
