"""Keys that we sign with, by joserfc (extra ``jwt``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from attrs import define, field, frozen

from sark_trio.auth.proofs import dpop_claims
from sark_trio.auth.urls import place_of
from sark_trio.errors import ConfigError, TransportNotAvailableError

__all__ = ["Proofs", "SigningKey"]

#: Servers whose nonces are kept: a resource and its authorization server, and room to move.
_NONCES_MAX = 8
_NONCE_CHARS_MAX = 1_000


def _joserfc() -> tuple[Any, Any, type[Exception]]:
    try:
        from joserfc import jwk, jwt  # noqa: PLC0415 (an extra)
        from joserfc.errors import JoseError  # noqa: PLC0415
    except ImportError:
        raise TransportNotAvailableError(
            "signed proofs need the extra 'jwt': pip install 'sark_trio[jwt]'"
        ) from None
    return jwk, jwt, JoseError


@final
@frozen(eq=False)
class SigningKey:
    """A private key and the one algorithm that it is used with."""

    algorithm: str
    _key: Any = field(repr=False)
    key_id: str | None = None

    @classmethod
    def from_pem(cls, text: str, algorithm: str, key_id: str | None = None) -> SigningKey:
        """The private key in *text*.

        :raises ConfigError: it is none, or not one for *algorithm*.
        """
        jwk, _, _ = _joserfc()
        kind = {"ES": "EC", "Ed": "OKP"}.get(algorithm[:2], "RSA")
        try:
            key = jwk.import_key(text, kind)
            if not key.is_private:
                raise ValueError
            made = cls(algorithm, key, key_id)
            made.sign({}, {})
        # The library's words might repeat some of the key.
        except Exception:  # noqa: BLE001
            raise ConfigError(
                f"not a private key in PEM for {algorithm}", source="private_key"
            ) from None
        return made

    @classmethod
    def from_jwk(cls, value: Mapping[str, Any]) -> SigningKey:
        """The private P-256 key that :attr:`private` was.

        :raises ConfigError: it is none.
        """
        jwk, _, _ = _joserfc()
        try:
            return cls("ES256", jwk.import_key(dict(value), "EC"))
        except Exception:  # noqa: BLE001
            raise ConfigError("the stored key cannot be read; sign in again") from None

    @classmethod
    def generate(cls) -> SigningKey:
        """A new one, for ES256: small, fast, and known to every server with DPoP."""
        jwk, _, _ = _joserfc()
        return cls("ES256", jwk.ECKey.generate_key("P-256", private=True))

    @property
    def public(self) -> dict[str, Any]:
        """The public key as JWK."""
        value = self._key.as_dict(private=False)
        return {name: value[name] for name in ("kty", "crv", "x", "y") if name in value}

    @property
    def private(self) -> dict[str, Any]:
        """The private key as JWK. A secret."""
        return {**self.public, "d": self._key.as_dict(private=True)["d"]}

    @property
    def thumbprint(self) -> str:
        """Of the public key (RFC 7638)."""
        return str(self._key.thumbprint())

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        """A compact JWT."""
        _, jwt, _ = _joserfc()
        key_id = {} if self.key_id is None else {"kid": self.key_id}
        full = {"alg": self.algorithm, **key_id, **header}
        return str(jwt.encode(full, dict(claims), self._key, algorithms=[self.algorithm]))


@final
@define(eq=False)
class Proofs:
    """Makes DPoP proofs, and remembers the nonces that servers want in them."""

    key: SigningKey
    _nonces: dict[str, str] = field(factory=dict, init=False, repr=False)

    def note(self, url: str, nonce: str | None) -> None:
        """*url*'s server wants *nonce* from now on (RFC 9449, sections 8 and 9)."""
        place = place_of(url)
        if nonce and place is not None and len(nonce) <= _NONCE_CHARS_MAX:
            self._nonces.pop(place.origin, None)
            while len(self._nonces) >= _NONCES_MAX:
                del self._nonces[next(iter(self._nonces))]
            self._nonces[place.origin] = nonce

    def make(
        self, method: str, url: str, *, now_wall: float, unique: str, token: str | None = None
    ) -> str:
        """A proof for one request; *token* is what it carries."""
        place = place_of(url)
        nonce = None if place is None else self._nonces.get(place.origin)
        claims = dpop_claims(
            method, url, now_wall=now_wall, unique=unique, nonce=nonce, access_token=token
        )
        return self.key.sign({"typ": "dpop+jwt", "jwk": self.key.public}, claims)
