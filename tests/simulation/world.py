"""One simulated run: a client, its servers and its callers, for some minutes of virtual time.

Everything that happens is a function of the seed. What must never happen is checked by
``tests/simulation/checks.py``, which trusts nothing that the client says of itself.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import trio
from attrs import define, field

from sark_trio import AuditLog, GatewayClient, Opa, Principal
from sark_trio.client.servers import Http, Server, Stdio, ToolRule, WebSocket
from sark_trio.errors import AuditUnavailable, GatewayError
from sark_trio.mcp.versions import HTTP_SSE
from sark_trio.net import clock as machine_clock
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool
from sark_trio.testing import held, no_leaks
from tests.simulation.breakers import WatchedBreaker
from tests.simulation.checks import Asked, History, Violation, check
from tests.simulation.clock import VirtualClock
from tests.simulation.desk import RESOURCES, Desk
from tests.simulation.dice import Dice, Script
from tests.simulation.disk import SimDisk, SlowThread
from tests.simulation.hearing import Listener as Hearer
from tests.simulation.hearing import Published, check_heard
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.network import Network
from tests.simulation.plan import Plan
from tests.simulation.policy import Policy, PolicyService
from tests.simulation.processes import Kernel, Program
from tests.simulation.server import SimServer
from tests.simulation.sse import SseServer
from tests.simulation.web import Listener
from tests.simulation.websocket import WebSocketServer
from tests.support.client import check_log

__all__ = ["Report", "simulate"]

#: Connections to one server, by default; and to a policy service, whose pool is a simulation's.
#: Where the transport is found out by trying, each has a pool; a WebSocket is one.
CONNECTIONS_MAX = {"s": 10, "o": 10, "e": 20, "w": 1}
#: After the faults: longer than breakers, a supervisor's cool-off and idle connections take.
HEALING_S = 400.0
#: What the operating system lends is counted in some of the runs: nothing here asks it for any.
CENSUS_EACH = 8
#: For which an open breaker refuses.
BREAKER_S = 30.0
#: What the operator says of the tool ``write``; a planted bug says otherwise.
REPLAY_SAFE = False
ALICE = Principal(id="alice", roles=("analyst",))
#: For which a definition of a tool is believed, and for which its list may be on its way.
BELIEVED_S, FETCHED_S = 300.0, 30.0


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
    #: Answered calls by kind of server, and what was heard of changes by what it was.
    answered: Counter[str]
    heard: Counter[str]
    struck: Counter[str]
    seconds: float


def simulate(seed: int, script: Script | None = None) -> Report:
    """Run the world of *seed*, or as much of it as *script* leaves.

    :raises Violation: something happened that must never happen.
    """
    run = vars(sys.modules["trio._core._run"])
    run["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    run["_r"].seed(seed)
    random.seed(seed)  # for the jitter of what nobody gave another source of
    world = _World(seed, script or Script())
    before, machine_clock.machine = machine_clock.machine, world.machine
    try:
        trio.run(world.run, clock=world.clock)
    except BaseException as exc:
        exc.add_note(f"seed {seed}")
        exc.__dict__["simulated"] = world.report()
        raise
    finally:
        machine_clock.machine = before
    return world.report()


@define(eq=False)
class _World:
    seed: int
    script: Script
    clock: VirtualClock = field(factory=VirtualClock)
    #: The machine, as far as it is suspended.
    machine: machine_clock.Suspensions = field(init=False)
    plan: Plan = field(init=False)
    dice: Dice = field(init=False)
    disk: SimDisk = field(factory=SimDisk)
    asked: list[Asked] = field(factory=list)
    trace: list[str] = field(factory=list)
    servers: dict[str, Listener] = field(factory=dict)
    programs: dict[str, Program] = field(factory=dict)
    desks: dict[str, Desk] = field(factory=dict)
    network: Network = field(init=False)
    kernel: Kernel = field(init=False)
    policy: Policy | PolicyService = field(init=False)
    hearers: list[Hearer] = field(factory=list)
    published: list[Published] = field(factory=list)
    #: When each server last gave its list of tools, and when somebody heard that it changed.
    listed: dict[str, float] = field(factory=dict)
    changed: dict[str, float] = field(factory=dict)
    misfortunes: Misfortunes = field(init=False)
    log: AuditLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.dice = dice = Dice(self.seed, self.script, self._struck)
        if dice.exists("a disk that takes little at once"):
            self.disk.write_bytes_max = 100
        self.log = AuditLog("log", files=self.disk, wall_clock=self._wall_clock, hmac_key=bytes(32))
        self.machine = machine_clock.Suspensions(lambda: self.clock.suspended_s)
        self.plan = Plan.draw(dice)
        self.asked = self.plan.calls(dice)

    async def run(self) -> None:
        census = no_leaks() if self.seed % CENSUS_EACH == 0 else nullcontext()
        async with census, trio.open_nursery() as world:
            self.network = Network(self.dice, world, self.clock)
            self.kernel = Kernel(self.dice, world, on_event=self._note)
            client = GatewayClient(
                servers={name: self._server(name) for name in self.plan.servers},
                policy=await self._policy(world),
                audit=self.log,
                principal=ALICE,
                jitter=self.dice.stream("jitter").random,
            )
            breakers = self._watch(client)
            async with client:
                self._slow_down()
                async with trio.open_nursery() as listeners:
                    self._listen(client, listeners)
                    await self._use(client)
                    await self._heal(client)
                    listeners.cancel_scope.cancel()
                self._check_idle(client, breakers)
            if left := self.kernel.left():
                raise Violation(f"processes outlive the client: {left}")
            world.cancel_scope.cancel()
        self._check()

    # -- what there is --------------------------------------------------------------------------

    def _server(self, name: str) -> Server:
        chance = self.dice.chance(name)
        desk = Desk(name, self.dice, modern=chance.random() < 0.5)
        desk.on_arrival, desk.on_listed = self._arrived, self._listed
        self.desks[name] = desk
        common: dict[str, Any] = {
            "trusted": True,
            "tools": {"write": ToolRule(replay_safe=REPLAY_SAFE)},
        }
        if name[0] == "p":
            self.programs[name] = self.kernel.programs[name] = Program(desk)
            return Stdio((name,), spawn=self.kernel.spawn, **common)
        common["network"] = self.network
        if name[0] == "w":
            self._serve(name, WebSocketServer(self.dice, desk=desk), is_pooled=False)
            return WebSocket(f"ws://{name}.test/mcp", **common)
        if name[0] == "e":
            desk.modern, desk.version = False, HTTP_SSE
            common["protocol_version"] = HTTP_SSE if chance.random() < 0.5 else None
            self._serve(name, SseServer(self.dice, desk=desk))
        else:
            self._serve(name, SimServer(self.dice, desk=desk, numbered=chance.random() < 0.5))
        return Http(f"http://{name}.test/mcp", **common)

    def _serve(self, name: str, server: Listener, *, is_pooled: bool = True) -> None:
        self.servers[name] = server
        self.network.add(f"{name}.test", server.accept, is_pooled=is_pooled)

    async def _policy(self, world: trio.Nursery) -> Any:
        """A policy in this process, or a service on the network."""
        if not self.dice.exists("a policy service"):
            self.policy = Policy(self.dice)
            return self.policy
        self.policy = PolicyService(self.dice)
        self.network.add("opa.test", self.policy.accept)
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
            if self.hearers:
                tasks.start_soon(self._change)
            async with trio.open_nursery() as callers:
                for number in range(self.plan.callers):
                    callers.start_soon(self._caller, client, number)
                if self.plan.has_burst:
                    callers.start_soon(self._burst, client)
            tasks.cancel_scope.cancel()

    async def _caller(self, client: GatewayClient, number: int) -> None:
        each = self.plan.calls_each
        for asked in self.asked[number * each : (number + 1) * each]:
            await trio.sleep(self.dice.seconds(f"pause {number}", 0, 5))
            await self._call(client, asked)

    async def _burst(self, client: GatewayClient) -> None:
        await trio.sleep(self.dice.seconds("burst", 0, 15))
        burst = self.plan.burst(self.dice)
        self.asked += burst
        async with trio.open_nursery() as callers:
            for asked in burst:
                callers.start_soon(self._call, client, asked)

    async def _call(self, client: GatewayClient, asked: Asked) -> None:
        asked.farewell = asked.server[0] == "s" and not self.desks[asked.server].modern
        asked.since = self.clock.lasting
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

    def _listen(self, client: GatewayClient, tasks: trio.Nursery) -> None:
        for name in self.plan.heard:
            hearer = Hearer(name, self.dice, self._note, self._heard)
            self.hearers.append(hearer)
            tasks.start_soon(hearer.run, client)

    async def _change(self) -> None:
        """Let servers change, from time to time."""
        chance = self.dice.stream("changes")
        while True:
            await trio.sleep(chance.random() * 8)
            self._publish(chance.choice(self.plan.heard), chance.choice((None, *RESOURCES)))

    def _publish(self, name: str, uri: str | None) -> None:
        self._note(f"{name} changes: {uri or 'its tools'}")
        self.published.append(Published(self.clock.now, name, uri))
        self.desks[name].change(uri)

    async def _heal(self, client: GatewayClient) -> None:
        """Without faults, after the breakers' time: the next call to every server succeeds."""
        self.dice.healed = True
        self.disk.errors.clear()
        self.kernel.thaw()
        self.network.heal()
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
        await self._hear_all()

    async def _hear_all(self) -> None:
        """Whoever listens hears what is said now."""
        if self.disk.dead or not self.hearers:
            return  # nobody is let listen, if nothing can be recorded
        self._check_heard()
        for hearer in self.hearers:
            if not hearer.hears:
                raise Violation(f"A stream of changes heals. Not that of {hearer.name}")
            for uri in (None, *RESOURCES):
                self._publish(hearer.name, uri)
        await trio.sleep(1)

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
        if n not in self.policy.allowed:
            raise Violation(f"call {n} arrived, and no policy allowed it")
        if self.log.digest(arguments) not in self.disk.durable_intents:
            raise Violation(f"call {n} arrived before its intent was durable")
        self._check_list(server, next(one for one in self.asked if one.n == n))

    def _check_list(self, server: str, asked: Asked) -> None:
        """A call rests on a list that was neither too old nor known to have changed."""
        listed = self.listed[server]
        believed_s = BELIEVED_S + FETCHED_S
        believed_s += sum(s for at, s in self.misfortunes.leaps if 0 <= at - listed <= FETCHED_S)
        if asked.since - listed > believed_s:
            raise Violation(f"A list gets old. {asked.since - listed:.0f} s: {asked}")
        changed = self.changed.get(server, listed)
        if listed < changed < asked.since:
            raise Violation(f"A list that changed is fetched again. {changed} {listed}: {asked}")

    def _listed(self, server: str) -> None:
        self.listed[server] = self.clock.lasting

    def _heard(self, server: str) -> None:
        self.changed[server] = self.clock.lasting

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
            if host.most_open > CONNECTIONS_MAX[host.name[0]]:
                raise Violation(f"{host.most_open} connections to {host.name} at once")
            if host.stale:
                raise Violation(f"Idle connections get old. {host.name}: {host.stale}")
        if self.network.open_ends:
            raise Violation(f"{self.network.open_ends} connections outlive the client")
        for name, program in self.programs.items():
            if program.crowded():
                raise Violation(f"{name} was restarted too often: {program.starts}")
        self._check_heard()
        if not self.disk.dead:
            check_log(self.disk)

    def _check_heard(self) -> None:
        check_heard([one for each in self.hearers for one in each.hearings], self.published)

    def report(self) -> Report:
        """What has happened so far."""
        return Report(
            seed=self.seed,
            trace=hashlib.sha256("\n".join(self.trace).encode()).hexdigest(),
            lines=tuple(self.trace),
            calls=tuple(one.n for one in self.asked if one.outcome != "left out"),
            faults=tuple(self.dice.faults),
            outcomes=Counter(one.outcome for one in self.asked),
            answered=Counter(one.server[0] for one in self.asked if one.outcome == "answered"),
            heard=Counter(
                kind for each in self.hearers for one in each.hearings for _, kind, _ in one.heard
            ),
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
        seconds = self.clock.lasting
        return (
            f"{year}-06-01T{int(seconds // 3600) % 24:02}:{int(seconds // 60) % 60:02}:00.000000Z"
        )
