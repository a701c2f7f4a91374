"""A steady load on real servers, for minutes or hours, and what it leaves behind.

    python -m tests.soak --minutes 5 [--rate 500] [--backend trio] [--every 15] [--keep FOLDER]

One faulty server on six wires, in a process of its own (and one started by the client), OPA where
it was provisioned, audit, cache and breaker on. Of the calls, 1 % meet a fault of the server and
half a percent are given up by their callers. Each event loop has a process of its own. The exit
status is 1 where descriptors, tasks, threads or children grew, a call was executed twice or has
no outcome in the log, an answer was wrong, or an exception outside the tree left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio

from tests.peers.provision import PEERS
from tests.soak.desks import WIRES
from tests.soak.report import summary
from tests.soak.run import POLICY, Plan, soaked
from tests.support.peers import opa_server

BACKENDS = ("trio", "asyncio")


@contextmanager
def desks(folder: Path) -> Iterator[dict[str, str]]:
    """The servers behind URLs, in a process of their own."""
    argv = [sys.executable, "-m", "tests.soak.desks", str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
            if process.poll() is not None:
                raise SystemExit("the servers broke down: nothing was learnt of the client")
        finally:
            process.stdin.close()


def one(options: argparse.Namespace, folder: Path) -> int:
    """The soak on one event loop, in this process."""
    with ExitStack() as stack:
        opa = stack.enter_context(opa_server(POLICY)) if PEERS["opa"].ready else None
        plan = Plan(
            urls=stack.enter_context(desks(folder)),
            opa=opa,
            folder=folder,
            log=folder / "audit",
            minutes=options.minutes,
            rate=options.rate,
            every_s=options.every,
            share=options.share,
            wires=tuple(options.wire or WIRES),
        )
        soak = anyio.run(soaked, plan, options.backend, backend=options.backend)
    print(summary(plan, soak), flush=True)
    return 1 if soak.failures else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=500.0, help="calls a second (default: 500)")
    parser.add_argument("--share", type=float, default=0.01, help="of faults (default: 0.01)")
    parser.add_argument("--wire", action="append", choices=WIRES, help="only this one, or these")
    parser.add_argument("--backend", choices=BACKENDS, help="only this one, in this process")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two lines")
    parser.add_argument("--keep", type=Path, help="keep logs and the servers' records here")
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(given)
    if options.backend is None:
        status = 0
        for backend in BACKENDS:
            command = [sys.executable, "-m", "tests.soak", *given, "--backend", backend]
            status |= subprocess.run(command, check=False).returncode
        return status
    if options.keep is not None:
        folder = options.keep / options.backend
        folder.mkdir(parents=True)
        return one(options, folder)
    with tempfile.TemporaryDirectory(prefix="sark-soak-") as made:
        return one(options, Path(made))


if __name__ == "__main__":
    sys.exit(main())
