"""Requests that are no tool calls, each a plan for one governed call.

What policy is shown as the arguments are the parameters of the request, and what it lets through
is sent. It may take things away (an argument of a prompt, say), but what a request is about is
nothing that can be taken away or masked: then the request is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, final

from attrs import field, frozen

from sark_trio.client.plans import Asked, Composed, Plan
from sark_trio.client.upstream import Upstream
from sark_trio.errors import Denied, InvalidArguments
from sark_trio.governance.query import (
    COMPLETE,
    PROMPT_GET,
    RESOURCE_READ,
    TASK_CANCEL,
    TASK_GET,
    TASK_UPDATE,
    Query,
)
from sark_trio.machines.caching import ttl_of
from sark_trio.machines.retry import Safety
from sark_trio.mcp.prompts import Completion, PromptResult, parse_completion, parse_prompt_result
from sark_trio.mcp.resources import ResourceResult, parse_resource_result
from sark_trio.mcp.tasks import Task, parse_task

__all__ = [
    "Wanted",
    "cancel_task",
    "complete",
    "get_prompt",
    "get_task",
    "nothing",
    "read_resource",
    "update_task",
]

T_co = TypeVar("T_co", covariant=True)


@final
@frozen(kw_only=True)
class Wanted(Asked[T_co], Generic[T_co]):
    """One request that is no tool call.

    :param action: what policy is asked about.
    :param what: what is asked for, for messages.
    :param subject: the members of *params* that say what it is about.
    :param parse: reads the result.
    """

    action: str
    what: str
    params: Mapping[str, Any] = field(repr=False)
    subject: tuple[str, ...] = ()
    parse: Callable[[Mapping[str, Any]], T_co]
    safety: Safety = Safety.SAFE
    kept_s: Callable[[Mapping[str, Any]], float | None] | None = None

    async def plan(self, upstream: Upstream) -> Plan[T_co]:
        """See :meth:`Asked.plan`. The server is not asked beforehand."""
        return Plan(
            query=Query(
                principal=self.principal,
                action=self.action,
                server=upstream.name,
                arguments=dict(self.params),
                sensitivity=upstream.server.sensitivity,
                context=dict(self.context),
            ),
            compose=self._compose,
            parse=self.parse,
            safety=self.safety,
            kept_s=self.kept_s,
        )

    def _compose(self, arguments: Mapping[str, Any]) -> Composed:
        for member in self.subject:
            if arguments.get(member) != self.params[member]:
                # It would be another request than the one that was decided on.
                raise Denied(f"policy takes away what {self.what} is", reason="subject_changed")
        return dict(arguments), ()


def read_resource(uri: str, **common: Any) -> Wanted[ResourceResult]:
    """``resources/read`` (MCP 2026-07-28, "Reading Resources")."""
    return Wanted(
        method="resources/read",
        action=RESOURCE_READ,
        what=f"resource {uri!r:.200}",
        params={"uri": _named("uri", uri)},
        subject=("uri",),
        parse=parse_resource_result,
        kept_s=_ttl_s,
        **common,
    )


def get_prompt(
    name: str, arguments: Mapping[str, str] | None, **common: Any
) -> Wanted[PromptResult]:
    """``prompts/get`` (MCP 2026-07-28, "Getting a Prompt")."""
    given = dict(arguments or {})
    for key, value in given.items():
        if type(key) is not str or type(value) is not str:
            raise InvalidArguments(f"prompt {name!r}: arguments of prompts are strings")
    params: dict[str, Any] = {"name": _named("name", name)}
    if given:
        params["arguments"] = given
    return Wanted(
        method="prompts/get",
        action=PROMPT_GET,
        what=f"prompt {name!r:.200}",
        params=params,
        subject=("name",),
        parse=parse_prompt_result,
        **common,
    )


def complete(
    ref: Mapping[str, str],
    argument: str,
    value: str,
    given: Mapping[str, str] | None,
    **common: Any,
) -> Wanted[Completion]:
    """``completion/complete`` (MCP 2026-07-28, "Completion")."""
    params: dict[str, Any] = {
        "ref": dict(ref),
        "argument": {"name": _named("argument", argument), "value": value},
    }
    if given:
        params["context"] = {"arguments": dict(given)}
    return Wanted(
        method="completion/complete",
        action=COMPLETE,
        what=f"completion of {argument!r:.200}",
        params=params,
        subject=("ref", "argument"),
        parse=parse_completion,
        **common,
    )


def get_task(task_id: str, **common: Any) -> Wanted[Task]:
    """``tasks/get`` (extension ``io.modelcontextprotocol/tasks``; 2025-11-25, "Tasks")."""
    return _of_task("tasks/get", TASK_GET, task_id, {}, parse_task, common)


def update_task(task_id: str, answers: Mapping[str, Any], **common: Any) -> Wanted[None]:
    """``tasks/update`` of the extension: what a task waits for."""
    more = {"inputResponses": dict(answers)}
    return _of_task("tasks/update", TASK_UPDATE, task_id, more, nothing, common)


def cancel_task(task_id: str, **common: Any) -> Wanted[None]:
    """``tasks/cancel`` (extension; 2025-11-25, "Cancelling Tasks")."""
    return _of_task("tasks/cancel", TASK_CANCEL, task_id, {}, nothing, common)


def nothing(_result: Mapping[str, Any]) -> None:
    """The result says no more than that it is done."""


def _of_task(
    method: str,
    action: str,
    task_id: str,
    more: Mapping[str, Any],
    parse: Callable[[Mapping[str, Any]], Any],
    common: Mapping[str, Any],
) -> Wanted[Any]:
    return Wanted(
        method=method,
        action=action,
        what=f"task {task_id!r:.200}",
        params={"taskId": _named("task_id", task_id), **more},
        subject=("taskId", *more),
        parse=parse,
        **common,
    )


def _named(what: str, value: object) -> str:
    if type(value) is not str or not value:
        raise InvalidArguments(f"{what} must be a string that is not empty")
    return value


def _ttl_s(result: Mapping[str, Any]) -> float | None:
    """2026-07-28, "Caching": what does not say for how long it is current is not kept."""
    return ttl_of(result.get("ttlMs")) or None
