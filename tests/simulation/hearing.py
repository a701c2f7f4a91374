"""Who wants to hear of changes in a simulated world, and what must be true of what they hear."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from attrs import define, field, frozen

from sark_trio import GatewayClient
from sark_trio.errors import GatewayError
from tests.simulation.checks import Violation
from tests.simulation.desk import RESOURCES
from tests.simulation.dice import Dice

__all__ = ["Hearing", "Listener", "Published", "check_heard"]

#: Between a stream that was lost for good, or could not be had, and the next try.
PAUSE_S = 5.0


@frozen
class Published:
    """A change that a server made known: of a resource, or of its list of tools."""

    at: float
    server: str
    uri: str | None


@define(eq=False)
class Hearing:
    """One subscription, from the moment at which it was there."""

    server: str
    began: float
    #: What came, and when: a kind, and a resource's URI.
    heard: list[tuple[float, str, str | None]] = field(factory=list)
    #: Whether it ended with an error, of which its reader was told.
    lost: bool = False


def check_heard(hearings: Sequence[Hearing], published: Sequence[Published]) -> None:
    """Hold what was heard against what was made known.

    :raises Violation: something was missed, and nobody was told that it might be.
    """
    for hearing in hearings:
        for at, kind, uri in hearing.heard:
            fine = uri in RESOURCES if kind == "resource" else kind in {"tools", "gap"}
            if not fine:
                raise Violation(f"Only what is wanted is heard. {hearing.server} {at}: {kind}")
        for one in published:
            if one.server == hearing.server and one.at > hearing.began and not hearing.lost:
                _check_told(hearing, one)


def _check_told(hearing: Hearing, one: Published) -> None:
    wanted = ("tools" if one.uri is None else "resource", one.uri)
    for at, kind, uri in hearing.heard:
        if at >= one.at and (kind == "gap" or (kind, uri) == wanted):
            return
    raise Violation(f"A change is heard of, or a gap. Missed: {one} by {hearing}")


@define(eq=False)
class Listener:
    """Somebody who listens to one server, again and again."""

    name: str
    dice: Dice
    note: Callable[[str], None]
    #: Told of each changed list of tools.
    on_tools: Callable[[str], None]
    hearings: list[Hearing] = field(factory=list)
    #: Whether a subscription is there now.
    hears: bool = False

    async def run(self, client: GatewayClient) -> None:
        """Listen until cancelled."""
        await trio.sleep(self.dice.seconds(f"listening to {self.name}", 0, 10))
        while True:
            try:
                await self._listen(client)
            except GatewayError as exc:
                self.note(f"listening to {self.name}: {type(exc).__name__}")
                await trio.sleep(PAUSE_S)
            finally:
                self.hears = False

    async def _listen(self, client: GatewayClient) -> None:
        hearing = None
        leaves_after_s = float("inf")
        if self.dice.strikes("listeners that leave"):
            leaves_after_s = self.dice.seconds("listeners that leave", 0, 20)
        wanted = client.subscribe(self.name, resources=RESOURCES, tools_list=True)
        with trio.move_on_after(leaves_after_s) as scope:
            async with wanted as changes:
                hearing = Hearing(self.name, trio.current_time())
                self.hearings.append(hearing)
                self.hears = True
                self.note(f"{self.name} is listened to")
                try:
                    async for change in changes:
                        hearing.heard.append((trio.current_time(), change.kind, change.subject))
                        self.note(f"{self.name} tells of {change.kind} {change.subject or ''}")
                        # What had waited for its reader until now was known before.
                        if change.kind == "tools" and trio.current_time() > hearing.began:
                            self.on_tools(self.name)
                except GatewayError:
                    hearing.lost = True
                    raise
        if scope.cancelled_caught and hearing is not None:
            hearing.lost = True  # by its own will
