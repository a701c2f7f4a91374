"""The official conformance suite's client scenarios, but for those about authorization."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.peers import peer
from tests.tidy.source import ROOT

CLIENT = Path(__file__).parent / "client.py"
#: What the requirements of each revision name, and the preservation of schemas in both.
SCENARIOS = [
    *(
        ("2026-07-28", name)
        for name in (
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        )
    ),
    *(
        ("2025-11-25", name)
        for name in (
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        )
    ),
]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("version", "scenario"), SCENARIOS)
def test_the_suite_is_content(version: str, scenario: str, backend: str, tmp_path: Path) -> None:
    suite = peer("conformance")
    index = suite.root / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    command = [suite.program("node"), index, "client", "--scenario", scenario]
    command += ["--command", shlex.join([sys.executable, str(CLIENT)])]
    command += ["--spec-version", version]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SARK_CONFORMANCE_BACKEND": backend},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3_000:]
    assert "OVERALL: PASSED" in said
    assert ", 0 failed, 0 warnings" in said
