"""``sark`` as a stranger uses it: real processes, real servers, both event loops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import Place, finish, make_place
from tests.support.peers import stdio_server

BACKENDS = ("trio", "asyncio")
ROWS = {"sql": "select name from people order by name"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


# -- servers and tools ------------------------------------------------------------------------


def test_servers_are_named_without_contact(place: Place) -> None:
    marker = place.folder / "started"
    place.write("touch.toml", f'[servers.a]\ncommand = ["touch", "{marker}"]\n')
    done = place.sark("servers", "--config", "touch.toml")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].split() == ["a", "stdio", "touch"]
    assert not marker.exists()
    assert not (place.folder / "audit").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_contacts_each_server_and_names_the_one_that_is_down(
    place: Place, backend: str
) -> None:
    done = place.sark("servers", "--check", "--backend", backend)
    assert done.status == 4
    assert "2026-07-28" in done.out
    assert "unreachable" in done.out
    assert done.error.startswith("sark: down: ")
    assert done.error.endswith("(is the server running, and the URL right?)")


def test_servers_for_machines(place: Place) -> None:
    done = place.sark("servers", "--json")
    assert [one["server_name"] for one in done.json] == ["db", "down"]
    checked = place.sark("servers", "--check", "--json")
    db, down = checked.json
    assert (checked.status, db["error"], db["protocol_version"]) == (4, None, "2026-07-28")
    assert down["error"]
    assert json.loads(checked.error)["error"] == "ConnectError"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_server_costs_only_its_own_tools(place: Place, backend: str) -> None:
    done = place.sark("tools", "--backend", backend)
    assert done.status == 4
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [
        ["db", "query"],
        ["db", "report"],
    ]
    assert "down" in done.error
    one = place.sark("tools", "db", "--json", "--backend", backend)
    assert (one.status, one.err) == (0, "")
    assert [tool["tool_name"] for tool in one.json] == ["query", "report"]


# -- call -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "arguments",
    [
        [f"sql={ROWS['sql']}"],
        ["--json", json.dumps(ROWS)],
        [json.dumps(ROWS), "--json"],
        ["--timeout", "20", f"sql={ROWS['sql']}", "--json"],
        ["@arguments.json"],
        ["-"],
    ],
    ids=["pair", "json", "object", "after-options", "file", "stdin"],
)
def test_arguments_reach_the_tool(place: Place, backend: str, arguments: list[str]) -> None:
    place.write("arguments.json", json.dumps(ROWS))
    words = ["call", "db", "query", "--backend", backend, *arguments]
    done = place.sark(*words, stdin=json.dumps(ROWS))
    assert (done.status, done.err) == (0, "")
    text = done.json["content"][0]["text"] if "--json" in arguments else done.out
    assert json.loads(text)[0]["name"] == "Ada Lovelace"


@pytest.mark.peer("mcp2")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_host_file_and_a_server_of_others(place: Place, backend: str) -> None:
    command, *args = stdio_server("time")
    servers = {"clock": {"command": command, "args": args}}
    place.write("mcp.json", json.dumps({"mcpServers": servers}))
    words = ["call", "clock", "get_current_time", "timezone=Europe/Zurich"]
    done = place.sark(*words, "--config", "mcp.json", "--allow-all", "--backend", backend)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["timezone"] == "Europe/Zurich"
    # No [audit] in such a file: the record is where XDG keeps state.
    log = place.folder / ".local" / "state" / "sark_trio" / "audit"
    assert place.sark("audit", "verify", str(log)).status == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_denial_is_status_3_and_on_record(place: Place, backend: str) -> None:
    done = place.sark("call", "db", "query", "sql=drop table people", "--backend", backend)
    assert (done.status, done.out) == (3, "")
    assert "policy denies" in done.error
    assert "sark policy eval" in done.error
    tail = place.sark("audit", "tail", "--json")
    assert tail.json[-1]["kind"] == "denied"
    assert place.sark("call", "db", "query", f"sql={ROWS['sql']}").status == 0


def test_a_tool_that_fails_is_status_1(place: Place) -> None:
    done = place.sark("call", "db", "query", "sql=select from nowhere")
    assert done.status == 1
    assert "SQLite says" in done.out


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_answer_in_time_is_status_5(place: Place, backend: str) -> None:
    done = place.sark("call", "db", "report", "--timeout", "1.5", "--backend", backend)
    assert done.status == 5
    assert done.error.endswith("gives it more time, or --timeout)")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_is_down_is_status_4(place: Place, backend: str) -> None:
    done = place.sark("call", "down", "anything", "--json", "--backend", backend)
    facts = json.loads(done.error)
    assert (done.status, facts["error"], facts["delivery"]) == (4, "ConnectError", "not_sent")
    assert facts["remedy"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupt_in_mid_call_is_recorded(place: Place, backend: str) -> None:
    with place.running("call", "db", "report", "--backend", backend) as process:
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert (done.status, done.out, done.error) == (130, "", "sark: interrupted")
    record = place.sark("audit", "tail", "--json").json[-1]
    assert record["kind"] == "outcome"
    # The signal may come after the intent is on disk and before the first byte has left.
    assert record["outcome"] == "cancelled" or record["outcome"] == record["delivery"] == "not_sent"
    assert place.sark("audit", "verify", "--json").json["in_doubt"] == []


LOADING = """
import sys
from sark_trio.cli import entry

