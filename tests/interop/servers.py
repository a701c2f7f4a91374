"""Other people's servers: how each is started, and what of it each operation uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve, field, frozen

from tests.interop.plans import Call, Changes, Completes, Plan, Prompt, Resource
from tests.peers.provision import PEERS
from tests.support.peers import SERVERS, on_free_port, peer, says_its_url

__all__ = ["SUBJECTS", "Subject", "Transport"]

Transport = Literal["stdio", "Streamable HTTP", "HTTP+SSE", "WebSocket"]

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
OLDEST: Final = "2024-11-05"


@frozen(kw_only=True)
class Subject:
    """One row of the matrix: a program over one transport."""

    name: str
    #: The environment of ``tests/peers`` that it is in, and which of its pins it is: the part
    #: before the version.
    peer: str
    package: str
    transport: Transport
    #: The revision that must be agreed on.
    version: str
    plan: Plan
    #: Its command line, if it speaks on stdin and stdout.
    command: Callable[[Path], list[str]] | None = None
    #: Else: runs it, yields its URL.
    serve: Callable[[], AbstractContextManager[str]] | None = None
    #: Options of the server's entry in our configuration.
    options: Mapping[str, Any] = field(factory=dict)
    #: Operations that it advertises but cannot do, and why.
    cannot: Mapping[str, str] = field(factory=dict)
    #: What its folder holds when it starts; ``{folder}`` in arguments of calls is that folder.
    files: Mapping[str, str] = field(factory=dict)
    #: Runs something else that it needs; ``{url}`` in arguments of calls is what this yields.
    beside: Callable[[Path], AbstractContextManager[str]] | None = None

    @property
    def release(self) -> str:
        """The version of the program, as it is pinned."""
        (pin,) = (pin for pin in PEERS[self.peer].pins if pin.startswith(self.package))
        return pin.removeprefix(self.package).removeprefix("v")

    @property
    def is_extra(self) -> bool:
        """Whether only ``nox -s interop`` has it."""
        return PEERS[self.peer].extra


# -- ways to start ------------------------------------------------------------------------------


def _program(name: str, program: str, *args: str) -> Callable[[Path], list[str]]:
    fill = lambda folder: [arg.format(folder=folder) for arg in args]  # noqa: E731
    return lambda folder: [str(peer(name).program(program)), *fill(folder)]


def _script(name: str, script: str, *args: str) -> list[str]:
    return [str(peer(name).python), str(SERVERS / script), *args]


def _node(name: str, package: str, *args: str) -> list[str]:
    return [*peer(name).node_program(f"@modelcontextprotocol/{package}"), *args]


def _says(*argv: Any) -> Callable[[], AbstractContextManager[str]]:
    return lambda: says_its_url(_script(*argv))


def _on_port(
    path: str, command: Callable[[int], tuple[list[str], dict[str, str]]]
) -> Callable[[], AbstractContextManager[str]]:
    @contextmanager
    def serve() -> Iterator[str]:
        with on_free_port(command) as base:
            yield f"{base}{path}"

    return serve


@contextmanager
def _pages(folder: Path) -> Iterator[str]:
    """The files in *folder*, as web pages."""
    how = [sys.executable, "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder}"]
    with on_free_port(lambda port: ([*how, str(port)], {})) as base:
        yield base


# -- the official SDK of Python -----------------------------------------------------------------

_PYTHON: Final = Plan(
    call=Call("add", {"a": 2, "b": 3}, "5"),
    structured=Call("add", {"a": 2, "b": 3}, "5"),
    fails=Call("fail", {"message": "as asked"}, "as asked"),
    progress=Call("slow", {"seconds": 0.1, "steps": 3}, "slept"),
    logs=Call("shout", {"text": "ho"}, "ho"),
    lasts=Call("slow", {"seconds": 600, "steps": 6000}),
    resource=Resource("text://hello", "hello, resource"),
    prompt=Prompt("review", {"code": "x = 1"}, "review: x = 1"),
    completes=Completes(prompt="review", argument="code", value="x", says="xb"),
    changes=Changes("text://hello", Call("touch", {"uri": "text://hello"})),
    form=Call("greet", says="hello Ada"),
    visit=Call("visit", says="accept"),
    model=Call("consult", says="the model says so"),
    roots=Call("consult", says="1 roots"),
)
_PYTHON2: Final = evolve(
    _PYTHON,
    resource=Resource("note://a", "the note a", "note://{name}"),
    visit=Call("consult", says="accept"),
)
_QUESTIONS: Final = ("form", "page", "model", "roots")
_JSON_ONLY: Final = "the server answers in JSON, which has room for nothing but the answer"
_NO_SESSION: Final = "without a session the server has no way to ask or tell anything by itself"
_PYTHON2_LEGACY: Final = evolve(_PYTHON2, changes=None, visit=None, model=None, roots=None)


def _python2(name: str, *args: str, **members: Any) -> Subject:
    more: dict[str, Any] = {
        "transport": "Streamable HTTP",
        "version": MODERN,
        "plan": _PYTHON2,
        "serve": _says("mcp2", "interop_mcp2.py", "http", *args),
        **members,
    }
    return Subject(name=f"python-2-{name}", peer="mcp2", package="mcp==", **more)


def _python1(name: str, *args: str, **members: Any) -> Subject:
    more: dict[str, Any] = {
        "transport": "Streamable HTTP",
        "version": LEGACY,
        "plan": _PYTHON,
        "serve": _says("mcp1", "interop_mcp1.py", *args),
        **members,
    }
    return Subject(name=f"python-1-{name}", peer="mcp1", package="mcp==", **more)


_SDK_OF_PYTHON: Final = (
    _python2(
        "stdio",
        transport="stdio",
        command=lambda _: _script("mcp2", "interop_mcp2.py", "stdio"),
    ),
    _python2("http"),
    _python2("http-json", "--json", cannot=dict.fromkeys(("progress", "log"), _JSON_ONLY)),
    _python2(
        "http-legacy", version=LEGACY, plan=_PYTHON2_LEGACY, options={"protocol_version": LEGACY}
    ),
    _python1(
        "stdio",
        transport="stdio",
        command=lambda _: _script("mcp1", "interop_mcp1.py", "stdio"),
    ),
    _python1("http", "http"),
    _python1(
        "http-json",
        "http",
        "--json",
        cannot=dict.fromkeys(("progress", "log", *_QUESTIONS), _JSON_ONLY),
    ),
    _python1(
        "http-stateless",
        "http",
        "--stateless",
        cannot=dict.fromkeys(("subscribe", *_QUESTIONS), _NO_SESSION),
    ),
    _python1("sse", "sse", transport="HTTP+SSE", version=OLDEST),
    _python1("websocket", "ws", transport="WebSocket"),
)

# -- the reference servers ----------------------------------------------------------------------

_EVERYTHING: Final = Plan(
    call=Call("get-sum", {"a": 2, "b": 3}, "5"),
    structured=Call("get-structured-content", {"location": "Chicago"}, "temperature"),
    fails=Call("get-resource-reference", {"resourceType": "text", "resourceId": -1}),
    progress=Call("trigger-long-running-operation", {"duration": 0.2, "steps": 2}, "completed"),
    lasts=Call("trigger-long-running-operation", {"duration": 5, "steps": 1}),
    logs=Call("toggle-simulated-logging", {}, "logging"),
    resource=Resource(
        "demo://resource/dynamic/text/1", "resource", "demo://resource/dynamic/text/{resourceId}"
    ),
    prompt=Prompt("args-prompt", {"city": "Berlin"}, "Berlin"),
    completes=Completes(
        prompt="completable-prompt", argument="department", value="S", says="Support"
    ),
    changes=Changes("demo://resource/dynamic/text/1", Call("toggle-subscriber-updates")),
    form=Call("trigger-elicitation-request", says="provided the requested information"),
    visit=Call("trigger-url-elicitation", {"url": "https://example.org/look"}),
    model=Call("trigger-sampling-request", {"prompt": "say"}, "the model says so"),
    roots=Call("get-roots-list", says="/srv/interop"),
)


def _everything(how: str, argument: str, path: str, **members: Any) -> Subject:
    argv = lambda: _node("node", "server-everything", argument)  # noqa: E731
    return Subject(
        name=f"typescript-everything-{how}",
        peer="node",
        package="@modelcontextprotocol/server-everything@",
        plan=_EVERYTHING,
        command=(lambda _: argv()) if how == "stdio" else None,
        serve=_on_port(path, lambda port: (argv(), {"PORT": str(port)})),
        **members,
    )


_REFERENCE: Final = (
    _everything("stdio", "stdio", "", transport="stdio", version=LEGACY),
    _everything("http", "streamableHttp", "/mcp", transport="Streamable HTTP", version=LEGACY),
    _everything("sse", "sse", "/sse", transport="HTTP+SSE", version=OLDEST),
    Subject(
        name="typescript-filesystem",
        peer="node",
        package="@modelcontextprotocol/server-filesystem@",
        transport="stdio",
        version=LEGACY,
        plan=Plan(
            call=Call("list_allowed_directories", says="Allowed"),
            structured=Call("list_allowed_directories", says="Allowed"),
            fails=Call("read_text_file", {"path": "/etc/hostname"}, "denied"),
        ),
        command=lambda folder: _node("node", "server-filesystem", str(folder)),
    ),
    Subject(
        name="typescript-memory",
        peer="node-extra",
        package="@modelcontextprotocol/server-memory@",
        transport="stdio",
        version=LEGACY,
        plan=Plan(
            call=Call("read_graph", says="entities"),
            structured=Call("read_graph", says="entities"),
            fails=Call(
                "add_observations",
                {"observations": [{"entityName": "nobody", "contents": ["x"]}]},
                "nobody",
            ),
            resource=Resource("memory://knowledge-graph", "entities"),
            changes=Changes(
                "memory://knowledge-graph",
                Call(
                    "create_entities",
                    {"entities": [{"name": "a", "entityType": "b", "observations": []}]},
                ),
            ),
        ),
        command=lambda _: _node("node-extra", "server-memory"),
    ),
    Subject(
        name="typescript-sequential-thinking",
        peer="node-extra",
        package="@modelcontextprotocol/server-sequential-thinking@",
        transport="stdio",
        version=LEGACY,
        plan=Plan(
            call=Call(
                "sequentialthinking",
                {
                    "thought": "one",
                    "nextThoughtNeeded": False,
                    "thoughtNumber": 1,
                    "totalThoughts": 1,
                },
                "thoughtNumber",
            )
        ),
        command=lambda _: _node("node-extra", "server-sequential-thinking"),
    ),
    Subject(
        name="python-git",
        peer="mcp2",
        package="mcp-server-git==",
        transport="stdio",
        version=MODERN,
        plan=Plan(
            call=Call("git_status", {"repo_path": "{folder}"}, "a.txt"),
            fails=Call("git_status", {"repo_path": "nowhere"}),
        ),
        command=_program("mcp2", "mcp-server-git"),
        files={
            "a.txt": "a",
            ".git/HEAD": "ref: refs/heads/trunk\n",
            ".git/objects/kept": "",
            ".git/refs/kept": "",
        },
    ),
    Subject(
        name="python-time",
        peer="mcp2",
        package="mcp-server-time==",
        transport="stdio",
        version=MODERN,
        plan=Plan(
            call=Call("get_current_time", {"timezone": "UTC"}, "UTC"),
            fails=Call("get_current_time", {"timezone": "Moon/Crater"}),
        ),
        command=_program("mcp2", "mcp-server-time"),
    ),
    Subject(
        name="python-fetch",
        peer="fastmcp",
        package="mcp-server-fetch==",
        transport="stdio",
        version=MODERN,
        plan=Plan(
            call=Call("fetch", {"url": "{url}/a.txt", "raw": True}, "what stands there"),
            fails=Call("fetch", {"url": "{url}/nothing"}),
            prompt=Prompt("fetch", {"url": "{url}/a.txt"}, "what stands there"),
        ),
        command=_program("fastmcp", "mcp-server-fetch", "--allow-private-ips"),
        files={"a.txt": "what stands there"},
        beside=_pages,
    ),
)

# -- FastMCP, Go and Rust -----------------------------------------------------------------------

_FASTMCP: Final = Plan(
    call=Call("add", {"a": 2, "b": 3}, "5"),
    structured=Call("add", {"a": 2, "b": 3}, "5"),
    fails=Call("fail", {"message": "as asked"}, "as asked"),
    progress=Call("slow", {"seconds": 0.1, "steps": 3}, "slept"),
    logs=Call("shout", {"text": "ho"}, "ho"),
    lasts=Call("slow", {"seconds": 600, "steps": 6000}),
    resource=Resource("note://a", "the note a", "note://{name}"),
    prompt=Prompt("review", {"code": "x = 1"}, "review: x = 1"),
    form=Call("greet_in_rounds", says="hello Ada"),
)


def _fastmcp(how: str, **members: Any) -> Subject:
    return Subject(
        name=f"fastmcp-{how}",
        peer="fastmcp",
        package="fastmcp==",
        **{
            "version": MODERN,
            "plan": _FASTMCP,
            "serve": _says("fastmcp", "interop_fastmcp.py", how),
            **members,
        },
    )


_GO: Final = Plan(
    call=Call("test_simple_text", says="simple text response"),
    fails=Call("test_error_handling", says="intentionally"),
    progress=Call("test_tool_with_progress"),
    logs=Call("test_tool_with_logging", says="Tool with logging"),
    resource=Resource("test://template/a/data", "a", "test://template/{id}/data"),
    prompt=Prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"}, "one"),
    completes=Completes(prompt="test_prompt_with_arguments", argument="arg1", value="x", says=None),
    changes=Changes("test://watched-resource"),
    form=Call("test_input_required_result_elicitation", says="Ada"),
    model=Call("test_input_required_result_sampling", says="the model says so"),
    roots=Call("test_input_required_result_list_roots", says="1"),
)
_GO_LEGACY: Final = evolve(
    _GO,
    form=Call("test_elicitation", {"message": "Who?"}, "accept"),
    model=Call("test_sampling", {"prompt": "say"}, "the model says so"),
    roots=None,
)


_MCP_GO: Final = evolve(_GO_LEGACY, changes=None)
_NO_CHANGES: Final = "no resource of this program ever changes"
_ONE_ERA: Final = "this program asks as until 2025-11-25, and its SDK refuses that since 2026-07-28"


def _go(how: str, *args: str, **members: Any) -> Subject:
    def command(port: int) -> tuple[list[str], dict[str, str]]:
        program = peer("go-sdk").program("everything-server")
        return [str(program), f"-http=127.0.0.1:{port}", *args], {}

    return Subject(
        name=f"go-sdk-{how}",
        peer="go-sdk",
        package="github.com/modelcontextprotocol/go-sdk/conformance/everything-server@",
        **{
            "transport": "Streamable HTTP",
            "version": MODERN,
            "plan": _GO,
            "serve": _on_port("", command),
            **members,
        },
    )


def _go_sse(port: int) -> tuple[list[str], dict[str, str]]:
    return [str(peer("go-sdk").program("sse")), "-host=127.0.0.1", f"-port={port}"], {}


def _mcp_go(port: int) -> tuple[list[str], dict[str, str]]:
    address = {"CONFORMANCE_ADDR": f"127.0.0.1:{port}"}
    return [str(peer("mcp-go").program("conformance"))], address


_OTHERS: Final = (
    _fastmcp(
        "stdio",
        transport="stdio",
        command=lambda _: _script("fastmcp", "interop_fastmcp.py", "stdio"),
    ),
    _fastmcp("http", transport="Streamable HTTP"),
    _fastmcp(
        "sse",
        transport="HTTP+SSE",
        version=OLDEST,
        plan=evolve(_FASTMCP, form=Call("greet", says="hello Ada")),
    ),
    _go("stdio", transport="stdio", command=_program("go-sdk", "everything-server")),
    _go("http"),
    # With sessions it speaks the session era only.
    _go("http-sessions", "-stateless=false", version=LEGACY, plan=_GO_LEGACY),
    Subject(
        name="go-sdk-sse",
        peer="go-sdk",
        package="github.com/modelcontextprotocol/go-sdk/examples/server/sse@",
        transport="HTTP+SSE",
        version=OLDEST,
        plan=Plan(call=Call("greet1", {"name": "Ada"}, "Ada")),
        serve=_on_port("/greeter1", _go_sse),
    ),
    Subject(
        name="mcp-go-stdio",
        peer="mcp-go",
        package="github.com/mark3labs/mcp-go/examples/everything@",
        transport="stdio",
        version=MODERN,
        plan=Plan(
            call=Call("echo", {"message": "ho"}, "Echo: ho"),
            fails=Call("add", {"a": "two", "b": 3}),
            # It may tell the last step after its answer.
            progress=Call("longRunningOperation", {"duration": 0.2, "steps": 5}, "completed"),
            lasts=Call("longRunningOperation", {"duration": 600, "steps": 6000}),
            resource=Resource("test://static/resource/1", "resource 1"),
            prompt=Prompt("complex_prompt", {"temperature": "1", "style": "formal"}, "formal"),
            completes=Completes(
                prompt="complex_prompt", argument="style", value="f", says="formal"
            ),
        ),
        cannot={"subscribe": _NO_CHANGES},
        command=_program("mcp-go", "everything"),
    ),
    Subject(
        name="mcp-go-http",
        peer="mcp-go",
        package="github.com/mark3labs/mcp-go/examples/conformance@",
        transport="Streamable HTTP",
        version=MODERN,
        plan=_MCP_GO,
        cannot={"subscribe": _NO_CHANGES, "form": _ONE_ERA, "model": _ONE_ERA},
        serve=_on_port("/mcp", _mcp_go),
    ),
    Subject(
        name="mcp-go-http-legacy",
        peer="mcp-go",
        package="github.com/mark3labs/mcp-go/examples/conformance@",
        transport="Streamable HTTP",
        version=LEGACY,
        plan=_MCP_GO,
        cannot={"subscribe": _NO_CHANGES},
        options={"protocol_version": LEGACY},
        serve=_on_port("/mcp", _mcp_go),
    ),
)

_RUST: Final = Plan(
    call=Call("add", {"a": 2, "b": 3}, "5"),
    fails=Call("fail", says="as asked"),
    progress=Call("slow", {"seconds": 0.1, "steps": 3}, "slept"),
    lasts=Call("slow", {"seconds": 600, "steps": 6000}),
    prompt=Prompt("review", {"code": "x = 1"}, "review: x = 1"),
)


def _rust(how: str, **members: Any) -> Subject:
    def command(port: int) -> tuple[list[str], dict[str, str]]:
        return [str(peer("rust-sdk").program("interop-rmcp")), f"127.0.0.1:{port}"], {}

    return Subject(
        name=f"rust-sdk-{how}",
        peer="rust-sdk",
        package="rmcp==",
        plan=_RUST,
        **{
            "transport": "Streamable HTTP",
            "version": MODERN,
            "serve": _on_port("/mcp", command),
            **members,
        },
    )


_SDK_OF_RUST: Final = (
    _rust("stdio", transport="stdio", command=_program("rust-sdk", "interop-rmcp")),
    _rust("http"),
    _rust("http-legacy", version=LEGACY, options={"protocol_version": LEGACY}),
)

SUBJECTS: Final[Mapping[str, Subject]] = {
    subject.name: subject for subject in (*_SDK_OF_PYTHON, *_REFERENCE, *_OTHERS, *_SDK_OF_RUST)
}
