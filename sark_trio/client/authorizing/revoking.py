"""Having tokens revoked where they came from (RFC 7009): best effort, and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import anyio
from attrs import field, frozen

from sark_trio.auth.record import Grant, Record
from sark_trio.auth.token import TokenRefused
from sark_trio.client.authorizing.discovery import metadata_of
from sark_trio.client.authorizing.grants import Grants
from sark_trio.client.authorizing.network import Network
from sark_trio.errors import AuthenticationRequired

__all__ = ["SignedOut", "revoke_all"]

#: For all issuers together: somebody waits, and the tokens are forgotten here already.
REVOKE_S: Final = 10.0


@final
@frozen(kw_only=True)
class SignedOut:
    """What became of the tokens, which are not in the store any more.

    :param revoked: issuers that have revoked theirs.
    :param unrevoked: by issuer, why not: whoever has a copy of such a token can use it until it
        expires.
    """

    revoked: tuple[str, ...] = ()
    unrevoked: Mapping[str, str] = field(factory=dict)


async def revoke_all(record: Record, network: Network, grants: Grants) -> SignedOut:
    """Have every issuer revoke what *record* holds of it. Raises nothing."""
    held = {issuer: grant for issuer, grant in record.grants.items() if grant.tokens is not None}
    found = dict.fromkeys(held, f"no answer within {REVOKE_S:g} s")
    with anyio.move_on_after(REVOKE_S):
        for issuer, grant in held.items():
            try:
                found[issuer] = await _revoke(issuer, grant, network, grants)
            except (AuthenticationRequired, TokenRefused) as exc:
                found[issuer] = str(exc).removeprefix("not authorized: ")
    return SignedOut(
        revoked=tuple(issuer for issuer, problem in found.items() if not problem),
        unrevoked={issuer: problem for issuer, problem in found.items() if problem},
    )


async def _revoke(issuer: str, grant: Grant, network: Network, grants: Grants) -> str:
    """Why that issuer cannot revoke *grant*; empty where it has."""
    server = await metadata_of(network, issuer)
    if server is None or server.revocation_endpoint is None:
        return "the authorization server offers no revocation (RFC 7009)"
    if grant.client is None or grant.tokens is None:
        return "it is not known as which client"
    await grants.revoke(server.revocation_endpoint, grant.client, grant.tokens)
    return ""
