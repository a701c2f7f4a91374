"""Approving the tools of servers as they describe themselves: see :mod:`sark_trio.client.pins`."""

from __future__ import annotations

import anyio.to_thread

from sark_trio.client.chapters.base import Chapter
from sark_trio.client.pins import PinKeeper, PinnedTool
from sark_trio.errors import ConfigError
from sark_trio.stores.pins import PinFile

__all__ = ["Pinning"]


class Pinning(Chapter):
    """What was approved of servers' tools, for an application that asks its user."""

    async def pinned_tools(self, server_name: str | None = None) -> tuple[PinnedTool, ...]:
        """Every tool in the book of pins, or those of one server, whether it is in use or not.

        A tool is in it once a list that held it was fetched.

        :raises ConfigError: the client was given no ``pins``, or their file cannot be read.
        """
        return await anyio.to_thread.run_sync(self._keeper().file.tools, server_name)

    async def approve_tools(
        self,
        server_name: str,
        tool_name: str | None = None,
        *,
        by: str,
        fingerprint: str | None = None,
    ) -> tuple[str, ...]:
        """Let a tool, or every tool of the server that waits for it, be used as it is now.

        :param by: who says so, for the audit log.
        :param fingerprint: what was shown to them: nothing that came meanwhile is approved.
        :return: the names of the tools.
        :raises UsageError: there is nothing to approve, or it is not what was shown.
        :raises ConfigError: as :meth:`pinned_tools`.
        """
        decided = self._keeper().decide(
            PinFile.approve, server_name, tool_name, by=by, fingerprint=fingerprint
        )
        return self._afresh(server_name, await decided)

    async def refuse_tools(
        self,
        server_name: str,
        tool_name: str | None = None,
        *,
        by: str,
        fingerprint: str | None = None,
    ) -> tuple[str, ...]:
        """Never let it be used as it is now: the tool's approval ends, if it has one.

        What is under way goes on; :meth:`block` stops that as well.

        :raises UsageError: as :meth:`approve_tools`.
        """
        decided = self._keeper().decide(
            PinFile.refuse, server_name, tool_name, by=by, fingerprint=fingerprint
        )
        return self._afresh(server_name, await decided)

    def _afresh(self, server_name: str, names: tuple[str, ...]) -> tuple[str, ...]:
        upstream = self._engine.all_upstreams().get(server_name)
        if upstream is not None:
            upstream.catalogue.invalidate()
        return names

    def _keeper(self) -> PinKeeper:
        if self._pins is None:
            raise ConfigError("nothing is pinned: give the client pins=Path('pins.json')")
        return self._pins
