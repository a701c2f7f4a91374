"""URIs say whose a resource is, and results name resources as they are to be asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.gateway.uris import exposed, exposed_in, own

SERVERS = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", re.ASCII), fullmatch=True)


@given(server=SERVERS, uri=st.text(min_size=1))
def test_what_is_exposed_leads_back(server: str, uri: str) -> None:
    assert own(exposed(server, uri)) == (server, uri)


@pytest.mark.parametrize("uri", ["", "file:///a", "mcp://", "mcp://a", "mcp://a/", "mcp:///x://y"])
def test_what_was_never_exposed_leads_nowhere(uri: str) -> None:
    assert own(uri) is None


def test_expanding_a_template_is_expanding_its_server_s() -> None:
    assert exposed("a", "note://{name}").replace("{name}", "one") == exposed("a", "note://one")


def test_results_name_resources_as_they_are_exposed() -> None:
    link = {"type": "resource_link", "uri": "x://1", "name": "one"}
    embedded = {"type": "resource", "resource": {"uri": "x://2", "text": ""}}
    text = {"type": "text", "text": "x://3", "uri": "x://3"}
    shown = exposed_in(
        {
            "content": [link, embedded, text, 7, {"type": "resource"}],
            "contents": [{"uri": "x://4", "text": ""}, {"text": "none"}],
            "messages": [{"role": "user", "content": embedded}, None],
            "structuredContent": {"uri": "x://5"},
        },
        lambda uri: f"!{uri}",
    )
    assert shown == {
        "content": [
            {**link, "uri": "!x://1"},
            {"type": "resource", "resource": {"uri": "!x://2", "text": ""}},
            text,
            7,
            {"type": "resource", "resource": None},
        ],
        "contents": [{"uri": "!x://4", "text": ""}, {"text": "none"}],
        "messages": [
            {"role": "user", "content": {**embedded, "resource": {"uri": "!x://2", "text": ""}}},
            None,
        ],
        "structuredContent": {"uri": "x://5"},
    }
