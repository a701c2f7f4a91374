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
from typing import Any

import anyio
import trio
from attrs import define, field
from trio.testing import MockClock

from sark_trio import AuditLog, Decision, GatewayClient, Principal, Question
from sark_trio.client.servers import Http, ToolRule
from sark_trio.errors import GatewayError
from sark_trio.testing import held, no_leaks
from tests.simulation.checks import Asked, Violation, check
from tests.simulation.disk import SimDisk
from tests.simulation.network import Network
from tests.simulation.server import SimServer

__all__ = ["Report", "simulate"]

#: Share of the fault points that a run has at all, and how often one of those strikes: rare
#: enough that calls succeed, often enough that faults meet each other.
POINT_SHARE, STRIKE_SHARE = 0.25, 0.25
CALLERS, CALLS_EACH = 6, 5
#: What the operator says of the tool ``write``; a planted bug says otherwise.
REPLAY_SAFE = False
ALICE = Principal(id="alice", roles=("analyst",))


@define
class Dice:
    """All chance of a run (see :class:`tests.simulation.network.Chaos`)."""

    rng: random.Random
    struck: Counter[str] = field(factory=Counter)
    _active: dict[str, bool] = field(factory=dict)
    #: No faults any more: what is left must heal.
    healed: bool = False

    def strikes(self, point: str) -> bool:
        if point not in self._active:
            # Not drawn from `rng`: whether a point exists must not depend on who asks first.
            self._active[point] = random.Random(f"{self._key}{point}").random() < POINT_SHARE
        if self.healed or not self._active[point] or self.rng.random() >= STRIKE_SHARE:
            return False
        self.struck[point] += 1
        return True

    def seconds(self, low: float, high: float) -> float:
        return low + self.rng.random() * (high - low)

    def size(self, most: int) -> int:
        return self.rng.randint(1, most)

    _key: str = ""


@define
class _Policy:
    """Denies ``admin``, and fails now and then."""

    dice: Dice
    revision: str = "1"

    async def decide(self, question: Question) -> Decision:
        await anyio.lowlevel.checkpoint()
        if self.dice.strikes("slow policy"):
            await anyio.sleep(self.dice.seconds(0, 3))
        if self.dice.strikes("policy that raises"):
            raise RuntimeError("policy")
        return Decision(allow=question.query.tool != "admin", ttl_s=self.dice.seconds(0, 2))


@define(frozen=True)
class Report:
    """What a run was."""

    seed: int
    #: SHA-256 of everything that happened, in order: equal for equal seeds.
    trace: str
    lines: tuple[str, ...]
    calls: int
    outcomes: Counter[str]
    struck: Counter[str]
    seconds: float


