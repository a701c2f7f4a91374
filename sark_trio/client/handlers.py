"""What an application does for servers that ask: fill in forms, visit pages, sample, show roots.

A server may ask while it works on a call (MCP 2026-07-28, "Multi Round-Trip Requests"), or, until
2025-11-25, at any time. We offer exactly what there is a handler for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, final

from attrs import evolve, field, fields, frozen

from sark_trio.errors import ConfigError, GatewayError, InvalidArguments, ProtocolError, RemoteError
from sark_trio.mcp.asking import (
    ELICIT,
    ROOTS,
    SAMPLE,
    Elicitation,
    Root,
    Sampling,
    UrlElicitation,
    elicit_result,
    parse_elicitation,
    parse_sampling,
    roots_result,
    sampling_result,
)
from sark_trio.mcp.faults import INVALID_PARAMS, METHOD_NOT_FOUND, HandlerFailed, remote_error
from sark_trio.mcp.messages import Notification
from sark_trio.mcp.progress import LOG, LogMessage, parse_log_message
from sark_trio.mcp.tasks import EXTENSION

__all__ = ["Handlers"]

Answer = Mapping[str, Any] | Literal["accept", "decline", "cancel"]
Place = Root | str | PathLike[str]
Places = Sequence[Place] | Callable[[], Awaitable[Sequence[Place]]]

#: 2025-11-25, "Sampling", Error Handling: the user said no.
_REJECTED: Final = -1


def _check_callable(_: object, attribute: Any, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(f"handlers.{attribute.name} must be an async function")


@final
@frozen(kw_only=True)
class Handlers:
    """Each of them is optional; none may outlive the call that it is asked for.

    :param elicit: fills in a form: its content, or ``"decline"`` or ``"cancel"``; ``"accept"``
        takes all defaults. Fields that are left out get their defaults; what breaks the form's
        schema is not sent.
    :param visit: sends a person to a page: ``"accept"`` when the person agreed to go there. Also
        asked where a server of 2025-11-25 refuses a call until a page was visited; the call is
        then made again once the server says that it was.
    :param sample: has a model answer: a ``CreateMessageResult`` (``model``, ``content``, maybe
        ``stopReason``); ``None`` declines.
    :param sample_tools: *sample* can let the model use the tools of the request.
    :param roots: directories and files that servers may work in, or a function that says so.
    :param tasks: let servers answer a tool call with a task, which is followed to its end within
        the call's deadline.
    :param log: told, with the server's name, log messages that belong to no call of whoever
        listens. Synchronous; must not block.
    """

    elicit: Callable[[Elicitation], Awaitable[Answer]] | None = field(
        default=None, validator=_check_callable
    )
    visit: Callable[[UrlElicitation], Awaitable[Answer]] | None = field(
        default=None, validator=_check_callable
    )
    sample: Callable[[Sampling], Awaitable[Mapping[str, Any] | None]] | None = field(
        default=None, validator=_check_callable
    )
    sample_tools: bool = False
    roots: Places | None = None
    tasks: bool = False
    log: Callable[[str, LogMessage], None] | None = field(default=None, validator=_check_callable)

    def __bool__(self) -> bool:
        return self != _NO_HANDLERS

    @property
    def hears(self) -> bool:
        """Whether there is anything that a server may say to us unasked."""
        return bool(self.capabilities(modern=False)) or self.log is not None

    def over(self, below: Handlers) -> Handlers:
        """These, and *below* where there is none here; what is on in either is on."""
        own = {one.name: getattr(self, one.name) for one in fields(Handlers)}
        return evolve(below, **{name: value for name, value in own.items() if value})

    def capabilities(self, *, modern: bool) -> dict[str, Any]:
        """What we say we can do (``ClientCapabilities``).

        :param modern: of a request; else of ``initialize``, which knows no extensions.
        """
        offered: dict[str, Any] = {}
        modes = {"form": self.elicit, "url": self.visit}
        if self.elicit is not None or self.visit is not None:
            offered["elicitation"] = {mode: {} for mode, handler in modes.items() if handler}
        if self.sample is not None:
            offered["sampling"] = {"tools": {}} if self.sample_tools else {}
        if self.roots is not None:
            offered["roots"] = {}
        if self.tasks and modern:
            offered["extensions"] = {EXTENSION: {}}
        return offered

    def hear(self, server: str, notification: Notification) -> None:
        """What *server* said that belongs to no call."""
        if self.log is not None and notification.method == LOG:
            line = parse_log_message(notification.params)
            if line is not None:
                self.log(server, line)

    async def answer(self, server: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a request of *server*'s.

        :raises RemoteError: the JSON-RPC error that it deserves instead.
        :raises HandlerFailed: the handler failed, or answered what cannot be sent.
        """
        try:
            return await self._answer(server, method, params)
        except (RemoteError, HandlerFailed):
            raise
        except ProtocolError as exc:
            raise remote_error(INVALID_PARAMS, exc.message, delivery="answered") from exc
        except InvalidArguments as exc:
            raise HandlerFailed(f"{server}: {method}: {exc.message}", server=server) from exc
        except GatewayError:
            raise
        except Exception as exc:
            what = f"{server}: the handler of {method} failed: {type(exc).__name__}"
            raise HandlerFailed(what, server=server) from exc

    async def _answer(self, server: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        match method:
            case "elicitation/create" if self.elicit is not None or self.visit is not None:
                return await self._elicit(parse_elicitation(params, server=server))
            case "sampling/createMessage" if self.sample is not None:
                return await self._sample(self.sample, parse_sampling(params, server=server))
            case "roots/list" if self.roots is not None:
                places = self.roots if not callable(self.roots) else await self.roots()
                return roots_result([_root(place) for place in places])
        known = method in {ELICIT, SAMPLE, ROOTS}
        what = "was given no handler for it" if known else "offers no such method"
        raise remote_error(METHOD_NOT_FOUND, f"this client {what}", delivery="answered")

    async def _elicit(self, asked: Elicitation | UrlElicitation) -> dict[str, Any]:
        if isinstance(asked, Elicitation) and self.elicit is not None:
            return elicit_result(asked, await self.elicit(asked))
        if isinstance(asked, UrlElicitation) and self.visit is not None:
            return elicit_result(asked, await self.visit(asked))
        text = "this client declared no such mode of elicitation"
        raise remote_error(INVALID_PARAMS, text, delivery="answered")

    async def _sample(
        self, sample: Callable[[Sampling], Awaitable[Mapping[str, Any] | None]], asked: Sampling
    ) -> dict[str, Any]:
        if asked.tools and not self.sample_tools:
            text = "this client declared no use of tools in sampling"
            raise remote_error(INVALID_PARAMS, text, delivery="answered")
        answer = await sample(asked)
        if answer is None:
            text = "User rejected sampling request"
            raise remote_error(_REJECTED, text, delivery="answered")
        return sampling_result(answer)


_NO_HANDLERS = Handlers()


def _root(place: Place) -> Root:
    if isinstance(place, Root):
        return place
    text = str(place) if isinstance(place, str) else None
    if text is not None and text.startswith("file://"):
        return Root(text)
    path = Path(place).resolve()
    return Root(path.as_uri(), path.name or None)
