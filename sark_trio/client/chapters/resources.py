"""Listing and reading resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sark_trio.client import requests
from sark_trio.client.chapters.offers import OfferChapter
from sark_trio.client.handlers import Handlers
from sark_trio.client.walk import Walk
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import RESOURCE_DISCOVER
from sark_trio.mcp.resources import (
    Resource,
    ResourceResult,
    ResourceTemplate,
    parse_resource,
    parse_template,
)

__all__ = ["Resources"]


class Resources(OfferChapter):
    """The resources of a client's servers (MCP, "Resources")."""

    async def list_resources(
        self, server_name: str, *, principal: Principal | None = None
    ) -> tuple[Resource, ...]:
        """The resources that *principal* may see; for very many use :meth:`stream_resources`.

        Policy is asked about each (``gateway:resource:discover``, its URI and name in
        ``parameters``). MCP 2026-07-28, "Listing Resources"; the same since 2025-03-26.

        :raises UnknownServer: there is no server of that name.
        :raises MethodNotFound: the server offers no resources.
        :raises ProtocolError: a cursor comes back, or the list does not end.
        :raises UsageError: there are more than 100,000.
        """
        return await self.stream_resources(server_name, principal=principal).collect()

    def stream_resources(
        self, server_name: str, *, principal: Principal | None = None
    ) -> Walk[Resource]:
        """``async for``: as :meth:`list_resources`, page after page, in the memory of one."""
        return self._walk(
            server_name,
            principal,
            method="resources/list",
            key="resources",
            parse=parse_resource,
            action=RESOURCE_DISCOVER,
            about=lambda one: {"uri": one.uri, "name": one.name},
        )

    async def list_resource_templates(
        self, server_name: str, *, principal: Principal | None = None
    ) -> tuple[ResourceTemplate, ...]:
        """The resource templates that *principal* may see (MCP 2026-07-28, "Resource Templates").

        Policy is asked about each (``gateway:resource:discover``, with ``uriTemplate``); the
        same errors as :meth:`list_resources`.
        """
        return await self.stream_resource_templates(server_name, principal=principal).collect()

    def stream_resource_templates(
        self, server_name: str, *, principal: Principal | None = None
    ) -> Walk[ResourceTemplate]:
        """``async for``: as :meth:`list_resource_templates`, page after page."""
        return self._walk(
            server_name,
            principal,
            method="resources/templates/list",
            key="resourceTemplates",
            parse=parse_template,
            action=RESOURCE_DISCOVER,
            about=lambda one: {"uriTemplate": one.uri_template, "name": one.name},
        )

    async def read_resource(
        self,
        server_name: str,
        uri: str,
        *,
        principal: Principal | None = None,
        timeout_s: float | None = None,
        handlers: Handlers | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> ResourceResult:
        """Read a resource, if policy allows it (``gateway:resource:read``), and record that.

        A server may ask for input first. MCP 2026-07-28, "Reading Resources"; the same since
        2025-03-26, without input.

        :return: what stands there, redacted as the policy demands.
        :raises InvalidParams, ResourceNotFound: the server has no such resource.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        common = self._common(principal, timeout_s, context, handlers)
        return await self._ask(server_name, requests.read_resource(uri, **common))
