from __future__ import annotations

from pathlib import Path

import pytest

from sark_trio import GatewayClient, Principal
from sark_trio.cli.options import add_audit, add_client, read_settings, run_client
from sark_trio.cli.parsing import Parser, count, parse, seconds
from sark_trio.errors import ConfigError

CONFIG = """\
[policy]
allow_all = true
[audit]
directory = "log"
[identity]
principal = "ann"
roles = ["analyst"]
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "sark.toml"
    path.write_text(CONFIG)
    return str(path)


def parser() -> Parser:
    made = Parser(prog="sark")
    add_client(made)
    add_audit(made)
    return made


async def _nothing(client: GatewayClient, caller: Principal) -> int:
    del client, caller
    return 0


def caller_of(*words: str) -> Principal:
    seen: list[Principal] = []

    async def look(client: GatewayClient, caller: Principal) -> int:
        del client
        seen.append(caller)
        return 7

    assert run_client(parse(parser(), words), look, records=False) == 7
    return seen[0]


@pytest.mark.parametrize(
    ("words", "who", "roles"),
    [
        ([], "ann", ("analyst",)),
        (["--role", "b", "--role", "a"], "ann", ("a", "b")),
        (["--as", "bob"], "bob", ()),
        (["--as", "bob", "--role", "a"], "bob", ("a",)),
        (["--as", "ann"], "ann", ("analyst",)),
    ],
)
def test_the_command_line_says_who_calls_else_the_file(
    config: str, words: list[str], who: str, roles: tuple[str, ...]
) -> None:
    caller = caller_of("--config", config, *words)
    assert (caller.id, caller.roles) == (who, roles)


def test_without_both_it_is_the_user_of_the_machine(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(config).write_text(CONFIG.partition("[identity]")[0])
    monkeypatch.setenv("LOGNAME", "eve")
    assert caller_of("--config", config) == Principal(id="eve")

    def nobody() -> str:
        raise KeyError("uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(ConfigError, match="--as"):
        caller_of("--config", config)


def test_what_records_nothing_leaves_the_log_alone(config: str) -> None:
    options = parse(parser(), ["--config", config])
    assert run_client(options, _nothing, records=False) == 0
    assert not (Path(config).parent / "log").exists()
    assert run_client(options, _nothing, records=True) == 0
    assert (Path(config).parent / "log").is_dir()


def test_the_command_line_outranks_the_file(config: str) -> None:
    options = parse(parser(), ["--config", config, "--policy", "p.rego", "--audit", "a"])
    settings = read_settings(options)
    assert (settings.policy.rego, settings.policy.allow_all) == ((Path("p.rego"),), False)
    assert settings.audit is not None
    assert settings.audit.directory == Path("a")


def test_a_log_without_a_place_is_state_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}}')
    options = parse(parser(), ["--config", str(path)])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    audit = read_settings(options).audit
    assert audit is not None
    assert audit.directory == tmp_path / "sark_trio" / "audit"


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("0.5", 0.5), ("1e2", 100.0)])
def test_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(seconds, t) for t in ("0", "-1", "nan", "inf", "1e999", "x", "")]
    + [(count, t) for t in ("0", "-1", "1.5", "x", "", "1000001")],
)
def test_impossible_numbers_are_refused_in_one_line(
    kind: type, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Parser(prog="sark x")
    made.add_argument("--n", type=kind)
    with pytest.raises(SystemExit) as caught:
        parse(made, [f"--n={text}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{text!r} is no" in line
    assert line.endswith("(see `sark x --help`)")


def test_words_that_nothing_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["more"], ["--more"]):
        with pytest.raises(SystemExit):
            parse(parser(), words)
        assert "unrecognized arguments" in capsys.readouterr().err
