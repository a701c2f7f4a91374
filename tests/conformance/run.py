"""The official MCP conformance suite: our client, and our gateway in front of a server.

``python -m tests.conformance.run [client] [server] [--backend NAME]`` runs what each revision
requires, and what the suite does not score besides: the client on every backend; and as servers
the official SDK's, alone and behind ``sark serve``. Nothing may fail, and what stands behind the
gateway must do exactly as well as without it. Nothing is expected to fail.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.peers.provision import PEERS, ROOT

REVISIONS = ("2026-07-28", "2025-11-25")
BACKENDS = ("trio", "asyncio")
CLIENT = Path(__file__).parent / "client.py"
SERVER = ROOT / "tests/peers/servers/conformance_mcp2.py"
#: Of one scenario. All of a suite's clients start at once, on however many cores there are.
SCENARIO_MS = 180_000
SUITE_S = 900
_LINE = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed(?:, (\d+) warnings?)?")
_SETTINGS = """
[gateway]
port = 0
passthrough = true
rate = {{ per_s = 1000.0, burst = 1000 }}
[policy]
allow_all = true
[audit]
directory = "audit"
[servers.peer]
url = "{url}"
{more}
"""


@frozen
class Score:
    """What one scenario came to."""

    passed: int
    failed: int
    warned: int


@frozen
class Report:
    """What one run of the suite came to."""

    title: str
    scores: Mapping[str, Score]
    output: str

    def total(self, what: str) -> int:
        return sum(getattr(one, what) for one in self.scores.values())

    @property
    def line(self) -> str:
        counts = (len(self.scores), self.total("passed"), self.total("failed"))
        return f"{self.title:<66}" + "".join(f"{n:>11}" for n in (*counts, self.total("warned")))

    @property
    def good(self) -> bool:
        return bool(self.scores) and not self.total("failed") and not self.total("warned")


def suite(title: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Report:
    """Run the suite, and read what it says in the end."""
    peer = PEERS["conformance"]
    index = peer.root / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [peer.root / "bin/node", index, *arguments, "--timeout", str(SCENARIO_MS)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SUITE_S,
            check=False,
        )
    found = filter(None, map(_LINE.match, done.stdout.splitlines()))
    scores = {one[1]: Score(int(one[2]), int(one[3]), int(one[4] or 0)) for one in found}
    report = Report(title, scores, done.stdout)
    print(report.line, flush=True)
    return report


def client(revision: str, backend: str) -> Report:
    """Our client against the suite's servers."""
    return suite(
        f"client {revision} on {backend}",
        "client",
        "--command",
        shlex.join([sys.executable, str(CLIENT)]),
        "--requirements",
        revision,
        env={"SARK_CONFORMANCE_BACKEND": backend},
    )


def server(title: str, url: str, revision: str) -> Report:
    """The suite's client against the server at *url*."""
    return suite(f"server {revision} {title}", "server", "--url", url, "--requirements", revision)


def servers(backends: Sequence[str]) -> list[Report]:
    """The SDK's server alone, and behind the gateway, which speaks both revisions to it."""
    reports: list[Report] = []
    argv = [PEERS["mcp2"].root / "bin/python", SERVER, "http"]
    with _printing_url(argv) as url:
        reports += [server("alone", url, revision) for revision in REVISIONS]
        for backend in backends:
            for revision in REVISIONS:
                with gateway(url, backend) as front:
                    reports.append(server(f"behind sark serve on {backend}", front, revision))
            with gateway(url, backend, REVISIONS[1]) as front:
                title = f"behind sark serve on {backend}, which speaks it too"
                reports.append(server(title, front, REVISIONS[1]))
    return reports


@contextmanager
def gateway(url: str, backend: str, version: str | None = None) -> Iterator[str]:
    """``sark serve`` in front of the server at *url*, to which it speaks *version*."""
    more = "" if version is None else f'protocol_version = "{version}"'
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "sark.toml"
        settings.write_text(_SETTINGS.format(url=url, more=more))
        argv = [sys.executable, "-m", "sark_trio", "serve", "--backend", backend]
        with _printing_url([*argv, "--config", settings]) as front:
            yield front


@contextmanager
def _printing_url(argv: Sequence[str | Path]) -> Iterator[str]:
    """A program that says the URL of its MCP endpoint, for as long as this lasts."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True)
    with process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            yield next(found[0] for line in lines if (found := re.search(r"http\S+/mcp", line)))
        finally:
            process.terminate()


def differences(reports: Sequence[Report]) -> list[str]:
    """Where a server does better or worse behind the gateway."""
    alone = {r.title.split()[1]: r.scores for r in reports if r.title.endswith("alone")}
    return [
        f"{report.title}: {name}: {score}, but alone {alone[revision].get(name)}"
        for report in reports
        if report.title.startswith("server") and not report.title.endswith("alone")
        for revision in [report.title.split()[1]]
        for name, score in report.scores.items()
        if score != alone[revision].get(name)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="client|server", help="default: both")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="default: all")
    options = parser.parse_args()
    backends = options.backend or list(BACKENDS)
    parts = options.parts or ["client", "server"]
    print(f"{'':<66}" + "".join(f"{w:>11}" for w in ("scenarios", "passed", "failed", "warned")))
    reports: list[Report] = []
    if "client" in parts:
        reports += [client(revision, backend) for revision in REVISIONS for backend in backends]
    if "server" in parts:
        reports += servers(backends)
    bad = [report for report in reports if not report.good]
    for report in bad:
        print(f"\n{report.title}:\n{report.output[-6_000:]}")
    different = differences(reports)
    print(*different, sep="\n")
    return 1 if bad or different or not reports else 0


if __name__ == "__main__":
    sys.exit(main())
