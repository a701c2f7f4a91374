from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from joserfc import jwk, jws

from sark_trio import errors
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.principal import Principal
from sark_trio.machines.deadline import TIME_S_MAX

NOW = 1_800_000_000.0
SECRET = jwk.OctKey.generate_key(256)
LONG = jwk.OctKey.generate_key(512)
RSA = jwk.RSAKey.generate_key(2048)
EC = jwk.ECKey.generate_key("P-256")
ED = jwk.OKPKey.generate_key("Ed25519")


def public(key: Any, **members: Any) -> dict[str, Any]:
    private = isinstance(key, jwk.OctKey)
    return {**key.as_dict(private=private), **members}


def claims(**changes: Any) -> dict[str, Any]:
    found = {
        "sub": "alice",
        "iss": "https://issuer.example",
        "aud": "gateway",
        "exp": NOW + 60,
        "roles": ["analyst"],
        "tenant": "acme",
    }
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def token(key: Any = EC, algorithm: str = "ES256", body: Any = None, **header: Any) -> str:
    payload = body if isinstance(body, bytes) else json.dumps(body or claims()).encode()
    protected = {"alg": algorithm, **header}
    if algorithm != "EdDSA":
        return jws.serialize_compact(protected, payload, key, algorithms=[algorithm])
    signed = f"{_part(protected)}.{_encoded(payload)}"
    return f"{signed}.{_encoded(key.get_op_key('sign').sign(signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _part(value: Any) -> str:
    return _encoded(json.dumps(value).encode())


def _signed(**header: Any) -> str:
    """A token with a good signature, whatever its header says."""
    return _sealed(f"{_part({'alg': 'HS256', **header})}.{_part(claims())}")


def _sealed(signed: str) -> str:
    secret = base64.urlsafe_b64decode(SECRET.as_dict()["k"] + "==")
    return f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def verifier(*keys: dict[str, Any], **options: Any) -> TokenVerifier:
    defaults: dict[str, Any] = {
        "keys": {"keys": list(keys or (public(EC, kid="1"),))},
        "issuer": "https://issuer.example",
        "audience": "gateway",
        "algorithms": ["ES256"],
    }
    return TokenVerifier(**{**defaults, **options})


def reason(check: TokenVerifier, text: Any, now: float = NOW) -> str:
    with pytest.raises(errors.Denied) as caught:
        check.verify_nowait(text, now)
    if isinstance(text, str) and text:
        assert text not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.reason


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (SECRET, "HS256"),
        (LONG, "HS384"),
        (LONG, "HS512"),
        *[(RSA, f"{kind}{bits}") for kind in ("RS", "PS") for bits in (256, 384, 512)],
        (EC, "ES256"),
        (jwk.ECKey.generate_key("P-384"), "ES384"),
        (jwk.ECKey.generate_key("P-521"), "ES512"),
        (ED, "Ed25519"),
        (ED, "EdDSA"),
        (jwk.OKPKey.generate_key("Ed448"), "EdDSA"),
    ],
)
def test_a_good_token_is_a_principal(key: Any, algorithm: str) -> None:
    check = verifier(public(key, kid="1"), algorithms=[algorithm], keep_claims=["tenant"])
    text = token(key, algorithm, kid="1")
    who = Principal.from_token(text, check, now_wall=NOW)
    assert (who.id, who.roles, dict(who.claims)) == ("alice", ("analyst",), {"tenant": "acme"})
    assert trio.run(check.verify, text, NOW) == who
    assert who.credential_hash is not None
    assert text not in repr(who) + repr(check)
    other = check.verify_nowait(token(key, algorithm, claims(jti="x")), NOW)
    assert other.credential_hash != who.credential_hash


@pytest.mark.security(5)
def test_none_and_unlisted_algorithms_are_refused() -> None:
    for algorithm in ("none", "None", "NONE", "", None, 7, ["ES256"]):
        for signature in ("", "AA"):
            forged = f"{_part({'alg': algorithm})}.{_part(claims())}.{signature}"
            assert reason(verifier(), forged) == "token_invalid"
    assert reason(verifier(), token(SECRET, "HS256")) == "token_invalid"
    # Also where the key would fit, and the signature is good.
    check = verifier(public(RSA), algorithms=["RS256"])
    assert check.verify_nowait(token(RSA, "RS256"), NOW).id == "alice"
    for algorithm in ("PS256", "RS512"):
        assert reason(check, token(RSA, algorithm)) == "token_invalid"
    for algorithms in (["none"], [], ["HS1"]):
        with pytest.raises(ValueError, match="algorithms"):
            verifier(algorithms=algorithms)


