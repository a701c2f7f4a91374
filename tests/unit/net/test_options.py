"""Options of connections are checked when they are made; what they check is pure."""

from __future__ import annotations

import gzip
import ipaddress
import math
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from sark_trio.errors import MessageTooLarge, ProtocolError, TLSError
from sark_trio.net import tls as tls_module
from sark_trio.net.addresses import public_only
from sark_trio.net.decoding import GzipDecoder, decoder_for
from sark_trio.net.options import Timeouts
from sark_trio.net.tls import TLSOptions


@pytest.mark.security(25)
@pytest.mark.parametrize("name", ["connect_s", "pool_s", "write_s", "read_s", "exchange_s"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_no_timeout_is_none_or_for_ever(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: value})


@pytest.mark.security(8)
@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
def test_addresses_that_are_not_public_are_refused_in_any_dress(text: str) -> None:
    with pytest.raises(ValueError, match="not a public address"):
        public_only(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_pass(text: str) -> None:
    public_only(ipaddress.ip_address(text))


@pytest.mark.security(24)
def test_equal_options_share_one_context_which_always_verifies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    data = trustme.CA().cert_pem.bytes().decode()
    assert TLSOptions(ca_data=data).context_nowait() is None
    context = TLSOptions(ca_data=data).context()
    assert TLSOptions(ca_data=data).context() is context
    assert TLSOptions(ca_data=data).context_nowait() is context
    for each in (context, TLSOptions().context()):
        assert each.verify_mode is ssl.CERT_REQUIRED
        assert each.check_hostname
        assert each.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert each.keylog_filename is None
    assert TLSOptions().context() is not context
    assert "BEGIN" not in repr(TLSOptions(ca_data=data))


def test_the_number_of_contexts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "_CONTEXTS_MAX", 2)
    monkeypatch.setattr(tls_module, "_contexts", {})
    data = trustme.CA().cert_pem.bytes().decode()
    several = [TLSOptions(ca_data=data, pins_sha256=(f"{n:064x}",)) for n in range(3)]
    for each in several:
        each.context()
    assert [each.context_nowait() is None for each in several] == [True, False, False]


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="client_cert_file"):
        TLSOptions(client_key_file="key.pem")
    with pytest.raises(ValueError, match="SHA-256"):
        TLSOptions(pins_sha256=("abc",))
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    wrong: list[dict[str, Any]] = [
        {"ca_file": str(tmp_path / "missing.pem")},
        {"ca_file": str(empty)},
        {"ca_data": "garbage"},
        {"client_cert_file": str(empty)},
    ]
    for options in wrong:
        with pytest.raises(TLSError) as caught:
            TLSOptions(**options).context()
        assert caught.value.delivery == "not_sent"


def test_a_client_certificate_is_loaded_and_an_encrypted_key_does_not_ask(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("client.example")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    TLSOptions(client_cert_file=str(chain), client_key_file=str(key)).context()
    with pytest.raises(TLSError):
        TLSOptions(client_cert_file=str(chain)).context()


def test_pins_are_compared_whatever_their_spelling() -> None:
    import hashlib

    digest = hashlib.sha256(b"der").hexdigest()
    spelled = ":".join(digest[n : n + 2] for n in range(0, 64, 2)).upper()
    TLSOptions(pins_sha256=("0" * 64, spelled)).check_pin(b"der")
    TLSOptions().check_pin(None)
    for certificate in (b"other", None):
        with pytest.raises(TLSError):
            TLSOptions(pins_sha256=(digest,)).check_pin(certificate)


def test_codings_that_we_did_not_ask_for_are_refused() -> None:
    assert decoder_for(None) is None
    assert decoder_for(" Identity ") is None
    assert isinstance(decoder_for("GZIP"), GzipDecoder)
    for coding in ("br", "deflate", "gzip, gzip", "zstd"):
        with pytest.raises(ProtocolError):
            decoder_for(coding)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_gzip_is_decoded_in_any_pieces_and_never_past_the_limit(size: int) -> None:
    plain = b"some text, " * 200
    data = gzip.compress(plain)
    pieces = [data[n : n + size] for n in range(0, len(data), size)]
    decoder = GzipDecoder()
    assert b"".join(decoder.decode(piece, len(plain)) for piece in pieces) == plain
    decoder.finish()
    with pytest.raises(ProtocolError):
        decoder.decode(b"more", 10)
    small = GzipDecoder()
    with pytest.raises(MessageTooLarge):
        small.decode(data, len(plain) - 1)
    cut = GzipDecoder()
    cut.decode(data[:-1], len(plain))
    with pytest.raises(ProtocolError):
        cut.finish()
    with pytest.raises(ProtocolError):
        GzipDecoder().decode(data + b"x", len(plain))
    with pytest.raises(ProtocolError):
        GzipDecoder().decode(b"not gzip", 10)
