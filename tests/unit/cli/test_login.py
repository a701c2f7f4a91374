from __future__ import annotations

import json
from pathlib import Path

import pytest

from sark_trio.cli.main import main


@pytest.mark.parametrize(
    ("auth", "words", "why"),
    [
        ("", ["login", "db"], "there is nothing to sign in to"),
        ("auth = {}", ["login", "other"], "no server 'other'"),
        ('auth = { store = "memory" }', ["login", "db"], "end with this command"),
        ('auth = { store = "memory" }', ["logout", "db"], "end with this command"),
        ("auth = {}", ["login", "db", "--port", "70000"], "70000 is no port"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    auth: str,
    words: list[str],
    why: str,
) -> None:
    config = tmp_path / "sark.toml"
    config.write_text(f'[servers.db]\nurl = "https://db.example/mcp"\n{auth}\n')
    assert main([*words, "--config", str(config)]) == 2
    printed, told = capsys.readouterr()
    assert printed == ""
    assert why in told
    assert told.count("\n") == 1


def test_signing_out_of_nothing_is_done_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "sark.toml"
    config.write_text('[servers.db]\nurl = "https://db.example/mcp"\nauth = { store = "here" }\n')
    assert main(["logout", "db", "--config", str(config)]) == 0
    assert main(["logout", "db", "--json", "--config", str(config)]) == 0
    said, as_json = capsys.readouterr().out.splitlines()
    assert said == "forgot the tokens of db"
    assert json.loads(as_json) == {"server": "db", "revoked": [], "unrevoked": {}}
