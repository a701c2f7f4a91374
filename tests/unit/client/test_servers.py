"""What an operator says about a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sark_trio import GatewayClient, Http, Registry, Server, Stdio, ToolRule, WebSocket
from sark_trio.client.servers import Memory, as_server, check_name
from sark_trio.errors import ConfigError


def test_a_server_is_given_as_the_ecosystem_gives_it() -> None:
    assert as_server("https://db.example/mcp") == Http("https://db.example/mcp")
    assert as_server(["mcp-server-git", "--repository", "."]) == Stdio(
        ("mcp-server-git", "--repository", ".")
    )
    for url in ("ws://127.0.0.1:1/mcp", "wss://db.example/mcp"):
        assert as_server(url) == WebSocket(url)
    given = Http("http://127.0.0.1:1/mcp", trusted=True)
    assert as_server(given) is given


@pytest.mark.security(18)
@pytest.mark.parametrize("value", ["mcp-server-git", "ftp://x", "", "HTTP//x"])
def test_a_string_that_is_no_url_is_not_taken_for_a_command(value: str) -> None:
    with pytest.raises(ConfigError, match="give a command as a list") as caught:
        as_server(value, source="servers.db")
    assert caught.value.source == "servers.db"


@pytest.mark.parametrize(
    "url", ["http://", "https://user:pass@x/", "http://0x7f.1/", "http://a b/", "ws://user:pass@x/"]
)
def test_a_url_that_is_none_is_an_error_of_that_server(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        GatewayClient(servers={"db": url}, audit=tmp_path / "audit")
    assert caught.value.source == "servers.db"
    assert "pass" not in str(caught.value)


def test_a_revision_that_cannot_be_pinned_is_not_ignored(tmp_path: Path) -> None:
    pinned = Registry("https://gateway.example", "db", protocol_version="2025-11-25")
    with pytest.raises(ConfigError, match="protocol_version") as caught:
        GatewayClient(servers={"db": pinned}, audit=tmp_path / "audit")
    assert caught.value.source == "servers.db"


@pytest.mark.parametrize("command", [[], [""], ["a\0b"]])
def test_a_command_is_a_program_and_arguments(command: list[str]) -> None:
    with pytest.raises(ConfigError):
        Stdio(command)


@pytest.mark.security(7)
def test_secrets_are_in_no_repr_and_no_address() -> None:
    server = Http("https://x/mcp?key=hunter2", headers={"Authorization": "hunter2"})
    assert server.address == "https://x/mcp"
    socket = WebSocket("wss://x/mcp?key=hunter2", headers={"Authorization": "hunter2"})
    assert socket.address == "wss://x/mcp"
    assert "hunter2" not in repr(WebSocket("wss://x", headers=socket.headers))
    assert "hunter2" not in repr(Stdio(["x"], env={"KEY": "hunter2"}))
    assert "hunter2" not in repr(Http("https://x/mcp", headers={"Authorization": "hunter2"}))
    assert Stdio(["program", "--token=hunter2"]).address == "program"


def test_the_nearest_rule_holds() -> None:
    own, rest = ToolRule(sensitivity="critical"), ToolRule(sensitivity="low")
    server = Http("https://x/", tools={"delete": own, "*": rest})
    assert (server.rule("delete"), server.rule("read")) == (own, rest)
    assert Http("https://x/").rule("read") == ToolRule()


def test_servers_and_rules_cannot_be_changed_under_a_client() -> None:
    tools = {"delete": ToolRule()}
    server = Http("https://x/", tools=tools)
    tools["delete"] = ToolRule(replay_safe=True)
    assert server.rule("delete").replay_safe is None
    with pytest.raises(TypeError):
        server.tools["more"] = ToolRule()  # type: ignore[index]
    with pytest.raises(AttributeError):
        server.trusted = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (ToolRule, {"sensitivity": "top"}),
        (ToolRule, {"timeout_s": 0}),
        (ToolRule, {"timeout_s": float("nan")}),
        (ToolRule, {"timeout_s": float("inf")}),
        (Http, {"url": "https://x/", "sensitivity": "top"}),
        (Http, {"url": "https://x/", "timeout_s": -1}),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(**options)


def test_one_sensitive_parameter_needs_no_list() -> None:
    assert ToolRule(sensitive_params="password").sensitive_params == ("password",)  # type: ignore[arg-type]


def test_a_server_of_no_kind_is_nowhere() -> None:
    with pytest.raises(ConfigError, match="use Http or Stdio"):
        _ = Server().address


def test_a_server_in_memory_is_named_by_its_function() -> None:
    async def serve(_: Any) -> dict[str, Any]:
        return {}

    class Callable:
        async def __call__(self, _: Any) -> dict[str, Any]:
            return {}

    assert Memory(serve).address.endswith("serve")
    assert Memory(Callable()).address.endswith("Callable")


@pytest.mark.parametrize("name", ["db", "a", "A.b-c_d", "x" * 64, "0"])
def test_names_are_plain(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    "name", ["", "x" * 65, ".hidden", "-x", "a b", "a/b", "../admin?x=1#", "grün", "a\n", "a\0"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="server name"):
        check_name(name)
