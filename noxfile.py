"""The project's verbs. ``nox -l`` lists them; ``nox -s tests -- ARGUMENTS`` hands some to pytest.

Each session makes its own environment from pyproject.toml, with uv where that is installed and
with virtualenv where not. ``SARK_PEERS=required`` turns a missing third-party peer from a
skipped test into a failure.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
#: They share real servers within a file, so a file stays in one process.
WITH_PEERS = ("tests/drivers", "tests/e2e", "tests/interop")


def _install(session: nox.Session, *groups: str) -> None:
    session.install("-e", ".[all]", *nox.project.dependency_groups(PROJECT, *groups))


def _peers(session: nox.Session, *names: str) -> None:
    required = os.environ.get("SARK_PEERS") == "required"
    options = [] if required else ["--optional"]
    session.run("python", "tests/peers/provision.py", *options, *names)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything: the laws, then units and tidiness, then drivers and real peers."""
    _install(session, "test")
    _peers(session)
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    apart = [f"--ignore={folder}" for folder in WITH_PEERS]
    cores = "--numprocesses=auto"
    anywhere = (cores, "--dist=worksteal")  # slow ones stand together: one process would get all
    session.run("python", "-m", "pytest", *anywhere, "--laws", "-m", "law")
    others = ("-m", "not law", "--durations=10")
    session.run("python", "-m", "pytest", *others, *anywhere, *apart)
    session.run("python", "-m", "pytest", *others, cores, "--dist=loadfile", *WITH_PEERS)


@nox.session
def laws(session: nox.Session) -> None:
    """Run the laws, list each with its test, and fail where a required one has none."""
    _install(session, "test")
    _peers(session)
    parallel = ["--numprocesses=auto", "--dist=worksteal"] if not session.posargs else []
    session.run("python", "-m", "pytest", "--laws", "-m", "law", *parallel, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on the package and on uses of its public names."""
    _install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of the package by its unit tests and laws; of white rooms, all of it."""
    _install(session, "test", "coverage")
    session.run("coverage", "run", "-m", "pytest", "tests/unit", "tests/laws", *session.posargs)
    session.run("coverage", "report", "--show-missing", "--skip-covered")
    if not session.posargs:
        rooms = PROJECT["tool"]["sark"]["covered_rooms"]
        places = [f"sark_trio/{room if room.endswith('.py') else room + '/*'}" for room in rooms]
        session.run(
            *("coverage", "report", "--skip-covered", "--fail-under=100"),
            f"--include={','.join(places)}",
        )


@nox.session
def mutate(session: nox.Session) -> None:
    """Mutation testing of the white rooms; ``-- sark_trio/machines/breaker.py``: one module."""
    _install(session, "test")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulated runs in virtual time: ``-- --seeds N``, or ``-- --seed S --trace``."""
    _install(session, "test")
    session.run("python", "-m", "tests.simulation", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def simulate_everywhere(session: nox.Session) -> None:
    """The same seeds on every Python: what they do has to be the same, to the last event."""
    _install(session, "test")
    noted = Path(session.cache_dir) / "simulation.txt"
    if session.python == "3.11":
        noted.unlink(missing_ok=True)
    command = ("-m", "tests.simulation", *(session.posargs or ["--hashes", "200"]))
    session.run("python", *command, "--as-in", str(noted))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing of what strangers send: ``-- --runs N``, ``-- TARGET ...``."""
    _install(session, "test", "fuzz")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """A steady load on real servers, and what it leaves behind: ``-- --minutes M [--rate R]``."""
    _install(session, "test")
    _peers(session, "opa")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session(name="probe-peers")
def probe_peers(session: nox.Session) -> None:
    """The same faults for our client and for others; without arguments, the page is written."""
    _install(session, "test")
    session.run("python", "tests/peers/provision.py", "mcp2", "fastmcp")
    session.run("python", "-m", "tests.probes", *(session.posargs or ["--write"]))


@nox.session
def deep(session: nox.Session) -> None:
    """The searches at length, each with its figure: ``-- PART ...``, ``-- MACHINE --events N``."""
    _install(session, "test", "fuzz")
    _peers(session)
    session.run("python", "-m", "tests.deep", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The official suite: our client, and our gateway in front of a server; ``-- client`` ..."""
    _install(session, "test")
    session.run("python", "tests/peers/provision.py", "conformance", "mcp2")
    session.run("python", "-m", "tests.conformance.run", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Our calls and the official SDK's in one run, as ratios; or ``-- subjects``: the report's."""
    _install(session, "test")
    if session.posargs[:1] == ["subjects"]:
        session.run("python", "-m", "benchmarks.subjects", *session.posargs[1:])
        return
    _peers(session, "mcp2")
    root = session.run("python", "tests/peers/provision.py", "--where", "mcp2", silent=True)
    sdk = ["--sdk-python", f"{root.strip()}/bin/python"] if root and root.strip() else []
    session.run("python", "benchmarks/run.py", *sdk, *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """One script over other people's servers; over all of them, or ``-- --server NAME``."""
    _install(session, "test")
    peers = ("mcp2", "mcp1", "node", "fastmcp", "node-extra", "go-sdk", "mcp-go", "rust-sdk")
    _peers(session, *peers)
    session.run("python", "-m", "tests.interop", *(session.posargs or ["--write"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    _install(session, "test", "docs")
    output = session.posargs or ["docs/_build/html"]
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-q", "-b", "html", "docs", *output)


@nox.session
def demo(session: nox.Session) -> None:
    """The README's first command line, on trio and on asyncio."""
    session.install(".[all]")
    for backend in ("trio", "asyncio"):
        session.run("sark", "demo", "--backend", backend, *session.posargs)


def _build(session: nox.Session, folder: Path) -> dict[str, str]:
    """Build wheel and source archive in *folder*: their digests."""
    env = {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "1700000000")}
    session.run("python", "-m", "build", "--outdir", str(folder), env=env, silent=True)
    built = sorted(folder.glob("sark_trio-*"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in built}


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel, twice the same, and use it from an empty place, where the checkout cannot
    shadow it.
    """
    session.install("build")
    built = Path(session.create_tmp()).resolve()
    digests = [_build(session, built), _build(session, built)]
    if digests[0] != digests[1]:
        session.error(f"two builds differ: {digests}")
    (wheel,) = built.glob("*.whl")
    session.install("--force-reinstall", f"{wheel}[all]")
    empty = built / "empty"
    empty.mkdir(exist_ok=True)
    session.chdir(empty)
    session.run("python", "-W", "error", "-c", "import sark_trio; print(sark_trio.__file__)")
    session.run("sark", "--help", silent=True)
    for artifact in built.glob("sark_trio-*"):
        artifact.unlink()
