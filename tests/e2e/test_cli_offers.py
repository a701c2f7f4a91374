"""``sark resources``, ``read``, ``prompts`` and ``prompt``, with a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Place
from tests.support.peers import stdio_server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    command = json.dumps(stdio_server("asking-mcp2"))
    made.write("policy.rego", POLICY)
    made.write(
        "sark.toml",
        f"""\
[servers.ask]
command = {command}

[policy]
rego = "policy.rego"

[audit]
directory = "audit"

[identity]
principal = "ann"
""",
    )
    return made


POLICY = """\
package mcp.gateway

default allow := false

allow if input.action in {"gateway:resource:discover", "gateway:prompt:discover"}

allow if {
	input.action == "gateway:resource:read"
	startswith(input.parameters.uri, "text://")
}

allow if {
	input.action == "gateway:prompt:get"
	input.parameters.name == "review"
}
"""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_resources_and_prompts_on_the_command_line(place: Place, backend: str) -> None:
    how = ("--backend", backend)
    listed = place.sark("resources", "ask", *how)
    assert (listed.status, listed.err) == (0, "")
    assert listed.out.splitlines()[1].split()[:2] == ["text://hello", "hello"]
    read = place.sark("read", "ask", "text://hello", *how)
    assert (read.status, read.out) == (0, "hello, resource\n")
    denied = place.sark("read", "ask", "note://other", *how)
    assert denied.status == 3
    prompts = place.sark("prompts", "ask", *how)
    assert prompts.out.splitlines()[1].split()[:2] == ["review", "code"]
    prompt = place.sark("prompt", "ask", "review", "code=x = 1", *how)
    assert prompt.out.splitlines() == ["user:", "review: x = 1"]
    wrong = place.sark("prompt", "ask", "review", "code", *how)
    assert (wrong.status, "KEY=VALUE" in wrong.error) == (2, True)
    assert place.intents() == 2


def test_the_same_for_machines(place: Place) -> None:
    assert place.sark("resources", "ask", "--json").json[0]["uri"] == "text://hello"
    contents = place.sark("read", "ask", "text://hello", "--json").json["contents"]
    assert contents[0]["text"] == "hello, resource"
    assert place.sark("prompts", "ask", "--json").json[0]["name"] == "review"
    messages = place.sark("prompt", "ask", "review", "code=1", "--json").json["messages"]
    assert messages[0]["content"]["text"] == "review: 1"
