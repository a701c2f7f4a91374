"""The documentation's programs run, and print what its pages say they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.peers import peer
from tests.tidy.source import ROOT

DOCS = ROOT / "docs"
#: What examples import; no program of its own.
SHARED = {"trial_gateway.py"}
EXAMPLES = sorted({path.name for path in (DOCS / "examples").glob("*.py")} - SHARED)
#: What an example needs beside the package: the peer whose programs must be on PATH.
NEEDS = {"quickstart.py": "mcp2", "client_opa.py": "opa"}


def shown_output(example: str) -> str:
    """What a page shows below ``$ python NAME``."""
    for page in DOCS.rglob("*.md"):
        block = re.search(rf"\$ python {re.escape(example)}\n(.*?)```", page.read_text(), re.DOTALL)
        if block:
            return block[1]
    raise LookupError(f"no page shows what {example} prints")


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_prints_what_its_page_shows(example: str, tmp_path: Path) -> None:
    search_path = os.environ.get("PATH", "")
    if example in NEEDS:
        search_path = f"{peer(NEEDS[example]).root / 'bin'}{os.pathsep}{search_path}"
    done = subprocess.run(
        [sys.executable, "-W", "error", DOCS / "examples" / example],
        cwd=tmp_path,
        env={**os.environ, "PATH": search_path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shown_output(example)


def test_every_example_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    names = sorted(path.name for path in (DOCS / "examples").iterdir() if path.is_file())
    assert [name for name in names if f"examples/{name}" not in pages] == []
