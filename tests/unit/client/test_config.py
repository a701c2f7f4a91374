"""Configuration files: what they mean, and that every mistake is named and placed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sark_trio import (
    AdaptiveConcurrency,
    BreakerOptions,
    Http,
    Isolation,
    Registry,
    Rego,
    ResourceLimits,
    RetryConfig,
    Settings,
    Stdio,
    WebSocket,
    load,
)
from sark_trio.client.build import client_of, policy_of
from sark_trio.errors import ConfigError
from sark_trio.machines.supervision import SuperviseOptions

FULL = """
[client]
timeout_s = 12
grace_s = 1.5

[policy]
rego = ["policy.rego", "more.rego"]
data = "facts.json"
query = "data.mcp.gateway"

[audit]
directory = "audit"
fsync = "always"
checkpoints = "elsewhere/checkpoints"

[identity]
jwks = "keys.json"
issuer = "https://issuer.example"
audience = "gateway"
algorithms = ["ES256"]
principal = "ada"
roles = ["analyst"]

[servers.files]
command = ["mcp-server-filesystem", "."]
cwd = "data"
env = { TOKEN = "${SECRET}" }
trusted = true
sensitivity = "high"
timeout_s = 5

[servers.files.tools.delete]
sensitivity = "critical"
sensitive_params = ["password"]
replay_safe = false
timeout_s = 2

[servers.files.tools."*"]
sensitivity = "low"

