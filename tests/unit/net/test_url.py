"""URLs of servers: what is accepted, and what is refused because it could mean two things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.net.url import Origin, ServerURL, parse_url, redirect_target


@pytest.mark.parametrize(
    ("text", "origin", "target", "shown"),
    [
        ("http://a.example", Origin("http", "a.example", 80), "/", "http://a.example/"),
        ("HTTPS://A.Example:443/mcp", Origin("https", "a.example", 443), "/mcp", None),
        ("https://a:8443/m?x=1&y=%20", Origin("https", "a", 8443), "/m?x=1&y=%20", None),
        ("http://127.0.0.1:80/", Origin("http", "127.0.0.1", 80), "/", "http://127.0.0.1/"),
        ("http://[::1]:9/", Origin("http", "::1", 9), "/", "http://[::1]:9/"),
        ("http://[2001:DB8::0]/", Origin("http", "2001:db8::", 80), "/", "http://[2001:db8::]/"),
        (
            "http://xn--bcher-kva.example?q",
            Origin("http", "xn--bcher-kva.example", 80),
            "/?q",
            None,
        ),
    ],
)
def test_good_urls_are_cut_into_origin_and_target(
    text: str, origin: Origin, target: str, shown: str | None
) -> None:
    found = parse_url(text)
    assert found == ServerURL(origin, target)
    assert found.origin.is_tls == text.lower().startswith("https")
    if shown is not None:
        assert str(found) == shown
    assert parse_url(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example",
        "//a.example/",
        "ftp://a.example/",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user@a.example/",
        "http://user:secret@a.example/",
        "http://a.example/#fragment",
        "http://a.example:0/",
        "http://a.example:/",
        "http://a.example:65536/",
        "http://a.example:x/",
        "http://a b/",
        "http://a.example/\r\nX: y",
        "http://a.example\\@evil.example/",
        "http://b\u00fccher.example/",
        "http://-a.example/",
        "http://a..example/",
        "http://a.example./",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "b/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://1.2.3.4.5/",
        "http://[::1/",
        "http://[::g]/",
        "http://[fe80::1%25eth0]/",
        "http://a.example/" + "x" * 8000,
    ],
)
def test_what_could_mean_two_things_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    for candidate in (text, f"http://{text}", f"https://a.example/{text}"):
        try:
            found = parse_url(candidate)
        except ValueError:
            continue
        assert found.target.startswith("/")
        assert "\r" not in str(found)
        assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other", "/other"),
        ("other?x", "/a/other?x"),
        ("http://h.example/b", "/b"),
        ("//h.example:80/b#frag", "/b"),
        ("?q", "/a/b?q"),
    ],
)
def test_redirects_stay_within_the_origin(location: str, target: str) -> None:
    base = parse_url("http://h.example/a/b")
    assert redirect_target(base, location) == ServerURL(base.origin, target)


@pytest.mark.security(6)
@pytest.mark.parametrize(
    "location",
    [
        "https://h.example/",
        "http://h.example:81/",
        "http://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "http://u@h.example/",
        "javascript:alert(1)",
        "/a b",
        "/\r\nX: y",
        "",
    ],
)
def test_redirects_elsewhere_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        redirect_target(parse_url("http://h.example/a/b"), location)
