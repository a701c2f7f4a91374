"""Runs a module's tests against its mutants, each in a fork of one run of pytest.

That run stops twice, and forks a child for each mutant that goes on from there: before anything
of the package is imported, for mutants that have to be loaded; and after the collection, for
those whose code can be exchanged. These run only the tests that call a function which they
change. A child ends with its first failure. So nothing on disk is touched, a mutant may leave
its process in any state, and most cost a few milliseconds.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

import pytest
from attrs import Factory, define, field, frozen
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.operators import Mutant, mutants
from tests.mutation.swapping import Key, exchange, exchanges, functions_of, key_of

__all__ = ["Broken", "Verdict", "judge"]

#: Slow to import, and not ours: children find them imported.
_WARM: Final = ("anyio", "attrs", "hypothesis.stateful", "hypothesis.strategies", "msgspec", "trio")
#: Processor seconds of one test before its mutant counts as stuck, by what it takes without.
_TIMES, _SPARE_S = 4, 1.0
_COLLECTION_S: Final = 30
_WALL_S: Final = 600
#: As many times that on the wall, where the machine is busy, or a test waits for what never comes.
_WALL_TIMES: Final = 5
#: A mutant that hoards fails for want of memory.
_MEMORY_SPARE_BYTES: Final = 2**30
#: The same examples each time; and a failure need not be small.
_PROFILE: Final = "mutation"
_PYTEST: Final = (
    *("-o", "addopts=--strict-config --strict-markers --import-mode=importlib", "-o", "timeout=0"),
    *("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:logging"),
    # Hypothesis is imported already, once for all children.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
_SURVIVED, _KILLED = 0, 1
#: The original, judged as if it was a mutant: what kills it would kill anything.
_CONTROL: Final = "the original"


class Broken(Exception):
    """The tests fail without a mutant, or cannot be run at all."""


@frozen
class Verdict:
    """What became of one mutant: ``killed``, ``survived``, or ``stuck`` (ended for its length)."""

    mutant: str
    fate: str


def judge(path: Path, tests: Sequence[Path]) -> list[Verdict]:
    """Run *tests* against every mutant of the module at *path* (from the working directory).

    :raises Broken: they do not pass without a mutant.
    """
    for name in _WARM:
        importlib.import_module(name)
    _settle_hypothesis()
    run = _Run(path)
    code = pytest.main([*_PYTEST, *map(str, tests)], plugins=[run])
    if code != pytest.ExitCode.OK or run.costs is None or run.failure:
        names = " ".join(map(str, tests))
        raise Broken(f"{path}: these do not pass without a mutant: {names}\n{run.failure}")
    return run.verdicts


def _settle_hypothesis() -> None:
    settings.register_profile(
        _PROFILE,
        max_examples=100,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile(_PROFILE)
    os.environ["SARK_HYPOTHESIS_PROFILE"] = _PROFILE  # the project's conftest asks for it


@define(eq=False)
class _Run:
    """The plugin: of the parent, which runs no test, and of every child, which runs them all."""

    path: Path
    _file: str = field(
        init=False, default=Factory(lambda self: str(self.path.resolve()), takes_self=True)
    )
    verdicts: list[Verdict] = field(factory=list)
    #: Seconds of each test; ``None`` before the first child has told.
    costs: dict[str, float] | None = None
    _late: deque[tuple[Mutant, dict[Key, CodeType]]] = field(factory=deque)
    #: Why the tests do not pass without a mutant.
    failure: str = ""
    #: In a child: where it tells costs and calls, if it is the first one; else nowhere.
    _is_child: bool = False
    _telling: int | None = None
    _calls: set[Key] = field(factory=set)
    #: Functions of the module that each test calls, and the test that runs.
    _touched: dict[str, set[Key]] = field(factory=dict)
    _test: str = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        source = self.path.read_text("utf-8")
        _be_bare(self.path)
        if self._measure():
            return
        original = self._compiled(ast.parse(source))
        for mutant in mutants(source):
            new = exchanges(original, self._compiled(mutant.tree), self._calls)
            if new is not None:
                self._late.append((mutant, new))
                continue
            if self._fork(mutant.name):
                sys.meta_path.insert(0, _Finder(self.path, self._compiled(mutant.tree)))
                return

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        costs = self.costs or {}
        items.sort(key=lambda item: costs.get(item.nodeid, 0.0))  # the cheapest first

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        if self._is_child:
            return None
        functions = functions_of(self.path)
        gc.freeze()  # what children only look at stays shared with them
        if self._fork(_CONTROL):
            return None
        if self.verdicts.pop().fate != "survived":
            self.failure = "the tests pass once, and not twice"
            return True
        for mutant, new in self._late:
            if self._fork(mutant.name):
                exchange(functions, new)
                # The others do the same as without it.
                session.items = [
                    item
                    for item in session.items
                    if not new.keys().isdisjoint(self._touched.get(item.nodeid, ()))
                ]
                return None
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self._is_child:
            self._tell(report.longreprtext)
            os._exit(_KILLED)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self._test = item.nodeid
        if self.costs is not None and self._telling is None:
            cost = self.costs.get(item.nodeid, 0.0)
            limit_s = cost * _TIMES + _SPARE_S
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            signal.setitimer(signal.ITIMER_REAL, limit_s * _WALL_TIMES)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._tell(report.longreprtext)
            os._exit(_KILLED)
        if self._telling is not None:
            self.costs = self.costs or {}
            self.costs[report.nodeid] = self.costs.get(report.nodeid, 0.0) + report.duration

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_child:
            self._tell("" if session.testscollected else "there are no tests")
            os._exit(_SURVIVED if session.testscollected else _KILLED)

    def _tell(self, failure: str) -> None:
        if self._telling is not None:
            with os.fdopen(self._telling, "w") as pipe:
                touched = {test: sorted(keys) for test, keys in self._touched.items()}
                json.dump([failure, self.costs or {}, sorted(self._calls), touched], pipe)

    def _compiled(self, tree: ast.Module) -> CodeType:
        return compile(tree, self._file, "exec", dont_inherit=True)

    def _measure(self) -> bool:
        """Fork the child that runs the tests without a mutant. True in it."""
        reading, self._telling = os.pipe()
        if self._fork("", told=reading):
            sys.setprofile(self._note)
            threading.setprofile(self._note)  # of threads that tests begin
            return True
        self._telling = None
        return False

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Note which functions of the module a test calls, or run before any test does."""
        if event == "call" and frame.f_code.co_filename == self._file:
            calls = self._touched.setdefault(self._test, set()) if self._test else self._calls
            calls.add(key_of(frame.f_code))

    def _fork(self, mutant: str, told: int | None = None) -> bool:
        """Fork a child, and note its verdict in the parent. True in the child."""
        child = os.fork()
        if child == 0:
            self._is_child = True
            self._limit()
            return True
        if told is not None and self._telling is not None:
            os.close(self._telling)
            with os.fdopen(told) as pipe:
                if text := pipe.read():
                    self.failure, costs, calls, touched = json.loads(text)
                    self._calls = set(map(tuple, calls))
                    self._touched = {test: set(map(tuple, keys)) for test, keys in touched.items()}
                    self.costs = None if self.failure else costs
        _, status = os.waitpid(child, 0)
        if told is None:
            self.verdicts.append(Verdict(mutant, _fate(status)))
        elif status != 0 or self.costs is None:
            self.costs = None
            pytest.exit("the tests do not pass without a mutant", returncode=1)
        return False

    def _limit(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY_SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if self.costs is not None:
            signal.setitimer(signal.ITIMER_PROF, _COLLECTION_S)
        signal.alarm(_WALL_S)


def _fate(status: int) -> str:
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) in {signal.SIGPROF, signal.SIGALRM}
        return "stuck" if late else "killed"
    return "survived" if os.WEXITSTATUS(status) == _SURVIVED else "killed"


class _Loader(SourceFileLoader):
    """Loads the mutant where the module is asked for."""

    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _Finder(MetaPathFinder):
    def __init__(self, path: Path, code: CodeType) -> None:
        self._name = ".".join(path.with_suffix("").parts)
        self._loader = _Loader(self._name, str(path.resolve()))
        self._loader.code = code

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._loader.path, loader=self._loader
        )


def _be_bare(path: Path) -> None:
    """Import nothing but what is asked for: a package's own ``__init__`` imports all of it."""
    parts: Iterable[str] = path.parts[:1] if len(path.parts) > 1 else ()
    for package in parts:
        spec = PathFinder.find_spec(package, [str(Path.cwd())])
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules[package] = bare
