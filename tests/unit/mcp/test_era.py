"""Era negotiation: each way through the table, and what cannot happen."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from sark_trio.mcp.era import (
    STEPS_MAX,
    TABLE,
    Discover,
    Done,
    Failed,
    Initialize,
    Negotiation,
    Phase,
)
from sark_trio.mcp.evidence import Signal
from sark_trio.mcp.messages import Agreed, Fault
from sark_trio.mcp.versions import HTTP_SSE, LEGACY, MODERN

DISCOVERY = {
    "resultType": "complete",
    "supportedVersions": [MODERN, "2025-11-25"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
    "instructions": "Use it.",
}
INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "s", "version": "1"},
    "instructions": "Use it.",
}
MODERN_AGREED = Agreed(
    version=MODERN,
    modern=True,
    server_info={"name": "s", "version": "1"},
    capabilities={"tools": {}},
    instructions="Use it.",
)
LEGACY_AGREED = Agreed(
    version="2025-11-25",
    modern=False,
    server_info={"name": "s", "version": "1"},
    capabilities={"tools": {}},
    instructions="Use it.",
)
NEWEST = Initialize(LEGACY[0])


def supported(*versions: Any) -> dict[str, Any]:
    return {"supported": list(versions), "requested": MODERN}


def error_body(code: int, data: Any = None) -> bytes:
    error = {"code": code, "message": "no", "data": data}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()


def failed(step: object) -> Failed:
    assert isinstance(step, Failed), step
    return step


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_it_begins_with_a_probe_and_a_modern_server_answers_it(transport: Any) -> None:
    negotiation = Negotiation(transport)
    assert negotiation.next() == Discover(MODERN)
    assert negotiation.on_result(DISCOVERY) == Done(MODERN_AGREED)
    assert negotiation.next() == Done(MODERN_AGREED)
    negotiation.check_invariants()


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32603, -32000, -32002, 0, 7])
def test_any_other_error_says_legacy(code: int) -> None:
    negotiation = Negotiation("stdio")
    assert negotiation.on_error(code, "no") == NEWEST
    assert negotiation.on_result(INITIALIZED) == Done(LEGACY_AGREED)


@pytest.mark.parametrize("result", [{}, {"supportedVersions": MODERN}, None, [], "ok", 1])
def test_a_result_that_is_no_discovery_says_legacy(result: Any) -> None:
    assert Negotiation("http").on_result(result) == NEWEST


def test_silence_says_legacy_on_stdio() -> None:
    negotiation = Negotiation("stdio")
    assert negotiation.on_silence() == NEWEST
    assert negotiation.on_result(INITIALIZED) == Done(LEGACY_AGREED)


def test_silence_says_nothing_on_http() -> None:
    step = failed(Negotiation("http").on_silence())
    assert step == Failed("no MCP version agreed: the server did not answer in time")
    assert not step.try_sse


def test_a_server_that_dies_of_the_probe_is_started_again() -> None:
    negotiation = Negotiation("stdio")
    assert negotiation.on_process_exit() == Initialize(LEGACY[0], restart=True)
    assert negotiation.on_result(INITIALIZED) == Done(LEGACY_AGREED)


def test_a_server_that_dies_of_initialize_too_has_failed() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_process_exit()
    step = failed(negotiation.on_process_exit())
    assert step.message == "no MCP version agreed: the server process ended"


@pytest.mark.parametrize("status", [400, 404, 405, 406, 410, 415, 422, 302, 204])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", error_body(-32601), error_body(-32600)])
def test_a_status_about_the_request_says_legacy(status: int, body: bytes) -> None:
    negotiation = Negotiation("http")
    assert negotiation.on_http_status(status, body) == NEWEST


@pytest.mark.parametrize("status", [401, 403, 407, 408, 425, 429, 500, 502, 503, 504])
def test_a_status_about_something_else_says_nothing(status: int) -> None:
    step = failed(Negotiation("http").on_http_status(status, error_body(-32603)))
    assert step.status == status
    assert f"HTTP {status}" in step.message
    assert not step.try_sse


def test_a_modern_error_in_a_400_stays_modern() -> None:
    negotiation = Negotiation("http")
    step = failed(negotiation.on_http_status(400, error_body(-32022, supported("2099-01-01"))))
    assert "2099-01-01" in step.message
    assert step.status == 400


def test_a_modern_server_may_name_a_legacy_version() -> None:
    negotiation = Negotiation("http")
    body = error_body(-32022, supported("2099-01-01", "2025-03-26", "2025-06-18"))
    assert negotiation.on_http_status(400, body) == Initialize("2025-06-18")


def test_a_discovery_may_name_legacy_versions_only() -> None:
    negotiation = Negotiation("stdio")
    named = {"supportedVersions": ["2099-01-01", "2025-06-18", HTTP_SSE]}
    assert negotiation.on_result(named) == Initialize("2025-06-18")
    step = negotiation.on_result({**INITIALIZED, "protocolVersion": "2025-06-18"})
    assert isinstance(step, Done)
    assert step.agreed.version == "2025-06-18"


@pytest.mark.parametrize("data", [None, [], {}, supported(), supported(1)])
def test_an_unsupported_version_without_a_common_one_fails(data: Any) -> None:
    assert "share none" in failed(Negotiation("stdio").on_error(-32022, "no", data)).message


@pytest.mark.parametrize("pinned", [None, MODERN])
def test_the_very_version_that_was_refused_is_asked_for_once_more(pinned: str | None) -> None:
    # Another replica may answer next; if it does not, that was that.
    negotiation = Negotiation("http", pinned_version=pinned)
    body = error_body(-32022, supported(MODERN))
    assert negotiation.on_http_status(400, body) == Discover(MODERN)
    assert "share none" in failed(negotiation.on_http_status(400, body)).message
    negotiation = Negotiation("http", pinned_version=pinned)
    negotiation.on_http_status(400, body)
    assert isinstance(negotiation.on_result({"supportedVersions": [MODERN]}), Done)


def test_a_discovery_without_a_common_version_fails() -> None:
    step = failed(Negotiation("http").on_result({"supportedVersions": ["2099-01-01"]}))
    assert "2099-01-01" in step.message


def test_a_header_mismatch_fails_and_never_falls_back() -> None:
    assert "-32020" in failed(Negotiation("http").on_error(-32020, "no")).message
    assert failed(Negotiation("http").on_http_status(400, error_body(-32020))).status == 400


def test_a_missing_capability_proves_the_version() -> None:
    # Discovery is optional; the calls that need the capability will say so themselves.
    step = Negotiation("http").on_error(-32021, "no", {"requiredCapabilities": {}})
    assert step == Done(Agreed(version=MODERN, modern=True))


@pytest.mark.parametrize("version", [*LEGACY, HTTP_SSE])
def test_a_legacy_server_may_answer_with_any_version_that_we_speak(version: str) -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    step = negotiation.on_result({"protocolVersion": version})
    assert step == Done(Agreed(version=version, modern=False))


def test_a_legacy_server_with_a_version_that_we_do_not_speak_fails() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_error(-32601, "no")
    assert "1900-01-01" in failed(negotiation.on_result({"protocolVersion": "1900-01-01"})).message


def test_a_legacy_error_may_name_its_versions() -> None:
    # 2025-11-25, Lifecycle: -32602 with a list.
    negotiation = Negotiation("stdio")
    negotiation.on_error(-32601, "no")
    assert negotiation.on_error(-32602, "no", supported(HTTP_SSE)) == Initialize(HTTP_SSE)
    assert failed(negotiation.on_error(-32602, "no", supported(HTTP_SSE)))


@pytest.mark.parametrize("result", [{}, None, {"protocolVersion": 7}, {"protocolVersion": None}])
def test_an_initialize_result_without_a_version_fails(result: Any) -> None:
    negotiation = Negotiation("http")
    negotiation.on_http_status(404)
    step = failed(negotiation.on_result(result))
    assert "initialize" in step.message
    assert not step.try_sse


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_server_that_takes_no_initialize_may_be_of_the_old_transport(status: int) -> None:
    negotiation = Negotiation("http")
    negotiation.on_http_status(status)
    step = failed(negotiation.on_http_status(status, b"nope"))
    assert step.try_sse
    assert step.status == status


def test_other_statuses_do_not_hint_at_the_old_transport() -> None:
    for status in (406, 500):
        negotiation = Negotiation("http")
        negotiation.on_http_status(404)
        assert not failed(negotiation.on_http_status(status)).try_sse


@pytest.mark.parametrize("code", [-32601, -32602, -32020, -32021])
def test_a_slow_modern_server_is_probed_again(code: int) -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    assert negotiation.on_error(code, "initialize is unknown") == Discover(MODERN)
    assert negotiation.on_result(DISCOVERY) == Done(MODERN_AGREED)


def test_a_server_that_names_the_modern_version_when_initialized_is_probed_again() -> None:
    # What answered the first probe may have been a proxy.
    negotiation = Negotiation("http")
    negotiation.on_http_status(404)
    body = error_body(-32022, supported(MODERN))
    assert negotiation.on_http_status(400, body) == Discover(MODERN)
    assert negotiation.on_result(DISCOVERY) == Done(MODERN_AGREED)


@pytest.mark.parametrize("code", [-32020, -32021])
def test_a_modern_error_to_initialize_leads_back_to_the_probe(code: int) -> None:
    # A modern server misses its headers in a legacy request; a proxy ate the first probe.
    negotiation = Negotiation("http")
    negotiation.on_http_status(404)
    assert negotiation.on_http_status(400, error_body(code)) == Discover(MODERN)
    # A probe that is refused says nothing about the old transport.
    assert not failed(negotiation.on_http_status(404)).try_sse


def test_a_sick_server_ends_the_second_probe() -> None:
    negotiation = Negotiation("http")
    negotiation.on_http_status(404)
    negotiation.on_http_status(400, error_body(-32020))
    assert failed(negotiation.on_http_status(503)).status == 503


def test_a_server_without_a_common_version_is_not_of_the_old_transport() -> None:
    negotiation = Negotiation("http")
    negotiation.on_http_status(404)
    body = error_body(-32022, supported("2099-01-01"))
    assert not failed(negotiation.on_http_status(400, body)).try_sse


def test_a_silent_server_may_name_a_version_later() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    assert negotiation.on_error(-32602, "no", supported(HTTP_SSE)) == Initialize(HTTP_SSE)


@pytest.mark.parametrize("end", ["exit", "none common"])
def test_a_silent_server_may_fail_later(end: str) -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    unknown = {"protocolVersion": "2099-01-01"}
    assert failed(
        negotiation.on_process_exit() if end == "exit" else negotiation.on_result(unknown)
    )


def test_without_a_probe_left_a_legacy_version_is_followed() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    negotiation.on_error(-32601, "no")
    negotiation.on_error(-32022, "no", supported("2025-06-18"))
    step = negotiation.on_error(-32602, "no", supported(MODERN, "2025-03-26"))
    assert step == Initialize("2025-03-26")


def test_nobody_is_probed_a_third_time() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    assert negotiation.on_error(-32601, "no") == Discover(MODERN)
    assert negotiation.on_error(-32022, "no", supported("2025-06-18")) == Initialize("2025-06-18")
    assert failed(negotiation.on_error(-32020, "no"))


@pytest.mark.parametrize("end", ["silence", "exit", "error", "mismatch", "result", "versions"])
def test_the_second_probe_does_not_fall_back(end: str) -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    negotiation.on_error(-32601, "no")
    step = {
        "silence": negotiation.on_silence,
        "exit": negotiation.on_process_exit,
        "error": lambda: negotiation.on_error(-32601, "no"),
        "mismatch": lambda: negotiation.on_error(-32020, "no"),
        "result": lambda: negotiation.on_result({}),
        "versions": lambda: negotiation.on_result({"supportedVersions": ["2099-01-01"]}),
    }[end]()
    assert failed(step)


def test_the_second_probe_trusts_as_the_first() -> None:
    negotiation = Negotiation("stdio")
    negotiation.on_silence()
    negotiation.on_error(-32601, "no")
    assert negotiation.on_error(-32021, "no") == Done(Agreed(version=MODERN, modern=True))


def test_initialize_unanswered_fails() -> None:
    for begin in (lambda n: n.on_silence(), lambda n: n.on_error(-32601, "no")):
        negotiation = Negotiation("stdio")
        begin(negotiation)
        assert failed(negotiation.on_silence())


def test_pinned_to_the_modern_version_nothing_else_is_tried() -> None:
    for answer in (
        lambda n: n.on_error(-32601, "no"),
        lambda n: n.on_error(-32022, "no", supported("2025-11-25")),
        lambda n: n.on_silence(),
        lambda n: n.on_process_exit(),
        lambda n: n.on_result({"supportedVersions": ["2025-11-25"]}),
    ):
        negotiation = Negotiation("stdio", pinned_version=MODERN)
        assert negotiation.next() == Discover(MODERN)
        assert f"pinned to {MODERN}" in failed(answer(negotiation)).message
        negotiation.check_invariants()


@pytest.mark.parametrize("version", [*LEGACY, HTTP_SSE])
def test_pinned_to_a_legacy_version_there_is_no_probe(version: str) -> None:
    negotiation = Negotiation("http", pinned_version=version)
    assert negotiation.next() == Initialize(version)
    step = negotiation.on_result({"protocolVersion": version})
    assert step == Done(Agreed(version=version, modern=False))


def test_pinned_to_a_legacy_version_no_other_will_do() -> None:
    for answer in (
        lambda n: n.on_result(INITIALIZED),
        lambda n: n.on_error(-32020, "no"),
        lambda n: n.on_error(-32022, "no", supported(MODERN, "2025-11-25")),
    ):
        negotiation = Negotiation("http", pinned_version="2025-06-18")
        assert "pinned to 2025-06-18" in failed(answer(negotiation)).message


def test_the_old_transport_is_hinted_at_only_where_the_pin_allows_it() -> None:
    for version, hint in ((HTTP_SSE, True), ("2025-11-25", False)):
        negotiation = Negotiation("http", pinned_version=version)
        assert failed(negotiation.on_http_status(405)).try_sse is hint


@pytest.mark.parametrize(
    "result", [{**DISCOVERY, "_meta": 1, "capabilities": [], "instructions": 7}, DISCOVERY]
)
def test_what_a_server_says_of_itself_may_be_wrong(result: dict[str, Any]) -> None:
    step = Negotiation("http").on_result(result)
    assert isinstance(step, Done)
    expected = MODERN_AGREED if result is DISCOVERY else Agreed(version=MODERN, modern=True)
    assert step.agreed == expected


def test_after_the_end_every_input_is_a_fault_and_changes_nothing() -> None:
    negotiation = Negotiation("stdio")
    end = negotiation.on_result(DISCOVERY)
    for answer in (
        negotiation.on_result(INITIALIZED),
        negotiation.on_error(-32601, "no"),
        negotiation.on_silence(),
        negotiation.on_process_exit(),
    ):
        assert answer == Fault("the negotiation has ended")
    assert negotiation.next() == end


def test_inputs_of_the_other_transport_are_faults() -> None:
    no_status = Fault("there are no HTTP statuses on this transport")
    assert Negotiation("stdio").on_http_status(404) == no_status
    assert Negotiation("http").on_process_exit() == Fault("there is no process on this transport")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="transport must be"):
        Negotiation("carrier pigeon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pinned_version must be one of"):
        Negotiation("http", pinned_version="2099-01-01")


def test_a_peers_words_are_quoted_and_short() -> None:
    negotiation = Negotiation("stdio", pinned_version=MODERN)
    message = failed(negotiation.on_error(1, "\n\u202e\x1b[31m" + "x" * 10_000)).message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 400


def test_the_state_is_one_line() -> None:
    negotiation = Negotiation("http")
    assert repr(negotiation) == "<Negotiation http probing step 1>"
    negotiation.on_http_status(404)
    assert repr(negotiation) == "<Negotiation http initializing step 2>"
    statistics = negotiation.statistics()
    assert (statistics.phase, statistics.steps) == (Phase.INITIALIZING, 2)
    assert statistics.offers_left == len(LEGACY)


def test_the_table_is_total() -> None:
    asking = set(Phase) - {Phase.AGREED, Phase.FAILED}
    assert set(TABLE) == set(itertools.product(asking, Signal))
    assert len([MODERN, MODERN, *LEGACY, HTTP_SSE]) == STEPS_MAX
