"""Signing in and out ahead of time, without a client: what ``sark login`` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, final

import anyio
from attrs import frozen

from sark_trio.client.authorizing.authorizer import Authorizer, authorizer_of
from sark_trio.client.authorizing.revoking import SignedOut
from sark_trio.client.servers import Http
from sark_trio.errors import ConfigError

__all__ = ["SignedIn", "SignedOut", "sign_in", "sign_out"]

_Result = TypeVar("_Result")


@final
@frozen(kw_only=True)
class SignedIn:
    """What came of it; the tokens are in the store."""

    issuer: str
    scopes: tuple[str, ...]
    #: Seconds since the Unix epoch; ``None`` where the server does not say.
    expires_at: float | None
    #: Whether they can be renewed without the user.
    renewable: bool


async def sign_in(server: Http) -> SignedIn:
    """Get tokens for *server* now, and keep them in the store of its ``auth``.

    :raises AuthenticationRequired: there are none to be had.
    :raises ConfigError: the server has no ``auth``.
    """

    async def get(authorizer: Authorizer) -> SignedIn:
        grant = await authorizer.sign_in()
        assert grant.client is not None
        assert grant.tokens is not None
        return SignedIn(
            issuer=grant.client.issuer,
            scopes=grant.tokens.scopes,
            expires_at=grant.tokens.expires_at,
            renewable=grant.tokens.refresh_token is not None,
        )

    return await _with(server, get)


async def sign_out(server: Http) -> SignedOut:
    """Forget what the store holds about *server*: tokens, registrations, keys.

    Where the authorization server can revoke tokens (RFC 7009), it is asked to, for 10 s at
    most; they are forgotten here in any case.

    :raises ConfigError: the server has no ``auth``, or the store is not to be had.
    """
    return await _with(server, lambda authorizer: authorizer.sign_out())


async def _with(server: Http, work: Callable[[Authorizer], Awaitable[_Result]]) -> _Result:
    authorizer = authorizer_of(server)
    if authorizer is None:
        raise ConfigError(f"{server.address} has no auth: there is nothing to sign in to")
    failure: BaseException | None = None
    result: _Result | None = None
    async with anyio.create_task_group() as group:
        await group.start(authorizer.run)
        try:
            result = await work(authorizer)
        except Exception as exc:  # noqa: BLE001 - raised below, and not as a group
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]  # there is a result, or there was a failure
