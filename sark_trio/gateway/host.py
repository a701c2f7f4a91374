"""The client at the other end of a session (until 2025-11-25): what it said, and what it is asked.

Those revisions tell once, in ``initialize``, what the client can do, and let it set how much it
wants to hear and which resources it watches for as long as the session lives. Over HTTP it hears
what belongs to no request on the stream that a GET opens, and on stdio at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio import Principal
from sark_trio.errors import GatewayError
from sark_trio.gateway.hearing import Hearing, Say
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.refusals import INVALID_PARAMS, RpcRefused, no_method, no_resource
from sark_trio.gateway.rpc import Made
from sark_trio.gateway.visitor import Tell, Visitor, checked_level
from sark_trio.mcp.asking import ELICIT
from sark_trio.mcp.changes import Interest
from sark_trio.mcp.codec import encode_notification, encode_request
from sark_trio.mcp.faults import INTERNAL_ERROR, remote_error
from sark_trio.mcp.messages import Failure, Request, RequestId, Success
from sark_trio.mcp.meta import LogLevel

__all__ = ["Host"]

#: Questions that wait for the client's answer; each may hold a person's attention.
ASKED_MAX: Final = 64
#: Resources that one session watches; each holds a subscription at its server.
WATCHED_MAX: Final = 100
#: Before a subscription that was lost is made again.
AGAIN_S: Final = 30.0
#: What is told of calls where the client said nothing about it ("Logging": the server decides).
LEVEL: Final[LogLevel] = "info"

_LISTS: Final = Interest(tools_list=True, prompts_list=True, resources_list=True)


@final
@define(eq=False)
class _Question:
    answered: anyio.Event = field(factory=anyio.Event, init=False)
    answer: Success | Failure | None = field(default=None, init=False)


@final
@define(eq=False)
class Host:
    """One client, for as long as its session lives.

    :param offers: its capabilities.
    """

    offers: Mapping[str, Any] = field(factory=dict)
    log_level: LogLevel = LEVEL
    _asked: int = field(default=0, init=False)
    _questions: dict[RequestId, _Question] = field(factory=dict, init=False)
    _watched: dict[str, None] = field(factory=dict, init=False)
    _moved: anyio.Event = field(factory=anyio.Event, init=False)

    @staticmethod
    def offers_in(params: Mapping[str, Any]) -> Mapping[str, Any]:
        """What ``initialize`` says that its client can do."""
        offers = params.get("capabilities")
        return offers if isinstance(offers, Mapping) else {}

    # -- questions ----------------------------------------------------------------------------

    async def ask(self, tell: Tell, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the client, beside a request of its own; its answer.

        :raises RemoteError: it answers with an error, or cannot be asked.
        """
        self._asked += 1
        key, question = f"ask-{self._asked}", _Question()
        if method == ELICIT and params.get("mode") == "url":
            # Of 2025-11-25 alone, which demands it; servers of later revisions have none.
            params = {"elicitationId": key, **params}
        full = len(self._questions) >= ASKED_MAX
        if full or not tell(encode_request(key, method, params)):
            raise remote_error(INTERNAL_ERROR, "the client takes no more", delivery="answered")
        self._questions[key] = question
        try:
            await question.answered.wait()
        except BaseException:
            tell(encode_notification("notifications/cancelled", {"requestId": key}))
            raise
        finally:
            del self._questions[key]
        answer = question.answer
        if isinstance(answer, Success):
            return answer.result
        assert answer is not None
        raise remote_error(answer.code, answer.message, answer.data, delivery="answered")

    def on_answer(self, message: Success | Failure) -> None:
        """The client answered something; what it was not asked is passed over."""
        question = None if message.id is None else self._questions.get(message.id)
        if question is not None and question.answer is None:
            question.answer = message
            question.answered.set()

    # -- what it wants to hear of -------------------------------------------------------------

    def made_by(self, methods: Methods, call: Request) -> Made | None:
        """What makes the result of a request that changes what the client hears."""
        match call.method:
            case "logging/setLevel":
                return partial(self._set_level, methods, call)
            case "resources/subscribe":
                return partial(self._watch, methods, call)
            case "resources/unsubscribe":
                return partial(self._unwatch, call)
        return None

    async def _set_level(self, methods: Methods, call: Request, visitor: Visitor) -> dict[str, Any]:
        level = checked_level(call.params.get("level"))
        await methods.set_level(level, visitor)
        self.log_level = level
        return {}

    async def _unwatch(self, call: Request, _: Visitor) -> dict[str, Any]:
        self._watched.pop(_uri(call), None)
        self._moved.set()
        return {}

    async def _watch(self, methods: Methods, call: Request, visitor: Visitor) -> dict[str, Any]:
        uri = _uri(call)
        found = methods.roof.whose_uri(uri)
        if found is None:
            raise no_resource(uri, modern=False)
        server, own = found
        offer = (await methods.roof.client.agreed(server)).capabilities.get("resources")
        if not isinstance(offer, Mapping) or offer.get("subscribe") is not True:
            raise no_method()
        if len(self._watched) >= WATCHED_MAX:
            raise RpcRefused(INVALID_PARAMS, f"more than {WATCHED_MAX} resources are watched")
        subscription = methods.roof.client.subscribe(
            server, resources=own, principal=visitor.principal
        )
        await subscription.allow()
        self._watched[uri] = None
        self._moved.set()
        return {}

    async def listen(self, methods: Methods, principal: Principal | None, say: Say) -> None:
        """Tell what changes, until cancelled; what is not there is looked for again."""
        hear = partial(self._hear, methods, principal, say)
        running: dict[str, anyio.CancelScope] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear, _LISTS, anyio.CancelScope())
            while True:
                self._follow(running, tasks, hear)
                self._moved = anyio.Event()
                await self._moved.wait()

    def _follow(self, running: dict[str, anyio.CancelScope], tasks: TaskGroup, hear: Any) -> None:
        """Begin to hear of what is newly watched, and leave what is not any more."""
        for uri in [uri for uri in running if uri not in self._watched]:
            running.pop(uri).cancel()
        for uri in self._watched:
            if uri not in running:
                scope = running[uri] = anyio.CancelScope()
                tasks.start_soon(hear, Interest(resources=uri), scope)

    @staticmethod
    async def _hear(
        methods: Methods,
        principal: Principal | None,
        say: Say,
        interest: Interest,
        scope: anyio.CancelScope,
    ) -> None:
        with scope:
            while True:
                with suppress(GatewayError):  # a session has no way to be told
                    await Hearing(methods.roof, interest, principal, say).run(_nothing)
                await anyio.sleep(AGAIN_S)


async def _nothing() -> None:
    """Sessions have nothing to acknowledge."""


def _uri(call: Request) -> str:
    uri = call.params.get("uri")
    if type(uri) is not str or not uri:
        raise RpcRefused(INVALID_PARAMS, "'uri' must be a string")
    return uri
