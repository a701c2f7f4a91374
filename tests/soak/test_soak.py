"""A soak finds what it is there to find, and a short one of this client finds nothing."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from attrs import evolve

from sark_trio import AllowAll, GatewayClient
from tests.soak.__main__ import desks
from tests.soak.desks import WIRES
from tests.soak.faults import Faults
from tests.soak.load import Load
from tests.soak.measure import Complaints, listening, sample, slope
from tests.soak.report import summary
from tests.soak.run import Plan, Soak, judge, soaked
from tests.soak.verdict import Books

INTENT = {"kind": "intent", "request_id": "r1", "server": "json", "args": {"number": 1}}
OUTCOME = {"kind": "outcome", "request_id": "r1", "outcome": "ok", "delivery": "answered"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder, and servers that write to it."""
    folder = tmp_path_factory.mktemp("soak")
    with desks(folder) as urls:
        yield folder, urls


@pytest.mark.anyio
async def test_a_short_soak_with_faults_leaves_nothing(
    place: tuple[Path, dict[str, str]], tmp_path: Path, anyio_backend_name: str
) -> None:
    folder, urls = place
    lines: list[str] = []
    plan = Plan(
        urls=urls, opa=None, folder=folder, log=tmp_path, calls=240, share=0.05, say=lines.append
    )
    # What the run before this one left in the servers' files is not this one's.
    for wire in WIRES:
        (folder / wire).write_bytes(b"")
    soak = await soaked(plan, anyio_backend_name)
    assert soak.failures == []
    assert soak.load is not None
    assert soak.load.begun == 240
    assert soak.load.injected.total() > 5
    assert soak.load.answered.total() == sum(soak.books.ok.values()) > 150
    assert soak.cache is not None
    assert soak.cache.hits + soak.cache.misses + soak.cache.joined > 0
    assert "FAILED" not in summary(plan, soak)
    assert lines[0].startswith(f"-- {anyio_backend_name}")


# -- the books ------------------------------------------------------------------------------------


def test_books_in_order_have_no_finding() -> None:
    books = Books()
    books.read([{"kind": "open"}, INTENT, OUTCOME])
    assert (books.effects("json", [1]), books.findings) == (1, [])
    assert (books.intents, books.ok, dict(books.open)) == (1, Counter(json=1), {})


@pytest.mark.parametrize(
    ("records", "executed", "finding"),
    [
        ([INTENT, OUTCOME], [1, 1], "json executed call 1 more than once"),
        ([INTENT, OUTCOME], [2], "json executed call 2, of which the log is silent"),
        ([INTENT, OUTCOME, OUTCOME], [], "an outcome without an intent, or the second one: r1"),
        ([INTENT, INTENT], [], "two intents of r1"),
    ],
)
def test_books_that_do_not_agree_have_one(
    records: list[dict[str, Any]], executed: list[int], finding: str
) -> None:
    books = Books()
    books.read(records)
    books.effects("json", executed)
    assert books.findings == [finding]


def test_a_call_without_an_outcome_stays_open() -> None:
    books = Books()
    books.read([INTENT])
    assert books.open == {"r1": ("json", 1)}


# -- the measures ---------------------------------------------------------------------------------


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    exact = slope([(0, 100), (30, 110), (60, 120), (90, 130)])
    assert exact is not None
    assert (exact.per_minute, exact.error) == (pytest.approx(20), pytest.approx(0, abs=1e-9))
    assert str(exact) == "+20 ± 0"
    noisy = slope([(0, 100), (30, 112), (60, 118), (90, 130)])
    assert noisy is not None
    assert noisy.error > 0
    assert slope([(0, 1), (1, 2)]) is None


@pytest.mark.anyio
async def test_what_python_would_only_print_is_heard() -> None:
    complaints = Complaints()

    class Sour:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    def fail() -> None:
        raise ValueError("in a thread")

    with listening(complaints):
        warnings.warn("unclosed", ResourceWarning, stacklevel=1)
        sour: Sour | None = Sour()
        del sour
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert complaints.counts == Counter(
        {"ResourceWarning": 1, "unraisable exceptions": 1, "exceptions of threads": 1}
    )
    assert "in a thread" in complaints.first["exceptions of threads"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_task_whose_exception_nobody_asks_for_is_heard() -> None:
    complaints = Complaints()

    async def fail() -> None:
        raise ValueError("nobody asks")

    with listening(complaints):
        task = asyncio.create_task(fail())
        while not task.done():
            await anyio.lowlevel.checkpoint()
        del task
    assert complaints.counts == Counter({"unretrieved exceptions": 1})


# -- the verdict ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_growth_lending_and_strange_exceptions_fail_a_run(tmp_path: Path) -> None:
    client = GatewayClient(servers={}, policy=AllowAll(), audit=tmp_path)
    plan = Plan(urls={}, opa=None, folder=tmp_path, log=tmp_path, wires=("json",))
    seen = sample(0.0)
    more = evolve(seen, descriptors=seen.descriptors + 1, tasks=seen.tasks + 2)
    soak = Soak("trio", idle=[seen, more], seconds=60.0)
    soak.load = Load(client, Faults(("json",), 0.01), 1)
    soak.load.unexpected.append("KeyError")
    soak.load.wrong.append("8 for 7")
    soak.load.answered["json"] = 2
    soak.books.ok["json"] = 1
    soak.books.findings.append("json executed call 1 more than once")
    soak.lent["pending requests"] = 1
    soak.left.append("task: x")
    soak.complaints.add("ResourceWarning", "unclosed")
    judge(plan, soak)
    assert soak.failures == [
        f"descriptors at rest grew from {seen.descriptors} to {seen.descriptors + 1}",
        f"tasks at rest grew from {seen.tasks} to {seen.tasks + 2}",
        "lent by an idle client: pending requests: 1",
        "left by the closed client: task: x",
        "1 ResourceWarning: unclosed",
        "a wrong answer: 8 for 7",
        "outside the tree: KeyError",
        "json executed call 1 more than once",
        "json: 2 right answers, 1 in the log",
    ]


def test_the_share_of_faults_is_what_was_asked_for_and_deaths_are_apart() -> None:
    faults = Faults(WIRES, 0.01)
    errands = [faults.next(number, number / 40) for number in range(20_000)]
    struck = [one for one in errands if one.fault and one.fault != "given up"]
    assert 0.008 < len(struck) / len(errands) < 0.015
    deaths = [
        one.number / 40 for one in struck if one.wire == "stdio" and one.fault in {"dies", "cut"}
    ]
    assert all(later - earlier >= 10 for earlier, later in pairwise(deaths))
    assert {one.wire for one in errands} == set(WIRES)