def simulate(seed: int) -> Report:
    """Run the world of *seed*.

    :raises Violation: something happened that must never happen.
    """
    run = vars(sys.modules["trio._core._run"])
    run["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    run["_r"].seed(seed)
    world = _World(seed)
    try:
        trio.run(world.run, clock=MockClock(autojump_threshold=0))
    except BaseException as exc:
        exc.add_note(f"seed {seed}; faults: {dict(world.dice.struck)}")
        for line in world.trace[-40:]:
            exc.add_note(line)
        raise
    return Report(
        seed=seed,
        trace=hashlib.sha256("\n".join(world.trace).encode()).hexdigest(),
        lines=tuple(world.trace),
        calls=len(world.asked),
        outcomes=Counter(one.outcome for one in world.asked),
        struck=world.dice.struck,
        seconds=world.seconds,
    )


@define(eq=False)
class _World:
    seed: int
    dice: Dice = field(init=False)
    disk: SimDisk = field(factory=SimDisk)
    asked: list[Asked] = field(factory=list)
    trace: list[str] = field(factory=list)
    servers: list[SimServer] = field(factory=list)
    seconds: float = 0.0
    log: AuditLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log = AuditLog("log", files=self.disk)
        self.dice = Dice(random.Random(self.seed), key=str(self.seed))

    async def run(self) -> None:
        began = anyio.current_time()
        async with no_leaks(), anyio.create_task_group() as world:
            network = Network(self.dice, world)
            self.servers = [self._server(n, network) for n in range(2)]
            client = GatewayClient(
                servers={one.name: self._described(one, network) for one in self.servers},
                policy=_Policy(self.dice),
                audit=self.log,
                principal=ALICE,
                jitter=self.dice.rng.random,
            )
            async with client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._misfortunes, tasks)
                    async with anyio.create_task_group() as callers:
                        for number in range(CALLERS):
                            callers.start_soon(self._caller, client, number)
                    tasks.cancel_scope.cancel()
                await self._heal(client)
                if found := held(client):
                    raise Violation(f"kept by an idle client: {found}")
            if network.open_ends:
                raise Violation(f"{len(network.open_ends)} connections outlive the client")
            world.cancel_scope.cancel()
        self.seconds = anyio.current_time() - began
        check(self.asked, self.servers, self.disk, network.most_open)

    def _server(self, number: int, network: Network) -> SimServer:
        server = SimServer(f"s{number}", self.dice, modern=self.dice.rng.random() < 0.5)
        server.on_arrival = self._arrived
        network.hosts[f"{server.name}.test"] = server.accept
        return server

    def _described(self, server: SimServer, network: Network) -> Http:
        return Http(
            f"http://{server.name}.test/mcp",
            network=network,
            trusted=True,
            tools={"write": ToolRule(replay_safe=REPLAY_SAFE)},
        )

    def _arrived(self, server: str, tool: str, arguments: Mapping[str, Any]) -> None:
        self._note(f"{server} executes {tool} {dict(arguments)}")
        if tool == "admin":
            raise Violation("a denied call arrived")
        if self.log.digest(arguments) not in self.disk.durable_intents:
            raise Violation(f"call {arguments['n']} arrived before its intent was durable")

    async def _misfortunes(self, tasks: anyio.abc.TaskGroup) -> None:
        """Servers restart, and stall one by one, in an order of chance."""
        while True:
            await anyio.sleep(self.dice.seconds(1, 10))
            if self.dice.strikes("restarts"):
                server = self.dice.rng.choice(self.servers)
                self._note(f"{server.name} restarts")
                tasks.start_soon(server.restart)
            if self.dice.strikes("half-open links"):
                for wire in list(self.dice.rng.choice(self.servers).wires):
                    wire.outgoing.stalled = wire.incoming.stalled = True
            if self.dice.strikes("a full disk"):
                self.disk.errors["write"] = [OSError(28, "full")] * self.dice.size(3)

    async def _caller(self, client: GatewayClient, number: int) -> None:
        for round_ in range(CALLS_EACH):
            await anyio.sleep(self.dice.seconds(0, 5))
            asked = Asked(
                n=number * 1000 + round_,
                server=self.dice.rng.choice(self.servers).name,
                tool=self.dice.rng.choice(("read", "put", "write", "write", "admin")),
                timeout_s=self.dice.rng.choice((0.5, 5.0, 30.0)),
                began=anyio.current_time(),
            )
            self.asked.append(asked)
            await self._call(client, asked)
            asked.ended = anyio.current_time()
            self._note(f"call {asked.n} {asked.tool} on {asked.server}: {asked.outcome}")

    async def _call(self, client: GatewayClient, asked: Asked) -> None:
        patience = self.dice.seconds(0, 10) if self.dice.strikes("impatient callers") else None
        with anyio.move_on_after(patience) as scope:
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
            asked.patience_s = patience

    async def _heal(self, client: GatewayClient) -> None:
        """Without faults, after the breakers' time: the next call to every server succeeds."""
        self.dice.healed = True
        self.disk.errors.clear()
        await anyio.sleep(120)
        for server in self.servers:
            server.down = False
            asked = Asked(n=900_000 + int(server.name[1:]), server=server.name, tool="read")
            result = await client.invoke_tool(server.name, "read", {"n": asked.n})
            if result.text != str(asked.n):
                raise Violation(f"{server.name} does not heal: {result}")

    def _note(self, line: str) -> None:
        self.trace.append(f"{anyio.current_time():.6f} {line}")
