"""What every test gets: a backend, a Hypothesis profile, and a check that it left nothing behind.

Async tests say which of two plugins runs them. ``@pytest.mark.anyio`` runs on every backend
of the ``anyio_backend`` fixture, in real time. ``@pytest.mark.trio`` runs on trio under
pytest-trio, whose ``autojump_clock`` fixture makes waiting free: everything about time is
tested there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.backends import BACKENDS

pytest_plugins = ["tests.support.laws"]

# `too_slow` measures the machine, not the test; slow tests are found by `--durations`.
_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, stateful_step_count=50, **_QUIET)
# The same examples each time: a red CI is a change, never luck. Luck is for `deep`.
settings.register_profile(
    "ci", max_examples=200, stateful_step_count=80, derandomize=True, print_blob=True, **_QUIET
)
settings.register_profile("deep", max_examples=10_000, stateful_step_count=200, **_QUIET)
settings.load_profile(os.environ.get("SARK_HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop that an ``anyio`` test runs on: asyncio and trio."""
    return request.param


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves a child process (a zombie, too) or a thread of its own behind."""
    children, threads = _children(), set(threading.enumerate())
    yield
    left = _children() - children
    assert not left, f"child processes left behind: {sorted(left)}"
    # Event loops keep idle workers as daemons; they end by themselves.
    strangers = [t for t in threading.enumerate() if t not in threads and not t.daemon]
    for thread in strangers:
        thread.join(5)  # one that was told to end may need a moment for it
    strangers = [thread for thread in strangers if thread.is_alive()]
    assert not strangers, f"threads left behind: {strangers}"


def _children() -> set[str]:
    # Linux tells in one read for each thread; elsewhere the check sees nothing.
    found: set[str] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(listing.read_text().split())
        except OSError:
            continue  # the thread ended meanwhile
    return found
