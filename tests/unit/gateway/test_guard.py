"""Names and credentials, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio import AllowAll, AuditLog, GatewayClient, Principal
from sark_trio.gateway import create_app
from sark_trio.gateway.asgi import Message, Request
from sark_trio.gateway.faults import Refused
from sark_trio.gateway.guard import KEYS_MAX, Access, Names
from tests.support.audit_disk import MemoryDisk

ALICE = Principal(id="alice")


async def _receive() -> Message:
    return {"type": "http.disconnect"}


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"method": "GET", "path": "/", "headers": raw}
    return Request.of(scope, _receive, 100)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "http://a", "a:b", "a:123456", "a\n", "[::1"])
def test_a_host_that_can_be_none_is_refused_at_once(host: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        Names(hosts=[host])


@pytest.mark.parametrize("origin", ["", "null", "*", "app.example", "https://a/", "ftp://a"])
def test_an_origin_that_can_be_none_is_refused_at_once(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Names(origins=[origin])


def test_one_name_needs_no_list() -> None:
    names = Names(hosts="Gateway.Example", origins="https://App.example")
    names.check(request(host="gateway.example:80", origin="https://APP.example"))
    with pytest.raises(Refused):
        names.check(request(host="g"))


@pytest.mark.parametrize(
    "key", ["", "short", "x" * 15, "has a space in it", "ümlaut-ümlaut-ümlaut"]
)
def test_a_key_that_can_be_guessed_or_not_sent_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="at least 16 visible ASCII") as caught:
        Access.of({key: ALICE}, None)
    assert key not in str(caught.value) or key in {"", "short"}
    with pytest.raises(ValueError, match="more than"):
        Access.of({f"a-key-of-some-length-{n}": ALICE for n in range(KEYS_MAX + 1)}, None)


@pytest.mark.parametrize("options", [{"body_bytes_max": 0}, {"requests_max": 0}])
def test_limits_must_be_positive(options: dict[str, int]) -> None:
    log = AuditLog("log", files=MemoryDisk())
    client = GatewayClient(policy=AllowAll(), audit=log)
    with pytest.raises(ValueError, match="must be positive"):
        create_app(client, **options)


@pytest.mark.security(35)
@pytest.mark.fault(48)
@pytest.mark.anyio
async def test_keys_are_not_kept_and_not_shown() -> None:
    key = "a-key-of-enough-length"
    access = Access.of({key: ALICE}, None)
    assert key not in repr(access)
    assert not access.open
    assert await access.principal(request(x_api_key=key)) is ALICE
    with pytest.raises(Refused) as caught:
        await access.principal(request(authorization=f"Bearer {key}"))
    assert caught.value.fault.reason == "scheme_unsupported"
    assert await Access.of({}, None).principal(request()) is None
