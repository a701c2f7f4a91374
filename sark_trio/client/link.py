"""The way to the gateway: where it is, our key for it, and the connections that lead there."""

from __future__ import annotations

from typing import final

from attrs import field, frozen

from sark_trio.client.modes import TransportMode, check_mode
from sark_trio.errors import ConfigError
from sark_trio.net.exchange import Exchange
from sark_trio.net.pool import ConnectionPool

__all__ = ["GatewayLink"]


@final
@frozen(kw_only=True)
class GatewayLink:
    """What every operation on the gateway shares. There is one in each client, URL or not.

    :param url: base URL, without a slash at its end; ``None``: the client has no gateway.
    :param api_key: for ``X-API-Key``; it goes to the URL's exact origin and nowhere else.
    :param mode: which kinds of transport may be used, for the gateway and for every server.
    :param pool: connections to the gateway, ``max_connections`` of them at most; the client runs
        it. Event streams lease with ``stream=True``, so that calls keep their share.
    :param exchange: one plain request and its whole answer over *pool*.
    """

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    mode: TransportMode = TransportMode.AUTO
    pool: ConnectionPool = field(repr=False)
    exchange: Exchange = field(repr=False)

    def check(self, kind: str, operation: str) -> None:
        """Let *operation* use a transport of *kind* (``http``, ``events``, ``stdio``, ...).

        :raises TransportNotAvailableError: the client's transport mode forbids it.
        """
        check_mode(self.mode, kind, operation)

    def base_url(self, operation: str) -> str:
        """The gateway's URL.

        :raises ConfigError: the client was given none; says what to do.
        """
        if self.url is None:
            raise ConfigError(
                f"{operation} asks the gateway, and this client has none: "
                "give it gateway_url='https://...'"
            )
        return self.url
