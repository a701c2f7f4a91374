"""Bearer tokens (RFC 7519) to principals, by joserfc (extra ``jwt``). Grey: keys are handed in.

Everything that decides *which* key and algorithm are used is decided here, before any
cryptography (RFC 8725): the algorithm must be on the list and fit the key's type, so that a
public key is never an HMAC secret; ``none`` is on no list; header parameters that bring their own
key (``jwk``, ``jku``, ``x5u``, ``x5c``) are never looked at.

Until the signature is checked every failure is the same ``token_invalid``; the token, its
signature and its claims stand in no error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, final

from attrs import define, field, frozen
from attrs.validators import and_, ge, gt, le

from sark_trio import errors, jsontext
from sark_trio.governance.principal import Principal
from sark_trio.machines.deadline import TIME_S_MAX

__all__ = ["FetchKeys", "TokenVerifier"]

FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]

#: Characters of a token: no HTTP server takes a longer header by default.
TOKEN_CHARS_MAX: Final = 16_384
#: Keys of one set; issuers publish two or three.
KEYS_MAX: Final = 100
#: Bytes of an RSA modulus (RFC 7518 section 3.3: 2048 bits or more).
MODULUS_BYTES_MIN: Final = 256

#: Algorithm → key type, and for elliptic curves the one curve (RFC 7518 section 3.1, RFC 8037).
_ALGORITHMS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    **{f"HS{bits}": ("oct", ()) for bits in (256, 384, 512)},
    **{f"{kind}{bits}": ("RSA", ()) for kind in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", ("P-256",)),
    "ES384": ("EC", ("P-384",)),
    "ES512": ("EC", ("P-521",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
    "Ed25519": ("OKP", ("Ed25519",)),
}
#: RFC 7515, section 3.1: three texts in the alphabet of base64url, without padding.
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+")


def _denied(reason: str, message: str) -> errors.Denied:
    return errors.Denied(message, reason=reason)


def _invalid() -> errors.Denied:
    return _denied("token_invalid", "the token is not valid")


def _algorithms(names: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(names)
    unknown = sorted(chosen - set(_ALGORITHMS))
    if unknown or not chosen:
        raise ValueError(f"algorithms {unknown} are none of {', '.join(_ALGORITHMS)}")
    return chosen


@final
@frozen
class _Header:
    algorithm: str
    key_id: str | None


@final
@define(eq=False, kw_only=True)
class TokenVerifier:
    """Checks tokens of one issuer for one audience.

    :param keys: a JWK Set (RFC 7517) as decoded JSON, or a callable that awaits one; the client
        makes the latter out of a URL, with its own connections, redirects refused.
    :param issuer: exact ``iss``.
    :param audience: one of the token's ``aud`` must be exactly this (RFC 8707).
    :param algorithms: those that the issuer uses, and no others.
    :param leeway_s: seconds of clock difference that are forgiven, at most 60.
    :param refetch_interval_s: seconds between two fetches that unknown key ids can cause.
    :param keys_age_max_s: seconds after which fetched keys are fetched again: how long a revoked
        key lives on, and at most *refetch_interval_s* longer while that fetch is under way.
    :param keep_claims: claims that policies may see beside those of
        :meth:`Principal.from_claims`.
    :raises ValueError: an option that can not be; ``errors.ConfigError``: a bad key set.
    """

    issuer: str
    audience: str
    algorithms: frozenset[str] = field(converter=_algorithms)
    keys: Mapping[str, Any] | FetchKeys = field(repr=False)
    leeway_s: float = field(default=30.0, validator=and_(ge(0), le(60)))
    refetch_interval_s: float = field(default=30.0, validator=gt(0))
    keys_age_max_s: float = field(default=3_600.0, validator=gt(0))
    keep_claims: tuple[str, ...] = field(default=(), converter=tuple)
    _known: tuple[Mapping[str, Any], ...] = field(default=(), init=False, repr=False)
    _fetched_at: float = field(default=float("-inf"), init=False, repr=False)
    _tried_at: float = field(default=float("-inf"), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not callable(self.keys):
            self._known = _usable(self.keys, self.algorithms)

    async def verify(self, token: str, now_wall: float) -> Principal:
        """The principal that *token* proves; keys are fetched where they must be.

        :param now_wall: seconds since the Unix epoch.
        :raises errors.Denied: ``reason`` is ``token_invalid``, ``token_expired``,
            ``token_not_yet_valid``, ``token_issuer``, ``token_audience``, ``token_claims`` or
            ``keys_unavailable``.
        """
        header = _header(token, self.algorithms)
        if callable(self.keys):
            stale = not 0 <= now_wall - self._fetched_at < self.keys_age_max_s
            if stale or self._key(header) is None:
                await self._fetch(self.keys, now_wall, stale=stale)
        return self._principal(token, header, now_wall)

    def verify_nowait(self, token: str, now_wall: float) -> Principal:
        """As :meth:`verify`, with the keys at hand."""
        return self._principal(token, _header(token, self.algorithms), now_wall)

    async def _fetch(self, fetch: FetchKeys, now_wall: float, *, stale: bool) -> None:
        """Fetch the keys; a flood of invented key ids causes one fetch per interval."""
        if 0 <= now_wall - self._tried_at < self.refetch_interval_s and self._known:
            # Another task may be fetching: that is waited for by using the old keys, not for ever.
            age_s = now_wall - self._fetched_at
            if stale and age_s >= self.keys_age_max_s + self.refetch_interval_s:
                raise _denied("keys_unavailable", "the issuer's keys can not be had")
            return
        self._tried_at = now_wall
        try:
            known = _usable(await fetch(), self.algorithms)
        except Exception as exc:
            if not stale:
                return  # the keys at hand are still good; this token's is not among them
            self._known = ()
            raise _denied("keys_unavailable", "the issuer's keys can not be had") from exc
        self._known = known
        self._fetched_at = now_wall

    def _principal(self, token: str, header: _Header, now_wall: float) -> Principal:
        key = self._key(header)
        if key is None:
            raise _invalid()
        claims = _claims(_verified(token, header.algorithm, key))
        self._check_times(claims, now_wall)
        if claims.get("iss") != self.issuer:
            raise _denied("token_issuer", "the token is from another issuer")
        audience = claims.get("aud")
        if self.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _denied("token_audience", "the token is for another audience")
        try:
            return Principal.from_claims(
                claims,
                keep=self.keep_claims,
                credential_hash=hashlib.sha256(token.encode()).hexdigest(),
                expires_at=claims["exp"] + self.leeway_s,
            )
        except ValueError:
            raise _denied("token_claims", "the token's claims name no principal") from None

    def _check_times(self, claims: Mapping[str, Any], now_wall: float) -> None:
        times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
        for value in times.values():
            if value is not None and not _is_time(value):
                raise _denied("token_claims", "a time in the token is not a number")
        expires = times["exp"]
        if expires is None or now_wall >= expires + self.leeway_s:
            raise _denied("token_expired", "the token has expired, or does not say when it does")
        for name in ("nbf", "iat"):
            begins = times[name]
            if begins is not None and now_wall < begins - self.leeway_s:
                raise _denied("token_not_yet_valid", "the token is not valid yet")

    def _key(self, header: _Header) -> Mapping[str, Any] | None:
        """The one key that fits; without a key id, only where there is no choice."""
        fitting = [
            key
            for key in self._known
            if _fits(key, header.algorithm)
            and (header.key_id is None or key.get("kid") == header.key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None


def _is_time(value: object) -> bool:
    """A number of seconds that can be reckoned with: an integer may be too long for a double."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -TIME_S_MAX < value < TIME_S_MAX  # type: ignore[operator]


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kind, curves = _ALGORITHMS[algorithm]
    uses = key.get("key_ops", ["verify"])
    return (
        key.get("kty") == kind
        and (not curves or key.get("crv") in curves)
        and key.get("use", "sig") == "sig"
        and (isinstance(uses, list) and "verify" in uses)
        and key.get("alg", algorithm) == algorithm
    )


