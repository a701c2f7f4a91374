"""One simulated run: a client, its servers and its callers, for some minutes of virtual time.

Everything that happens is a function of the seed. What must never happen is checked by
``tests/simulation/checks.py``, which trusts nothing that the client says of itself.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from sark_trio import AuditLog, Decision, GatewayClient, Opa, Principal, Question
from sark_trio.client.servers import Http, Server, Stdio, ToolRule
from sark_trio.errors import AuditUnavailable, GatewayError
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.testing import held, no_leaks
from tests.simulation.breakers import WatchedBreaker
from tests.simulation.checks import Asked, History, Violation, check
from tests.simulation.clock import VirtualClock
from tests.simulation.desk import Desk
from tests.simulation.dice import Dice, Script
from tests.simulation.disk import SimDisk, SlowThread
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.network import Network
from tests.simulation.processes import Kernel, Program
from tests.simulation.server import PolicyService, SimServer
from tests.support.client import check_log

__all__ = ["Report", "simulate"]

CALLERS, CALLS_EACH = 6, 5
#: Calls at one moment to one server: more than it may have connections.
BURST = 12
#: Connections to one server, by default; and to a policy service, whose pool is a simulation's.
CONNECTIONS_MAX = 10
#: After the faults: longer than breakers, a supervisor's cool-off and idle connections take.
HEALING_S = 400.0
#: For which an open breaker refuses.
BREAKER_S = 30.0
#: What the operator says of the tool ``write``; a planted bug says otherwise.
REPLAY_SAFE = False
ALICE = Principal(id="alice", roles=("analyst",))
#: Servers over HTTP, and as processes.
HTTP, STDIO = ("s0", "s1"), ("p0", "p1")


@define
class _Policy:
    """Denies ``admin``, and fails now and then."""

    dice: Dice
    revision: str = "1"

    async def decide(self, question: Question) -> Decision:
        await trio.lowlevel.checkpoint()
        if self.dice.strikes("slow policy"):
            await trio.sleep(self.dice.seconds("slow policy", 0, 3))
        if self.dice.strikes("policy that raises"):
            raise RuntimeError("policy")
        ttl_s = self.dice.seconds("ttl", 0, 2)
        return Decision(allow=question.query.tool != "admin", ttl_s=ttl_s)


@define(frozen=True)
class Report:
    """What a run was."""

    seed: int
    #: SHA-256 of everything that happened, in order: equal for equal seeds.
    trace: str
    lines: tuple[str, ...]
    calls: tuple[int, ...]
    faults: tuple[str, ...]
    outcomes: Counter[str]
    struck: Counter[str]
    seconds: float


def simulate(seed: int, script: Script | None = None) -> Report:
    """Run the world of *seed*, or as much of it as *script* leaves.

    :raises Violation: something happened that must never happen.
    """
    run = vars(sys.modules["trio._core._run"])
    run["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    run["_r"].seed(seed)
    world = _World(seed, script or Script())
    try:
        trio.run(world.run, clock=world.clock)
    except BaseException as exc:
        exc.add_note(f"seed {seed}")
        exc.__dict__["simulated"] = world.report()
        raise
    return world.report()


@define(eq=False)
class _World:
    seed: int
    script: Script
    clock: VirtualClock = field(factory=VirtualClock)
    dice: Dice = field(init=False)
    disk: SimDisk = field(factory=SimDisk)
    asked: list[Asked] = field(factory=list)
    trace: list[str] = field(factory=list)
    servers: dict[str, SimServer] = field(factory=dict)
    programs: dict[str, Program] = field(factory=dict)
    desks: dict[str, Desk] = field(factory=dict)
    network: Network = field(init=False)
    kernel: Kernel = field(init=False)
    service: PolicyService | None = None
    misfortunes: Misfortunes = field(init=False)
    log: AuditLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.dice = dice = Dice(self.seed, self.script, self._struck)
        if dice.exists("a disk that takes little at once"):
            self.disk.write_bytes_max = 100
        self.log = AuditLog("log", files=self.disk, wall_clock=self._wall_clock, hmac_key=bytes(32))
        self.asked = [
            self._planned(caller * 1000 + round_)
            for caller in range(CALLERS)
            for round_ in range(CALLS_EACH)
        ]

    def _planned(self, n: int, **given: Any) -> Asked:
        chance = self.dice.stream(f"call {n}")
        impatient = self.dice.exists("impatient callers") and chance.random() < 0.25
        plan = {
            "server": chance.choice(HTTP + STDIO),
            "tool": chance.choice(("read", "put", "write", "write", "admin")),
            "timeout_s": chance.choice((0.5, 5.0, 30.0)),
            "patience_s": chance.random() * 10 if impatient else None,
        }
        return Asked(n=n, **(plan | given))

    async def run(self) -> None:
        async with no_leaks(), trio.open_nursery() as world:
            self.network = Network(self.dice, world)
            self.kernel = Kernel(self.dice, world, on_event=self._note)
            client = GatewayClient(
                servers={name: self._server(name) for name in HTTP + STDIO},
                policy=await self._policy(world),
                audit=self.log,
                principal=ALICE,
                jitter=self.dice.stream("jitter").random,
            )
            breakers = self._watch(client)
            async with client:
                self._slow_down()
                await self._use(client)
                await self._heal(client)
                self._check_idle(client, breakers)
            if left := self.kernel.left():
                raise Violation(f"processes outlive the client: {left}")
            world.cancel_scope.cancel()
        self._check()

    # -- what there is --------------------------------------------------------------------------

    def _server(self, name: str) -> Server:
        desk = Desk(name, self.dice, modern=self.dice.stream(name).random() < 0.5)
        desk.on_arrival = self._arrived
        self.desks[name] = desk
        rules = {"write": ToolRule(replay_safe=REPLAY_SAFE)}
        if name in STDIO:
            self.programs[name] = self.kernel.programs[name] = Program(desk)
            return Stdio((name,), spawn=self.kernel.spawn, trusted=True, tools=rules)
        server = self.servers[name] = SimServer(self.dice, desk=desk)
        self.network.add(f"{name}.test", server.accept)
        url = f"http://{name}.test/mcp"
        return Http(url, network=self.network, trusted=True, tools=rules)

    async def _policy(self, world: trio.Nursery) -> Any:
        """A policy in this process, or a service on the network."""
        if not self.dice.exists("a policy service"):
            return _Policy(self.dice)
        self.service = PolicyService(self.dice)
        self.network.add("opa.test", self.service.accept)
        pool = ConnectionPool(backend=self.network)
        await world.start(pool.run)
        return Opa("http://opa.test", exchange=Exchange(pool))

    def _watch(self, client: GatewayClient) -> dict[str, WatchedBreaker]:
        found = {}
        for name, upstream in client._engine.upstreams.items():
            upstream.breaker = found[name] = WatchedBreaker(upstream.breaker)
        return found

    def _slow_down(self) -> None:
        commit = self.log._ledger.commit
        commit.disk = SlowThread(commit.disk, self.dice)

    # -- what is done with it -------------------------------------------------------------------

    async def _use(self, client: GatewayClient) -> None:
        self.misfortunes = Misfortunes(
            self.dice, self.clock, self.servers, self.network, self.kernel, self.disk, self._note
        )
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self.misfortunes.run)
            async with trio.open_nursery() as callers:
                for number in range(CALLERS):
                    callers.start_soon(self._caller, client, number)
                if self.dice.exists("a burst of calls"):
                    callers.start_soon(self._burst, client)
            tasks.cancel_scope.cancel()

    async def _caller(self, client: GatewayClient, number: int) -> None:
        for asked in self.asked[number * CALLS_EACH : (number + 1) * CALLS_EACH]:
            await trio.sleep(self.dice.seconds(f"pause {number}", 0, 5))
            await self._call(client, asked)

    async def _burst(self, client: GatewayClient) -> None:
        server = self.dice.stream("burst").choice(HTTP + STDIO)
        await trio.sleep(self.dice.seconds("burst", 0, 15))
        burst = [self._planned(100_000 + n, server=server) for n in range(BURST)]
        self.asked += burst
        async with trio.open_nursery() as callers:
            for asked in burst:
                callers.start_soon(self._call, client, asked)

    async def _call(self, client: GatewayClient, asked: Asked) -> None:
        asked.farewell = asked.server in HTTP and not self.desks[asked.server].modern
        asked.began = asked.ended = trio.current_time()
        if self.script.calls is not None and asked.n not in self.script.calls:
            asked.outcome = "left out"
            return
        deadline = float("inf") if asked.patience_s is None else asked.began + asked.patience_s
        with trio.CancelScope(deadline=deadline) as scope:
            try:
                result = await client.invoke_tool(
                    asked.server, asked.tool, {"n": asked.n}, timeout_s=asked.timeout_s
                )
            except GatewayError as exc:
                asked.error = exc
                asked.outcome = type(exc).__name__
            else:
                asked.text = "" if result.is_error else result.text
                asked.outcome = "failed by the tool" if result.is_error else "answered"
        if scope.cancelled_caught:
            asked.outcome = "cancelled"
        asked.ended = trio.current_time()
        self._note(f"call {asked.n} {asked.tool} on {asked.server}: {asked.outcome}")

    async def _heal(self, client: GatewayClient) -> None:
        """Without faults, after the breakers' time: the next call to every server succeeds."""
        self.dice.healed = True
        self.disk.errors.clear()
        self.kernel.thaw()
        await trio.sleep(HEALING_S)
        for n, name in enumerate(self.desks):
            if name in self.programs and self.kernel.is_maimed(self.programs[name]):
                # Only who writes to it finds out; and that may be the failure that opens a breaker.
                await self._call(client, self._last(800_000 + n, name))
                await trio.sleep(BREAKER_S)
            asked = self._last(900_000 + n, name)
            await self._call(client, asked)
            wanted = AuditUnavailable.__name__ if self.disk.dead else "answered"
            if asked.outcome not in {wanted, "left out"}:
                raise Violation(f"A server heals. Not {name}: {asked}")

    def _last(self, n: int, server: str) -> Asked:
        asked = Asked(n=n, server=server, tool="read", timeout_s=30.0)
        self.asked.append(asked)
        return asked

    # -- what is seen ---------------------------------------------------------------------------

    def _arrived(self, server: str, tool: str, arguments: Mapping[str, Any]) -> None:
        n = arguments["n"]
        self._note(f"{server} executes {tool} {n}")
        if tool == "admin":
            raise Violation("a denied call arrived")
        if self.service is not None and n not in self.service.allowed:
            raise Violation(f"call {n} arrived, and no policy allowed it")
        if self.log.digest(arguments) not in self.disk.durable_intents:
            raise Violation(f"call {n} arrived before its intent was durable")

    def _check_idle(self, client: GatewayClient, breakers: Mapping[str, WatchedBreaker]) -> None:
        found = held(client)
        found |= {name: len(one.outstanding) for name, one in breakers.items() if one.outstanding}
        if self.disk.dead:
            found.pop("open audit intents", None)  # no outcome can be written any more
        if found:
            raise Violation(f"kept by an idle client: {found}")

    def _check(self) -> None:
        effects = (effect for desk in self.desks.values() for effect in desk.effects)
        executed = Counter(effect.arguments["n"] for effect in effects)
        check(self.asked, History(executed, self.misfortunes.jumps))
        for host in self.network.hosts.values():
            if host.most_open > CONNECTIONS_MAX:
                raise Violation(f"{host.most_open} connections to {host.name} at once")
        if self.network.open_ends:
            raise Violation(f"{self.network.open_ends} connections outlive the client")
        for name, program in self.programs.items():
            if program.crowded():
                raise Violation(f"{name} was restarted too often: {program.starts}")
        if not self.disk.dead:
            check_log(self.disk)

    def report(self) -> Report:
        """What has happened so far."""
        return Report(
            seed=self.seed,
            trace=hashlib.sha256("\n".join(self.trace).encode()).hexdigest(),
            lines=tuple(self.trace),
            calls=tuple(one.n for one in self.asked if one.outcome != "left out"),
            faults=tuple(self.dice.faults),
            outcomes=Counter(one.outcome for one in self.asked),
            struck=self.dice.struck,
            seconds=self.clock.now,
        )

    def _struck(self, name: str) -> None:
        self._note(f"! {name}")

    def _note(self, line: str) -> None:
        self.trace.append(f"{self.clock.now:.6f} {line}")

    def _wall_clock(self) -> str:
        """The time of day, which jumps by years in either direction, and is never asked twice."""
        year = 2030 + (
            self.dice.size("years", 3) - 2 if self.dice.strikes("wall clock jumps") else 0
        )
        seconds = self.clock.now
        return (
            f"{year}-06-01T{int(seconds // 3600) % 24:02}:{int(seconds // 60) % 60:02}:00.000000Z"
        )
