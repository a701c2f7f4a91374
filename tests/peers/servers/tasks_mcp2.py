"""The extension ``io.modelcontextprotocol/tasks`` for servers made with the official SDK, 2.x.

Tools and texts are those that the official conformance suite wants.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mcp import MCPError
from mcp.server.extension import Extension, MethodBinding, ToolBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp_types import RequestParams

EXTENSION = "io.modelcontextprotocol/tasks"
MODERN = frozenset({"2026-07-28"})
INVALID_PARAMS = -32602
HEADER_MISMATCH = -32020


class Named(RequestParams):
    """The task that a request is about."""

    task_id: str


class Answers(Named):
    """What a task waits for."""

    input_responses: dict[str, Any]


def content(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


@dataclass
class Task:
    """One task: its state, and the work that is done in it."""

    task_id: str = field(default_factory=lambda: secrets.token_hex(8))
    status: str = "working"
    end: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    work: asyncio.Task[None] | None = None

    @property
    def shown(self) -> dict[str, Any]:
        about = {"taskId": self.task_id, "status": self.status, "createdAt": self.began}
        more = {"inputRequests": self.asked} if self.status == "input_required" else {}
        times = {"lastUpdatedAt": self.began, "ttlMs": 60_000, "pollIntervalMs": 100}
        return {**about, **times, **more, **self.end}

    async def ask(self, key: str) -> Any:
        schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}}
        params = {"mode": "form", "message": f"{key}?", "requestedSchema": schema}
        self.asked[key] = {"method": "elicitation/create", "params": params}
        self.answers[key] = asyncio.get_running_loop().create_future()
        self.status = "input_required"
        return await self.answers[key]

    def answer(self, answers: dict[str, Any]) -> None:
        for key in self.asked.keys() & answers.keys():
            del self.asked[key]
            self.answers[key].set_result(answers[key])
        if not self.asked and self.status == "input_required":
            self.status = "working"

    async def do(self, job: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        try:
            self.end, self.status = {"result": await job()}, "completed"
        except MCPError as exc:
            self.end = {"error": {"code": exc.code, "message": exc.message}}
            self.status = "failed"
        except asyncio.CancelledError:
            self.status = "cancelled"


class Tasks(Extension):
    """The tools that become tasks, and the methods that look after them."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.all: dict[str, Task] = {}

    def tools(self) -> Sequence[ToolBinding]:
        def greet(name: str) -> str:
            """Never a task."""
            return f"Hello, {name}!"

        async def slow_compute(seconds: float = 0, label: str = "") -> str:
            """A task where the client follows it."""
            await asyncio.sleep(min(seconds, 5))
            return f"computed {label}"

        def only_as_a_task(filename: str = "") -> str:
            """Always a task."""
            raise AssertionError(filename)

        plain = {"structured_output": False}
        needed = ("failing_job", "protocol_error_job", "confirm_delete", "multi_input")
        return [
            ToolBinding(greet, kwargs=plain),
            ToolBinding(slow_compute, kwargs=plain),
            *(
                ToolBinding(only_as_a_task, kwargs={**plain, "name": name})
                for name in (*needed, "test_tool_with_task")
            ),
        ]

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", Named, self.get, MODERN),
            MethodBinding("tasks/update", Answers, self.update, MODERN),
            MethodBinding("tasks/cancel", Named, self.cancel, MODERN),
        ]

    async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> Any:
        name, arguments = params.name, params.arguments or {}
        offered = ctx.session.client_capabilities
        follows = EXTENSION in ((offered and offered.extensions) or {})
        if name == "slow_compute" and follows and arguments.get("seconds"):
            return self._begin(lambda task: self._slow(float(arguments["seconds"])))
        jobs = {"failing_job": self._fail, "protocol_error_job": self._break}
        jobs |= {"confirm_delete": self._confirm, "multi_input": self._confirm_twice}
        if name in jobs:
            require_client_extension(ctx, EXTENSION)
            return self._begin(jobs[name])
        if name != "test_tool_with_task":
            return await call_next(ctx)
        answer = (params.input_responses or {}).get("user_name")
        if answer is None:
            schema = {"type": "object", "properties": {"name": {"type": "string"}}}
            form = {"mode": "form", "message": "Who?", "requestedSchema": schema}
            request = {"method": "elicitation/create", "params": form}
            return {"resultType": "input_required", "inputRequests": {"user_name": request}}
        require_client_extension(ctx, EXTENSION)
        return self._begin(lambda task: self._say(str(answer.content)))

    def _begin(self, job: Callable[[Task], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        task = Task()
        self.all[task.task_id] = task
        task.work = asyncio.get_running_loop().create_task(task.do(lambda: job(task)))
        return {"resultType": "task", **task.shown}

    async def _say(self, text: str) -> dict[str, Any]:
        return content(text)

    async def _slow(self, seconds: float) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return content("computed")

    async def _fail(self, task: Task) -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return content("it failed", isError=True)

    async def _break(self, task: Task) -> dict[str, Any]:
        raise MCPError(-32603, "it broke")

    async def _confirm(self, task: Task) -> dict[str, Any]:
        return content(f"{await task.ask('confirm')}")

    async def _confirm_twice(self, task: Task) -> dict[str, Any]:
        return content(f"{await asyncio.gather(task.ask('first'), task.ask('second'))}")

    def _found(self, ctx: Any, params: Named) -> Task:
        require_client_extension(ctx, EXTENSION)
        headers = getattr(ctx.request, "headers", {})
        if headers.get("mcp-name", params.task_id) != params.task_id:
            raise MCPError(HEADER_MISMATCH, "Mcp-Name differs from the body's task")
        if params.task_id not in self.all:
            raise MCPError(INVALID_PARAMS, "no such task")
        return self.all[params.task_id]

    async def get(self, ctx: Any, params: Named) -> dict[str, Any]:
        return {"resultType": "complete", **self._found(ctx, params).shown}

    async def update(self, ctx: Any, params: Answers) -> dict[str, Any]:
        self._found(ctx, params).answer(params.input_responses)
        return {"resultType": "complete"}

    async def cancel(self, ctx: Any, params: Named) -> dict[str, Any]:
        task = self._found(ctx, params)
        assert task.work is not None
        task.work.cancel()
        return {"resultType": "complete"}
