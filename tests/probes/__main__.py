"""The same faults for our client and for others, side by side: ``python -m tests.probes``.

``--probe NAME`` and ``--peer NAME`` run some of them; ``--write`` writes what was run into the page
of the documentation. The exit status is 1 where our own client is not clean.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from functools import partial

import anyio

from tests.probes import desks
from tests.probes.page import DATA, PAGE, Record, encoded, read, written
from tests.probes.play import COLUMNS, Cell, Column, in_a_process, play
from tests.probes.probes import PROBES, Probe

#: At a time: the servers are in this process.
TOGETHER = 2


async def _one(
    probe: Probe, column: Column, limit: anyio.CapacityLimiter, found: list[Cell]
) -> None:
    async with limit:
        cell = await play(probe, column, in_a_process(column, probe))
    found.append(cell)
    mark = "clean" if cell.clean else "NOT CLEAN"
    print(f"{probe.name} | {column.name} | {mark} | {cell.happened}", flush=True)
    for fault in cell.faults:
        print(f"    {fault}", flush=True)


async def run(probes: list[Probe], columns: list[Column]) -> list[Cell]:
    found: list[Cell] = []
    limit = anyio.CapacityLimiter(TOGETHER)
    async with anyio.create_task_group() as group:
        for probe in probes:
            for column in columns:
                group.start_soon(_one, probe, column, limit, found)
    order = [(probe.name, column.peer, column.backend) for probe in probes for column in columns]
    return sorted(found, key=lambda one: order.index((one.probe, one.peer, one.backend)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="nox -s probe-peers --", description=__doc__)
    parser.add_argument("--probe", action="append", choices=PROBES, metavar="NAME")
    parser.add_argument("--peer", action="append", choices={one.peer for one in COLUMNS})
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and {DATA.name}")
    options = parser.parse_args()
    probes = [PROBES[name] for name in options.probe or PROBES]
    wanted = [one for one in COLUMNS if not options.peer or one.peer in options.peer]
    for column in wanted:
        if not column.ready:
            print(f"not there: python tests/peers/provision.py {column.environment}", flush=True)
    columns = [column for column in wanted if column.ready]
    desks.bomb()  # not while a client is timed
    cells = anyio.run(partial(run, probes, columns), backend="trio")
    for column in columns:
        own = [one for one in cells if (one.peer, one.backend) == (column.peer, column.backend)]
        print(f"{column.name}: {sum(one.clean for one in own)} of {len(own)} clean")
    if options.write:
        kept = read(DATA.read_text()).cells if DATA.exists() else ()
        record = Record.of([*kept, *cells], dt.datetime.now(dt.UTC).date().isoformat())
        DATA.write_text(encoded(record))
        PAGE.write_text(written(record))
        print(f"wrote {PAGE} and {DATA}")
    return 1 if any(one.peer == "sark_trio" and not one.clean for one in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
