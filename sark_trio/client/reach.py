"""Where a server may be: anywhere, or on the public network only.

An operator knows where the servers are that the operator named. A URL from somewhere else (a
registry, a user, a model) may name this machine, the network behind it or the cloud's metadata
service, and make us ask there (SSRF). What is checked is the address that is connected to, so a
name that leads elsewhere the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from sark_trio.errors import ConfigError
from sark_trio.net.addresses import AddressCheck, public_only

__all__ = ["Addresses", "check_addresses", "check_of"]

#: ``any``: wherever the URL leads. ``public``: ``https`` or ``wss``, and public addresses only.
Addresses = Literal["any", "public"]


def check_addresses(server: Any, attribute: Any, value: str) -> None:
    """Validate the option, and that nothing else of *server* makes it mean nothing.

    :raises ConfigError: it is none, or names are resolved by somebody else.
    """
    if value not in get_args(Addresses):
        known = ", ".join(get_args(Addresses))
        raise ConfigError(f"{value!r} is not one of {known}", source=attribute.name)
    if value == "any":
        return
    for other in ("network", "pool"):
        if getattr(server, other, None) is not None:
            raise ConfigError(
                f"with {other} others resolve the name: no address can be checked here",
                source=attribute.name,
            )
    if not server.url.lower().startswith(("https:", "wss:")):
        raise ConfigError("a URL that is not trusted has to be https://", source=attribute.name)


def check_of(addresses: Addresses) -> AddressCheck | None:
    """What is asked about every address before it is connected to."""
    return public_only if addresses == "public" else None
