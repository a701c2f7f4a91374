"""MCP over a WebSocket: JSON-RPC, one message to a text frame, subprotocol ``mcp``.

No revision of MCP defines it; this is what the SDKs do that have it. Eras are found out as on
any other stream of messages (``server/discover``, then ``initialize``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import httpcore
from attrs import Attribute, define, field

from sark_trio.machines.checks import positive
from sark_trio.net.headers import can_be_sent
from sark_trio.net.options import Timeouts
from sark_trio.net.streams import AnyIOBackend
from sark_trio.net.tls import TLSOptions
from sark_trio.net.url import ServerURL, parse_url
from sark_trio.transports._websocket_pipe import Upgrade
from sark_trio.transports.reconnecting import ReconnectingTransport
from sark_trio.transports.websocket_talk import WebSocketTalk

__all__ = ["WebSocketTransport"]

_SCHEMES: Final = {"ws": "http", "wss": "https"}
#: Headers that the handshake sets itself: a second one would contradict it (RFC 6455, 4.1).
_OWN: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})


def _url(text: str) -> ServerURL:
    scheme, colon, rest = text.partition(":")
    if scheme.lower() not in _SCHEMES:
        raise ValueError("a WebSocket URL must begin with ws:// or wss://")
    return parse_url(_SCHEMES[scheme.lower()] + colon + rest)


def _headers(value: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(value)


@final
@define(eq=False, repr=False)
class WebSocketTransport(ReconnectingTransport):
    """Speak MCP with a server on a WebSocket.

    :param url: ``ws://`` or ``wss://``.
    :param headers: sent with the opening handshake, to the URL's exact origin and nowhere else.
        There is no ``Origin`` among them by itself: we are no page of anybody's.
    :param tls: whom to trust.
    :param timeouts: ``connect_s`` for TCP, TLS and opening handshake together, ``write_s``.
    :param backend: where network streams come from; sockets by default.
    :param ping_interval_s: how often the server is asked whether it is there.
    :param pong_timeout_s: after this long without an answer it is not.
    :raises ValueError: a bad URL, header or limit.
    """

    kind = "websocket"

    url: ServerURL = field(converter=_url)
    headers: tuple[tuple[str, str], ...] = field(
        default=(), kw_only=True, repr=False, converter=_headers
    )
    tls: TLSOptions | None = field(default=None, kw_only=True)
    timeouts: Timeouts | None = field(default=None, kw_only=True)
    backend: httpcore.AsyncNetworkBackend | None = field(default=None, kw_only=True)
    ping_interval_s: float = field(default=20.0, kw_only=True, validator=positive)
    pong_timeout_s: float = field(default=20.0, kw_only=True, validator=positive)

    @headers.validator
    def _check_headers(self, _: Attribute[object], value: tuple[tuple[str, str], ...]) -> None:
        for name, text in value:
            if name.lower() in _OWN or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"header {name!r} is set by the transport itself")
            if not can_be_sent(name, text):
                raise ValueError(f"header {name[:80]!a} cannot be sent as it is")

    @property
    def _peer(self) -> str:
        origin = self.url.origin  # without path and query: they may hold a secret
        return f"{'wss' if origin.is_tls else 'ws'}://{origin.authority}"

    def _conversation(self) -> WebSocketTalk:
        headers = tuple((name.encode("ascii"), text.encode("ascii")) for name, text in self.headers)
        return WebSocketTalk(
            name=self._peer,
            calls=self._calls,
            tally=self._tally,
            client_info=self.client_info,
            capabilities=self.capabilities,
            message_bytes_max=self.message_bytes_max,
            on_event=self.on_event,
            on_request=self.on_request,
            upgrade=Upgrade(
                url=self.url, headers=headers, message_bytes_max=self.message_bytes_max
            ),
            tls=self.tls or TLSOptions(),
            timeouts=self.timeouts or Timeouts(),
            backend=self.backend or AnyIOBackend(),
            ping_interval_s=self.ping_interval_s,
            pong_timeout_s=self.pong_timeout_s,
        )
