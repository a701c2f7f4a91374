"""Whoever asks for something: who they are, what they offer, and how they are told meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

from attrs import define, field, frozen

from sark_trio import Principal, Progress
from sark_trio.client.relay import Ask, Relay
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused
from sark_trio.mcp.codec import encode_notification
from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.meta import (
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    LOG_LEVELS,
    PROGRESS_TOKEN,
    LogLevel,
)
from sark_trio.mcp.progress import LOG, PROGRESS, LogMessage

__all__ = ["Logger", "Put", "Tell", "Teller", "Visitor", "checked_level", "meta_of"]

#: Puts one message before the answer, if there is room; whether there was.
Tell = Callable[[bytes], bool]
#: ... and waits for room.
Put = Callable[[bytes], Awaitable[None]]

_ANSWERS: Final = ("inputResponses", "requestState")
#: What a legacy client may offer to servers that ask it; the rest is between it and its server.
_ASKED_FOR: Final = ("elicitation", "sampling", "roots")


@final
@define(eq=False)
class Teller:
    """Tells progress under the token that the caller chose, and only if it moved forward."""

    _token: RequestId
    _tell: Tell
    _last: float = field(default=float("-inf"), init=False)

    def __call__(self, progress: Progress) -> None:
        """Tell *progress*. It is superseded by later progress: what has no room is left out."""
        # A second attempt at a call begins anew; the caller has seen more already.
        if progress.progress <= self._last:
            return
        self._last = progress.progress
        params: dict[str, Any] = {"progressToken": self._token, "progress": progress.progress}
        if progress.total is not None:
            params["total"] = progress.total
        if progress.message is not None:
            params["message"] = progress.message
        self._tell(encode_notification(PROGRESS, params))


@final
@frozen
class Logger:
    """Tells log messages of a call that are severe enough."""

    _least: LogLevel
    _tell: Tell

    def __call__(self, message: LogMessage) -> None:
        """Tell *message*; where there is no room it is left out."""
        if LOG_LEVELS.index(message.level) < LOG_LEVELS.index(self._least):
            return
        params: dict[str, Any] = {"level": message.level, "data": message.data}
        if message.logger is not None:
            params["logger"] = message.logger
        self._tell(encode_notification(LOG, params))


@final
@frozen(kw_only=True)
class Visitor:
    """Whoever asks.

    :param modern: they speak 2026-07-28, else an earlier revision.
    :param offers: their capabilities.
    :param log_level: least severe log message that they want of their calls; ``None``: none.
    :param tell: tells them something before the answer; ``None``: they take nothing but that.
    :param put: as *tell*, for what must not be left out.
    :param ask: asks them something before the answer (until 2025-11-25).
    :param tasks: their calls can be made as tasks (2025-11-25).
    """

    principal: Principal | None
    modern: bool
    offers: Mapping[str, Any] = field(factory=dict)
    log_level: LogLevel | None = None
    tell: Tell | None = field(default=None, repr=False)
    put: Put | None = field(default=None, repr=False)
    ask: Ask | None = field(default=None, repr=False)
    tasks: bool = False

    def relay(self, params: Mapping[str, Any]) -> Relay:
        """Them, as the client makes a request with *params* for them.

        :raises RpcRefused: what they bring are no answers.
        """
        tell, token = self.tell, _progress_token(params)
        level = self.log_level if tell is not None else None
        offers = self.offers
        if not self.modern:
            offers = {key: offers[key] for key in _ASKED_FOR if key in offers}
        return Relay(
            offers=offers,
            ask=self.ask,
            takes_questions=self.modern,
            answers=_answers(params) if self.modern else {},
            on_progress=None if tell is None or token is None else Teller(token, tell),
            on_log=None if tell is None or level is None else Logger(level, tell),
            log_level=level,
        )

    @staticmethod
    def offers_in(params: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a modern request says that its client can do."""
        offers = meta_of(params).get(CLIENT_CAPABILITIES)
        return offers if isinstance(offers, Mapping) else {}

    @staticmethod
    def level_in(params: Mapping[str, Any]) -> LogLevel | None:
        """The log messages that a modern request asks for (2026-07-28, "Logging").

        :raises RpcRefused: there is no such level.
        """
        level = meta_of(params).get(LOG_LEVEL)
        return None if level is None else checked_level(level)


def checked_level(level: Any) -> LogLevel:
    """*level*, if it is one.

    :raises RpcRefused: it is none.
    """
    found = next((one for one in LOG_LEVELS if one == level), None)
    if found is None:
        raise RpcRefused(INVALID_PARAMS, f"the level must be one of {', '.join(LOG_LEVELS)}")
    return found


def meta_of(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``_meta`` of a request."""
    meta = params.get("_meta")
    return meta if isinstance(meta, Mapping) else {}


def _progress_token(params: Mapping[str, Any]) -> RequestId | None:
    """The token that progress is wanted under, if it is (2026-07-28, "Progress")."""
    token = meta_of(params).get(PROGRESS_TOKEN)
    return token if type(token) is int or type(token) is str else None


def _answers(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a client brings that comes again; what the server remembers is not looked at."""
    answers = {key: params[key] for key in _ANSWERS if key in params}
    if not isinstance(answers.get("inputResponses", {}), Mapping):
        raise RpcRefused(INVALID_PARAMS, "'inputResponses' must be an object")
    if type(answers.get("requestState", "")) is not str:
        raise RpcRefused(INVALID_PARAMS, "'requestState' must be a string")
    return answers
