"""Who is asked for the credentials of HTTP requests, and told when they were not enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import anyio
from anyio.abc import TaskStatus

from sark_trio.auth.challenge import HEADER_CHARS_MAX, Challenged, Credentials
from sark_trio.errors import Denied, GatewayError
from sark_trio.net.framing import ResponseHead
from sark_trio.net.url import Origin

__all__ = ["Auth", "Authorizer", "Headers", "ask", "challenged_in", "challenges_in"]

Headers = Iterable[tuple[str, str]]
#: For a callable that provides credentials: it may refresh a token over the network.
AUTH_S: Final = 30.0
#: Field values of ``WWW-Authenticate`` that are looked at.
VALUES_MAX: Final = 8


class Authorizer(Protocol):
    """Has credentials, and can get others. Lives in the transport's own task group."""

    @property
    def busy(self) -> bool:
        """Whether it is getting credentials now."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Own what getting credentials takes, until cancelled."""

    async def credentials(self, method: str, url: str) -> Credentials:
        """What a request with *method* to *url* is to carry.

        :raises GatewayError: there is nothing to be had; the request is not sent.
        """

    def accepted(self, generation: int) -> None:
        """A request that carried these was not refused."""

    def note_nonce(self, url: str, nonce: str) -> None:
        """A response from *url* said ``DPoP-Nonce`` (RFC 9449, section 8.2)."""

    async def challenged(self, told: Challenged) -> bool:
        """Whether the request that was refused so may succeed if it is sent again.

        May take as long as a user takes; the caller waits in his own scope.

        :raises AuthenticationRequired: it cannot.
        """


#: Asked for credentials before each request: header names and values.
Auth = Callable[[], Awaitable[Headers]] | Authorizer


async def ask(auth: Auth, method: str, url: str, origin: Origin) -> Credentials:
    """What a request is to carry.

    :raises GatewayError: nothing can be had.
    """
    try:
        if not callable(auth):
            return await auth.credentials(method, url)
        with anyio.fail_after(AUTH_S):
            return Credentials(tuple(await auth()))
    except GatewayError:
        raise
    except Exception as exc:
        # Whatever it was, nothing is sent without them. Its text may hold a secret.
        raise Denied(
            f"{origin}: no credentials: {type(exc).__name__}", reason="no_credentials"
        ) from exc


def challenges_in(head: ResponseHead) -> tuple[str, ...]:
    """What a response says in ``WWW-Authenticate``; the first few, of bounded length."""
    values = [value for name, value in head.headers if name == b"www-authenticate"]
    return tuple(value[:HEADER_CHARS_MAX].decode("latin-1") for value in values[:VALUES_MAX])


def challenged_in(head: ResponseHead, generation: int) -> Challenged | None:
    """What a response says to the one who has the credentials; ``None``: it is no refusal."""
    if head.status not in {401, 403}:
        return None
    return Challenged(
        status=head.status, www_authenticate=challenges_in(head), generation=generation
    )
