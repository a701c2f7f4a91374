"""Sessions are bounded, owned and forgotten, against a naive oracle."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.gateway.sessions import Sessions

STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "find", "close"]), st.integers(0, 5), st.integers(0, 40)),
    max_size=60,
)


@given(steps=STEPS)
def test_sessions_do_as_the_oracle_says(steps: list[tuple[str, int, int]]) -> None:
    sessions, oracle, now = Sessions(sessions_max=3, idle_s=100.0), dict[str, float](), 0.0
    for number, (what, which, later) in enumerate(steps):
        now += later
        oracle = {name: at for name, at in oracle.items() if now - at < 100}
        name = f"s{which}"
        if what == "open":
            name = f"n{number}"
            if len(oracle) == 3:
                del oracle[min(oracle, key=lambda each: (oracle[each], list(oracle).index(each)))]
            opened = sessions.open(now, name, "v", None)
            assert opened is not None
            oracle[name] = now
        else:
            known = sorted(oracle)
            name = known[which % len(known)] if known and which < 5 else "unknown"
            found = sessions.find(now, name, None)
            assert (found is not None) == (name in oracle)
            if found is not None:
                oracle[name] = now
                oracle[name] = oracle.pop(name)
                if what == "close":
                    sessions.close(found)
                    del oracle[name]
        assert len(sessions) <= 3


def test_a_session_is_found_by_its_owner_alone() -> None:
    sessions = Sessions()
    opened = sessions.open(0.0, "s", "v", "user:alice")
    for owner in ("user:bob", "agent:alice", None):
        assert sessions.find(0.0, "s", owner) is None
    assert sessions.find(0.0, "s", "user:alice") is opened


@pytest.mark.anyio
async def test_a_session_with_calls_is_neither_forgotten_nor_pushed_out() -> None:
    sessions = Sessions(sessions_max=2, idle_s=10.0)
    busy, other = sessions.open(0.0, "a", "v", None), sessions.open(0.0, "b", "v", None)
    assert busy is not None
    assert other is not None
    busy.calls[1] = anyio.CancelScope()
    assert sessions.find(50.0, "b", None) is None
    assert sessions.find(50.0, "a", None) is busy
    other = sessions.open(50.0, "c", "v", None)
    assert other is not None
    other.calls["x"] = anyio.CancelScope()
    assert sessions.open(50.0, "d", "v", None) is None
    sessions.close(busy)
    assert busy.calls[1].cancel_called
    assert sessions.open(50.0, "d", "v", None) is not None
