"""The load of a soak: calls at a steady rate over every wire, each with its right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import anyio
import anyio.lowlevel
from attrs import define, field

from sark_trio import GatewayClient
from sark_trio.errors import GatewayError
from sark_trio.testing import held
from tests.soak.desks import SHELF
from tests.soak.faults import Errand, Faults, planned

__all__ = ["Load"]

#: Calls that are under way at once, at most: as many as a busy application has. What comes above
#: is not begun, and told as the rate that was missed.
IN_FLIGHT_MAX = 200
#: Seconds between two looks at how many calls are due.
TICK_S = 0.02
#: Every so many calls, lists are asked for, which the caches answer.
LIST_EVERY = 20
#: Seconds for what is under way to end, and for a server that broke to be there again.
QUIET_S = 45.0
#: Numbers of calls that only see whether a server is there; they count as all others do.
HEALING = 1_000_000_000


@define(eq=False)
class Load:
    """Calls *client* and checks every answer.

    :param rate: calls a second.
    """

    client: GatewayClient
    faults: Faults
    rate: float
    begun: int = 0
    missed: int = 0
    running: int = 0
    lists: int = 0
    outcomes: Counter[str] = field(factory=Counter)
    injected: Counter[str] = field(factory=Counter)
    #: By server: calls that were answered rightly.
    answered: Counter[str] = field(factory=Counter)
    #: Answers that were not the one to what was asked, and exceptions outside the tree.
    wrong: list[str] = field(factory=list)
    unexpected: list[str] = field(factory=list)
    _healing: int = HEALING

    async def steady(self, seconds: float) -> None:
        """Begin calls for so long; returns when all have ended."""
        start, due_before = anyio.current_time(), 0
        async with anyio.create_task_group() as group:
            while (now := anyio.current_time()) < start + seconds:
                due = int((now - start) * self.rate)
                for _ in range(due - due_before):
                    self._begin(group, now)
                due_before = due
                await anyio.sleep(TICK_S)

    async def count(self, calls: int) -> None:
        """Begin so many calls, as fast as they end, and wait for them."""
        async with anyio.create_task_group() as group:
            while calls:
                while calls and self.running < IN_FLIGHT_MAX:
                    self._begin(group, anyio.current_time())
                    calls -= 1
                await anyio.lowlevel.checkpoint()

    async def quiet(self) -> Mapping[str, int]:
        """Wait until every server is there and nothing is lent; what is lent nevertheless."""
        found: Mapping[str, int] = {}
        with anyio.move_on_after(QUIET_S):
            for wire in self.faults.wires:
                while not await self._healed(wire):  # noqa: ASYNC110 - asking is how one learns
                    await anyio.sleep(TICK_S)
        with anyio.move_on_after(QUIET_S):
            while found := held(self.client):  # noqa: ASYNC110 - what is lent has no event
                await anyio.sleep(TICK_S)
        return found

    async def _healed(self, wire: str) -> bool:
        self._healing += 1
        right = self.answered[wire]
        await self._call(planned(self._healing, wire))
        return self.answered[wire] > right

    def _begin(self, group: anyio.abc.TaskGroup, now: float) -> None:
        if self.running >= IN_FLIGHT_MAX:
            self.missed += 1
            return
        self.begun += 1
        self.running += 1
        errand = self.faults.next(self.begun, now)
        if errand.fault:
            self.injected[errand.fault] += 1
        group.start_soon(self._one, errand)

    async def _one(self, errand: Errand) -> None:
        try:
            if errand.number % LIST_EVERY == 0:
                await self._list(errand.wire)
            if errand.cancel_s is None:
                await self._call(errand)
                return
            with anyio.move_on_after(errand.cancel_s) as scope:
                await self._call(errand)
            if scope.cancelled_caught:
                self.outcomes["given up by its caller"] += 1
        finally:
            self.running -= 1

    async def _call(self, errand: Errand) -> None:
        try:
            found = await self.client.invoke_tool(
                errand.wire, "echo", errand.arguments, timeout_s=errand.timeout_s
            )
        except GatewayError as exc:
            self.outcomes[f"{type(exc).__name__}, {exc.delivery}"] += 1
        except Exception as exc:  # noqa: BLE001 - that there is none is what is looked for
            self.unexpected.append(f"{errand}: {exc!r}")
            self.outcomes["an exception outside the tree"] += 1
        else:
            if found.text == str(errand.number):
                self.outcomes["answered"] += 1
                self.answered[errand.wire] += 1
            else:
                self.wrong.append(f"{errand}: {found.text!r}")
                self.outcomes["a wrong answer"] += 1

    async def _list(self, wire: str) -> None:
        try:
            await self.client.list_tools(wire)
            await self.client.list_resources(SHELF)
        except GatewayError as exc:
            self.outcomes[f"list: {type(exc).__name__}"] += 1
        except Exception as exc:  # noqa: BLE001 - as above
            self.unexpected.append(f"list of {wire}: {exc!r}")
        else:
            self.lists += 1
