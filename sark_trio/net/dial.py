"""From an origin to a connection: TCP, TLS, pin; or one typed error, and nothing left open."""

from __future__ import annotations

import ssl

import anyio
import anyio.to_thread
import httpcore

from sark_trio.errors import ConnectError, ConnectTimeout, TLSError
from sark_trio.net.connection import Connection
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import SocketStream
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import Origin

__all__ = ["close_stream", "dial"]

#: A foreign stream's ``aclose`` may wait; ours does not.
_CLOSE_S = 1.0


async def dial(
    origin: Origin, backend: httpcore.AsyncNetworkBackend, tls: TLSOptions, timeouts: Timeouts
) -> Connection:
    """Open a connection to *origin*.

    :raises ConnectTimeout: it took longer than ``timeouts.connect_s``.
    :raises TLSError: the handshake failed, or the peer is not who it should be.
    :raises ConnectError: any other failure. Nothing was sent.
    """
    deadline = anyio.current_time() + timeouts.connect_s
    stream: httpcore.AsyncNetworkStream | None = None
    try:
        stream = await backend.connect_tcp(origin.host, origin.port, timeout=timeouts.connect_s)
        if origin.is_tls:
            context = tls.context_nowait()
            if context is None:  # some 25 ms, once per options: not on the event loop
                context = await anyio.to_thread.run_sync(tls.context)
            left = max(0.0, deadline - anyio.current_time())
            stream = await stream.start_tls(context, server_hostname=origin.host, timeout=left)
            tls.check_pin(stream.get_extra_info("ssl_object").getpeercert(binary_form=True))
    except BaseException as exc:
        if stream is not None:
            await close_stream(stream)
        if isinstance(exc, httpcore.ConnectTimeout):
            raise ConnectTimeout(
                f"{origin}: no connection within {timeouts.connect_s:g} s"
            ) from None
        if isinstance(exc, httpcore.NetworkError):
            raise _refusal(origin, exc) from exc
        raise
    return Connection(stream, timeouts)


async def close_stream(stream: httpcore.AsyncNetworkStream) -> None:
    """Close *stream*: ours at once, any other within a second, cancelled or not."""
    if isinstance(stream, SocketStream):
        stream.close()
        return
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSE_S):
        await stream.aclose()


def _refusal(origin: Origin, exc: Exception) -> ConnectError:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"{origin}: certificate refused: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return TLSError(f"{origin}: TLS handshake failed: {cause.reason or cause}")
    return ConnectError(f"{origin}: {exc}")