def _usable(jwks: object, algorithms: frozenset[str]) -> tuple[Mapping[str, Any], ...]:
    """The keys of a set that can verify; those of unknown kinds are left out (RFC 7517, 5).

    So are RSA keys that are too short: issuers keep old ones beside the new.

    :raises errors.ConfigError: no key set, no usable key, or a secret that can be guessed.
    """
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise errors.ConfigError(f"a JWK Set has a list of at most {KEYS_MAX} keys", source="keys")
    usable = tuple(
        key
        for key in keys
        if isinstance(key, Mapping)
        and any(_fits(key, name) for name in algorithms)
        and not (key["kty"] == "RSA" and len(_bytes(str(key.get("n")))) < MODULUS_BYTES_MIN)
    )
    for key in usable:
        if key["kty"] == "oct":
            # As many as the longest of the hashes that it may be used with.
            bytes_min = max(int(name[2:]) // 8 for name in algorithms if _fits(key, name))
            if len(_bytes(str(key.get("k")))) < bytes_min:
                raise errors.ConfigError(
                    f"an HMAC secret must have {bytes_min} bytes (RFC 7518, 3.2)", source="keys"
                )
    if not usable:
        raise errors.ConfigError("no key fits the algorithms", source="keys")
    return usable


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _header(token: object, algorithms: frozenset[str]) -> _Header:
    """The header, of which only ``alg`` and ``kid`` are believed, and those not yet."""
    if not isinstance(token, str) or len(token) > TOKEN_CHARS_MAX or not _COMPACT.fullmatch(token):
        raise _invalid()
    header = _object(_bytes(token.partition(".")[0]), _invalid())
    key_id, algorithm = header.get("kid"), header.get("alg")
    # RFC 7515 section 4.1.11: what is critical must be understood, and nothing is.
    if "crit" in header or not isinstance(key_id, str | None):
        raise _invalid()
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise _invalid()
    return _Header(algorithm, key_id)


def _object(data: bytes, otherwise: errors.Denied) -> dict[str, Any]:
    try:
        value = jsontext.decode_strict(data)
    except jsontext.JSONError:
        raise otherwise from None
    if not isinstance(value, dict):
        raise otherwise
    return value


def _claims(payload: bytes) -> dict[str, Any]:
    return _object(payload, _denied("token_claims", "the token's claims can not be read"))


def _verified(token: str, algorithm: str, key: Mapping[str, Any]) -> bytes:
    """The payload, once the signature has been checked (in constant time, by joserfc)."""
    try:
        from joserfc import jwk, jws  # noqa: PLC0415 (an extra)
        from joserfc.errors import JoseError  # noqa: PLC0415
    except ImportError:
        raise errors.TransportNotAvailableError(
            "tokens need the extra 'jwt': pip install 'sark_trio[jwt]'"
        ) from None
    signed, _, signature = token.rpartition(".")
    octets = _bytes(signature)
    # Bits that its last character does not use would give one token several spellings.
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != signature.encode():
        raise _invalid()
    try:
        # The algorithm's own object: the registry around it would read the header once more,
        # by rules of its own, and warn of "EdDSA", which issuers still write (RFC 9864).
        model = jws.JWSRegistry.algorithms[algorithm]
        loaded = jwk.import_key(dict(key))
        model.check_key(loaded)
        good = model.verify(signed.encode(), octets, loaded)
    except (JoseError, ValueError, TypeError, KeyError):
        raise _invalid() from None
    if good is not True:
        raise _invalid()
    return _bytes(signed.partition(".")[2])
