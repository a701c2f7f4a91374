"""From a host name to the few addresses worth trying, in the order to try them.

The gate against server-side request forgery stands here: it sees every address that the name
resolved to, and what is connected to is one of the addresses that it saw, so a name cannot
point elsewhere between check and use (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from itertools import chain, zip_longest

import anyio
import httpcore
from attrs import frozen

from sark_trio.errors import ConnectError

__all__ = ["Address", "AddressCheck", "IPAddress", "public_only", "resolve"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Raises ``ValueError`` with the reason why no connection may be made to that address.
AddressCheck = Callable[[IPAddress], None]

#: No honest service needs more; a thousand records would cost a thousand attempts.
ADDRESSES_MAX = 16
# RFC 6052: IPv4 addresses in NAT64's clothes reach IPv4 hosts.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@frozen
class Address:
    """One address to connect to."""

    ip: IPAddress
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family that this address needs."""
        return socket.AF_INET if self.ip.version == 4 else socket.AF_INET6


def public_only(ip: IPAddress) -> None:
    """An :data:`AddressCheck` that lets only globally reachable unicast addresses pass.

    :raises ValueError: loopback, private, link-local (cloud metadata), shared (CGNAT),
        multicast, unspecified or reserved, also when dressed as IPv4-mapped, 6to4 or NAT64.
    """
    inner: IPAddress | None = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if inner is not None:
        public_only(inner)
    elif not ip.is_global or ip.is_multicast or ip.is_reserved:
        raise ValueError(f"{ip} is not a public address")


async def resolve(host: str, port: int, check: AddressCheck | None) -> list[Address]:
    """At most :data:`ADDRESSES_MAX` addresses of *host*, families alternating (RFC 8305, 4).

    :raises httpcore.ConnectError: the name does not resolve.
    :raises ConnectError: *check* refused one of the addresses. A name that resolves to an
        allowed and a forbidden address is refused as a whole: that is how rebinding looks.
    """
    try:
        addresses = [Address(ipaddress.ip_address(host), port)]
    except ValueError:
        addresses = await _look_up(host, port)
    if check is not None:
        for address in addresses:
            try:
                check(address.ip)
            except ValueError as exc:
                raise ConnectError(f"{host}: address refused: {exc}") from exc
    first = addresses[0].family
    same = [address for address in addresses if address.family == first]
    other = [address for address in addresses if address.family != first]
    turns = chain.from_iterable(zip_longest(same, other))
    return [address for address in turns if address is not None][:ADDRESSES_MAX]


async def _look_up(host: str, port: int) -> list[Address]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore.ConnectError(f"name does not resolve: {exc}") from exc
    # A dict keeps the resolver's order and drops repetitions; %scope is not part of an address.
    ips = (ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found)
    addresses = list(dict.fromkeys(Address(ip, port) for ip in ips))
    if not addresses:
        raise httpcore.ConnectError("name has no addresses")
    return addresses
