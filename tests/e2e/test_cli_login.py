"""``sark login`` and ``sark logout``, as programs, against a real authorization server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from tests.support.authority import Authority, authority, consent
from tests.tidy.source import ROOT

# The command runs in processes of its own: one event loop on our side is enough.
pytestmark = pytest.mark.trio


def environ(tmp_path: Path) -> dict[str, str]:
    more = {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **more}


def configured(tmp_path: Path, site: Authority, auth: str = "auth = {}") -> Path:
    path = tmp_path / "sark.toml"
    path.write_text(f'[policy]\nallow_all = true\n[servers.db]\nurl = "{site.url}"\n{auth}\n')
    return path


async def sark(tmp_path: Path, *words: str) -> tuple[int, str, str]:
    """A command that asks nobody."""
    done = await anyio.run_process(
        [sys.executable, "-m", "sark_trio", *words], env=environ(tmp_path), check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def login(tmp_path: Path, config: Path, *words: str) -> tuple[int, str]:
    """``sark login`` with a user at the browser."""
    command = [sys.executable, "-m", "sark_trio", "login", "db", "--no-browser", *words]
    process: Any = await anyio.open_process(
        [*command, "--config", str(config)], env=environ(tmp_path), stdin=subprocess.DEVNULL
    )
    async with process:
        line = ""
        async for text in TextReceiveStream(process.stderr):
            line += text
            if "\n" in line:
                break
        url = line.strip().rpartition(" ")[2]
        back = await consent(url)
        await consent_page(back)
        printed = ""
        async for text in TextReceiveStream(process.stdout):
            printed += text
        return await process.wait(), printed


async def consent_page(url: str) -> None:
    """The browser follows the redirect to the loopback server."""
    import httpcore

    async with httpcore.AsyncConnectionPool() as pool:
        assert (await pool.request("GET", url)).status == 200


async def test_a_user_signs_in_calls_and_signs_out(tmp_path: Path) -> None:
    async with authority() as site:
        config = configured(tmp_path, site)
        status, printed = await login(tmp_path, config)
        assert status == 0
        assert printed.splitlines()[:2] == [f"signed in to db at {site.origin}", "  scopes: read"]
        assert "access-" not in printed
        assert site.authorizations[0]["redirect_uri"].startswith("http://127.0.0.1:")

        called = await sark(tmp_path, "servers", "--check", "--allow-all", "--config", str(config))
        assert called[0] == 0, called
        assert site.presented()[-1] == "Bearer access-1"

        site.offer_revocation()
        out = await sark(tmp_path, "logout", "db", "--json", "--config", str(config))
        said = f'{{"server": "db", "revoked": ["{site.origin}"], "unrevoked": {{}}}}\n'
        assert out == (0, said, "")
        assert not site.tokens
        after = await sark(tmp_path, "servers", "--check", "--allow-all", "--config", str(config))
        assert after[0] == 4
        assert "sark login" in "".join(after[1:])
