"""Coverage-guided fuzzing of everything that strangers send.

    python -m tests.fuzz --runs 1000000          # so many inputs, shared by all targets
    python -m tests.fuzz sse http --runs 50000   # these only
    python -m tests.fuzz sse --input crash-1234  # one input, as it was found

A finding is written to ``tests/fuzz/corpus/TARGET/`` by hand, once it is fixed: the tests run
the corpus each time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
#: Each has a folder of examples to begin with.
NAMES = sorted(folder.name for folder in CORPUS.iterdir())
#: Longest input: longer than every limit of the targets.
INPUT_BYTES_MAX = 8192
#: One input never takes so long, on any machine.
INPUT_S = 10


def _fuzz_here(name: str, runs: int, folder: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    # Only what is looked at is slowed down by being watched; so nothing imports it before.
    with atheris.instrument_imports(include=["sark_trio"], enable_loader_override=False):
        from tests.fuzz.targets import DICTIONARY, TARGETS
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in DICTIONARY))
    grown = folder / "grown"
    grown.mkdir()
    arguments = [
        *(sys.argv[0], f"-runs={runs}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_S}"),
        *(f"-dict={words}", f"-artifact_prefix={name}-", "-print_final_stats=1", "-rss_limit_mb=0"),
        *(str(grown), str(CORPUS / name)),
    ]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _fuzz(names: list[str], runs: int) -> int:
    """Fuzz each target in a process of its own; the number of those with a finding."""
    findings = 0
    for name in names:
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", "--here", name, "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - began
        print(f"{name:14} {runs:9} inputs in {took:6.0f} s: ", end="")
        print("nothing found" if done.returncode == 0 else "FOUND", flush=True)
        if done.returncode != 0:
            findings += 1
            print(done.stderr[-6000:], file=sys.stderr)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--runs", type=int, default=110_000, help="inputs of all targets together")
    parser.add_argument("--input", type=Path, help="run this file, and nothing else")
    parser.add_argument("--here", metavar="TARGET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        with tempfile.TemporaryDirectory() as folder:
            _fuzz_here(options.here, options.runs, Path(folder))
        return 0
    names = options.targets or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.input is not None:
        from tests.fuzz.targets import TARGETS

        for name in names:
            TARGETS[name](options.input.read_bytes())
        return 0
    return 1 if _fuzz(names, max(1, options.runs // len(names))) else 0


if __name__ == "__main__":
    sys.exit(main())
