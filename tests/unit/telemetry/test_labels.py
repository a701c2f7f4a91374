"""No label can fill the store: tools are named up to a limit, and all others together."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.telemetry.events import OTHER, CallInfo
from sark_trio.telemetry.labels import ToolLabels


def call(server: str, tool: str | None, method: str = "tools/call") -> CallInfo:
    return CallInfo(request_id="r", server=server, tool=tool, transport="http", method=method)


def test_the_first_tools_keep_their_names() -> None:
    labels = ToolLabels(2)
    assert labels.of(call("db", OTHER)) == OTHER
    assert labels.of(call("db", "a")) == "a"
    assert labels.of(call("files", "a")) == "a"
    assert labels.of(call("db", "b")) == OTHER
    assert labels.of(call("db", "a")) == "a"


def test_ten_thousand_tools_have_five_hundred_labels() -> None:
    labels = ToolLabels()
    found = {labels.of(call("db", f"tool{number}")) for number in range(10_000)}
    assert found == {OTHER, *(f"tool{number}" for number in range(500))}


def test_what_is_no_call_of_a_tool_is_named_by_its_method_and_takes_no_place() -> None:
    labels = ToolLabels(1)
    assert labels.of(call("db", None, "prompts/get")) == "prompts/get"
    assert labels.of(call("db", "a")) == "a"


def test_without_places_no_tool_has_a_name() -> None:
    assert ToolLabels(0).of(call("db", "a")) == OTHER


@pytest.mark.parametrize("tools_max", [-1, 1.5, True])
def test_a_limit_is_a_whole_number(tools_max: Any) -> None:
    with pytest.raises(ValueError, match="tools_max must be a whole number"):
        ToolLabels(tools_max)
