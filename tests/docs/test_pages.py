"""What the pages say about configuration, policies, failures and the command line is so."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import fields

from sark_trio import Http, Principal, Query, RetryConfig, Stdio
from sark_trio.cli import main as cli
from sark_trio.cli.output import EXIT_CODES
from sark_trio.client.config import (
    AuditSettings,
    GatewaySettings,
    IdentitySettings,
    PolicySettings,
    Settings,
    load,
)
from sark_trio.governance.decision import decode_decision
from sark_trio.governance.detect import PATTERNS
from sark_trio.governance.isolation import Isolation
from sark_trio.governance.query import superset_input
from sark_trio.machines.adaptive import AdaptiveConcurrency
from sark_trio.machines.circuit import BreakerOptions
from sark_trio.machines.failure import RETRY_TABLE
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.supervision import SuperviseOptions
from tests.tidy.source import ROOT

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
ENVIRON = {
    "AUDIT_KEY": "the key of another gateway",
    "DB_TOKEN": "t0ken",
    "LOG_LEVEL": "warning",
    "REGISTRY_KEY": "k3y",
    "ROBOT_KEY": "a key of the robot",
}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header line begins so."""
    table = text.partition(f"\n| {header}")[2].split("\n\n")[0].splitlines()[2:]
    cells = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table]
    return [[cell.strip().strip("`") for cell in line] for line in cells]


# -- configuration ----------------------------------------------------------------------------


def test_the_example_configuration_is_read_whole() -> None:
    settings = load(EXAMPLES / "sark.toml", environ=ENVIRON)
    files, db = settings.servers["files"], settings.servers["db"]
    assert isinstance(files, Stdio)
    assert isinstance(db, Http)
    assert files.command == ("mcp-server-filesystem", ".")
    assert files.limits is not None
    assert (files.limits.rss_bytes_max, files.limits.cpu_percent_max) == (2**30, 400)
    assert files.supervision == SuperviseOptions()
    assert files.die_with_parent
    assert (settings.breaker, settings.retry) == (BreakerOptions(), RetryConfig())
    assert settings.policy.isolation == Isolation()
    assert db.headers["Authorization"] == "Bearer t0ken"
    assert db.tls is not None
    assert db.tls.client_key_file == str(EXAMPLES / "client.key")
    assert db.rule("query").sensitive_params == ("password",)
    assert db.rule("other").sensitivity == "high"
    assert db.breaker == BreakerOptions(open_multiplier=2.0)
    assert db.retry == RetryConfig()
    assert db.concurrency == AdaptiveConcurrency()
    assert settings.policy.rego == (EXAMPLES / "policy.rego",)
    assert settings.audit is not None
    assert settings.audit.checkpoints == EXAMPLES / "checkpoints"
    assert settings.identity.principal == "ann"


@pytest.mark.parametrize(
    "kind",
    [
        Settings,
        PolicySettings,
        AuditSettings,
        IdentitySettings,
        GatewaySettings,
        BreakerOptions,
        RetryConfig,
        AdaptiveConcurrency,
        Stdio,
        ResourceLimits,
        SuperviseOptions,
        Isolation,
    ],
)
def test_every_option_of_the_file_is_on_its_page(kind: type) -> None:
    shown = page("howto/configure") + (EXAMPLES / "sark.toml").read_text()
    # `spawn` is a callable: nothing that a file can say.
    names = {attribute.name for attribute in fields(kind)} - {"source", "spawn"}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", shown)] == []


def test_the_example_of_an_mcp_host_is_read() -> None:
    servers = load(EXAMPLES / "mcp.json", environ=ENVIRON).servers
    files, db = servers["files"], servers["db"]
    assert isinstance(files, Stdio)
    assert isinstance(db, Http)
    assert (files.env["LOG_LEVEL"], db.headers["Authorization"]) == ("warning", "Bearer t0ken")


# -- policies ---------------------------------------------------------------------------------


def test_the_policy_input_is_the_one_that_is_shown() -> None:
    ann = Principal(id="ann", roles=("analyst",))
    query = Query(principal=ann, server="db", tool="query", arguments={"sql": "select 1"})
    shown = json.loads(blocks(page("howto/write-a-policy"), "json")[0])
    assert json.loads(json.dumps(superset_input(query))) == shown


def test_the_decision_that_is_shown_allows() -> None:
    shown = json.loads(blocks(page("howto/write-a-policy"), "json")[1])
    decision = decode_decision(shown)
    assert (decision.allow, decision.fault, len(decision.obligations)) == (True, None, 3)
    documented = [line[0] for line in rows(page("howto/write-a-policy"), "member |")]
    assert set(shown) | {"deny", "decision_id"} == set(documented)


def test_every_pattern_is_named() -> None:
    assert [name for name in PATTERNS if f"`{name}`" not in page("howto/write-a-policy")] == []


# -- failure ----------------------------------------------------------------------------------


def test_the_retry_table_is_that_of_the_code() -> None:
    shown = {
        situation: dict(zip(("safe", "unsafe", "listing"), cells, strict=True))
        for situation, *cells in rows(page("explanation/failure"), "what happened |")
    }
    assert shown == {
        str(situation): {str(safety): cell for safety, cell in row.items()}
        for situation, row in RETRY_TABLE.items()
    }


# -- the command line -------------------------------------------------------------------------


def commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Every command and its options."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in below:
        for child in action.choices.values():
            yield from commands(child)
    if not below:
        yield parser.prog, [a for a in parser._actions if a.option_strings]


def test_every_command_and_option_is_on_the_page() -> None:
    found = dict(commands(cli.make_parser()))
    assert {line[0] for line in rows(page("reference/cli"), "command |")} == set(found)
    documented = {
        re.split(r"[ `]", line[0])[0]: line[1] for line in rows(page("reference/cli"), "option |")
    }
    flags = {action.option_strings[-1] for actions in found.values() for action in actions}
    assert flags - {"--help"} == set(documented) - {"--version"}


def test_every_exit_status_is_on_the_page() -> None:
    documented = {int(line[0]) for line in rows(page("reference/cli"), "status |")}
    in_docstring = {int(n) for n in re.findall(r"^(\d+) +", cli.__doc__ or "", re.MULTILINE)}
    assert documented == in_docstring
    assert {status for _, status in EXIT_CODES} <= documented


# -- what is shown is what is run -------------------------------------------------------------


def test_the_program_in_the_readme_is_the_example_that_runs() -> None:
    (program,) = blocks((ROOT / "README.md").read_text(), "python")
    assert program == (EXAMPLES / "quickstart.py").read_text()


def test_every_decision_says_what_and_why() -> None:
    for path in sorted(Path(DOCS / "decisions").glob("0*.md")):
        text = path.read_text()
        assert text.startswith(f"# {path.name[:3]}: "), path.name
        assert "**Question.**" in text, path.name
        assert "**Decision.**" in text, path.name


@pytest.mark.parametrize(("zone", "status"), [("Europe/Zurich", 0), ("America/Lima", 3)])
def test_the_quickstart_answers_from_a_shell_as_in_its_program(zone: str, status: int) -> None:
    words = ["policy", "eval", "clock", "get_current_time", f"timezone={zone}"]
    assert cli.main([*words, "--config", str(EXAMPLES / "clock.toml")]) == status