class Interrupts:
    def find_spec(self, name, *_):
        if name == "sark_trio.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.exit(entry.main())
"""


def test_interrupt_while_it_loads_is_told_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "sark: interrupted\n")


def test_one_log_has_one_writer_and_any_reader(place: Place) -> None:
    config = place.folder / "sark.toml"
    config.write_text(f"{config.read_text()}[client]\ntimeout_s = 300.0\n")
    with place.running("call", "db", "report") as process:
        second = place.sark("call", "db", "query", f"sql={ROWS['sql']}")
        assert second.status == 6
        assert "--audit DIR" in second.error
        elsewhere = place.sark("call", "db", "query", f"sql={ROWS['sql']}", "--audit", "other")
        assert elsewhere.status == 0
        # What makes no call records nothing, and needs no log.
        assert place.sark("tools", "db").status == 0
        assert place.sark("audit", "verify").status == 0
        process.send_signal(signal.SIGINT)
        assert finish(process).status == 130


# -- policy, audit, identity ------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_policy_eval_says_what_and_why(place: Place, backend: str) -> None:
    words = ("policy", "eval", "db", "query", "--backend", backend)
    allowed = place.sark(*words, f"sql={ROWS['sql']}")
    assert (allowed.status, allowed.out.splitlines()[0]) == (0, "allowed")
    denied = place.sark(*words, "sql=DROP TABLE people", "--json")
    assert (denied.status, denied.json["allow"]) == (3, False)
    assert denied.json["reason"] == "no statement of yours drops a table"
    stranger = place.sark(*words, f"sql={ROWS['sql']}", "--as", "bob")
    assert (stranger.status, stranger.out.splitlines()[0]) == (3, "denied")
    hired = place.sark(*words, f"sql={ROWS['sql']}", "--as", "bob", "--role", "analyst")
    assert hired.status == 0
    assert not (place.folder / "audit").exists()


def test_what_happened_is_told_in_words_that_fit(place: Place) -> None:
    place.sark("call", "db", "query", f"sql={ROWS['sql']}")
    assert " records in 1 segment: every link holds\n" in place.sark("audit", "verify").out
    started = [line for line in place.sark("audit", "tail").out.splitlines() if "event" in line]
    assert "  program_started  {" in started[0]
    # A policy that answers no question about lists is no server without tools.
    place.write("calls.rego", 'package mcp.gateway\nallow if input.action == "x"\n')
    done = place.sark("tools", "db", "--policy", "calls.rego")
    assert done.out.endswith("(the policy is asked: gateway:tool:discover)\n")


def test_verify_names_the_first_bad_record(place: Place) -> None:
    for _ in range(2):
        place.sark("call", "db", "query", f"sql={ROWS['sql']}")
    log = place.folder / "audit"
    whole = place.sark("audit", "verify")
    assert whole.status == 0
    assert "every link holds" in whole.out
    records = place.sark("audit", "tail", "--json").json
    bad = next(record for record in records if record["kind"] == "intent")
    for path in log.iterdir():
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"select name", b"select Name", 1))
    human = place.sark("audit", "verify")
    assert human.status == 1
    assert human.out.startswith(f"NOT WHOLE: record {bad['seq']}, ")
    machine = place.sark("audit", "verify", "--json", str(log))
    assert (machine.status, machine.json["fault"]["index"]) == (1, bad["seq"])


def test_a_token_proves_who_calls(place: Place) -> None:
    from joserfc import jwk, jwt

    key = jwk.OctKey.generate_key(256, {"kid": "k1", "alg": "HS256", "use": "sig"})
    place.write("keys.json", json.dumps({"keys": [key.as_dict(private=True)]}))
    settings = (place.folder / "sark.toml").read_text().partition("[identity]")[0]
    identity = 'jwks = "keys.json"\nissuer = "https://i"\naudience = "sark"\nalgorithms = "HS256"\n'
    place.write("sark.toml", f"{settings}[identity]\n{identity}")

    def token(name: str, **claims: object) -> str:
        facts = {"iss": "https://i", "aud": "sark", "sub": "eve", "exp": int(time.time()) + 600}
        text = jwt.encode({"alg": "HS256", "kid": "k1"}, facts | claims, key)
        place.write(name, text)
        return text

    token("good", roles=["analyst"])
    text = token("old", roles=["analyst"], exp=1)
    token("poor")
    words = ("call", "db", "query", f"sql={ROWS['sql']}", "--token-file")
    assert place.sark(*words, "good").status == 0
    assert place.sark("audit", "tail", "--json").json[-2]["principal_id"] == "eve"
    old = place.sark(*words, "old")
    assert (old.status, text in old.err) == (3, False)
    assert "expired" in old.error
    assert place.sark(*words, "poor").status == 3
    assert place.sark("policy", "eval", "db", "query", "sql=x", "--token-file", "good").status == 0
