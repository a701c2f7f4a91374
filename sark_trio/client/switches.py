"""The operator's kill switch, for what is about to connect before policy is asked."""

from __future__ import annotations

import anyio

from sark_trio.client.caller import Caller
from sark_trio.client.records import Records
from sark_trio.governance.principal import Principal

__all__ = ["check_on", "is_off"]


def is_off(caller: Caller, server: str, principal: Principal) -> bool:
    """Whether *principal* may not even connect to *server*."""
    return caller.governor.blocks.covering(server, None, principal.id) is not None


def check_on(caller: Caller, server: str, principal: Principal, method: str) -> None:
    """Refuse, and record, a request for the whole of a server that is switched off.

    :raises Denied: it is; ``reason`` is ``blocked``.
    """
    block = caller.governor.blocks.covering(server, None, principal.id)
    if block is None:
        return
    denial = block.denial()
    records = Records(
        log=caller.audit,
        request_id=caller.new_id(),
        server=server,
        tool=None,
        method=method,
        principal=principal,
        began=anyio.current_time(),
    )
    records.refusal(denial, None)
    denial.server, denial.request_id = server, records.request_id
    raise denial