@pytest.mark.security(5)
def test_a_public_key_is_no_secret() -> None:
    """Key confusion: an HMAC over the public key's text, with both algorithms allowed."""
    check = verifier(public(RSA), algorithms=["RS256", "HS256"])
    signed = f"{_part({'alg': 'HS256'})}.{_part(claims())}"
    for secret in (RSA.as_pem(private=False), json.dumps(public(RSA)).encode()):
        signature = hmac.digest(secret, signed.encode(), "sha256")
        assert reason(check, f"{signed}.{_encoded(signature)}") == "token_invalid"


def test_header_parameters_that_bring_a_key_are_not_looked_at() -> None:
    own = jwk.ECKey.generate_key("P-256")
    forged = token(own, jwk=own.as_dict(private=False))
    assert reason(verifier(), forged) == "token_invalid"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "..",
        "e30.e30.",
        "!!.e30.e30",
        "W10.e30.e30",
        "eyJhbGciOiJFUzI1NiIsImFsZyI6Im5vbmUifQ.e30.e30",
        "x" * 20_000,
        None,
        b"a.b.c",
    ],
)
def test_what_is_no_token_is_refused(text: Any) -> None:
    assert reason(verifier(), text) == "token_invalid"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no token", "the token is not valid"),
        (token(body=b"no json"), "the token's claims can not be read"),
    ],
)
def test_an_error_says_no_more_than_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(errors.Denied) as caught:
        verifier().verify_nowait(text, NOW)
    assert caught.value.message == words


def test_a_token_is_as_long_as_a_header_can_be() -> None:
    sizes = {}
    for more in range(12_000, 12_100):
        text = token(SECRET, "HS256", claims(filler="x" * more))
        sizes[len(text)] = text
    check = verifier(public(SECRET), algorithms=["HS256"])
    assert check.verify_nowait(sizes[16_384], NOW).id == "alice"
    assert reason(check, sizes[16_385]) == "token_invalid"


def test_headers_that_are_not_understood_are_refused() -> None:
    check = verifier(public(SECRET, kid="7"), algorithms=["HS256"])
    assert check.verify_nowait(_signed(), NOW).id == "alice"
    for header in ({"kid": 7}, {"kid": ["7"]}, {"crit": ["exp"], "exp": 1}, {"crit": []}):
        assert reason(check, _signed(**header)) == "token_invalid"


def test_a_signature_that_is_empty_or_no_base64_is_refused() -> None:
    head = token().rpartition(".")[0]
    hmac_head = token(SECRET, "HS256").rpartition(".")[0]
    for signature in ("", "!!", "A", "\u00e9"):
        assert reason(verifier(), f"{head}.{signature}") == "token_invalid"
        check = verifier(public(SECRET), algorithms=["HS256"])
        assert reason(check, f"{hmac_head}.{signature}") == "token_invalid"


def test_every_changed_character_of_a_signature_is_noticed() -> None:
    head, _, signature = token().rpartition(".")
    for at in range(0, len(signature) - 1, 7):
        other = "A" if signature[at] != "A" else "B"
        forged = f"{head}.{signature[:at]}{other}{signature[at + 1 :]}"
        assert reason(verifier(), forged) == "token_invalid"


def test_a_token_has_one_spelling() -> None:
    """Padding, other alphabets and unused bits: none may give one token a second hash."""
    head, _, signature = token(SECRET, "HS256").rpartition(".")
    check = verifier(public(SECRET), algorithms=["HS256"])
    assert check.verify_nowait(f"{head}.{signature}", NOW).id == "alice"
    # 32 bytes are 43 characters, the last of which holds four bits and two unused ones.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(signature[-1]) + 1]
    protected, _, payload = head.partition(".")
    for other in (
        f"{head}.{signature[:-1]}{twin}",
        f"{head}.{signature}=",
        f"{head}.{signature}\n",
        f"{head}.{signature[:9]} {signature[9:]}",
        f"{protected}=.{payload}.{signature}",
    ):
        assert reason(check, other) == "token_invalid"


