"""Nothing that asks the network waits for it in the event loop's own thread."""

from __future__ import annotations

import pytest

from tests.tidy.source import Import, imports, package_files

FILES = package_files()
#: Clients that know no event loop; whoever calls them stops everybody.
SYNCHRONOUS = (
    *("ftplib", "http.client", "httpx", "imaplib", "poplib", "requests", "smtplib"),
    *("socketserver", "urllib.request", "urllib3", "xmlrpc"),
)


def synchronous(found: Import) -> bool:
    """Whether it imports one of them, as a whole or a name from it."""
    whole = found.module if found.name is None else f"{found.module}.{found.name}"
    return any(f"{whole}.".startswith(f"{one}.") for one in SYNCHRONOUS)


@pytest.mark.fault(23)
def test_no_module_has_a_client_that_blocks_the_event_loop() -> None:
    blocking = [
        f"{path}:{found.line} {found.module}"
        for path, text in FILES.items()
        for found in imports(text, path)
        if synchronous(found)
    ]
    assert blocking == []


@pytest.mark.parametrize(
    "text",
    [
        "import httpx",
        "def f():\n    from urllib.request import urlopen",
        "from urllib import request",
        "import http.client as h",
    ],
)
def test_one_that_blocks_is_found(text: str) -> None:
    assert [synchronous(found) for found in imports(text, "client/a.py")] == [True]


def test_parsers_of_urls_and_status_codes_do_not_block() -> None:
    text = "from urllib.parse import quote\nfrom http import HTTPStatus"
    assert [synchronous(found) for found in imports(text, "client/a.py")] == [False, False]
