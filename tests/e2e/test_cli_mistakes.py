"""Whatever somebody gets wrong: one line, a remedy or a place, the right status, no traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sark_trio.cli.main import main
from tests.support.cli import Done, Place, make_place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


#: Words, exit status, and what the one line must hold.
MISTAKES = [
    ("", 2, "COMMAND (see `sark --help`)"),
    ("bogus", 2, "invalid choice: 'bogus'"),
    ("servers --bogus", 2, "--bogus (see `sark --help`)"),
    ("call db", 2, "TOOL (see `sark call --help`)"),
    ("call nope query", 2, "no server 'nope'; configured: db, down"),
    ("call db nope", 2, "no tool 'nope'; names are exact (`sark tools`"),
    ("call db query sql", 2, "'sql' is neither KEY=VALUE nor a JSON object"),
    ("call db query sql=1 sql=2", 2, "argument 'sql' is given twice"),
    ('call db query {"sql":', 2, "arguments:1:8: not JSON"),
    ('call db query {"sql":1,"sql":2}', 2, "arguments: not JSON: key 'sql' stands twice"),
    ("call db query @nowhere.json", 2, "nowhere.json: cannot be read"),
    ("call db query --timeout soon", 2, "'soon' is no positive number of seconds"),
    ("call db query --timeout -1", 2, "'-1' is no positive number of seconds"),
    ("call db query --policy a.rego --allow-all", 2, "not allowed with"),
    ("call db query --backend curio", 2, "invalid choice: 'curio'"),
    ("call db query --token-file token", 2, "say jwks, issuer and audience in [identity]"),
    ("call db query sql=x --as \x07", 2, "--as: "),
    ("tools nope", 2, "no server 'nope'"),
    ("tools db --config missing.toml", 2, "missing.toml: cannot be read"),
    ("tools db --config broken.toml", 2, "broken.toml:2:6: not TOML: Invalid value"),
    ("tools db --config broken.json", 2, "broken.json:1:22: not JSON"),
    ("tools db --config other.json", 2, "other.json: no 'mcpServers' in it"),
    ("tools db --config latin1.toml", 2, "latin1.toml:1: not UTF-8"),
    ("tools db --config unknown.toml", 2, "servers.a.timeout: unknown key; did you mean"),
    ("tools db --config variable.toml", 2, "the environment has no variable SARK_NOWHERE"),
    ("tools a --config url.toml --allow-all", 2, "url.toml: servers.a: a server URL must be"),
    ("tools db --config misspelt.toml", 2, "misspelt.toml:2: servers.a.urll: unknown key; did you"),
    ("tools a --config once.toml --allow-all", 4, "its arguments are further items of the list"),
    ("tools db --policy broken.rego", 2, "broken.rego:4:1"),
    ("tools db --policy missing.rego", 2, "missing.rego: can"),
    ("call a x --config programs.toml --allow-all", 4, "'no-such-program' was not found on PATH"),
    ("call b x --config programs.toml --allow-all", 4, "exited with status 1"),
    ("call db query sql=x --audit sark.toml", 6, "the audit log sark.toml can not be opened"),
    ("audit verify nowhere", 6, "the audit log nowhere can not be read: No such file or directory"),
    ("audit verify empty", 6, "there is no audit log in empty: is it the right directory?"),
    ("audit tail -n 0", 2, "'0' is no number from 1"),
    ("audit", 2, "COMMAND (see `sark audit --help`)"),
    ("policy eval db", 2, "TOOL (see `sark policy eval --help`)"),
    ("demo --backend curio", 2, "invalid choice: 'curio'"),
]


@pytest.fixture
def mistaken(place: Place) -> Place:
    place.write("broken.toml", "[servers.a]\nurl =\n")
    place.write("broken.json", '{"mcpServers": {"a": }}')
    place.write("other.json", "{}")
    (place.folder / "latin1.toml").write_bytes(b"# caf\xe9\n")
    place.write("unknown.toml", '[servers.a]\ncommand = "a"\ntimeout = 3\n')
    place.write("variable.toml", '[servers.a]\nurl = "${SARK_NOWHERE}"\n')
    place.write("misspelt.toml", '[servers.a]\nurll = "https://x/"\n')
    place.write("once.toml", '[servers.a]\ncommand = "no-such-program --verbose"\n')
    place.write("url.toml", '[servers.a]\nurl = "not a url"\n')
    place.write("broken.rego", "package a\nallow if {\n\tinput.x ==\n}\n")
    place.write(
        "programs.toml",
        '[servers.a]\ncommand = "no-such-program"\n[servers.b]\ncommand = "false"\n',
    )
    (place.folder / "empty").mkdir()
    return place


@pytest.mark.parametrize(("words", "status", "said"), MISTAKES, ids=[m[0][:60] for m in MISTAKES])
def test_mistake_is_told_in_one_line(
    mistaken: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    status: int,
    said: str,
) -> None:
    # In this process, because they are many; the next test shows that a process does the same.
    monkeypatch.chdir(mistaken.folder)
    try:
        ended = main(words.split())
    except SystemExit as exc:
        ended = int(str(exc.code))
    done = Done(ended, *capsys.readouterr())
    assert (done.status, done.out) == (status, "")
    assert done.error.startswith("sark: ")
    assert said in done.error


@pytest.mark.parametrize(
    "words",
    ["bogus", "call nope query", "tools db --config broken.toml", "audit verify nowhere"],
)
def test_a_process_ends_with_that_status_and_no_traceback(mistaken: Place, words: str) -> None:
    _, status, said = next(mistake for mistake in MISTAKES if mistake[0] == words)
    done = mistaken.sark(*words.split())
    assert (done.status, done.out) == (status, "")
    assert said in done.error


def test_a_mistake_for_machines_is_one_document(mistaken: Place) -> None:
    done = mistaken.sark("call", "db", "query", "--json", "query")
    facts = json.loads(done.error)
    assert (done.status, done.out, facts["error"]) == (2, "", "InvalidArguments")


def test_no_configuration_says_where_one_is_looked_for(tmp_path: Path) -> None:
    done = Place(tmp_path).sark("servers", env={"SARK_CONFIG": None})
    assert done.status == 2
    assert done.error == (
        "sark: no configuration: name one with --config, or put "
        "sark.toml or .mcp.json or mcp.json here"
    )
    elsewhere = make_place(tmp_path)
    (tmp_path / "sub").mkdir()
    found = Place(tmp_path / "sub").sark("servers", env={"SARK_CONFIG": "../sark.toml"})
    assert found.status == 0
    assert elsewhere.sark("servers").out == found.out


def test_a_file_without_policy_denies_and_says_how_to_name_one(place: Place) -> None:
    text = (place.folder / "sark.toml").read_text()
    place.write("none.toml", text.replace('rego = "policy.rego"', ""))
    done = place.sark("call", "db", "query", "sql=select 1", "--config", "none.toml")
    assert done.status == 3
    assert "--policy FILE.rego; --allow-all" in done.error


@pytest.mark.parametrize("words", [["--help"], ["servers"], ["tools", "db"]])
def test_a_reader_that_goes_away_is_no_error(place: Place, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = place.sark(*words, stdout=writing)
    finally:
        os.close(writing)
    assert (done.status, done.err) == (0, "")


def test_a_full_disk_is_status_74(place: Place) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = place.sark("servers", stdout=full)
    assert done.status == 74
    assert "No space left" in done.error


def test_help_and_version_need_no_configuration(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for words in (["--help"], ["call", "--help"], ["audit", "verify", "--help"], ["--version"]):
        done = place.sark(*words)
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(("usage: sark", "sark 0"))
