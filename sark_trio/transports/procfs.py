"""What the processes of one session use, as Linux tells in ``/proc``.

One file for each process says all of it: the session, the processor time, the memory. Looking
through them costs some ten microseconds each, on every process of the machine, so it is done on
a worker thread and not in the event loop.
"""

from __future__ import annotations

import os
from pathlib import Path

from sark_trio.machines.limits import Usage

__all__ = ["session_usage"]

# proc_pid_stat(5), counted from the field after the command's name, which is the third.
_SESSION, _USER, _RSS_PAGES = 3, 11, 21
#: user and system time, of the process and of its children that were waited for.
_TIMES = 4


def session_usage(leader: int, proc: Path = Path("/proc")) -> Usage:
    """The memory and the processor time of all processes in the session of *leader*."""
    ticks = pages = 0
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        try:
            stat = Path(entry.path, "stat").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        # A command's name may hold spaces and parentheses: the last one ends it.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if int(fields[_SESSION]) == leader:
            ticks += sum(map(int, fields[_USER : _USER + _TIMES]))
            pages += int(fields[_RSS_PAGES])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))
