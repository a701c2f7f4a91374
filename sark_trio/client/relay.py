"""A call that is made for somebody else, who has a client of their own: what a gateway does.

Whatever a server wants beside the call (input of a person, a model's words, roots) is theirs to
give, and never this application's. They are told as they came: nothing is filled in here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

from attrs import field, frozen

from sark_trio.client.handlers import Handlers
from sark_trio.errors import RemoteError
from sark_trio.mcp.asking import ELICIT, ROOTS, SAMPLE
from sark_trio.mcp.faults import INVALID_PARAMS, METHOD_NOT_FOUND, remote_error
from sark_trio.mcp.messages import InputRequired
from sark_trio.mcp.meta import LogLevel
from sark_trio.mcp.progress import LogMessage, Progress
from sark_trio.mcp.tasks import EXTENSION, Task

__all__ = ["Ask", "Relay", "Unfinished", "callers_answer"]

#: Hands a request of the server's to whoever the call is made for: method and parameters. Its
#: result; raises :class:`~sark_trio.errors.RemoteError` for the error that it is answered with.
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

#: The capability that each request of a server's needs.
_NEEDS: Final[Mapping[str, str]] = {ELICIT: "elicitation", SAMPLE: "sampling", ROOTS: "roots"}


@final
@frozen(kw_only=True)
class Relay:
    """Whoever a call is made for.

    :param offers: their capabilities (``ClientCapabilities``).
    :param ask: asks them; ``None``: they cannot be asked while the call goes on.
    :param takes_questions: they read ``input_required`` and tasks themselves, as clients do since
        2026-07-28: such an answer is handed to them, and they come again.
    :param answers: what they bring when they do: ``inputResponses``, and ``requestState``, which
        is nobody's but the server's.
    :param on_progress: told the progress of the call; synchronous, must not block.
    :param on_log: told the server's log messages of the call; synchronous, must not block.
    :param log_level: least severe of them to ask for (since 2026-07-28).
    """

    offers: Mapping[str, Any] = field(factory=dict)
    ask: Ask | None = field(default=None, repr=False)
    takes_questions: bool = False
    answers: Mapping[str, Any] = field(factory=dict, repr=False)
    on_progress: Callable[[Progress], None] | None = field(default=None, repr=False)
    on_log: Callable[[LogMessage], None] | None = field(default=None, repr=False)
    log_level: LogLevel | None = None

    def capabilities(self, *, modern: bool) -> dict[str, Any]:  # noqa: ARG002 - as of Handlers
        """What is offered with a request that is made for them."""
        return dict(self.offers)

    @property
    def tasks(self) -> bool:
        """Whether a call may become a task."""
        extensions = self.offers.get("extensions")
        return isinstance(extensions, Mapping) and EXTENSION in extensions

    @property
    def can_be_asked(self) -> bool:
        """Whether they offer anything that a server could ask for."""
        return any(name in self.offers for name in _NEEDS.values())

    async def answer(self, _server: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a request of the server's.

        :raises RemoteError: the JSON-RPC error that it deserves instead.
        """
        missing = self._missing(method, params)
        if self.ask is None or missing is not None:
            code = INVALID_PARAMS if missing and "." in missing else METHOD_NOT_FOUND
            text = f"this client does not offer {missing or 'answers'}"
            raise remote_error(code, text, delivery="answered")
        return dict(await self.ask(method, params))

    def _missing(self, method: str, params: Mapping[str, Any]) -> str | None:
        """The capability that they lack for the request (2026-07-28, "Client Capabilities")."""
        needed = _NEEDS.get(method)
        offer = self.offers.get(needed) if needed is not None else None
        if not isinstance(offer, Mapping):
            return needed or "that method"
        if method == ELICIT and params.get("mode") == "url" and "url" not in offer:
            return "elicitation.url"
        # An empty object stands for forms: revisions before 2025-11-25 knew nothing else.
        if method == ELICIT and params.get("mode", "form") == "form" and set(offer) == {"url"}:
            return "elicitation.form"
        if method == SAMPLE and params.get("tools") and "tools" not in offer:
            return "sampling.tools"
        return None


@final
@frozen
class Unfinished:
    """What a server answered instead of a result, for whoever the call is made for."""

    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, answer: InputRequired | Task, shown: Mapping[str, Any]) -> Unfinished:
        """*answer* as policy lets it be *shown*, and its state as it came."""
        if isinstance(answer, Task):
            return cls(shown)
        state = {} if answer.request_state is None else {"requestState": answer.request_state}
        return cls({**shown, **state})

    @staticmethod
    def shown(answer: InputRequired | Task) -> dict[str, Any]:
        """The members of *answer* that somebody is to see: all but its state."""
        if isinstance(answer, Task):
            return dict(answer.raw)
        return {"resultType": "input_required", "inputRequests": dict(answer.input_requests)}


def callers_answer() -> Handlers:
    """Handlers of a client that makes all its calls for others.

    Legacy servers are told once, when they are connected, what may be asked for: all of it. What
    then comes with a call is for whoever that call is made for; what comes with none is refused.
    """

    async def refuse(_: object = None) -> Any:
        raise _nobody()

    return Handlers(elicit=refuse, visit=refuse, sample=refuse, sample_tools=True, roots=refuse)


def _nobody() -> RemoteError:
    text = "this came with no call that anybody made"
    return remote_error(METHOD_NOT_FOUND, text, delivery="answered")
