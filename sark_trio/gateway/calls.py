"""The requests of one session that are under way, by their ids: each can be cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import anyio
from attrs import define, field

from sark_trio.gateway.refusals import INVALID_REQUEST, RpcRefused
from sark_trio.mcp.messages import RequestId

__all__ = ["Calls"]


@final
@define(eq=False)
class Calls:
    """What a client has asked and not been answered yet."""

    _scopes: dict[RequestId, anyio.CancelScope] = field(factory=dict, init=False)
    _ended: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def under_way(self, request_id: RequestId, scope: anyio.CancelScope) -> Iterator[None]:
        """The request is under way as long as the block lasts; cancelling it cancels *scope*.

        :raises RpcRefused: another one of this id is under way, or the session has ended.
        """
        if self._ended:
            raise RpcRefused(INVALID_REQUEST, "the session has ended", status=400)
        if request_id in self._scopes:
            raise RpcRefused(INVALID_REQUEST, "a request with this id is under way", status=400)
        self._scopes[request_id] = scope
        try:
            yield
        finally:
            del self._scopes[request_id]

    def on_cancelled(self, params: Mapping[str, Any]) -> None:
        """``notifications/cancelled``. One that names no request here is passed over."""
        key = params.get("requestId")
        # Exactly these types: to a dict True and 1.0 are the request 1, and a list is an error.
        if type(key) is int or type(key) is str:
            scope = self._scopes.get(key)
            if scope is not None:
                scope.cancel()

    def end(self) -> None:
        """Cancel all of them, and let nothing new begin."""
        self._ended = True
        for scope in self._scopes.values():
            scope.cancel()