[servers.db]
url = "https://db.example/mcp?key=${env:SECRET}"
headers = { Authorization = "Bearer ${SECRET}" }
protocol_version = "2025-11-25"
breaker = { failures = 3, open_s = 10 }
retry = { attempts = 2 }
tls = { ca_file = "ca.pem" }
"""
ENVIRON = {"SECRET": "hunter2"}


def write(folder: Path, text: str | bytes, name: str = "sark.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, name: str = "sark.toml") -> Settings:
    return load(write(folder, text, name), environ=ENVIRON)


def test_a_whole_file_means_what_it_says(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    assert (settings.timeout_s, settings.grace_s) == (12.0, 1.5)
    assert settings.policy.rego == (tmp_path / "policy.rego", tmp_path / "more.rego")
    assert settings.policy.data == tmp_path / "facts.json"
    assert settings.policy.query == "data.mcp.gateway"
    assert settings.audit is not None
    assert settings.audit.directory == tmp_path / "audit"
    assert settings.audit.fsync == "always"
    assert settings.audit.checkpoints == tmp_path / "elsewhere/checkpoints"
    assert settings.identity.jwks == str(tmp_path / "keys.json")
    assert settings.identity.roles == ("analyst",)
    files, db = settings.servers["files"], settings.servers["db"]
    assert isinstance(files, Stdio)
    assert files.command == ("mcp-server-filesystem", ".")
    assert files.cwd == tmp_path / "data"
    assert files.env == {"TOKEN": "hunter2"}
    assert (files.trusted, files.sensitivity, files.timeout_s) == (True, "high", 5.0)
    assert files.rule("delete").sensitive_params == ("password",)
    assert files.rule("delete").replay_safe is False
    assert files.rule("anything").sensitivity == "low"
    assert isinstance(db, Http)
    assert db.headers == {"Authorization": "Bearer hunter2"}
    assert db.address == "https://db.example/mcp"
    assert db.breaker == BreakerOptions(failures=3, open_s=10)
    assert db.retry == RetryConfig(attempts=2)
    assert db.protocol_version == "2025-11-25"
    assert "hunter2" not in repr(settings).replace("key=hunter2", "")


def test_an_empty_file_is_a_client_that_allows_nothing(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert settings.servers == {}
    assert settings.policy.rego == ()
    assert settings.policy.allow_all is False
    assert settings.audit is None
    assert settings.timeout_s == 30.0


@pytest.mark.parametrize("key", ["mcpServers", "servers"])
def test_the_json_of_mcp_hosts_is_read_in_both_spellings(tmp_path: Path, key: str) -> None:
    document = {
        key: {
            "files": {"command": "npx", "args": ["-y", "x"], "env": {"A": "${SECRET}"}, "x": 1},
            "db": {"url": "https://db.example/mcp", "headers": {"X-Key": "${env:SECRET}"}},
            "old": {"serverUrl": "http://127.0.0.1:1/mcp"},
            "older": {"httpUrl": "http://127.0.0.1:2/mcp"},
            "socket": {"url": "wss://ws.example/mcp", "headers": {"X-Key": "${SECRET}"}},
        },
        "theme": "dark",
    }
    settings = read(tmp_path, json.dumps(document), "hosts.json")
    files, db = settings.servers["files"], settings.servers["db"]
    assert isinstance(files, Stdio)
    assert files.command == ("npx", "-y", "x")
    assert files.env == {"A": "hunter2"}
    assert isinstance(db, Http)
    assert db.headers == {"X-Key": "hunter2"}
    assert settings.servers["socket"] == WebSocket(
        "wss://ws.example/mcp", headers={"X-Key": "hunter2"}
    )
    assert {"old", "older"} <= set(settings.servers)
    assert settings.policy.allow_all is False


def test_the_scheme_says_what_a_url_is(tmp_path: Path) -> None:
    text = """
        [servers.socket]
        url = "ws://127.0.0.1:9/mcp"
        headers = { Authorization = "Bearer t" }
        protocol_version = "2025-11-25"
        tls.ca_file = "ca.pem"
        [servers.old]
        url = "http://127.0.0.1:9/sse"
        protocol_version = "2024-11-05"
    """
    socket, old = read(tmp_path, text).servers.values()
    assert isinstance(socket, WebSocket)
    assert socket.headers == {"Authorization": "Bearer t"}
    assert socket.protocol_version == "2025-11-25"
    assert socket.tls is not None
    assert socket.tls.ca_file == str(tmp_path / "ca.pem")
    assert isinstance(old, Http)
    with pytest.raises(ConfigError, match="auth"):
        read(tmp_path, '[servers.s]\nurl = "ws://h.example/"\n[servers.s.auth]\n')


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf[client]\ntimeout_s = 3\n").timeout_s == 3.0


def test_the_environment_of_the_process_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARK_TEST_URL", "https://db.example/mcp")
    settings = load(write(tmp_path, '[servers.db]\nurl = "${SARK_TEST_URL}"\n'))
    assert settings.servers["db"].address == "https://db.example/mcp"


WRONG: list[tuple[str, str]] = [
    ("[client]\ntimeout = 3\n", r"client.timeout: unknown key; did you mean 'timeout_s'\?"),
    ("[clients]\n", "clients: unknown key; did you mean 'client'"),
    ("[zebra]\n", "zebra: unknown key; there are client, servers, "),
    ('[client]\ntimeout_s = "3"\n', "client.timeout_s: expected a number of seconds, got '3'"),
    ("[client]\ntimeout_s = true\n", "client.timeout_s: expected a number of seconds, got true"),
    ("client = 1\n", "client: expected a table, got 1"),
    ("servers = 1\n", "servers: expected a table"),
    ("[servers]\ndb = 1\n", "servers.db: expected a table"),
    ("[servers.db]\n", "servers.db: needs exactly one of 'url', 'command' and 'registry'"),
    ('[servers.db]\nurl = "https://x/"\ncommand = ["x"]\n', "servers.db: needs exactly one"),
    ("[servers.db]\nurl = 1\n", "servers.db.url: expected a string"),
    (
        '[servers.x]\ncommand = "x"\nlimits = {rss = 1}\n',
        "servers.x.limits.rss: unknown key; there are address",
    ),
    ('[servers.x]\ncommand = "x"\nlimits = {open_files_max = 0}\n', "x.limits: open_files_max"),
    ('[servers.x]\ncommand = "x"\nlimits = {rss_bytes_max = 1.5}\n', "x.limits: rss_bytes_max"),
    ("[servers.db]\ncommand = []\n", "servers.db: .*program's name"),
    ("[servers.db]\ncommand = [1]\n", "servers.db.command: expected strings, got 1"),
    ('[servers.db]\ncommand = ["a\\u0000b"]\n', "servers.db: .*NUL"),
    ('[servers.db]\nurl = "https://x/"\ntrusted = "yes"\n', "servers.db.trusted: expected true"),
    ('[servers.db]\nurl = "https://x/"\nsensitivity = "top"\n', "servers.db: .*'top' is not"),
    ('[servers.db]\nurl = "https://x/"\ntimeout_s = -1\n', "servers.db: .*-1.* positive"),
    ('[servers.db]\nurl = "https://x/"\nheader = {}\n', "servers.db.header: .*'headers'"),
    ('[servers.db]\nurl = "https://x/"\nheaders = {a = 1}\n', "servers.db.headers.a: expected"),
    (
        '[servers.db]\nurl = "https://x/"\nbreaker = {failure = 3}\n',
        "servers.db.breaker.failure: unknown key; did you mean 'failures'",
    ),
    ('[servers.db]\nurl = "https://x/"\nbreaker = {failures = 0}\n', "db.breaker: failures must"),
    ('[servers.db]\nurl = "https://x/"\nretry = 3\n', "servers.db.retry: expected a table"),
    ('[servers.db]\nurl = "https://x/"\ntls = {ca = "x"}\n', "servers.db.tls.ca: unknown key"),
    ('[servers.db]\nurl = "https://x/"\n[servers.db.tools.q]\nsafe = true\n', "tools.q.safe: unk"),
    ('[servers.db]\nurl = "${NOPE}"\n', "servers.db.url: the environment has no variable NOPE"),
    ('[servers."a b"]\nurl = "https://x/"\n', "server name 'a b'"),
    ("[policy]\nallow_all = 1\n", "policy.allow_all: expected true or false"),
    ('[policy]\nrego = "a"\nopa = "http://x"\n', "policy: needs exactly one of"),
    ('[policy]\nrego = "a"\nallow_all = true\n', "policy: needs exactly one of"),
    ("[audit]\n", "audit.directory: missing"),
    ('[audit]\ndirectory = "a"\nfsnyc = "x"\n', "audit.fsnyc: unknown key; did you mean 'fsync'"),
    ('[identity]\nissuers = "x"\n', "identity.issuers: .*'issuer'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.source == str(tmp_path / "sark.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'sark.toml'}")
    assert "hunter2" not in str(caught.value)


#: What is named, before whatever else is wrong with the same file; and the line on which it is.
UNKNOWN: list[tuple[str, int, str]] = [
    ("[servers.db]\nurll = 'https://x/'\n", 2, "servers.db.urll: unknown key; did you mean 'url'?"),
    (
        "[servers.db]\nCOMMAND = 'x'\n",
        2,
        "servers.db.COMMAND: unknown key; did you mean 'command'?",
    ),
    ("[servers.db]\ntrusted = 1\nlink = 'x'\n", 3, "servers.db.link: unknown key"),
    ("[audit]\ndirectroy = 'a'\n", 2, "audit.directroy: unknown key; did you mean 'directory'?"),
    ("[pins]\npaht = 'a'\n", 2, "pins.paht: unknown key; did you mean 'path'?"),
    ("[gateway.keys.a]\nkye = 'a'\n", 2, "gateway.keys.a.kye: unknown key; did you mean 'key'?"),
    ("client = 1\n[server.db]\n", 2, "server: unknown key; did you mean 'servers'?"),
    (
        "[client]\ntimeout_s = 'x'\ngraces = 1\n",
        3,
        "client.graces: unknown key; did you mean 'grace_s'?",
    ),
    (
        "[client.breaker]\nfailures = 1\nrate = {slow = 1}",
        3,
        "client.breaker.rate.slow: unknown key",
    ),
    (
        "[servers.db]\nurl = 'https://x/'\n[servers.db.auth]\nscope = 'x'\n",
        4,
        "servers.db.auth.scope: unknown key; did you mean 'scopes'?",
    ),
    (
        "[servers.db]\nurl = 'https://x/'\n[servers.db.tls]\ncafile = 'x'\n",
        4,
        "servers.db.tls.cafile: ",
    ),
]
#: What is known, but cannot be there.
MISPLACED: list[tuple[str, int, str]] = [
    ("[servers.db]\ncommand = 'x'\nheaders = {}\n", 3, "headers: is for 'url', not for 'command'"),
    (
        "[servers.db]\ncommand = 'x'\nargs = ['y']\n",
        3,
        "args: a program and its arguments are one list",
    ),
    (
        "[servers.db]\nurl = 'ws://x/'\nauth = {}\n",
        3,
        "auth: is not for WebSockets: give 'headers'",
    ),
    (
        "[servers.db]\nurl = 'https://x/'\nauth = {kind = 'client', client_name = 'x'}\n",
        3,
        "servers.db.auth.client_name: is for 'user', not for 'client'",
    ),
    ("[policy]\nopa_path = 'x'\n", 2, "policy.opa_path: is for 'opa', which is not there"),
    (
        "[policy]\nallow_all = true\ndata = 'x'\n",
        3,
        "policy.data: is for 'rego', which is not there",
    ),
    (
        "[audit]\ndirectory = 'a'\nfsync = 'never'\n",
        3,
        "audit.fsync: 'never' is not one of group, ",
    ),
    ("[identity]\nprincipal = ''\n", 1, "identity: id must be a text of"),
    (
        "[servers.db]\nurl = 'https://x/'\nsensitivity = 'hi'\n",
        3,
        "servers.db: sensitivity: 'hi' is not",
    ),
    (
        "[servers.db]\n\nurl = '${NOPE}'\n",
        3,
        "servers.db.url: the environment has no variable NOPE: set it",
    ),
]


@pytest.mark.parametrize(("text", "line", "message"), UNKNOWN + MISPLACED)
def test_what_nobody_asked_for_is_named_first_and_placed(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'sark.toml'}:{line}: ")


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    auth = "auth = {kind = 'client', client_id = 'x', private_key_file = 'key.pem'}"
    with pytest.raises(ConfigError, match=r"key\.pem: cannot be read: No such file or directory"):
        read(tmp_path, f"[servers.db]\nurl = 'https://x/'\n{auth}\n")


@pytest.mark.parametrize(
    ("name", "text", "line", "column"),
    [
        ("sark.toml", "[client]\ntimeout_s = \n", 2, 13),
        ("sark.toml", "[client\n", 1, 8),
        ("hosts.json", '{\n  "mcpServers": {,}\n}', 2, 18),
    ],
)
def test_what_is_no_toml_or_json_is_placed(
    tmp_path: Path, name: str, text: str, line: int, column: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, name)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"{tmp_path / name}:{line}:{column}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a JSON object"),
        ("{}", "no 'mcpServers'"),
        ('{"mcp_servers": {}}', "json:1: mcp_servers: unknown key; did you mean 'mcpServers'"),
        (
            '{"mcpServers": {\n"a": {\n"comand": "x"}}}',
            "json:3: mcpServers.a.comand: unknown key; did",
        ),
        ('{"mcpServers": {\n"a": null}}', "json:2: mcpServers.a: expected a table, got null"),
        ('{"mcpServers": {"a": {"url": "${input:key}"}}}', "nobody is asked for"),
        ('{"mcpServers": []}', "mcpServers: expected a table"),
        ('{"mcpServers": {"a": {}}}', "mcpServers.a: neither 'command' nor 'url'"),
        ('{"mcpServers": {"a": {"command": 1}}}', "mcpServers.a.command: expected a string"),
        ('{"mcpServers": {"a": {"command": "x", "args": [1]}}}', "mcpServers.a.args: expected"),
        ('{"mcpServers": {"a": {"command": ""}}}', "mcpServers.a"),
        ('{"mcpServers": {"a": {"url": "${NOPE}"}}}', "no variable NOPE"),
        ('{"mcpServers": {"a": {"url": "x"}, "a": {"url": "y"}}}', "a"),
        ('{"mcpServers": {"../a": {"url": "https://x/"}}}', "server name"),
    ],
)
def test_a_mistake_in_a_hosts_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text, "hosts.json")
    assert caught.value.source == str(tmp_path / "hosts.json")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read(tmp_path, b"a = 1\nb = '\xff'\n")
    assert caught.value.line == 2


def test_a_file_that_is_no_configuration_does_not_fill_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        read(tmp_path, b"#" * (4 * 1024 * 1024 + 1))


@pytest.mark.parametrize("jwks", ["https://issuer.example/jwks", "http://127.0.0.1:1/jwks"])
def test_keys_from_a_url_are_no_file(tmp_path: Path, jwks: str) -> None:
    assert read(tmp_path, f'[identity]\njwks = "{jwks}"\n').identity.jwks == jwks


def test_all_options_of_tls_are_known(tmp_path: Path) -> None:
    text = """
