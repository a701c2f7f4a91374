"""Tokens and key sets for tests: one issuer with one key."""

from __future__ import annotations

import time
from typing import Any

from attrs import define, field
from joserfc import jwk, jwt

__all__ = ["AUDIENCE", "ISSUER", "Issuer"]

ISSUER = "https://issuer.example"
AUDIENCE = "gateway"


def _key() -> Any:
    return jwk.ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256", "use": "sig"})


@define
class Issuer:
    """Signs tokens with ES256."""

    key: Any = field(factory=_key)

    @property
    def jwks(self) -> dict[str, Any]:
        """The key set that it publishes."""
        return {"keys": [self.key.as_dict(private=False)]}

    def token(self, subject: str, **claims: Any) -> str:
        """A token that is good for a minute, but for *claims*."""
        now = int(time.time())
        standard = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now + 60, "iat": now}
        return jwt.encode({"alg": "ES256", "kid": "k1"}, {**standard, **claims}, self.key)
