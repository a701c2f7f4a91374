"""One call over HTTP: its id, its body, its headers, and whether it may be sent again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

from attrs import define, field

from sark_trio.errors import InvalidArguments
from sark_trio.mcp.codec import encode_request
from sark_trio.mcp.headers import encode_value
from sark_trio.mcp.messages import RequestId
from sark_trio.transports._http_wire import Again, RawHeaders, Sending, encode_headers
from sark_trio.transports.base import Outgoing

__all__ = ["Call", "Identity", "may_resend", "mirrored_headers"]

# What a header can hold as it is, an encoded value included.
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@final
@define(frozen=True)
class Identity:
    """Who we are, and the ids that we have not used yet."""

    client_info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    ids: Iterator[int]


@final
@define(eq=False)
class Call(Sending):
    """The sending of one :class:`Outgoing` in an agreed version.

    Every body has an id of its own: no answer to the first can be taken for one to the second.
    """

    body: bytes = field(init=False)
    request_id: RequestId = field(init=False)
    _outgoing: Outgoing
    #: ``None`` for ``initialize``, which has no metadata and is never cancelled.
    _version: str | None
    _identity: Identity
    _told: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._renew()

    async def again(self, reason: Again) -> bool:
        """Whether it may be sent once more; under a new id, if so."""
        if reason != "not_sent":
            # What was refused for its credentials was not executed: that is safe for any call.
            safe = self._outgoing.replay_safe or reason != "stale_connection"
            if not (safe and await may_resend(self._outgoing, reason)):
                return False
        self._renew()
        return True

    def taken(self) -> None:
        """Say so once, however often it is sent."""
        if not self._told:
            self._told = True
            if self._outgoing.on_sent is not None:
                self._outgoing.on_sent()

    def _renew(self) -> None:
        outgoing = self._outgoing
        self.request_id = request_id = next(self._identity.ids)
        params = outgoing.params
        if self._version is not None:
            params = outgoing.params_in(
                self._version,
                request_id,
                client_info=self._identity.client_info,
                capabilities=self._identity.capabilities,
            )
        self.body = encode_request(request_id, outgoing.method, params)


async def may_resend(outgoing: Outgoing, reason: str) -> bool:
    """Ask the layer above, which forbids what it does not answer."""
    return outgoing.may_resend is not None and await outgoing.may_resend(reason)


def mirrored_headers(headers: tuple[tuple[str, str], ...]) -> RawHeaders:
    """``Mcp-Param-*`` headers as the wire has them; values that are not plain are encoded.

    :raises InvalidArguments: a header of another name.
    """
    for name, _ in headers:
        if not name.lower().startswith("mcp-param-"):
            raise InvalidArguments(f"header {name[:80]!r} does not mirror a parameter")
    return encode_headers(
        (name, value if _PLAIN.fullmatch(value) else encode_value(value)) for name, value in headers
    )