[servers.db]
url = "https://x/"
tls = { ca_file = "ca.pem", client_cert_file = "me.pem", client_key_file = "key.pem" }
"""
    server: Any = read(tmp_path, text).servers["db"]
    assert server.tls.ca_file == str(tmp_path / "ca.pem")
    assert server.tls.client_cert_file == str(tmp_path / "me.pem")
    assert server.tls.client_key_file == str(tmp_path / "key.pem")


def test_a_certificate_is_pinned_by_its_digest(tmp_path: Path) -> None:
    text = '[servers.db]\nurl = "https://x/"\ntls = {{ pins_sha256 = "{}" }}\n'
    server: Any = read(tmp_path, text.format("ab" * 32)).servers["db"]
    assert server.tls.pins_sha256 == ("ab" * 32,)
    with pytest.raises(ConfigError, match=r"servers\.db\.tls: a pin must be"):
        read(tmp_path, text.format("ab"))


def test_a_server_behind_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "sark.toml"
    path.write_text(
        '[servers.crm]\nregistry = "https://gw.example"\nserver = "crm"\napi_key = "${KEY}"\n'
    )
    server = load(path, environ={"KEY": "s3cret"}).servers["crm"]
    assert isinstance(server, Registry)
    assert (server.url, server.server, server.api_key) == ("https://gw.example", "crm", "s3cret")
    assert "s3cret" not in repr(server)
    assert server.address == "https://gw.example crm"


def test_whom_the_gateway_lets_in(tmp_path: Path) -> None:
    path = tmp_path / "sark.toml"
    path.write_text(
        '[gateway]\nport = 0\nhosts = "gw.example"\n'
        '[gateway.keys.robot]\nkey = "k"\nroles = ["a"]\n'
    )
    gateway = load(path, environ={}).gateway
    assert (gateway.host, gateway.port, gateway.hosts) == ("127.0.0.1", 0, ("gw.example",))
    assert dict(gateway.keys) == {"robot": ("k", ("a",))}
    assert '"k"' not in repr(gateway)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nport = 70000\n", "gateway.port: 70000 is no port"),
        ('[gateway]\nhost = ""\nprot = 1\n', "gateway.prot: unknown key; did you mean 'port'?"),
        ("[gateway.keys.robot]\nroles = []\n", "gateway.keys.robot.key: missing"),
        ('[servers.a]\nregistry = "https://x"\n', "servers.a.server: missing"),
        ('[servers.a]\nregistry = "https://x"\nurl = "https://y"\n', "needs exactly one of"),
    ],
)
def test_a_mistake_about_the_gateway_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "sark.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert words in str(caught.value)


def test_limits_of_a_server_that_we_start(tmp_path: Path) -> None:
    text = (
        '[servers.x]\ncommand = "x"\n[servers.x.limits]\nrss_bytes_max = 5\ncpu_percent_max = 80\n'
    )
    server = read(tmp_path, text).servers["x"]
    assert isinstance(server, Stdio)
    assert server.limits == ResourceLimits(rss_bytes_max=5, cpu_percent_max=80)


def test_how_many_calls_a_server_gets_at_once(tmp_path: Path) -> None:
    text = '[servers.x]\ncommand = "x"\n[servers.x.concurrency]\nlimit_max = 5\nwait_s = 0.5\n'
    server = read(tmp_path, text).servers["x"]
    assert server.concurrency == AdaptiveConcurrency(limit_max=5, wait_s=0.5)
    assert read(tmp_path, text.partition("[servers.x.c")[0]).servers["x"].concurrency is None
    with pytest.raises(ConfigError, match=r"servers\.x\.concurrency: limit_max must be from 1"):
        read(tmp_path, text.replace("= 5", "= 0"))


def test_breaker_and_retry_of_servers_that_have_none_of_their_own(tmp_path: Path) -> None:
    text = """
