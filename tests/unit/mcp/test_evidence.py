"""What is said of an answer that ends a negotiation."""

from __future__ import annotations

import json

import pytest

from sark_trio.mcp.evidence import (
    Evidence,
    Signal,
    read_discovery,
    read_error,
    read_initialization,
    read_status,
)
from sark_trio.mcp.versions import LEGACY, MODERN


def test_an_answer_that_was_not_asked_for() -> None:
    probed = read_discovery({}, (MODERN,), LEGACY)
    assert probed == Evidence(
        signal=Signal.FOREIGN,
        text="the server did not answer server/discover with a list of versions",
    )
    assert read_initialization({}, LEGACY, ()) == Evidence(
        signal=Signal.FOREIGN, text="the server did not answer initialize with a version"
    )
    assert (Evidence(signal=Signal.FITS).text, Evidence(signal=Signal.FITS).version) == ("", "")


@pytest.mark.parametrize(
    ("named", "listed"),
    [
        (["2099-01-01", 7, "2099-01-02"], "'2099-01-01, 2099-01-02'"),
        ([str(number) for number in range(9)], "'0, 1, 2, 3, 4, 5, 6, 7'"),
        ([7], "no version"),
        ([], "no version"),
    ],
)
def test_versions_of_no_use_are_told_and_not_too_many(named: list[object], listed: str) -> None:
    ending = "and we share none that is left to try"
    assert read_discovery({"supportedVersions": named}, (MODERN,), ()) == Evidence(
        signal=Signal.NONE_COMMON, text=f"the server speaks {listed}, {ending}"
    )
    assert read_error(-32022, "no", {"supported": named}, ()) == Evidence(
        signal=Signal.NONE_COMMON, text=f"the server supports {listed}, {ending}"
    )


def test_a_peers_words_are_quoted_and_cut() -> None:
    assert read_error(7, "\n" + "x" * 200, None, ()).text == (
        "the server answered error 7: '\\n" + "x" * 199 + "'"
    )


def test_a_status_is_told_with_the_error_in_its_body() -> None:
    error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}
    found = read_status(500, json.dumps(error).encode(), ())
    text = "the server answered error -32603: 'no' (HTTP 500)"
    assert found == Evidence(signal=Signal.UNRELATED, text=text, status=500)
    assert read_status(500, b"", ()).text == "the server answered HTTP 500"
