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
from tests.simulation.server import SimServer

__all__ = ["Misfortunes"]

#: A laptop's lid, closed for long; and a machine that was moved.
JUMP_S = 120.0


@define(eq=False)
class Misfortunes:
    """Restarts, half-open links, clogs, full and broken disks, jumps of the clock."""

    dice: Dice
    clock: VirtualClock
    servers: Mapping[str, SimServer]
    network: Network
    kernel: Kernel
    disk: SimDisk
    note: Callable[[str], None]
    #: From when to when the clock jumped.
    jumps: list[tuple[float, float]] = field(factory=list)

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
        if dice.strikes("restarts"):
            tasks.start_soon(chance.choice(list(self.servers.values())).restart)
        if dice.strikes("half-open links"):
            for wire in list(chance.choice(list(self.servers.values())).wires):
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
            self.clock.jump(seconds)
            self.jumps.append((before, before + seconds))

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
