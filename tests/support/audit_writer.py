"""A process that forks writers of an audit log, each of which writes until it is killed.

    python -m tests.support.audit_writer DIRECTORY BACKEND FSYNC WRITERS SEGMENT_BYTES

A writer prints ``ready``, then a line for every call: ``i <request id>`` once the intent is
durable, ``o <request id>`` once the outcome is. What was printed was promised.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import count
from typing import Any

import anyio

from sark_trio.stores.audit import AuditedCall, AuditLog, Outcome


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def write(log: AuditLog, name: str) -> None:
    for number in count():
        request_id = f"{name}-{number}"
        call = AuditedCall(
            request_id=request_id,
            server="db",
            tool="query",
            principal_id="alice",
            args={"sql": "select 1", "padding": "x" * (number * 37 % 400)},
        )
        await log.intent(call)
        say(f"i {request_id}")
        outcome = Outcome(request_id=request_id, outcome="ok", delivery="answered", attempts=1)
        durable = number % 2 == 0
        await log.outcome(outcome, wait=durable)
        if durable:
            say(f"o {request_id}")


async def main(directory: str, fsync: Any, writers: int, segment_bytes: int) -> None:
    log = AuditLog(directory, fsync=fsync, segment_bytes_max=segment_bytes)
    async with anyio.create_task_group() as tasks:
        await tasks.start(log.run)
        say("ready")
        for number in range(writers):
            tasks.start_soon(write, log, f"{os.getpid()}-{number}")


if __name__ == "__main__":
    from tests.support.kills import serve

    directory, backend, fsync, writers, segment_bytes = sys.argv[1:]
    serve(
        partial(
            anyio.run, main, directory, fsync, int(writers), int(segment_bytes), backend=backend
        )
    )
