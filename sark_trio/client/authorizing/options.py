"""How we get a server's tokens, as an application says it: ``Http(url, auth=OAuth(...))``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

from attrs import field, frozen
from attrs.validators import optional

from sark_trio.auth.registration import is_document_url
from sark_trio.auth.scopes import parse_scope
from sark_trio.auth.urls import is_loopback, place_of
from sark_trio.client.authorizing.redirects import Redirects
from sark_trio.errors import ConfigError
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.tokens import MemoryTokens, TokenStore

__all__ = [
    "Assertion",
    "Auth",
    "ClientCredentials",
    "EnterpriseManaged",
    "OAuth",
    "OAuthClient",
    "WorkloadIdentity",
]

#: A signed token, or what gets one each time that one is needed (they live for minutes).
Assertion = str | Callable[[], Awaitable[str]]
#: That we sign with; none is symmetric.
ALGORITHMS: Final = frozenset(
    {f"{kind}{bits}" for kind in ("ES", "RS", "PS") for bits in (256, 384, 512)} | {"Ed25519"}
)


def _scopes(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    words = (value if isinstance(value, str) else " ".join(value)).split()
    scopes = parse_scope(" ".join(words))
    if len(scopes) != len(set(words)):
        raise ConfigError("a scope is one word of visible ASCII", source="scopes")
    return scopes


def _web_url(_: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    place = place_of(value)
    if place is None or (place.scheme != "https" and not is_loopback(value)):
        raise ConfigError("not an https:// URL", source=attribute.name)


def _text(_: Any, attribute: Any, value: Any) -> None:
    if not value or (isinstance(value, str) and not (value.isascii() and value.isprintable())):
        raise ConfigError("must be visible ASCII, and not empty", source=attribute.name)


def _document_url(_: Any, attribute: Any, value: str | None) -> None:
    if value is not None and not is_document_url(value):
        raise ConfigError("not an https:// URL with a path", source=attribute.name)


def _algorithm(_: Any, attribute: Any, value: str) -> None:
    if value not in ALGORITHMS:
        raise ConfigError(
            f"{value!r} is not one of {', '.join(sorted(ALGORITHMS))}", source=attribute.name
        )


def _positive(_: Any, attribute: Any, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"{value!r} is not a positive number of seconds", source=attribute.name)


@frozen(kw_only=True)
class Auth:
    """What holds for every way to a token.

    :param scopes: to ask for; ``None`` asks for what the server's challenge or metadata says.
    :param issuer: the only authorization server to deal with. Name it where it is known:
        configured credentials then never go to another, and it may be on a private network.
    :param dpop: bind tokens to a key of ours (RFC 9449): stolen ones are of no use. Needs the
        extra ``jwt``.
    :param store: where tokens are kept; default in memory, as long as this value lives.
    :param tls: whom to trust as authorization server; ``None`` uses the system's.
    :param private_network: URLs that the server names may lead into a private network.
    """

    scopes: tuple[str, ...] | None = field(default=None, converter=_scopes)
    issuer: str | None = field(default=None, validator=_web_url)
    dpop: bool = False
    store: TokenStore = field(factory=MemoryTokens, repr=False)
    tls: TLSOptions | None = None
    private_network: bool = False


@frozen(kw_only=True)
class OAuthClient(Auth):
    """An OAuth client with an id of its own, and what proves that it is that one."""

    client_id: str | None = field(default=None, validator=optional(_text))
    client_secret: str | None = field(default=None, repr=False)
    #: PEM text, for ``private_key_jwt``. Needs the extra ``jwt``.
    private_key: str | None = field(default=None, repr=False)
    #: Its id in the key set that the authorization server knows.
    key_id: str | None = None
    algorithm: str = field(default="ES256", validator=_algorithm)

    def __attrs_post_init__(self) -> None:
        if self.client_id is None and self.client_secret is not None:
            raise ConfigError("a client_secret needs its client_id", source="client_secret")
        if self.client_secret is not None and self.private_key is not None:
            raise ConfigError("client_secret or private_key, not both", source="private_key")


@final
@frozen(kw_only=True)
class OAuth(OAuthClient):
    """A user signs in: authorization code with PKCE, then refresh tokens.

    Who we are at the authorization server is, in this order: *client_id*, where one was
    registered by hand; *client_metadata_url*, where the server takes such; else what the server
    registers us as.

    :param client_id: with *client_secret* or *private_key* where it is not a public client.
    :param client_metadata_url: ``https`` URL of our Client ID Metadata Document.
    :param client_name: shown to the user where we register ourselves.
    :param redirects: how the user is sent to the authorization server and comes back:
        :class:`LoopbackRedirects` or :class:`AppRedirects`. ``None`` never asks a user: only
        tokens that are in the store are used (and refreshed), as ``sark login`` put them there.
    :param login_timeout_s: seconds that a user may take.
    """

    client_metadata_url: str | None = field(default=None, validator=_document_url)
    client_name: str = field(default="sark_trio", validator=_text)
    redirects: Redirects | None = field(default=None, repr=False)
    login_timeout_s: float = field(default=300.0, validator=_positive)


@final
@frozen(kw_only=True)
class ClientCredentials(OAuthClient):
    """We ask for ourselves, without a user (RFC 6749, 4.4): *client_id* and a secret or key."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.client_id is None or (self.client_secret or self.private_key) is None:
            raise ConfigError("needs client_id, and client_secret or private_key", source="auth")


@final
@frozen(kw_only=True)
class EnterpriseManaged(OAuthClient):
    """The company's identity provider vouches for the user, who is not asked (ID-JAG).

    :param id_token: the user's ID token, or what gets it.
    :param idp_token_endpoint: where the identity provider exchanges it (RFC 8693).
    :param idp_client_id: who we are there; with *idp_client_secret* where it wants a proof.
    """

    id_token: Assertion = field(repr=False, validator=_text)
    idp_token_endpoint: str = field(validator=_web_url)
    idp_client_id: str = field(validator=_text)
    idp_client_secret: str | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.client_id is None:
            raise ConfigError("needs client_id", source="auth")


@final
@frozen(kw_only=True)
class WorkloadIdentity(OAuthClient):
    """The platform vouches for this workload (RFC 7523): its JWT is the grant.

    :param assertion: the workload's JWT, or what gets it, such as from a projected file.
    """

    assertion: Assertion = field(repr=False, validator=_text)
