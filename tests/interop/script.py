"""The one script of operations that every server goes through, by the public API alone.

An operation returns where it worked, and raises where not. Those of :data:`OPERATIONS` are run
in their order, over one client, which answers whatever a server asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from attrs import define, field, frozen

from sark_trio import (
    AllowAll,
    Elicitation,
    GatewayClient,
    Handlers,
    Progress,
    Sampling,
    Server,
    UrlElicitation,
)
from sark_trio.mcp.messages import Agreed
from sark_trio.telemetry.events import Event
from tests.interop.plans import Call, Plan

__all__ = ["LIMIT_S", "OPERATIONS", "PEER", "Heard", "Operation", "Run", "open_client"]

PEER: Final = "peer"
#: Long enough for a loaded machine, and for servers that tell of changes in an interval.
LIMIT_S: Final = 30.0
ROOT: Final = "/srv/interop"
ANSWERS: Final[Mapping[str, Any]] = {"string": "Ada", "boolean": True, "integer": 7, "number": 7.0}


@define(eq=False)
class Heard:
    """What a client was told apart from answers."""

    #: The server logged something, within a call or apart from all.
    logged: anyio.Event = field(factory=anyio.Event)
    #: The server's process is gone.
    ended: anyio.Event = field(factory=anyio.Event)

    def happened(self, event: Event) -> None:
        """A hook."""
        if event.name == "process.exited":
            self.ended.set()


@frozen(kw_only=True)
class Run:
    """One server under test, and a client of it."""

    client: GatewayClient
    agreed: Agreed
    plan: Plan
    #: Ends the server and starts it again, as an operator would.
    restart: Callable[[], Awaitable[None]]
    heard: Heard

    async def call(self, call: Call, **options: Any) -> str:
        """Make *call*; what it said, if that was right."""
        result = await self.client.invoke_tool(PEER, call.tool, call.arguments, **options)
        assert not result.is_error, result.text
        assert call.says in result.text, result.text
        return result.text

    def advertises(self, *path: str) -> bool:
        """Whether the server says that it has this capability."""
        found: Any = self.agreed.capabilities
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found is not None and found is not False


async def fill_in(asked: Elicitation) -> dict[str, Any]:
    """Something for each field that has no default."""
    fields = asked.raw["requestedSchema"]["properties"]
    return {name: _value(each) for name, each in fields.items() if "default" not in each}


def _value(schema: Mapping[str, Any]) -> Any:
    if schema["type"] == "array":
        return [_value({"type": "string", **schema["items"]})]
    choices = schema.get("oneOf", schema.get("anyOf", []))
    if values := [*schema.get("enum", []), *(one["const"] for one in choices)]:
        return values[0]
    formats = {"email": "ada@example.org", "uri": "https://example.org", "date": "1843-09-05"}
    return formats.get(schema.get("format", ""), ANSWERS[schema["type"]])


async def visit(asked: UrlElicitation) -> str:
    return "accept"


async def sample(asked: Sampling) -> dict[str, Any]:
    return {"model": "none", "content": {"type": "text", "text": "the model says so"}}


def open_client(server: Server, folder: Path, heard: Heard) -> GatewayClient:
    """A client that answers everything, and notes in *heard* what it is told."""
    return GatewayClient(
        servers={PEER: server},
        policy=AllowAll(),
        audit=folder,
        hooks=[heard.happened],
        handlers=Handlers(
            elicit=fill_in,
            visit=visit,
            sample=sample,
            roots=[ROOT],
            log=lambda _server, _line: heard.logged.set(),
        ),
    )


# -- the operations -----------------------------------------------------------------------------


async def connect(run: Run) -> None:
    assert run.agreed.server_info["name"]
    await run.client.ping(PEER)


async def list_tools(run: Run) -> None:
    names = [tool.tool_name for tool in await run.client.list_tools(PEER)]
    assert run.plan.call.tool in names, names


async def call(run: Run) -> None:
    await run.call(run.plan.call)


async def structured(run: Run) -> None:
    call = run.plan.structured
    assert call is not None
    result = await run.client.invoke_tool(PEER, call.tool, call.arguments)
    assert call.says in str(result.structured_content), result.structured_content


async def tool_error(run: Run) -> None:
    call = run.plan.fails
    assert call is not None
    result = await run.client.invoke_tool(PEER, call.tool, call.arguments)
    assert result.is_error
    assert call.says in result.text, result.text


async def progress(run: Run) -> None:
    told: list[Progress] = []
    assert run.plan.progress is not None
    await run.call(run.plan.progress, on_progress=told.append)
    steps = [one.progress for one in told]
    assert len(steps) > 1, steps
    assert steps == sorted(steps), steps


async def logs(run: Run) -> None:
    assert run.plan.logs is not None
    if not run.agreed.modern and run.advertises("logging"):
        await run.client.set_log_level(PEER, "debug")
    await run.call(run.plan.logs, on_log=lambda _: run.heard.logged.set(), log_level="debug")
    # Until 2025-11-25 a server may say on a stream of its own what belongs to the call.
    await run.heard.logged.wait()


async def cancel(run: Run) -> None:
    call = run.plan.lasts
    assert call is not None
    with anyio.CancelScope() as scope:
        # Some tell progress only where their answer is a stream.
        scope.deadline = anyio.current_time() + 0.5
        await run.client.invoke_tool(
            PEER, call.tool, call.arguments, on_progress=lambda _: scope.cancel()
        )
    assert scope.cancelled_caught
    assert run.client.statistics().running_calls == 0
    await run.call(run.plan.call)  # and the server goes on serving


async def many_at_once(run: Run) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(run.call, run.plan.call)


async def resources(run: Run) -> None:
    wanted = run.plan.resource
    assert wanted is not None
    listed = [one.uri for one in await run.client.list_resources(PEER)]
    templates = [one.uri_template for one in await run.client.list_resource_templates(PEER)]
    assert wanted.uri in listed or wanted.template in templates, (listed, templates)
    assert wanted.template is None or wanted.template in templates, templates
    read = await run.client.read_resource(PEER, wanted.uri)
    assert wanted.says in read.text, read.text


async def no_resources(run: Run) -> bool:
    templates = await run.client.list_resource_templates(PEER)
    return not templates and not await run.client.list_resources(PEER)


async def prompts(run: Run) -> None:
    wanted = run.plan.prompt
    assert wanted is not None
    listed = [one.name for one in await run.client.list_prompts(PEER)]
    assert wanted.name in listed, listed
    got = await run.client.get_prompt(PEER, wanted.name, wanted.arguments)
    assert wanted.says in got.messages[0].content["text"], got


async def no_prompts(run: Run) -> bool:
    return not await run.client.list_prompts(PEER)


async def completion(run: Run) -> None:
    wanted = run.plan.completes
    assert wanted is not None
    found = await run.client.complete(
        PEER, wanted.argument, wanted.value, prompt=wanted.prompt, template=wanted.template
    )
    assert wanted.says is None or wanted.says in found.values, found


async def subscription(run: Run) -> None:
    wanted = run.plan.changes
    assert wanted is not None
    async with run.client.subscribe(PEER, resources=wanted.uri) as changes:
        assert not changes.unheard, changes.unheard
        if wanted.call is not None:
            await run.call(wanted.call)
        change = await anext(changes)
    assert (change.kind, change.subject) == ("resource", wanted.uri), change


async def form(run: Run) -> None:
    assert run.plan.form is not None
    await run.call(run.plan.form)


async def page(run: Run) -> None:
    assert run.plan.visit is not None
    await run.call(run.plan.visit)


async def model(run: Run) -> None:
    assert run.plan.model is not None
    await run.call(run.plan.model)


async def roots(run: Run) -> None:
    assert run.plan.roots is not None
    await run.call(run.plan.roots)


async def restart(run: Run) -> None:
    await run.restart()
    await run.call(run.plan.call)
    # More than one connection may have been lost, or what is known of the server be wrong.
    await many_at_once(run)


@frozen(kw_only=True)
class Operation:
    """One column of the matrix."""

    name: str
    does: Callable[[Run], Awaitable[None]]
    #: Which part of a plan it uses; without one, every server has it.
    needs: str | None = None
    #: The capability under which a server offers it, where there is one.
    capability: tuple[str, ...] = ()
    #: Whether the server has nothing to offer though it advertises the capability.
    is_empty: Callable[[Run], Awaitable[bool]] | None = None


OPERATIONS: Final = (
    Operation(name="connect", does=connect),
    Operation(name="list tools", does=list_tools),
    Operation(name="call", does=call),
    Operation(name="structured", does=structured, needs="structured"),
    Operation(name="tool error", does=tool_error, needs="fails"),
    Operation(name="progress", does=progress, needs="progress"),
    Operation(name="log", does=logs, needs="logs"),
    Operation(name="cancel", does=cancel, needs="lasts"),
    Operation(name="20 at once", does=many_at_once),
    Operation(
        name="resources",
        does=resources,
        needs="resource",
        capability=("resources",),
        is_empty=no_resources,
    ),
    Operation(
        name="prompts",
        does=prompts,
        needs="prompt",
        capability=("prompts",),
        is_empty=no_prompts,
    ),
    Operation(name="complete", does=completion, needs="completes", capability=("completions",)),
    Operation(
        name="subscribe",
        does=subscription,
        needs="changes",
        capability=("resources", "subscribe"),
        is_empty=no_resources,
    ),
    Operation(name="form", does=form, needs="form"),
    Operation(name="page", does=page, needs="visit"),
    Operation(name="model", does=model, needs="model"),
    Operation(name="roots", does=roots, needs="roots"),
    Operation(name="restart", does=restart),
)
