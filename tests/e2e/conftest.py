"""End-to-end tests meet real sockets and processes, so they run on uvloop as well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.backends import BACKENDS_WITH_UVLOOP


@pytest.fixture(params=BACKENDS_WITH_UVLOOP)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop that an ``anyio`` test runs on: asyncio, trio and uvloop."""
    return request.param
