"""Errors by their codes."""

from __future__ import annotations

import mcp_types
import pytest

from sark_trio.errors import RemoteError
from sark_trio.mcp.faults import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    HandlerFailed,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    MissingCapability,
    ResourceNotFound,
    UnsupportedVersion,
    UrlElicitationRequired,
    remote_error,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (mcp_types.METHOD_NOT_FOUND, MethodNotFound),
        (mcp_types.INVALID_PARAMS, InvalidParams),
        (-32002, ResourceNotFound),
        (-32020, HeaderMismatch),
        (-32021, MissingCapability),
        (-32022, UnsupportedVersion),
        (mcp_types.URL_ELICITATION_REQUIRED, UrlElicitationRequired),
        (-32603, RemoteError),
        (7, RemoteError),
    ],
)
def test_a_code_has_its_type(code: int, kind: type[RemoteError]) -> None:
    error = remote_error(code, "no", {"x": 1}, server="s")
    assert type(error) is kind
    assert (error.code, error.message, error.server, error.delivery) == (
        code,
        "no",
        "s",
        "answered",
    )


def test_codes_of_our_own_answers() -> None:
    ours = (INVALID_REQUEST, INTERNAL_ERROR)
    assert ours == (mcp_types.INVALID_REQUEST, mcp_types.INTERNAL_ERROR)
    assert HandlerFailed("no").delivery == "answered"


def test_what_an_error_says_is_read_and_never_trusted() -> None:
    missing = remote_error(-32021, "no", {"requiredCapabilities": {"roots": {}}})
    assert isinstance(missing, MissingCapability)
    assert missing.required == {"roots": {}}
    version = remote_error(-32022, "no", {"supported": ["2025-11-25", 7]})
    assert isinstance(version, UnsupportedVersion)
    assert version.supported == ("2025-11-25",)
    page = remote_error(-32042, "no", {"elicitations": [{"url": "u"}, 7]})
    assert isinstance(page, UrlElicitationRequired)
    assert page.elicitations == ({"url": "u"},)
    for data in (None, [], {"requiredCapabilities": 1, "supported": 1, "elicitations": 1}):
        assert remote_error(-32021, "no", data).required == {}  # type: ignore[attr-defined]
        assert remote_error(-32022, "no", data).supported == ()  # type: ignore[attr-defined]
        assert remote_error(-32042, "no", data).elicitations == ()  # type: ignore[attr-defined]