def test_what_was_signed_in_another_form_is_no_token() -> None:
    """RFC 7515, sections 2 and 3.1: a good signature makes it none."""
    head, body = _part({"alg": "HS256"}), _part(claims())
    check = verifier(public(SECRET), algorithms=["HS256"])
    assert check.verify_nowait(_sealed(f"{head}.{body}"), NOW).id == "alice"
    padded = base64.urlsafe_b64encode(b'{"alg": "HS256" }').decode()
    assert padded.endswith("=")
    for signed in (f"{padded}.{body}", f"{head}.{body}=", f"{head}.{body}.", f"{head}.{body} "):
        assert reason(check, _sealed(signed)) == "token_invalid"


@pytest.mark.security(5)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": NOW - 30}, "token_expired"),
        ({"exp": None}, "token_expired"),
        ({"exp": "never"}, "token_claims"),
        ({"exp": True}, "token_claims"),
        ({"exp": 10**400}, "token_claims"),  # no double holds it
        ({"exp": TIME_S_MAX}, "token_claims"),
        ({"nbf": 10**400}, "token_claims"),
        ({"nbf": -TIME_S_MAX}, "token_claims"),
        ({"iat": -(10**400)}, "token_claims"),
        ({"nbf": NOW + 31}, "token_not_yet_valid"),
        ({"iat": NOW + 31}, "token_not_yet_valid"),
        ({"iss": "https://issuer.example/"}, "token_issuer"),
        ({"iss": None}, "token_issuer"),
        ({"aud": "other"}, "token_audience"),
        ({"aud": ["other", "gateway2"]}, "token_audience"),
        ({"aud": None}, "token_audience"),
        ({"sub": None}, "token_claims"),
        ({"roles": 7}, "token_claims"),
    ],
)
def test_claims_are_checked(changes: dict[str, Any], expected: str) -> None:
    assert reason(verifier(), token(body=claims(**changes))) == expected


def test_a_principal_lasts_as_long_as_its_token() -> None:
    check, text = verifier(leeway_s=10), token(EC, "ES256", claims(exp=NOW + 5), kid="1")
    expires_at = check.verify_nowait(text, NOW).expires_at
    assert expires_at == NOW + 15
    assert check.verify_nowait(text, expires_at - 0.001).id == "alice"
    assert reason(check, text, expires_at) == "token_expired"


@pytest.mark.security(5)
def test_the_leeway_is_exact() -> None:
    check = verifier(leeway_s=10)
    text = token(body=claims(exp=NOW, nbf=NOW - 60))
    assert check.verify_nowait(text, NOW + 9.9).id == "alice"
    assert reason(check, text, NOW + 10) == "token_expired"
    assert check.verify_nowait(text, NOW - 70).id == "alice"
    assert reason(check, text, NOW - 70.1) == "token_not_yet_valid"
    with pytest.raises(ValueError, match="leeway_s"):
        verifier(leeway_s=61)


def test_one_of_several_audiences_is_enough() -> None:
    text = token(body=claims(aud=["a", "gateway"]))
    assert verifier().verify_nowait(text, NOW).id == "alice"


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"sub":"a","sub":"b"}', b"\xff"])
def test_claims_that_can_not_be_read(body: bytes) -> None:
    assert reason(verifier(), token(body=body)) == "token_claims"


def test_which_key() -> None:
    other = jwk.ECKey.generate_key("P-256")
    two = verifier(public(EC, kid="1"), public(other, kid="2"))
    assert two.verify_nowait(token(kid="1"), NOW).id == "alice"
    assert reason(two, token(kid="2")) == "token_invalid"
    assert reason(two, token(kid="3")) == "token_invalid"
    assert reason(two, token()) == "token_invalid"  # which of the two?
    for members in (
        {"use": "enc"},
        {"alg": "ES384"},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
    ):
        with pytest.raises(errors.ConfigError, match="no key fits"):
            verifier(public(EC, **members))


def test_a_key_of_an_unknown_shape_costs_no_other() -> None:
    strange = {"kty": "EC", "crv": [], "kid": ["1"], "x": 1, "y": {}}
    good = public(EC, kid="1", key_ops=["verify"])
    assert verifier(strange, good).verify_nowait(token(kid="1"), NOW).id == "alice"


