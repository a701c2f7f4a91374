"""TLS for connections to upstreams: always verified, TLS 1.2 or newer, one context per options.

A context costs 20-30 ms and 830 KB, so equal options share one, built when first needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import traceback
from typing import final

from attrs import field, frozen

from sark_trio.errors import TLSError

__all__ = ["TLSOptions", "close_orphan"]

#: Distinct options alive at once; each context weighs 830 KB.
_CONTEXTS_MAX = 64
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


def _pins(values: tuple[str, ...]) -> tuple[str, ...]:
    pins = tuple(value.replace(":", "").lower() for value in values)
    for pin in pins:
        if not _SHA256_HEX.fullmatch(pin):
            raise ValueError("a pin must be the SHA-256 of a certificate: 64 hexadecimal digits")
    return pins


@final
@frozen(kw_only=True)
class TLSOptions:
    """Whom to trust, and who we are. Verification cannot be switched off, here or elsewhere.

    Without ``ca_file`` and ``ca_data`` the trust store of OpenSSL is used, which honours
    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``; ``SSLKEYLOGFILE`` is not honoured.
    """

    #: PEM file with the only certificate authorities to trust.
    ca_file: str | None = None
    #: The same as text; both may be given.
    ca_data: str | None = field(default=None, repr=False)
    #: PEM file with our own certificate chain (mutual TLS).
    client_cert_file: str | None = None
    #: PEM file with its private key, where it is not in ``client_cert_file``.
    client_key_file: str | None = None
    #: SHA-256 (hex) of the server's certificate in DER; one of them must match. Empty: any.
    pins_sha256: tuple[str, ...] = field(default=(), converter=_pins)

    def __attrs_post_init__(self) -> None:
        if self.client_key_file is not None and self.client_cert_file is None:
            raise ValueError("client_key_file needs client_cert_file")

    def context(self) -> ssl.SSLContext:
        """The shared context of these options. Blocks for some 25 ms when first called.

        :raises TLSError: a file cannot be read, or does not hold what it should.
        """
        context = self.context_nowait()
        if context is None:
            try:
                context = _build(self)
            except (OSError, ValueError) as exc:
                raise TLSError(f"TLS options: {exc}") from exc
            while len(_contexts) >= _CONTEXTS_MAX:
                del _contexts[next(iter(_contexts))]
            _contexts[self] = context
        return context

    def context_nowait(self) -> ssl.SSLContext | None:
        """The shared context of these options, if it has been built."""
        return _contexts.get(self)

    def check_pin(self, certificate: bytes | None) -> None:
        """Check the server's certificate (DER) against the pins.

        :raises TLSError: there are pins, and none of them matches.
        """
        if not self.pins_sha256:
            return
        digest = hashlib.sha256(certificate or b"").hexdigest()
        if not any(hmac.compare_digest(digest, pin) for pin in self.pins_sha256):
            raise TLSError(f"the server's certificate (SHA-256 {digest}) matches no pin")


_contexts: dict[TLSOptions, ssl.SSLContext] = {}


def _build(options: TLSOptions) -> ssl.SSLContext:
    # Not ssl.create_default_context(): it would obey SSLKEYLOGFILE and write session keys.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, and checks the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if options.ca_file is None and options.ca_data is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=options.ca_file, cadata=options.ca_data)
    if options.client_cert_file is not None:
        # An encrypted key must fail, not ask on the terminal.
        context.load_cert_chain(options.client_cert_file, options.client_key_file, password="")
    return context


def close_orphan(error: BaseException) -> None:
    """Close the socket that ``wrap_socket`` made before it raised *error*.

    CPython moves the descriptor into its new object first, and leaves that to the garbage
    collector where it then finds the connection reset. Only the traceback still knows it.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        orphan = frame.f_locals.get("self")
        if isinstance(orphan, ssl.SSLSocket):
            orphan.close()
