"""Making the requests of other people's clients: what a gateway is built on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property, partial
from typing import Any, Final

from attrs import evolve, frozen

from sark_trio.client import requests
from sark_trio.client.asked import ToolCall
from sark_trio.client.chapters.offers import OfferChapter
from sark_trio.client.held import HeldCalls
from sark_trio.client.plans import Asked
from sark_trio.client.relay import Relay
from sark_trio.client.upstream import Upstream
from sark_trio.errors import InvalidArguments
from sark_trio.governance.principal import Principal
from sark_trio.mcp.headers import ParamHeader
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.rounds import ASKING_METHODS

__all__ = ["Forwarding"]


@frozen
class _Plain:
    """A result that is only handed on."""

    raw: Mapping[str, Any]


class Forwarding(OfferChapter):
    """Requests that come from elsewhere, made as they came, and answered as they are."""

    @cached_property
    def _held(self) -> HeldCalls:
        """Calls that wait for a client to come again."""
        return HeldCalls()

    @property
    def configured(self) -> tuple[str, ...]:
        """The names of the servers that are configured here."""
        return tuple(self._engine.upstreams)

    async def mirrored(self, server_name: str, tool_name: str) -> tuple[ParamHeader, ...]:
        """The arguments that a tool wants in headers, too (2026-07-28, "Custom Headers").

        :raises UnknownTool: the server has no such tool.
        :raises GatewayError: the server could not be asked.
        """
        upstream, _ = await self._reach(server_name, None)
        return (await upstream.catalogue.tool(tool_name)).param_headers

    async def agreed(self, server_name: str) -> Agreed:
        """What was agreed with a server; connects to it where that has not happened yet.

        :raises GatewayError: it cannot be connected to.
        """
        upstream, timeout_s = await self._reach(server_name, None)
        return (await self._agree(upstream, timeout_s))[0]

    async def run_beside(
        self, server_name: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run *work*, which must not raise, until it ends, or the server or the client is closed.

        Calls that it makes then are ended as all calls are; the rest is cancelled.

        :raises UnknownServer: there is no server of that name.
        :raises GatewayError: it is closed.
        """
        upstream, _ = await self._reach(server_name, None)
        upstream.spawn(work)

    async def forward(
        self,
        server_name: str,
        method: str,
        params: Mapping[str, Any],
        *,
        relay: Relay,
        principal: Principal | None = None,
        timeout_s: float | None = None,
        context: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """Make a request of somebody else's client: governed as every call, answered in full.

        The result is the server's, as far as policy lets it be seen, with every member that it
        has. For a *relay* that takes questions it may be an ``input_required`` result, which is
        to be brought the answers to (MCP 2026-07-28, "Multi Round-Trip Requests"), or a task;
        also where the server is of an earlier revision, and asks in the middle of the call.

        :param method: ``tools/call``, ``prompts/get``, ``resources/read``,
            ``completion/complete``, ``tasks/get``, ``tasks/update`` or ``tasks/cancel``.
        :param params: as they came; members that are not of the method are left out.
        :raises InvalidArguments: there is no such method here, or *params* are not its own.
        :raises GatewayError: as :meth:`invoke_tool`.
        """
        make = _ASKED.get(method)
        if make is None:
            raise InvalidArguments(f"{method!r:.80} cannot be forwarded")
        common = {
            **self._common(principal, timeout_s, context),
            "traceparent": traceparent,
            "log_level": relay.log_level,
        }
        asked = make(params, common)
        upstream, timeout_s = await self._reach(server_name, timeout_s)
        may_ask = method in ASKING_METHODS and relay.takes_questions and relay.can_be_asked
        agreed = None
        if may_ask:
            agreed, timeout_s = await self._agree(upstream, timeout_s)
        call = partial(self._forward, upstream, evolve(asked, timeout_s=timeout_s))
        if agreed is None or agreed.modern:
            return await call(relay)
        about = (upstream.name, asked.principal, method, asked.what, _own(params))
        return await self._held.make(upstream, about, relay, call)

    async def _forward(self, upstream: Upstream, asked: Asked[Any], relay: Relay) -> dict[str, Any]:
        whole = evolve(asked, relay=relay, on_progress=relay.on_progress, on_log=relay.on_log)
        result = await self._caller.invoke(upstream, whole)
        return dict(result.raw)


def _own(params: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same in every round (2026-07-28, "Multi Round-Trip Requests")."""
    return {key: params[key] for key in ("name", "uri", "arguments") if key in params}


def _tool(params: Mapping[str, Any], common: Mapping[str, Any]) -> Asked[Any]:
    arguments = _object(params, "arguments")
    return ToolCall(tool=_string(params, "name"), arguments=arguments, **common)


def _prompt(params: Mapping[str, Any], common: Mapping[str, Any]) -> Asked[Any]:
    return requests.get_prompt(_string(params, "name"), _object(params, "arguments"), **common)


def _resource(params: Mapping[str, Any], common: Mapping[str, Any]) -> Asked[Any]:
    return requests.read_resource(_string(params, "uri"), **common)


def _completion(params: Mapping[str, Any], common: Mapping[str, Any]) -> Asked[Any]:
    ref, argument = _object(params, "ref"), _object(params, "argument")
    key = {"ref/prompt": "name", "ref/resource": "uri"}.get(str(ref.get("type")))
    if key is None:
        raise InvalidArguments("'ref' is of a prompt or of a resource")
    named = {"type": ref["type"], key: _string(ref, key)}
    given = _object(_object(params, "context"), "arguments")
    name, value = _string(argument, "name"), _string(argument, "value")
    return _handed_on(requests.complete(named, name, value, given, **common))


def _task(
    make: Callable[..., requests.Wanted[Any]], params: Mapping[str, Any], common: Mapping[str, Any]
) -> Asked[Any]:
    return _handed_on(make(_string(params, "taskId"), **common))


def _task_update(params: Mapping[str, Any], common: Mapping[str, Any]) -> Asked[Any]:
    answers = _object(params, "inputResponses")
    return _handed_on(requests.update_task(_string(params, "taskId"), answers, **common))


def _handed_on(asked: requests.Wanted[Any]) -> Asked[Any]:
    """*asked*, whose result is looked at and handed on as it came."""
    parse = asked.parse

    def check(result: Mapping[str, Any]) -> _Plain:
        parse(result)
        return _Plain(result)

    return evolve(asked, parse=check)


_ASKED: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Asked[Any]]]] = {
    "tools/call": _tool,
    "prompts/get": _prompt,
    "resources/read": _resource,
    "completion/complete": _completion,
    "tasks/get": partial(_task, requests.get_task),
    "tasks/update": _task_update,
    "tasks/cancel": partial(_task, requests.cancel_task),
}


def _string(params: Mapping[str, Any], key: str) -> str:
    value = params.get(key)
    if type(value) is not str:
        raise InvalidArguments(f"{key!r} must be a string")
    return value


def _object(params: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = params.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArguments(f"{key!r} must be an object")
    return value