def test_the_algorithm_chooses_among_keys_of_several_types() -> None:
    check = verifier(public(RSA), public(EC), public(ED), algorithms=["RS256", "ES256", "EdDSA"])
    for key, algorithm in ((RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")):
        assert check.verify_nowait(token(key, algorithm), NOW).id == "alice"


def test_a_set_has_a_hundred_keys_at_most() -> None:
    keys = [public(EC, kid=str(number)) for number in range(100)]
    assert verifier(*keys).verify_nowait(token(kid="99"), NOW).id == "alice"
    with pytest.raises(errors.ConfigError, match="at most 100 keys"):
        verifier(*keys, keys[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"leeway_s": -1},
        {"leeway_s": 61},
        {"refetch_interval_s": 0},
        {"keys_age_max_s": 0},
    ],
)
def test_options_that_can_not_be_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        verifier(**wrong)
    verifier(leeway_s=0, refetch_interval_s=0.1, keys_age_max_s=0.1)
    verifier(leeway_s=60)


def test_a_verifier_shows_no_key() -> None:
    check = verifier(public(SECRET), algorithms=["HS256"])
    assert SECRET.as_dict()["k"] not in repr(check)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"keys": "x"},
        {"keys": []},
        {"keys": [7]},
        {"keys": [{}] * 101},
        {"keys": [{"kty": "oct", "k": "c2hvcnQ"}]},
        {"keys": [{"kty": "oct", "k": "!"}]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0" * 6 + "!!!!"}]},
        7,
    ],
)
def test_a_bad_key_set_is_a_wrong_configuration(keys: Any) -> None:
    with pytest.raises(errors.ConfigError):
        verifier(keys=keys, algorithms=["HS256"])


def test_a_secret_is_as_long_as_the_longest_hash_that_it_is_used_with() -> None:
    """RFC 7518, section 3.2."""
    for algorithms, bits in ((["HS256"], 256), (["HS384"], 384), (["HS256", "HS512"], 512)):
        enough = public(jwk.OctKey.generate_key(bits))
        assert verifier(enough, algorithms=algorithms).algorithms == frozenset(algorithms)
        short = public(jwk.OctKey.generate_key(bits - 8))
        with pytest.raises(errors.ConfigError, match=f"must have {bits // 8} bytes"):
            verifier(short, algorithms=algorithms)
    # Its own "alg" says which one it is used with.
    verifier(public(SECRET, alg="HS256"), algorithms=["HS256", "HS512"])


def test_a_key_that_can_not_be_loaded_verifies_nothing() -> None:
    broken = verifier({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})
    assert reason(broken, token()) == "token_invalid"


