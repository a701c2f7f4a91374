"""One soak on one event loop, in this process: :func:`soaked` runs it and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
from attrs import asdict, define, field, frozen

from sark_trio import AuditLog, BreakerOptions, GatewayClient, Opa, Principal, Rego
from sark_trio.machines.caching import CacheStatistics
from sark_trio.testing import census
from sark_trio.testing.leaks import Census
from tests.soak.desks import WIRES, servers
from tests.soak.faults import Faults
from tests.soak.load import Load
from tests.soak.measure import Complaints, Sample, Slope, listening, sample, slope
from tests.soak.table import HEAD, line
from tests.soak.verdict import SHOWN, Books, judged

__all__ = ["Plan", "Soak", "bounds", "judge", "soaked"]

POLICY = Path(__file__).parents[1] / "support" / "policies" / "gateway.rego"
CALLER = Principal(id="soak", kind="service", roles=("admin",))
#: Half a minute of an open breaker would leave little to soak.
BREAKER = BreakerOptions(open_s=2.0)
#: For a decision: a machine on which calls wait for their turn is busy, not broken.
OPA_S = 5.0
#: The beginning, in which everything is still being filled: caches, histograms, the allocator's
#: arenas. So many seconds (a third of a short run at most) and so many calls (half of the run at
#: most): what is decided on is kept for the last 4,096 of them.
WARM_S = 60.0
WARM_CALLS = 5_000
WARM_MORE_S = 5.0
SAMPLE_S = 1.0
#: Objects of Python's allocator that a steady run may gain for each call: one that is forgotten for
#: each call would be one at least, and a call that is forgotten with its fault some hundred.
BLOCKS_A_CALL = 0.5
#: Resident memory follows the most that was ever in use at once, and what is free between: it
#: still grows after minutes where nothing else does, and levels off. Above this (and above the
#: bytes that the smallest object with its place in a container takes, for each call) it is
#: suspect even so: it would be gibibytes in a day.
RSS_KIB_A_MINUTE = 1024
BYTES_A_CALL = 64


@frozen(kw_only=True)
class Plan:
    """What is run: *calls* as fast as they end, or calls at *rate* for *minutes*."""

    urls: Mapping[str, str]
    opa: str | None
    #: Where the servers write what they execute, and where the audit log is.
    folder: Path
    log: Path
    minutes: float = 1.0
    rate: float = 500.0
    calls: int | None = None
    every_s: float = 15.0
    share: float = 0.01
    wires: tuple[str, ...] = WIRES
    say: Callable[[str], None] = field(default=lambda line: print(line, flush=True))

    @property
    def warm_s(self) -> float:
        return min(WARM_S, self.minutes * 20)


@define(eq=False)
class Soak:
    """What was seen."""

    backend: str
    samples: list[Sample] = field(factory=list)
    complaints: Complaints = field(factory=Complaints)
    #: With every server there and nobody calling: after the warm-up, and at the end.
    idle: list[Sample] = field(factory=list)
    lent: dict[str, int] = field(factory=dict)
    left: list[str] = field(factory=list)
    seconds: float = 0.0
    warm_s: float = 0.0
    load: Load | None = None
    cache: CacheStatistics | None = None
    books: Books = field(factory=Books)
    effects: dict[str, int] = field(factory=dict)
    failures: list[str] = field(factory=list)
    rss: Slope | None = None
    blocks: Slope | None = None
    heap: Slope | None = None


async def soaked(plan: Plan, backend: str) -> Soak:
    """Run it, and look at everything afterwards."""
    soak = Soak(backend)
    with listening(soak.complaints):
        before = census()
        await _run(plan, soak)
        soak.left = await _settled(before)
    soak.books, soak.effects = judged(plan.log, plan.folder, plan.wires)
    judge(plan, soak)
    return soak


async def _run(plan: Plan, soak: Soak) -> None:
    policy = Rego(POLICY) if plan.opa is None else Opa(plan.opa, timeout_s=OPA_S)
    client = GatewayClient(
        servers=servers(plan.urls, plan.folder),
        policy=policy,
        audit=AuditLog(plan.log),
        principal=CALLER,
        breaker=BREAKER,
    )
    async with client:
        load = soak.load = Load(client, Faults(plan.wires, plan.share), plan.rate)
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(_watch, plan, soak, load, began)
            if plan.calls is None:
                soak.warm_s = await _warmed_up(plan, load)
                await _rest(soak, load, began)
                await load.steady(plan.minutes * 60 - soak.warm_s)
            else:
                await load.count(plan.calls // 2)
                await _rest(soak, load, began)
                await load.count(plan.calls - plan.calls // 2)
            soak.seconds = anyio.current_time() - began
            await _rest(soak, load, began)
            soak.cache = client.statistics().cache
            group.cancel_scope.cancel()


async def _warmed_up(plan: Plan, load: Load) -> float:
    """Call until everything is filled; the seconds that it took."""
    began = anyio.current_time()
    await load.steady(plan.warm_s)
    while load.begun < WARM_CALLS and anyio.current_time() - began < plan.minutes * 30:
        await load.steady(WARM_MORE_S)
    return anyio.current_time() - began


async def _rest(soak: Soak, load: Load, began: float) -> None:
    soak.lent.update(await load.quiet())
    soak.idle.append(_at_rest(load, sample(anyio.current_time() - began)))


def _at_rest(load: Load, found: Sample) -> Sample:
    """Without the connections that a pool keeps for the next call: how many depends on chance."""
    kept = sum(
        one.wire.details.get("pool", {}).get("idle", 0)
        for one in load.client.statistics().servers.values()
    )
    return Sample(**{**asdict(found), "descriptors": found.descriptors - kept})


async def _settled(before: Census) -> list[str]:
    """What the closed client left, after a moment for threads and the loop itself."""
    left: list[str] = []
    with anyio.move_on_after(5):
        while left := census().since(before):  # noqa: ASYNC110 - threads end by themselves
            await anyio.sleep(0.05)
    return left


async def _watch(plan: Plan, soak: Soak, load: Load, began: float) -> None:
    plan.say(f"-- {soak.backend}\n{HEAD}")
    told, calls = began, 0
    while True:
        now = anyio.current_time()
        soak.samples.append(found := sample(now - began))
        if now - told >= plan.every_s:
            rate = (load.begun - calls) / (now - told)
            told, calls = now, load.begun
            plan.say(line(found, rate, load, soak.complaints))
        await anyio.sleep(SAMPLE_S)


# -- the verdict ----------------------------------------------------------------------------------


def judge(plan: Plan, soak: Soak) -> None:
    """Write down what must not be, in ``soak.failures``."""
    assert soak.load is not None
    load, books = soak.load, soak.books
    steady = [one for one in soak.samples if soak.warm_s <= one.at <= soak.seconds]
    soak.rss = slope([(one.at, one.rss_kib) for one in steady])
    soak.blocks = slope([(one.at, one.blocks) for one in steady])
    soak.heap = slope([(one.at, one.heap_kib) for one in steady])
    found = soak.failures
    first, last = soak.idle[0], soak.idle[-1]
    found += [
        f"{name} at rest grew from {getattr(first, name)} to {getattr(last, name)}"
        for name in ("descriptors", "tasks", "threads", "children")
        if getattr(last, name) > getattr(first, name)
    ]
    found += [f"lent by an idle client: {what}: {count}" for what, count in soak.lent.items()]
    found += [f"left by the closed client: {what}" for what in soak.left]
    heard = soak.complaints
    found += [f"{count} {kind}: {heard.first[kind]}" for kind, count in heard.counts.items()]
    found += [f"a wrong answer: {what}" for what in load.wrong[:SHOWN]]
    found += [f"outside the tree: {what}" for what in load.unexpected[:SHOWN]]
    found += books.findings[:SHOWN]
    if len(books.findings) > SHOWN:
        found.append(f"{len(books.findings) - SHOWN} more findings in the books")
    for wire in plan.wires:
        # One that was given up may have been answered at the same moment.
        spare = books.ok[wire] - load.answered[wire]
        if not 0 <= spare <= load.injected["given up"]:
            found.append(
                f"{wire}: {load.answered[wire]} right answers, {books.ok[wire]} in the log"
            )


def bounds(soak: Soak) -> tuple[float, float]:
    """What resident memory (KiB) and blocks may grow by in a minute, at the rate there was."""
    assert soak.load is not None
    calls = soak.load.begun / soak.seconds * 60
    return max(RSS_KIB_A_MINUTE, calls * BYTES_A_CALL / 1024), calls * BLOCKS_A_CALL
