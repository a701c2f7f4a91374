"""From a 401 to the authorization server: whose metadata is fetched, and in which order."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from sark_trio.auth.challenge import Challenge
from sark_trio.auth.failures import failed
from sark_trio.auth.metadata import (
    ResourceMetadata,
    ServerMetadata,
    default_metadata,
    resource_metadata,
    server_metadata,
)
from sark_trio.auth.urls import (
    canonical_resource,
    place_of,
    resource_metadata_urls,
    server_metadata_urls,
)
from sark_trio.client.authorizing.network import Answer, Network
from sark_trio.mcp.versions import MODERN

__all__ = ["Found", "discover", "metadata_of"]

_HEADERS: Final = (("accept", "application/json"), ("mcp-protocol-version", MODERN))


@final
@frozen(kw_only=True)
class Found:
    """Who guards an MCP server, and as what."""

    #: Sent as ``resource`` (RFC 8707).
    resource: str
    server: ServerMetadata
    scopes_supported: tuple[str, ...] | None = None
    needs_dpop: bool = False


async def discover(
    network: Network,
    url: str,
    challenge: Challenge | None,
    *,
    issuer: str | None,
    present: str | None = None,
) -> Found:
    """Who guards the MCP server at *url* now.

    :param issuer: the only one that will do.
    :param present: the one that we have dealt with: kept where it is still among several.
    :raises AuthenticationRequired: nobody that we can deal with.
    """
    hint = None if challenge is None else challenge.get("resource_metadata")
    resource = await _resource(network, url, hint)
    if resource is None:
        return await _undeclared(network, url, issuer)
    chosen = _choose(resource.authorization_servers, issuer, present)
    server = await metadata_of(network, chosen)
    if server is None:
        raise failed("the authorization server publishes no metadata (RFC 8414)")
    return Found(
        resource=resource.resource,
        server=server,
        scopes_supported=resource.scopes_supported,
        needs_dpop=resource.needs_dpop,
    )


def _choose(offered: tuple[str, ...], issuer: str | None, present: str | None) -> str:
    if issuer is not None:
        if issuer not in offered:
            raise failed("the server names other authorization servers than the configured issuer")
        return issuer
    return present if present in offered else offered[0]


async def _resource(network: Network, url: str, hint: str | None) -> ResourceMetadata | None:
    if hint is not None:
        answer = await network.ask("GET", hint, _HEADERS)
        if answer[0] != 200:
            raise failed(f"the resource metadata that the server names: HTTP {answer[0]}")
        return resource_metadata(answer[2], url)
    body = await _first(network, resource_metadata_urls(url))
    return None if body is None else resource_metadata(body, url)


async def metadata_of(network: Network, issuer: str) -> ServerMetadata | None:
    """What *issuer* publishes of itself (RFC 8414), if it does.

    :raises AuthenticationRequired: it cannot be had, or is none.
    """
    body = await _first(network, server_metadata_urls(issuer))
    return None if body is None else server_metadata(body, issuer)


async def _undeclared(network: Network, url: str, issuer: str | None) -> Found:
    """A server of 2025-03-26 is, or stands in front of, its own authorization server."""
    place = place_of(url)
    named = issuer or ("" if place is None else place.origin)
    server = await metadata_of(network, named)
    if server is None:
        if issuer is not None:
            raise failed("neither the server nor the configured issuer publishes metadata")
        server = default_metadata(named)
    return Found(resource=canonical_resource(url), server=server)


async def _first(network: Network, urls: tuple[str, ...]) -> bytes | None:
    """The first document; a server that fails is not taken for one that has none."""
    for url in urls:
        answer = await network.ask("GET", url, _HEADERS)
        if answer[0] >= 500:
            raise failed(f"the metadata cannot be had: HTTP {answer[0]}")
        if answer[0] == 200 and _is_json(answer):
            return answer[2]
    return None


def _is_json(answer: Answer) -> bool:
    # Some servers answer every path with a page for people.
    kinds = [value for name, value in answer[1] if name == "content-type"]
    return not kinds or "json" in kinds[0].lower()
