"""What hooks are told of a server process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sark_trio.telemetry.events import ProcessExited, ProcessStarted
from sark_trio.telemetry.hooks import Reporter
from sark_trio.transports.process import ChildProcess

__all__ = ["life_of"]


@contextmanager
def life_of(
    child: ChildProcess,
    report: Reporter | None,
    *,
    restarts: int,
    is_expected: Callable[[], bool],
) -> Iterator[None]:
    """Tell of the start of *child*, and at the end of the block of its own.

    :param restarts: processes of this server before it.
    :param is_expected: asked at the end: had we closed it?
    """
    if report is None:
        yield
        return
    server = report.server
    report.emit(ProcessStarted(server=server, pid=child.pid, restarts=restarts))
    try:
        yield
    finally:
        report.emit(
            ProcessExited(
                server=server, pid=child.pid, exit_code=child.exit_code, expected=is_expected()
            )
        )