[client.breaker]
failures = 9
rate = { failure_percent = 50 }
[client.retry]
attempts = 1
[servers.db]
url = "https://db.example/mcp"
retry = { attempts = 4 }
[servers.files]
url = "https://files.example/mcp"
[policy]
allow_all = true
[audit]
directory = "audit"
"""
    settings = read(tmp_path, text)
    assert settings.breaker is not None
    assert settings.breaker.failures == 9
    assert settings.breaker.rate is not None
    assert settings.retry == RetryConfig(attempts=1)
    engine = client_of(settings)._engine
    assert engine.upstream("db").retry.attempts == 4
    assert engine.upstream("files").retry.attempts == 1
    assert engine.upstream("files").breaker.options == settings.breaker
    assert read(tmp_path, "").breaker is None


def test_supervision_of_a_server_that_we_start(tmp_path: Path) -> None:
    text = """
[servers.files]
command = ["server"]
die_with_parent = true
sha256 = "%s"
[servers.files.supervision]
restarts_max = 1
window_s = 5
cool_off_s = 5
backoff = { multiplier = 3 }
""" % ("ab" * 32)
    server = read(tmp_path, text).servers["files"]
    assert isinstance(server, Stdio)
    assert server.supervision == SuperviseOptions(
        restarts_max=1,
        window_s=5,
        cool_off_s=5,
        backoff=RetryConfig(initial_delay_s=0.2, multiplier=3),
    )
    assert server.die_with_parent
    assert server.sha256 == "ab" * 32


def test_a_policy_may_be_evaluated_elsewhere(tmp_path: Path) -> None:
    text = '[policy]\nrego = "policy.rego"\n[policy.isolation]\n'
    assert read(tmp_path, text).policy.isolation == Isolation()
    given = read(tmp_path, text + "evaluation_s = 2\nprocesses = 1\n").policy
    assert given.isolation == Isolation(evaluation_s=2, processes=1)
    policy = policy_of(given)
    assert isinstance(policy, Rego)
    assert policy.isolation == given.isolation
    assert read(tmp_path, '[policy]\nrego = "policy.rego"\n').policy.isolation is None


_STDIO = '[servers.a]\ncommand = ["x"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[client.breaker]\nfailures = 0", "client.breaker: failures must be from 1"),
        (
            "[client.retry]\nattempt = 1",
            "client.retry.attempt: unknown key; did you mean 'attempts'?",
        ),
        ("[client]\nretry = 3", "client.retry: expected a table, got 3"),
        (
            f"{_STDIO}supervision = {{ restarts_max = -1 }}",
            "servers.a.supervision: restarts_max must be from 0",
        ),
        (
            f"{_STDIO}supervision = {{ backoff = 3 }}",
            "servers.a.supervision.backoff: expected a table, got 3",
        ),
        (f"{_STDIO}sha256 = 'abc'", "servers.a: sha256: 'abc' is not 64 digits"),
        (
            "[policy.isolation]\n",
            "policy.isolation: is for 'rego', which is not there",
        ),
        (
            "[policy]\nrego = 'a.rego'\nisolation = { processes = 0 }",
            "policy.isolation: processes must be from 1",
        ),
        (
            "[servers.a]\nurl = 'https://a.example'\nsupervision = {}",
            "servers.a.supervision: is for 'command', not for 'url'",
        ),
    ],
)
def test_a_mistake_about_what_is_borne_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
