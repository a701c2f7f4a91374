"""A client for the official MCP conformance suite, over the public API and nothing else.

The suite starts a server for one scenario, runs this program with the server's URL as its last
argument, and judges what arrives. It names the scenario in ``MCP_CONFORMANCE_SCENARIO``, the
protocol version in ``MCP_CONFORMANCE_PROTOCOL_VERSION``, and what else a scenario needs as JSON
in ``MCP_CONFORMANCE_CONTEXT``::

    conformance client --command "python tests/conformance/client.py" --scenario auth/basic-cimd

``SARK_CONFORMANCE_BACKEND`` chooses the event loop: ``trio`` (default) or ``asyncio``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpcore
from attrs import frozen
from scenarios import SCENARIOS  # beside this file, which is run as a program

from sark_trio import (
    AllowAll,
    AppRedirects,
    Auth,
    ClientCredentials,
    EnterpriseManaged,
    GatewayClient,
    GatewayError,
    Http,
    OAuth,
    WorkloadIdentity,
)

REDIRECT_URI = "http://127.0.0.1:3000/callback"
#: The suite knows this document, and does not fetch it.
DOCUMENT = "https://conformance-test.local/client-metadata.json"


@frozen
class Run:
    """One run of the program."""

    scenario: str
    url: str
    version: str | None
    context: Mapping[str, Any]

    def server(self, auth: Auth | None = None) -> Http:
        """The server under test, spoken to in the version that the suite asks for."""
        return Http(self.url, auth=auth, protocol_version=self.version)


Handler = Callable[[Run], Awaitable[None]]


async def follow(url: str) -> str:
    """What a browser does whose user says yes at once."""
    async with httpcore.AsyncConnectionPool() as pool:
        response = await pool.request("GET", url)
    headers = dict(response.headers)
    return headers.get(b"Location", headers.get(b"location", b"")).decode()


def user(**options: Any) -> OAuth:
    """A user who signs in."""
    return OAuth(redirects=AppRedirects(REDIRECT_URI, follow), **options)


async def call_tools(run: Run, auth: Auth | None, *, times: int = 1) -> None:
    """List the tools, and call the first of them."""
    with tempfile.TemporaryDirectory() as folder:
        async with GatewayClient(
            servers={"server": run.server(auth)},
            policy=AllowAll(),
            audit=Path(folder) / "audit",
        ) as client:
            tools = await client.list_tools("server")
            for _ in range(times):
                for tool in tools[:1]:
                    await client.invoke_tool("server", tool.tool_name, {})


async def sign_in_and_call(run: Run) -> None:
    """A user signs in, whatever the server asks for."""
    await call_tools(run, user())


async def sign_in_with_document(run: Run) -> None:
    """... and a document of ours says who we are."""
    await call_tools(run, user(client_metadata_url=DOCUMENT))


async def sign_in_with_dpop(run: Run) -> None:
    """... and the tokens are bound to a key of ours."""
    await call_tools(run, user(dpop=True), times=2)


async def sign_in_preregistered(run: Run) -> None:
    """... and the authorization server knows us already."""
    known = run.context
    options = {name: known[name] for name in ("client_id", "client_secret", "issuer")}
    await call_tools(run, user(**options))


async def use_client_credentials(run: Run) -> None:
    """We ask for ourselves."""
    known = run.context
    auth = ClientCredentials(
        client_id=known["client_id"],
        client_secret=known.get("client_secret"),
        private_key=known.get("private_key_pem"),
        algorithm=known.get("signing_algorithm", "ES256"),
    )
    await call_tools(run, auth)


async def use_enterprise(run: Run) -> None:
    """The company's identity provider vouches for the user."""
    known = run.context
    auth = EnterpriseManaged(
        client_id=known["client_id"],
        client_secret=known["client_secret"],
        id_token=known["idp_id_token"],
        idp_client_id=known["idp_client_id"],
        idp_token_endpoint=known["idp_token_endpoint"],
    )
    await call_tools(run, auth)


async def use_workload_identity(run: Run) -> None:
    """The platform vouches for the workload."""
    auth = WorkloadIdentity(client_id=run.context["client_id"], assertion=run.context["valid_jwt"])
    await call_tools(run, auth)


#: Scenario to what the client does; those that are not about authorization are in `scenarios`.
HANDLERS: Mapping[str, Handler] = {
    "auth/2025-03-26-oauth-endpoint-fallback": sign_in_and_call,
    "auth/2025-03-26-oauth-metadata-backcompat": sign_in_and_call,
    "auth/authorization-server-migration": sign_in_and_call,
    "auth/basic-cimd": sign_in_with_document,
    "auth/client-credentials-basic": use_client_credentials,
    "auth/client-credentials-jwt": use_client_credentials,
    "auth/dpop": sign_in_with_dpop,
    "auth/dpop-nonce": sign_in_with_dpop,
    "auth/enterprise-managed-authorization": use_enterprise,
    "auth/iss-normalized": sign_in_and_call,
    "auth/iss-not-advertised": sign_in_and_call,
    "auth/iss-supported": sign_in_and_call,
    "auth/iss-supported-missing": sign_in_and_call,
    "auth/iss-unexpected": sign_in_and_call,
    "auth/iss-wrong-issuer": sign_in_and_call,
    "auth/metadata-default": sign_in_and_call,
    "auth/metadata-issuer-mismatch": sign_in_and_call,
    "auth/metadata-var1": sign_in_and_call,
    "auth/metadata-var2": sign_in_and_call,
    "auth/metadata-var3": sign_in_and_call,
    "auth/offline-access-not-supported": sign_in_and_call,
    "auth/offline-access-scope": sign_in_and_call,
    "auth/pre-registration": sign_in_preregistered,
    "auth/resource-mismatch": sign_in_and_call,
    "auth/scope-from-scopes-supported": sign_in_and_call,
    "auth/scope-from-www-authenticate": sign_in_and_call,
    "auth/scope-omitted-when-undefined": sign_in_and_call,
    "auth/scope-retry-limit": sign_in_and_call,
    "auth/scope-step-up": sign_in_and_call,
    "auth/token-endpoint-auth-basic": sign_in_and_call,
    "auth/token-endpoint-auth-none": sign_in_and_call,
    "auth/token-endpoint-auth-post": sign_in_and_call,
    "auth/wif-jwt-bearer": use_workload_identity,
}


def main() -> int:
    run = Run(
        scenario=os.environ["MCP_CONFORMANCE_SCENARIO"],
        url=sys.argv[-1],
        version=os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION"),
        context=json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"),
    )
    try:
        backend = os.environ.get("SARK_CONFORMANCE_BACKEND", "trio")
        handler = HANDLERS.get(run.scenario) or SCENARIOS[run.scenario]
        anyio.run(handler, run, backend=backend)
    except GatewayError as exc:
        # What some scenarios are about; the suite knows in which ones.
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