class Issuer:
    """A key set that changes, and counts how often it was asked for."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return {"keys": answer}


def verify(check: TokenVerifier, text: str, now: float) -> str:
    try:
        return trio.run(check.verify, text, now).id
    except errors.Denied as denied:
        return denied.reason


def test_an_unknown_key_id_causes_one_fetch_per_interval() -> None:
    later = token(kid="2", body=claims(exp=NOW + 9_000))
    issuer = Issuer([public(EC, kid="1")], [public(EC, kid="2")])
    check = verifier(keys=issuer)
    assert reason(check, later) == "token_invalid"  # no key at hand yet
    assert verify(check, token(kid="1"), NOW) == "alice"
    assert verify(check, token(kid="1"), NOW) == "alice"
    assert issuer.asked == 1
    for second in range(29):
        assert verify(check, later, NOW + second) == "token_invalid"
    assert issuer.asked == 1
    assert verify(check, later, NOW + 30) == "alice"
    assert issuer.asked == 2


def test_keys_grow_old_and_an_outage_then_denies() -> None:
    text = token(kid="1", body=claims(exp=NOW + 9_000))
    issuer = Issuer([public(EC, kid="1")], OSError(), [public(EC, kid="1")])
    check = verifier(keys=issuer)
    assert verify(check, text, NOW) == "alice"
    assert verify(check, text, NOW + 3_599) == "alice"
    assert verify(check, text, NOW + 3_600) == "keys_unavailable"
    assert verify(check, text, NOW + 3_601) == "alice"
    assert issuer.asked == 3


def test_a_clock_that_was_set_back_makes_no_key_younger() -> None:
    text = token(kid="1", body=claims(exp=NOW + 9_000))
    issuer = Issuer([public(EC, kid="1")])
    check = verifier(keys=issuer)
    assert verify(check, text, NOW) == "alice"
    assert verify(check, text, NOW - 100) == "alice"
    assert issuer.asked == 2
    assert verify(check, text, NOW - 100) == "alice"
    assert issuer.asked == 2


def test_keys_are_fresh_at_the_moment_of_their_fetch() -> None:
    """Also where the clock was set back to it, after a later fetch that failed."""
    issuer = Issuer([public(EC, kid="1")], OSError())
    check = verifier(keys=issuer)
    later = token(kid="2", body=claims(exp=NOW + 99))
    for text, now in ((token(kid="1"), NOW), (later, NOW + 40)):
        verify(check, text, now)
    assert issuer.asked == 2
    assert verify(check, token(kid="1"), NOW) == "alice"
    assert issuer.asked == 2


def test_an_outage_for_an_unknown_key_leaves_the_known_ones() -> None:
    issuer = Issuer([public(EC, kid="1")], OSError())
    check = verifier(keys=issuer)
    assert verify(check, token(kid="1"), NOW) == "alice"
    assert verify(check, token(kid="2", body=claims(exp=NOW + 99)), NOW + 40) == "token_invalid"
    assert verify(check, token(kid="1"), NOW + 41) == "alice"
    assert issuer.asked == 2


def test_no_keys_yet_is_asked_again_and_cancellation_passes() -> None:
    issuer = Issuer(OSError(), KeyboardInterrupt(), [public(EC, kid="1")])
    check = verifier(keys=issuer)
    assert verify(check, token(kid="1"), NOW) == "keys_unavailable"
    with pytest.raises(KeyboardInterrupt):
        verify(check, token(kid="1"), NOW)
    assert verify(check, token(kid="1"), NOW) == "alice"


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(errors.TransportNotAvailableError, match=r"sark_trio\[jwt\]"):
        verifier().verify_nowait(token(), NOW)
    # Where no key fits there is nothing to compute.
    assert reason(verifier(), token(kid="2")) == "token_invalid"


@pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")
def test_an_rsa_key_that_is_too_short_is_no_key() -> None:
    short = jwk.RSAKey.generate_key(1024)
    with pytest.raises(errors.ConfigError, match="no key fits"):
        verifier(public(short, kid="old"), algorithms=["RS256"])
    both = verifier(public(short, kid="old"), public(RSA, kid="new"), algorithms=["RS256"])
    assert reason(both, token(short, "RS256", kid="old")) == "token_invalid"
    assert both.verify_nowait(token(RSA, "RS256", kid="new"), NOW).id == "alice"


def in_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    """Run *main*; what would wait for ever fails at once."""

    async def bounded() -> None:
        with trio.fail_after(60):
            await main()

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


def test_how_long_old_keys_outlive_a_fetch_that_hangs_is_exact() -> None:
    """The longest: *keys_age_max_s* and *refetch_interval_s* together."""
    asked = 0

    async def fetch() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await trio.sleep_forever()
        return {"keys": [public(EC, kid="1")]}

    async def main() -> None:
        check = verifier(keys=fetch, keys_age_max_s=20, refetch_interval_s=5)
        assert (await check.verify(token(), NOW)).id == "alice"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check.verify, token(), NOW + 22)
            await trio.testing.wait_all_tasks_blocked()
            assert (await check.verify(token(), NOW + 24.9)).id == "alice"
            with pytest.raises(errors.Denied) as caught:
                await check.verify(token(), NOW + 25)
            assert caught.value.reason == "keys_unavailable"
            nursery.cancel_scope.cancel()

    in_virtual_time(main)


def test_old_keys_do_not_outlive_a_fetch_that_hangs() -> None:
    fetches = 0

    async def fetch() -> dict[str, Any]:
        nonlocal fetches
        fetches += 1
        if fetches > 1:
            await trio.sleep_forever()
        return {"keys": [public(EC, kid="1")]}

    async def main() -> None:
        check = verifier(keys=fetch, keys_age_max_s=20, refetch_interval_s=5)
        text = token()
        assert (await check.verify(text, NOW)).id == "alice"
        async with trio.open_nursery() as nursery:
            for at in (20, 26):  # each hangs
                nursery.start_soon(check.verify, text, NOW + at)
                await trio.testing.wait_all_tasks_blocked()
                if at == 20:
                    assert (await check.verify(text, NOW + 24)).id == "alice"
            with pytest.raises(errors.Denied) as caught:
                await check.verify(text, NOW + 27)
            assert caught.value.reason == "keys_unavailable"
            nursery.cancel_scope.cancel()
        assert fetches == 3

    in_virtual_time(main)
