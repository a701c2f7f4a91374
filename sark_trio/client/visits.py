"""Pages that a person must visit before a call can be made, and who has been where.

MCP 2025-11-25, "URL Elicitation Required Error": the server refuses the call, names the pages,
and may tell, in ``notifications/elicitation/complete``, that the person is done with one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import anyio
from attrs import define, field

from sark_trio.client.ears import Ears
from sark_trio.mcp.faults import UrlElicitationRequired
from sark_trio.mcp.messages import Notification

__all__ = ["Done", "Visits"]

#: Refusals of one call that a person is asked to do something about.
VISITS_MAX: Final = 3
#: Pages in one refusal; each bothers a person.
PAGES_MAX: Final = 8
#: Longest wait to be told that the person is done: servers need not tell. Whatever the call has
#: left, half of it is for the call itself.
DONE_S: Final = 60.0


@final
@define(eq=False)
class Visits:
    """The pages of one call."""

    _ears: Ears
    count: int = field(default=0, init=False)
    _seen: set[str] = field(factory=set, init=False)
    #: Nobody said that the last ones were done: asking for them once more is in vain.
    _in_vain: bool = field(default=False, init=False)

    def of(self, refusal: UrlElicitationRequired) -> Mapping[str, Mapping[str, Any]] | None:
        """The parameters of the elicitations that *refusal* demands, by their ids.

        ``None``: it is malformed, or goes on and on: it is the answer, then.
        """
        pages = {_id_of(page): page for page in refusal.elicitations}
        fits = 0 < len(pages) <= PAGES_MAX and "" not in pages
        if not fits or self._in_vain or self.count >= VISITS_MAX or self._seen & pages.keys():
            return None
        self.count += 1
        self._seen |= pages.keys()
        return pages

    def expect(self, ids: Iterable[str]) -> Done:
        """Listens, as long as its block lasts, for the end of the visits of those ids."""
        return Done(self._ears, set(ids))

    async def wait(self, done: Done, deadline: float) -> None:
        """Wait to be told so, within what a call that ends at *deadline* can spare."""
        left_s = max(0.0, deadline - anyio.current_time())
        with anyio.move_on_after(min(DONE_S, left_s / 2)):
            await done.event.wait()
        self._in_vain = not done.event.is_set()


@final
@define(eq=False)
class Done:
    """Hears which visits are done. (``Ear``)"""

    _ears: Ears
    _open: set[str]
    event: anyio.Event = field(factory=anyio.Event, init=False)

    def __enter__(self) -> Done:
        self._ears.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._ears.discard(self)

    def hear(self, notification: Notification) -> None:
        """Ids that nobody waits for are ignored, as they must be."""
        if notification.method == "notifications/elicitation/complete":
            self._open.discard(str(notification.params.get("elicitationId")))
            if not self._open:
                self.event.set()

    def opened(self) -> None:
        """A stream that is there again changes nothing."""

    def close(self) -> None:
        """Nothing will be heard any more; the next attempt will say why."""
        self.event.set()


def _id_of(page: Mapping[str, Any]) -> str:
    named = page.get("elicitationId")
    return named if page.get("mode") == "url" and type(named) is str else ""
