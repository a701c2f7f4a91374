"""What happens to a world from outside, whatever anybody does: from time to time, by chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio
from attrs import define, field

from tests.simulation.clock import VirtualClock
from tests.simulation.dice import Dice
from tests.simulation.disk import SimDisk
from tests.simulation.network import Network
from tests.simulation.processes import Kernel
from tests.simulation.web import Listener

__all__ = ["Misfortunes"]

#: A process that was stopped for long; and a machine that was moved.
JUMP_S = 120.0
#: A laptop's lid, closed for a moment, for lunch, for the night.
SUSPENDED_S = (20.0, 2_000.0, 8 * 3_600.0)


@define(eq=False)
class Misfortunes:
    """Restarts, half-open links, clogs, full and broken disks, jumps of the clock."""

    dice: Dice
    clock: VirtualClock
    servers: Mapping[str, Listener]
    network: Network
    kernel: Kernel
    disk: SimDisk
    note: Callable[[str], None]
    #: From when to when the clock jumped.
    jumps: list[tuple[float, float]] = field(factory=list)
    #: When it jumped or the machine was suspended, by the clock that goes on, and for how long.
    leaps: list[tuple[float, float]] = field(factory=list)

    async def run(self) -> None:
        """Go on until cancelled; what was clogged is free again then."""
        async with trio.open_nursery() as tasks:
            try:
                while True:
                    await trio.sleep(self.dice.seconds("misfortunes", 1, 10))
                    self._strike(tasks)
            finally:
                for name in self._places():
                    self._clog(name, clogged=False)
                for server in self.servers.values():
                    server.down = False

    def _strike(self, tasks: trio.Nursery) -> None:
        dice, chance = self.dice, self.dice.stream("misfortunes")
        servers = list(self.servers.values())
        if servers and dice.strikes("restarts"):
            tasks.start_soon(chance.choice(servers).restart)
        if servers and dice.strikes("half-open links"):
            for wire in list(chance.choice(servers).wires):
                wire.forget()
        if dice.strikes("kills"):
            for process in self.kernel.processes:
                process.end(-9)
        if dice.strikes("swizzles"):
            tasks.start_soon(self._swizzle)
        if dice.strikes("a full disk"):
            self.disk.fill(dice.size("a full disk", 3))
        if dice.strikes("a broken disk") and dice.strikes("a disk beyond repair"):
            self.disk.break_down()
        if dice.strikes("clock jumps"):
            before, seconds = self.clock.now, dice.seconds("clock jumps", 1, JUMP_S)
            self.leaps.append((self.clock.lasting, seconds))
            self.clock.jump(seconds)
            self.jumps.append((before, before + seconds))
        if dice.strikes("suspensions"):
            self._suspend(SUSPENDED_S[dice.size("suspensions", len(SUSPENDED_S)) - 1])

    def _suspend(self, seconds: float) -> None:
        """Close the lid; whoever is elsewhere goes on, and does not wait for us."""
        self.leaps.append((self.clock.lasting, seconds))
        self.clock.suspend(seconds)
        for server in self.servers.values():
            if self.dice.strikes("sessions that end in suspend"):
                server.forget()
            for wire in list(server.wires):
                fate = self.dice.size("connections in suspend", 4)
                if fate == 1:
                    wire.end()
                elif fate == 2:
                    wire.reset()
                elif fate == 3:
                    wire.forget()

    async def _swizzle(self) -> None:
        """Clog some places one by one, and free them in another order (FoundationDB)."""
        chance = self.dice.stream("swizzles")
        places = self._places()
        some = chance.sample(places, self.dice.size("swizzled places", len(places)))
        for clogged in (True, False):
            for name in some:
                await trio.sleep(self.dice.seconds("swizzles", 0, 4))
                self._clog(name, clogged=clogged)
            chance.shuffle(some)

    def _places(self) -> list[str]:
        return [*self.network.hosts, *self.kernel.programs]

    def _clog(self, name: str, *, clogged: bool) -> None:
        host = self.network.hosts.get(name)
        if host is not None:
            host.clog(clogged=clogged)
            return
        for process in self.kernel.running(self.kernel.programs[name]):
            if clogged:
                process.freeze()
            else:
                process.thaw()
