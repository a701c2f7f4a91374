"""The official conformance suite's server scenarios, with the gateway in front of a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import run
from tests.support.peers import http_server, peer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    peer("conformance")
    with http_server("conformance-mcp2") as served:
        yield served


@pytest.fixture(scope="module", params=run.REVISIONS)
def alone(request: pytest.FixtureRequest, url: str) -> tuple[str, run.Report]:
    """What the server comes to without a gateway."""
    return request.param, run.server("alone", url, request.param)


@pytest.mark.parametrize("backend", run.BACKENDS)
def test_the_gateway_does_exactly_as_well_as_its_server(
    url: str, alone: tuple[str, run.Report], backend: str
) -> None:
    revision, report = alone
    assert report.good, report.output[-3_000:]
    with run.gateway(url, backend) as front:
        behind = run.server(f"behind sark serve on {backend}", front, revision)
    assert behind.scores == report.scores, behind.output[-3_000:]
    # The gateway's own: who asks under a foreign name, and headers that say something else.
    assert behind.scores["dns-rebinding-protection"].passed > 0
    assert (revision == run.REVISIONS[0]) == ("http-header-validation" in behind.scores)
