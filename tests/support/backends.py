"""The event loops that tests run on, as parameters of the ``anyio_backend`` fixture."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["BACKENDS", "BACKENDS_WITH_UVLOOP"]

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
#: uvloop differs from asyncio in its sockets and processes, so end-to-end tests run on it too.
BACKENDS_WITH_UVLOOP = [
    *BACKENDS,
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="the extra `uvloop` is not installed"
        ),
    ),
]
