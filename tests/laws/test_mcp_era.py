"""Laws of the era negotiation: total, bounded, and never downgraded by a modern server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.mcp.codec import encode_error
from sark_trio.mcp.era import (
    STEPS_MAX,
    Discover,
    Done,
    Failed,
    Initialize,
    Negotiation,
)
from sark_trio.mcp.messages import Fault
from sark_trio.mcp.versions import LEGACY, MODERN, SPOKEN
from tests.support.traces import traces

VERSIONS = st.sampled_from([*SPOKEN, "2099-01-01", "zzz", ""])
JUNK = st.none() | st.integers() | st.text(max_size=3) | st.lists(VERSIONS, max_size=3)
VERSION_LISTS = st.lists(VERSIONS | JUNK, max_size=4)
CODES = st.sampled_from([-32022, -32021, -32020, -32601, -32602, -32600, -32603, 0])
DATA = JUNK | st.fixed_dictionaries({}, optional={"supported": VERSION_LISTS | JUNK})
RESULTS = JUNK | st.fixed_dictionaries(
    {},
    optional={
        "supportedVersions": VERSION_LISTS | JUNK,
        "protocolVersion": VERSIONS | JUNK,
        "capabilities": JUNK | st.just({}),
        "serverInfo": JUNK | st.just({}),
        "_meta": JUNK | st.just({}),
        "instructions": JUNK,
    },
)

Answer = Callable[[Negotiation], Any]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    kind = draw(st.sampled_from(["result", "error", "status", "silence", "exit"]))
    if kind == "result":
        result = draw(RESULTS)
        return lambda n: n.on_result(result)
    code, text, data = draw(CODES), draw(st.text(max_size=5)), draw(DATA)
    if kind == "error":
        return lambda n: n.on_error(code, text, data)
    if kind == "status":
        status = draw(st.integers(100, 599))
        body = draw(st.binary(max_size=9) | st.just(encode_error(1, code, "x", data)))
        return lambda n: n.on_http_status(status, body)
    return Negotiation.on_silence if kind == "silence" else Negotiation.on_process_exit


@st.composite
def negotiations(draw: st.DrawFn) -> Negotiation:
    transport: Any = draw(st.sampled_from(["http", "stdio"]))
    pinned = draw(st.none() | st.sampled_from(SPOKEN))
    return Negotiation(transport, pinned_version=pinned)


@given(negotiations(), traces(answers(), most=30))
def test_every_sequence_of_answers_ends_within_its_steps(
    negotiation: Negotiation, sequence: list[Answer]
) -> None:
    """Whatever comes, no version is offered twice, and no server is probed a third time."""
    requests = [negotiation.next()]
    for answer in sequence:
        before = negotiation.next()
        step = answer(negotiation)
        negotiation.check_invariants()
        if isinstance(step, Fault):
            assert negotiation.next() == before
        elif isinstance(step, Discover | Initialize):
            requests.append(step)
    asked = [step for step in requests if isinstance(step, Discover | Initialize)]
    assert len(asked) <= STEPS_MAX
    # No legacy version is offered twice, and nobody is probed a third time.
    offers = [step.version for step in asked if isinstance(step, Initialize)]
    assert len(offers) == len(set(offers))
    assert sum(isinstance(step, Discover) for step in asked) <= 2


@given(negotiations(), st.lists(answers(), min_size=STEPS_MAX, max_size=STEPS_MAX))
def test_enough_answers_always_end_it(negotiation: Negotiation, sequence: list[Answer]) -> None:
    """After STEPS_MAX answers that were taken, the negotiation has ended."""
    faults = 0
    for answer in sequence:
        faults += isinstance(answer(negotiation), Fault)
    assert faults or isinstance(negotiation.next(), Done | Failed)


@given(negotiations(), st.lists(answers(), max_size=12))
def test_what_was_pinned_is_what_is_agreed(
    negotiation: Negotiation, sequence: list[Answer]
) -> None:
    """With a pinned version no other one is asked for or agreed."""
    for answer in sequence:
        answer(negotiation)
        step = negotiation.next()
        if negotiation.pinned_version is not None and not isinstance(step, Failed):
            version = step.agreed.version if isinstance(step, Done) else step.version
            assert version == negotiation.pinned_version


@given(
    st.sampled_from(["http", "stdio"]),
    st.sampled_from([-32020, -32021, -32022]),
    st.lists(st.sampled_from([MODERN, "2099-01-01"]), max_size=3),
)
def test_a_modern_error_never_leads_to_a_handshake_that_the_server_did_not_name(
    transport: Any, code: int, supported: list[str]
) -> None:
    """A modern error is no reason to fall back to initialize."""
    negotiation = Negotiation(transport)
    assert not isinstance(negotiation.on_error(code, "no", {"supported": supported}), Initialize)
    if transport == "http":
        negotiation = Negotiation("http")
        body = encode_error(1, code, "no", {"supported": supported})
        assert not isinstance(negotiation.on_http_status(400, body), Initialize)


# One answer of each kind that the machine tells apart.
KINDS: dict[str, Answer] = {
    "discovery": lambda n: n.on_result({"supportedVersions": [MODERN]}),
    "old discovery": lambda n: n.on_result({"supportedVersions": [LEGACY[1]]}),
    "initialized": lambda n: n.on_result({"protocolVersion": LEGACY[0]}),
    "foreign result": lambda n: n.on_result({}),
    "foreign error": lambda n: n.on_error(-32601, "no"),
    "named modern": lambda n: n.on_error(-32022, "no", {"supported": [MODERN]}),
    "named legacy": lambda n: n.on_error(-32022, "no", {"supported": [LEGACY[2]]}),
    "none common": lambda n: n.on_error(-32022, "no", {"supported": ["2099-01-01"]}),
    "mismatch": lambda n: n.on_error(-32020, "no"),
    "capability": lambda n: n.on_error(-32021, "no"),
    "silence": Negotiation.on_silence,
    "exit": Negotiation.on_process_exit,
    "404": lambda n: n.on_http_status(404),
    "503": lambda n: n.on_http_status(503),
}


@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize("pinned", [None, MODERN, LEGACY[0]])
def test_small_scope_every_sequence_of_four_answers(transport: Any, pinned: str | None) -> None:
    """Exhaustive: whatever four answers come, the invariants hold and ends are final."""
    for sequence in itertools.product(KINDS.values(), repeat=4):
        negotiation = Negotiation(transport, pinned_version=pinned)
        ended: object = None
        for answer in sequence:
            step = answer(negotiation)
            negotiation.check_invariants()
            assert ended is None or isinstance(step, Fault)
            if isinstance(negotiation.next(), Done | Failed):
                assert ended in {None, id(negotiation.next())}
                ended = id(negotiation.next())


# Real servers, each as what it answers to a probe and to initialize.
def _modern(n: Negotiation) -> Any:
    if isinstance(n.next(), Discover):
        return n.on_result({"supportedVersions": [MODERN]})
    return n.on_error(-32601, "unknown method initialize")


def _legacy(n: Negotiation) -> Any:
    if isinstance(n.next(), Discover):
        return n.on_error(-32602, "invalid before initialize")
    return n.on_result({"protocolVersion": LEGACY[0]})


def _silent_legacy(n: Negotiation) -> Any:
    return n.on_silence() if isinstance(n.next(), Discover) else _legacy(n)


def _dying_legacy(n: Negotiation) -> Any:
    return n.on_process_exit() if isinstance(n.next(), Discover) else _legacy(n)


@pytest.mark.parametrize(
    ("server", "late", "modern"),
    [
        (_modern, 0, True),
        (_modern, 1, True),
        (_legacy, 0, False),
        (_legacy, 1, False),
        (_silent_legacy, 0, False),
        (_dying_legacy, 0, False),
    ],
)
def test_the_era_found_is_the_servers_even_if_it_starts_late(
    server: Answer, late: int, modern: bool
) -> None:
    """The era agreed is the era of the server, silent and dying ones included."""
    negotiation = Negotiation("stdio")
    for _ in range(late):
        negotiation.on_silence()
    while not isinstance(negotiation.next(), Done | Failed):
        server(negotiation)
    end = negotiation.next()
    assert isinstance(end, Done)
    assert end.agreed.modern is modern
