"""The guides to the client and to its errors name what there is, and all of it."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest

import sark_trio
from sark_trio import BreakerOptions, GatewayClient, RetryConfig, TransportMode, errors
from sark_trio.client.chapters.tools import Tools
from sark_trio.client.servers import Server
from tests.tidy.source import ROOT

HOWTO = ROOT / "docs" / "howto"
USAGE = (HOWTO / "client-usage.md").read_text()
ERRORS = (HOWTO / "error-handling.md").read_text()


def programs(text: str) -> list[str]:
    """The examples that a page shows whole."""
    return re.findall(r"literalinclude\} \.\./examples/(\w+\.py)", text)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def words(text: str) -> set[str]:
    """What stands in backquotes."""
    return {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.split(r"\W+", quoted)}


def test_the_guides_have_as_many_whole_examples_as_the_report_says() -> None:
    assert len([name for name in programs(USAGE) if name != "trial_gateway.py"]) == 7
    assert len(programs(ERRORS)) == 4


@pytest.mark.parametrize("text", [USAGE, ERRORS], ids=["client-usage", "error-handling"])
def test_fragments_use_names_and_options_that_there_are(text: str) -> None:
    options: dict[str, set[str]] = {
        "GatewayClient": parameters(GatewayClient),
        "BreakerOptions": parameters(BreakerOptions),
        "RetryConfig": parameters(RetryConfig),
        "Http": parameters(sark_trio.Http),
    }
    fragments = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert fragments
    for fragment in fragments:
        for node in ast.walk(ast.parse(fragment)):
            if isinstance(node, ast.ImportFrom) and node.module == "sark_trio":
                assert {alias.name for alias in node.names} <= set(sark_trio.__all__)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = {keyword.arg for keyword in node.keywords}
                assert given <= options.get(node.func.id, given), node.func.id


def test_every_option_of_the_client_is_in_the_table() -> None:
    table = USAGE.partition("| option of the client |")[2].partition("\n\n")[0]
    named = {word for row in table.splitlines() for word in words(row.split("|")[1:2][0])}
    assert parameters(GatewayClient) - {"jitter"} == named


def test_every_option_of_a_server_and_of_a_call_is_named() -> None:
    named = words(USAGE.partition("A server has options")[2].partition("\n\n")[0])
    assert parameters(Server) <= named
    asked = parameters(Tools.invoke_tool) - {"server_name", "tool_name", "parameters", "log_level"}
    assert asked <= named


def test_good_habits_are_about_what_there_is() -> None:
    habits = USAGE.partition("## Good habits")[2].partition("\n(the-trial")[0]
    named = set(re.findall(r"`([^`]+)`", re.sub(r"\{doc\}`[^`]+`", "", habits)))
    known = {*dir(GatewayClient), *sark_trio.__all__, "sark.toml", "${NAME}", "retry_after_s"}
    known |= parameters(GatewayClient) | parameters(Server) | parameters(Tools.invoke_tool)
    assert len(named) > 10
    assert sorted(named - known) == []


def test_every_mode_is_shown() -> None:
    assert [mode.value for mode in TransportMode if f"\n{mode.value}: " not in USAGE] == []


def test_the_defaults_that_are_told_are_those_of_the_code() -> None:
    breaker, retry = BreakerOptions(), RetryConfig()
    for name in ("failures", "open_s", "probes", "successes"):
        assert f"`{name}={getattr(breaker, name):g}`" in ERRORS
    assert (retry.attempts, retry.initial_delay_s, retry.max_delay_s) == (3, 1, 30)
    assert retry.jitter == 0.25


def test_every_kind_of_error_is_told_apart() -> None:
    table = ERRORS.partition("| error |")[2].partition("\n\n")[0]
    named = words(table)
    first = {
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.GatewayError)
    }
    roots = {each for each in first if errors.GatewayError in each.__bases__} - {
        errors.Refused,  # each of its kinds has a row
        errors.AuditError,  # the log's own readers get it, no caller of tools
    }
    wanted = {each.__name__ for each in (*roots, *errors.Refused.__subclasses__())}
    assert sorted(wanted - named) == []
    known = {each.__name__ for each in first} | {"PermissionError", "TimeoutError"}
    assert {w for w in named if re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+", w)} <= known


async def metrics_of_a_client(folder: str) -> dict[str, Any]:
    async with GatewayClient(audit=folder) as client:
        return client.get_metrics().to_dict()


@pytest.mark.anyio
async def test_the_metrics_that_are_told_are_those_that_there_are(tmp_path: Any) -> None:
    told = words(USAGE.partition("| `get_metrics().to_dict()` |")[2].partition("\n\n")[0])
    metrics = await metrics_of_a_client(str(tmp_path))
    assert set(metrics) <= told
    assert set(metrics["cache"]) <= told
    assert set(metrics["error_handler"]) <= told
