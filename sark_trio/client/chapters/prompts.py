"""Listing prompts, getting them, and completing what goes into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sark_trio.client import requests
from sark_trio.client.chapters.offers import OfferChapter
from sark_trio.client.handlers import Handlers
from sark_trio.client.walk import Walk
from sark_trio.errors import UsageError
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import PROMPT_DISCOVER
from sark_trio.mcp.prompts import Completion, Prompt, PromptResult, parse_prompt

__all__ = ["Prompts"]


class Prompts(OfferChapter):
    """The prompts of a client's servers (MCP, "Prompts" and "Completion")."""

    async def list_prompts(
        self, server_name: str, *, principal: Principal | None = None
    ) -> tuple[Prompt, ...]:
        """The prompts that *principal* may see; for very many use :meth:`stream_prompts`.

        Policy is asked about each (``gateway:prompt:discover``, its name in ``parameters``).
        MCP 2026-07-28, "Listing Prompts"; the same since 2025-03-26.

        :raises UnknownServer: there is no server of that name.
        :raises MethodNotFound: the server offers no prompts.
        :raises ProtocolError: a cursor comes back, or the list does not end.
        :raises UsageError: there are more than 100,000.
        """
        return await self.stream_prompts(server_name, principal=principal).collect()

    def stream_prompts(
        self, server_name: str, *, principal: Principal | None = None
    ) -> Walk[Prompt]:
        """``async for``: as :meth:`list_prompts`, page after page, in the memory of one."""
        return self._walk(
            server_name,
            principal,
            method="prompts/list",
            key="prompts",
            parse=parse_prompt,
            action=PROMPT_DISCOVER,
            about=lambda one: {"name": one.name},
        )

    async def get_prompt(
        self,
        server_name: str,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
        handlers: Handlers | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> PromptResult:
        """Get a prompt, if policy allows it (``gateway:prompt:get``), and record that.

        A server may ask for input first. MCP 2026-07-28, "Getting a Prompt"; the same since
        2025-03-26, without input.

        :param arguments: strings; policy may take some of them away.
        :raises InvalidParams: the server has no such prompt, or wants other arguments.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        common = self._common(principal, timeout_s, context, handlers)
        return await self._ask(server_name, requests.get_prompt(name, arguments, **common))

    async def complete(
        self,
        server_name: str,
        argument: str,
        value: str,
        *,
        prompt: str | None = None,
        template: str | None = None,
        given: Mapping[str, str] | None = None,
        principal: Principal | None = None,
        timeout_s: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Values that would complete what a user has typed (``gateway:completion:complete``).

        MCP 2026-07-28, "Requesting Completions"; the same since 2025-03-26.

        :param argument: of the prompt, or of the URI template.
        :param value: what there is of it so far.
        :param prompt: the prompt's name; else *template* is the resource's URI template.
        :param given: arguments that are known already (since 2025-06-18).
        :raises UsageError: neither of them, or both.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        if (prompt is None) == (template is None):
            raise UsageError("complete either an argument of a prompt or one of a template")
        ref = {"type": "ref/prompt", "name": prompt or ""}
        if template is not None:
            ref = {"type": "ref/resource", "uri": template}
        common = self._common(principal, timeout_s, context)
        asked = requests.complete(ref, argument, value, given, **common)
        return await self._ask(server_name, asked)
