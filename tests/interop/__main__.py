"""Run the script over other people's servers: ``python -m tests.interop [--server NAME ...]``.

``--backend trio|asyncio`` uses one event loop instead of both, ``--write`` writes the page of the
documentation if everything was run. The exit status is 1 where a cell failed, or where a server
that was named is not there (``python tests/peers/provision.py`` builds them).
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio

from tests.interop.column import COLUMNS, Cell, run_subject
from tests.interop.matrix import PAGE, Row, merged, printed, written
from tests.interop.servers import SUBJECTS, Subject
from tests.peers.provision import PEERS

BACKENDS = ("trio", "asyncio")


def row_of(subject: Subject, backends: Sequence[str]) -> Row:
    """Run it on each of *backends*."""
    rows = []
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="sark-interop-") as folder:
            try:
                rows.append(anyio.run(run_subject, subject, Path(folder), backend=backend))
            except Exception as exc:  # noqa: BLE001 - one server's trouble is one row's
                broken = Cell("failed", f"on {backend}: {type(exc).__name__}: {exc}")
                rows.append(dict.fromkeys(COLUMNS, broken))
    return merged(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument("--server", action="append", choices=sorted(SUBJECTS), metavar="NAME")
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args(argv)
    backends = BACKENDS if options.backend is None else (options.backend,)
    wanted = [SUBJECTS[name] for name in options.server or SUBJECTS]
    missing = sorted({s.peer for s in wanted if not PEERS[s.peer].ready})
    for name in missing:
        print(f"not there: python tests/peers/provision.py {name}", flush=True)
    rows: dict[str, Row] = {}
    for subject in wanted:
        if subject.peer not in missing:
            rows[subject.name] = row_of(subject, backends)
            print(printed(subject.name, rows[subject.name]), flush=True)
    states = [cell.state for row in rows.values() for cell in row.values()]
    print(f"{len(rows)} servers, {len(states)} cells, {states.count('failed')} failed")
    is_all = len(rows) == len(SUBJECTS) and backends == BACKENDS
    if options.write and is_all and "failed" not in states:
        today = dt.datetime.now(dt.UTC).date().isoformat()
        PAGE.write_text(written(rows, date=today, backends=" and on ".join(backends)))
        print(f"wrote {PAGE}")
    return 1 if "failed" in states or (options.server and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
