"""Sessions are bounded, owned and forgotten, against a naive oracle."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.gateway.refusals import RpcRefused
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
    scope = anyio.CancelScope()
    with busy.calls.under_way(1, scope):
        assert sessions.find(50.0, "b", None) is None
        assert sessions.find(50.0, "a", None) is busy
        other = sessions.open(50.0, "c", "v", None)
        assert other is not None
        with other.calls.under_way("x", anyio.CancelScope()):
            assert sessions.open(50.0, "d", "v", None) is None
            sessions.close(busy)
            assert scope.cancel_called
            assert sessions.open(50.0, "d", "v", None) is not None
    with pytest.raises(RpcRefused, match="ended"), busy.calls.under_way(2, anyio.CancelScope()):
        pass


def test_nobody_pushes_out_the_sessions_of_others() -> None:
    sessions = Sessions(sessions_max=4, owned_max=2)
    alices = sessions.open(0.0, "a", "v", "user:alice")
    for number in range(9):
        assert sessions.open(1.0, f"b{number}", "v", "user:bob") is not None
    assert sessions.find(1.0, "a", "user:alice") is alices
    found = [n for n in range(9) if sessions.find(1.0, f"b{n}", "user:bob") is not None]
    assert found == [7, 8]
    for name in ("b7", "b8"):
        session = sessions.find(2.0, name, "user:bob")
        assert session is not None
        sessions.close(session)
        sessions.close(session)  # twice is once
    assert len(sessions) == 1
    for number in range(3):  # all of the room is there again
        assert sessions.open(2.0, f"c{number}", "v", f"user:{number}") is not None
    assert len(sessions) == 4
    assert sessions.find(2.0, "a", "user:alice") is alices
