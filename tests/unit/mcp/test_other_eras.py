"""Errors that say that a server, or its session, is another one now."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.errors import HTTPStatusError, status_error
from sark_trio.mcp.evidence import contradicts
from sark_trio.mcp.messages import Failure, Success
from sark_trio.mcp.session import denies_session


def failure(code: int, message: str = "no") -> Failure:
    return Failure(1, code, message)


def status(number: int) -> HTTPStatusError:
    return status_error(number, "no")


@pytest.mark.parametrize(
    ("answer", "modern", "legacy"),
    [
        (Success(1, {}), False, False),
        # Only modern servers give these; one of them also to a modern request.
        (failure(-32020), False, True),
        (failure(-32021), False, True),
        (failure(-32022), True, True),
        # A request without a session, to the SDKs of the session era.
        (failure(-32600), True, False),
        (failure(-32000), True, False),
        # What anybody says about a request.
        (failure(-32601), False, False),
        (failure(-32602), False, False),
        (failure(7), False, False),
        (status(400), True, False),
        (status(404), True, False),
        (status(405), True, False),
        # Credentials, rate, a sick server.
        (status(401), False, False),
        (status(403), False, False),
        (status(429), False, False),
        (status(500), False, False),
        (status(503), False, False),
    ],
)
def test_what_casts_doubt_on_the_era(answer: Any, modern: bool, legacy: bool) -> None:
    assert contradicts(answer, modern=True) is modern
    assert contradicts(answer, modern=False) is legacy


@pytest.mark.parametrize(
    ("answer", "denied"),
    [
        (failure(-32000, "Bad Request: No valid session ID provided"), True),
        (failure(-32600, "Bad Request: No valid session ID provided"), True),
        (failure(-32000, "Bad Request: Server not initialized"), False),
        (failure(-32602, "no such session id"), False),
        (Success(1, {"content": "session id"}), False),
    ],
)
def test_what_denies_a_session_under_400(answer: Success | Failure, denied: bool) -> None:
    assert denies_session(answer) is denied
