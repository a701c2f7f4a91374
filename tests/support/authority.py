"""A real authorization server and an MCP server behind it, on one loopback port.

It issues, rotates and refuses tokens as it is told to by its attributes, and remembers every
form that was posted to it. Its user says yes at once: :func:`consent` is his browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

import httpcore
from attrs import define, field

from sark_trio import AppRedirects, OAuth
from tests.support.http_servers import DISCOVERY, Peer, RawServer, Received, response, result, serve

__all__ = ["REDIRECT_URI", "Authority", "authority", "consent", "user"]

REDIRECT_URI = "http://127.0.0.1:3000/callback"
RESOURCE_METADATA = "/.well-known/oauth-protected-resource/mcp"
_RESULTS = {
    "server/discover": DISCOVERY,
    "tools/list": {
        "resultType": "complete",
        "tools": [{"name": "echo", "inputSchema": {"type": "object"}}],
        "ttlMs": 0,
        "cacheScope": "private",
    },
}
SERVER_METADATA = "/.well-known/oauth-authorization-server"


async def consent(url: str) -> str:
    """What a browser does whose user says yes: where it was sent back to."""
    async with httpcore.AsyncConnectionPool() as pool:
        answer = await pool.request("GET", url)
    return next(value.decode() for name, value in answer.headers if name.lower() == b"location")


def user(**options: Any) -> OAuth:
    """A user who signs in, through the application."""
    return OAuth(redirects=AppRedirects(REDIRECT_URI, consent), **options)


@define(eq=False)
class Authority:
    """The server; all of its behaviour is in its attributes."""

    server: RawServer = field(init=False)
    #: What it says of itself beside the usual; ``None`` takes a member out.
    metadata: dict[str, Any] = field(factory=dict)
    #: What the resource says of itself.
    resource: dict[str, Any] = field(factory=dict)
    #: The issuer that the resource names; default: itself.
    issuer: str | None = None
    #: Scope that the resource needs; a token with less gets 403.
    needs: str = "read"
    challenge_scope: str | None = "read"
    expires_in: Any = 3600
    refreshes: bool = True
    #: ``iss`` in redirects: given the issuer.
    iss: Callable[[str], str | None] = field(default=lambda issuer: issuer)
    #: What tokens are good for, if it is not what was asked for.
    grants_scope: str | None = None
    #: Members of a token answer that are something else.
    answer: dict[str, Any] = field(factory=dict)
    #: Answers to the next requests at the token endpoint: status and body.
    failures: list[tuple[int, dict[str, Any]]] = field(factory=list)
    #: Awaited before a token endpoint answers.
    before_token: Callable[[], Any] | None = None
    rejects_all: bool = False
    #: Refreshed tokens are good for nothing.
    spoils_refreshed: bool = False
    #: Challenge of a 403 for everything.
    forbids: str | None = None
    #: Demanded in proofs at the resource (RFC 9449, section 9).
    nonce: str | None = None
    tokens: dict[str, tuple[str, ...]] = field(factory=dict)
    refresh_tokens: set[str] = field(factory=set)
    authorizations: list[dict[str, str]] = field(factory=list)
    forms: list[dict[str, str]] = field(factory=list)
    registrations: list[dict[str, Any]] = field(factory=list)
    #: What was posted to the revocation endpoint, and what it answers instead of 200.
    revocations: list[dict[str, str]] = field(factory=list)
    revocation: tuple[int, dict[str, Any]] | None = None
    #: Awaited before it answers.
    before_revocation: Callable[[], Any] | None = None
    challenges: dict[str, str] = field(factory=dict)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp"

    def revoke(self) -> None:
        """No access token that was issued is good any more."""
        self.tokens.clear()

    def offer_revocation(self) -> None:
        """Have a revocation endpoint (RFC 7009)."""
        self.metadata["revocation_endpoint"] = f"{self.origin}/revoke"

    def grants(self) -> list[str]:
        return [form["grant_type"] for form in self.forms]

    def presented(self) -> list[str | None]:
        """The credentials of every MCP request."""
        requests = [each for each in self.server.requests if each.target == "/mcp"]
        return [each.headers.get("authorization") for each in requests]

    async def script(self, peer: Peer) -> None:
        while True:
            await peer.send(await self.answer_to(await peer.receive()))

    async def answer_to(self, received: Received) -> bytes:
        """What it says to one request."""
        path = urlsplit(received.target).path
        handler = {
            "/mcp": self._mcp,
            RESOURCE_METADATA: self._resource,
            SERVER_METADATA: self._metadata,
            "/authorize": self._authorize,
            "/token": self._token,
            "/register": self._register,
            "/revoke": self._revoke,
        }.get(path)
        return response(b"{}", "404 Not Found") if handler is None else await handler(received)

    async def _mcp(self, received: Received) -> bytes:
        if self.forbids is not None:
            return response(b"", "403 Forbidden", WWW_Authenticate=self.forbids)
        scheme, _, token = received.headers.get("authorization", "").partition(" ")
        scopes = None if self.rejects_all else self.tokens.get(token)
        if scheme not in {"Bearer", "DPoP"} or scopes is None:
            return self._refusal("401 Unauthorized", scope=self.challenge_scope)
        if self.nonce is not None and self.nonce != _nonce(received):
            asked = 'DPoP error="use_dpop_nonce"'
            more = {"WWW_Authenticate": asked, "DPoP_Nonce": self.nonce}
            return response(b"", "401 Unauthorized", **more)
        wanted = self.needs if received.rpc == "tools/call" else "read"
        if not set(wanted.split()) <= set(scopes):
            error = "insufficient_scope"
            return self._refusal("403 Forbidden", error=error, scope=wanted)
        return result(received, _RESULTS.get(received.rpc))

    def _refusal(self, status: str, **parameters: str | None) -> bytes:
        parameters["resource_metadata"] = f"{self.origin}{RESOURCE_METADATA}"
        words = [f'{name}="{value}"' for name, value in parameters.items() if value]
        return response(b"", status, WWW_Authenticate=f"Bearer {', '.join(words)}")

    async def _resource(self, received: Received) -> bytes:
        issuer = self.issuer or self.origin
        known = {"resource": self.url, "authorization_servers": [issuer], **self.resource}
        return _json(known)

    async def _metadata(self, received: Received) -> bytes:
        known = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "registration_endpoint": f"{self.origin}/register",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            **self.metadata,
        }
        return _json({name: value for name, value in known.items() if value is not None})

    async def _authorize(self, received: Received) -> bytes:
        query = dict(parse_qsl(urlsplit(received.target).query))
        self.authorizations.append(query)
        code = f"code-{len(self.authorizations)}"
        self.challenges[code] = query["code_challenge"]
        back = {"code": code, "state": query["state"], "iss": self.iss(self.origin)}
        kept = urlencode({name: value for name, value in back.items() if value is not None})
        return response(b"", "302 Found", Location=f"{query['redirect_uri']}?{kept}")

    async def _revoke(self, received: Received) -> bytes:
        form = _form(received)
        self.revocations.append(form)
        if self.before_revocation is not None:
            await self.before_revocation()
        if self.revocation is not None:
            status, body = self.revocation
            return _json(body, f"{status} No")
        self.tokens.pop(form["token"], None)
        self.refresh_tokens.discard(form["token"])
        return response(b"")

    async def _token(self, received: Received) -> bytes:
        form = _form(received)
        self.forms.append(form)
        if self.before_token is not None:
            await self.before_token()
        if self.failures:
            status, body = self.failures.pop(0)
            return _json(body, f"{status} No")
        return self._issue(form)

    def _issue(self, form: dict[str, str]) -> bytes:
        scope = form.get(
            "scope", self.authorizations[-1].get("scope", "") if self.authorizations else ""
        )
        match form["grant_type"]:
            case "authorization_code":
                digest = hashlib.sha256(form["code_verifier"].encode()).digest()
                proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                if self.challenges.pop(form["code"], None) != proof:
                    return _json({"error": "invalid_grant"}, "400 No")
            case "refresh_token":
                # Rotated: a second use of one would be a thief's.
                if form["refresh_token"] not in self.refresh_tokens:
                    return _json({"error": "invalid_grant"}, "400 No")
                self.refresh_tokens.remove(form["refresh_token"])
        number = len(self.forms)
        token, refresh = f"access-{number}", f"refresh-{number}"
        if not (self.spoils_refreshed and form["grant_type"] == "refresh_token"):
            self.tokens[token] = tuple((self.grants_scope or scope).split())
        said = {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}
        if self.refreshes and form["grant_type"] in {"authorization_code", "refresh_token"}:
            self.refresh_tokens.add(refresh)
            said["refresh_token"] = refresh
        return _json({**said, **self.answer})

    async def _register(self, received: Received) -> bytes:
        self.registrations.append(received.json)
        return _json({"client_id": f"client-{len(self.registrations)}"}, "201 Created")


@asynccontextmanager
async def authority(**options: Any) -> AsyncIterator[Authority]:
    """A running one."""
    made = Authority(**options)
    async with serve(made.script) as server:
        made.server = server
        yield made


def _nonce(received: Received) -> str | None:
    payload = received.headers.get("dpop", "..").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "==") or b"{}")
    return claims.get("nonce")


def _form(received: Received) -> dict[str, str]:
    form = {name: values[0] for name, values in parse_qs(received.body.decode()).items()}
    basic = received.headers.get("authorization", "")
    if basic.startswith("Basic "):
        pair = base64.b64decode(basic.removeprefix("Basic ")).decode()
        form["basic"] = ":".join(unquote_plus(part) for part in pair.split(":"))
    return form


def _json(value: Any, status: str = "200 OK") -> bytes:
    return response(json.dumps(value).encode(), status)
