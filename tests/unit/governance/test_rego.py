from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sark_trio import errors
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Question
from sark_trio.governance.rego import Rego, RegoEngine, policy_error
from tests.support.governance import load, query, read

HEAD = "package mcp.gateway\nimport rego.v1\n"


def engine(text: str, **options: Any) -> RegoEngine:
    return Rego(texts={"policy.rego": HEAD + text}, **options).load()


@pytest.mark.fault(24, 25, 26)
@pytest.mark.parametrize(
    ("roles", "sql", "allow", "reason"),
    [
        (("analyst",), "select 1", True, "allowed by role or permission"),
        (("analyst",), "SELECT 1; DROP TABLE users", False, "a statement and no more; drop is not"),
        (("analyst", "viewer"), "drop table users", False, "drop is not for this role"),
        (("admin", "analyst"), "drop table users", True, "allowed by role or permission"),
        (("viewer",), "select 1", False, ""),
    ],
)
def test_the_example_policy(roles: tuple[str, ...], sql: str, allow: bool, reason: str) -> None:
    asked = query(principal=Principal(id="p", roles=roles), arguments={"sql": sql, "token": "t"})
    decision = load("gateway.rego").evaluate(Question.of(asked).encoded)
    assert decision.allow is allow
    assert decision.reason.startswith(reason)
    assert decision.fault is None
    if allow:
        assert decision.arguments == {"sql": sql}
        assert decision.ttl_s == 2.0


def test_input_may_be_a_mapping() -> None:
    assert engine("allow if input.x == 1").evaluate({"x": 1}).allow


def test_no_rule_true_is_a_plain_no() -> None:
    decision = engine("allow if input.x == 1").evaluate({})
    assert (decision.allow, decision.reason, decision.fault) == (False, "undefined", None)


def test_a_rule_may_be_asked_instead_of_the_package() -> None:
    asked = engine("allow if input.x == 1", query="data.mcp.gateway.allow")
    assert asked.evaluate({"x": 1}).allow
    undefined = asked.evaluate({"x": 2})
    assert (undefined.allow, undefined.reason) == (False, "undefined")
    assert undefined.fault == "data.mcp.gateway.allow has no value"


@pytest.mark.fault(25)
def test_an_error_while_deciding_denies_and_the_engine_lives_on() -> None:
    decider = engine('allow := true\nreason := "a" if input.a\nreason := "b" if input.b\n')
    both = decider.evaluate({"a": True, "b": True})
    assert (both.allow, both.reason) == (False, "policy_error")
    assert both.fault is not None
    assert "policy.rego:5:1" in both.fault
    assert "backtrace" not in both.fault.lower()
    assert decider.evaluate({"a": True}).allow


def test_a_builtin_that_fails_denies() -> None:
    decider = engine('allow := true\ndeny contains "x" if contains(input.sql, ";")\n')
    assert decider.evaluate({"sql": "a"}).allow
    assert not decider.evaluate({"sql": 7}).allow


def test_data_is_seen_and_makes_the_revision() -> None:
    one = engine("allow if input.id in data.ids", data={"ids": ["a"]})
    two = engine("allow if input.id in data.ids", data={"ids": ["b"]})
    assert one.evaluate({"id": "a"}).allow
    assert not two.evaluate({"id": "a"}).allow
    assert one.revision != two.revision
    assert one.evaluate({"id": "a"}).revision == one.revision
    assert one.revision == engine("allow if input.id in data.ids", data={"ids": ["a"]}).revision


def test_the_revision_binds_names_and_borders_of_sources() -> None:
    revisions = {
        Rego(texts=texts).load().revision
        for texts in (
            {"a.rego": "package a\n"},
            {"b.rego": "package a\n"},
            {"a.rego": "package a\n", "b.rego": "package a\n"},
            {"a.rego": "package a\n#"},
        )
    } | {Rego(texts={"a.rego": "package a\n"}, v0=True).load().revision}
    assert len(revisions) == 5


def test_rego_v0() -> None:
    old = Rego(texts={"p.rego": 'package a\nallow { input.x }\ndeny["x"] { input.y }'}, v0=True)
    assert old.load().evaluate({"x": True}).allow
    assert not old.load().evaluate({"x": True, "y": True}).allow


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("allow if {\n  input.x ==\n}\n", 5, 1, "expecting expression"),
        ("allow if { nobody.home(1) }\n", 3, 23, "could not find function nobody.home"),
        ("allow if { x == y }\n", 3, 12, "unsafe"),
        ("a := 1\na := 2\n", 4, 1, "conflicts"),
    ],
)
def test_bad_rego_is_told_with_file_line_and_column(
    text: str, line: int, column: int, what: str
) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        engine(text)
    assert (caught.value.source, caught.value.line, caught.value.column) == (
        "policy.rego",
        line,
        column,
    )
    assert what in caught.value.message
    assert "\n" not in caught.value.message


def test_which_package_decides() -> None:
    texts = {"a.rego": "package a\nallow := true", "b.rego": "package b.c\nallow := false"}
    with pytest.raises(errors.ConfigError, match=r"data\.a, data\.b\.c decides"):
        Rego(texts=texts).load()
    assert Rego(texts=texts, query="data.a").load().evaluate({}).allow
    assert not Rego(texts=texts, query="data.b.c.allow").load().evaluate({}).allow
    with_ours = {**texts, "c.rego": HEAD + "allow := true"}
    assert Rego(texts=with_ours).load().query == "data.mcp.gateway"
    with pytest.raises(errors.ConfigError, match="in none of the packages"):
        Rego(texts=texts, query="data.typo").load()


def test_a_whole_tree_may_be_asked() -> None:
    tree = Rego(texts={"a.rego": "package a.b\nallow := true"}, query="data.a").load()
    assert not tree.evaluate({}).allow


def test_files_are_read_by_load_and_by_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.rego"
    rego = Rego(path)
    with pytest.raises(errors.ConfigError, match="can not be read"):
        rego.load(read)
    with pytest.raises(errors.ConfigError, match="no way to read it"):
        rego.load()
    path.write_bytes(b"\xff")
    with pytest.raises(errors.ConfigError, match="can not be read"):
        rego.load(read)
    with pytest.raises(errors.ConfigError, match="larger than 1048576"):
        rego.load(lambda _: b" " * (1 << 20) + b" ")
    path.write_text("package a\nallow := true")
    loaded = rego.load(read)
    path.unlink()
    assert loaded.evaluate({}).allow
    assert repr(rego) == f"<Rego {path} query=by package>"
    both = Rego("a.rego", texts={"b.rego": "package b"}, query="data.b")
    assert repr(both) == "<Rego a.rego, b.rego query=data.b>"


def test_a_file_may_be_as_large_as_a_mebibyte() -> None:
    text = b"package a\nallow := true\n"
    large = text + (b"#" * 1_000 + b"\n") * 1_040
    large = large.ljust(1 << 20, b"\n")
    assert Rego("p.rego").load(lambda _: large).evaluate({}).allow


def test_a_text_that_is_no_unicode_is_a_wrong_configuration() -> None:
    with pytest.raises(errors.ConfigError, match="texts: "):
        Rego(texts={"p.rego": "package a\n# \ud800"}).load()


@pytest.mark.parametrize("options", [{}, {"texts": {}}])
def test_no_source_at_all_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Rego(**options)


@pytest.mark.parametrize("asked", ["mcp.gateway", "data", "data.a; true", "data.a\n"])
def test_a_query_is_a_reference(asked: str) -> None:
    with pytest.raises(ValueError, match="must be a reference"):
        Rego("p.rego", query=asked)


def test_data_must_be_json() -> None:
    with pytest.raises(errors.ConfigError, match="data: "):
        engine("", data={"a": object()})


@pytest.mark.parametrize(
    "data",
    [
        {"mcp": {"gateway": {"allow": True}}},
        {"mcp": {"gateway": {}}},
        {"mcp": {"gateway": 1}},
        {"mcp": True},
        {"mcp": {"gateway": {"below": {"x": 1}}}},
    ],
)
def test_data_can_not_override_rules(data: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError, match=r"data: holds a value (at|above)"):
        engine("default allow := false", data=data)


def test_data_beside_the_rules_is_fine() -> None:
    data = {"mcp": {"teams": ["a"]}, "x": 1}
    assert (
        engine("allow if data.mcp.teams[0] == input.team", data=data).evaluate({"team": "a"}).allow
    )


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regorus", None)
    with pytest.raises(errors.TransportNotAvailableError, match=r"sark_trio\[rego\]"):
        engine("")


@pytest.mark.row(48)
def test_an_answer_that_is_too_large_denies() -> None:
    pad = 'allow := true\npad := concat("", [input.p | some _ in numbers.range(1, 2000)])\n'
    large = engine(pad).evaluate({"p": "x" * 1_000})
    assert (large.allow, large.reason) == (False, "policy_error")


def test_an_answer_may_be_as_large_as_a_mebibyte() -> None:
    decider = engine("allow := true")
    answer = '{"result":[{"expressions":[{"value":{"allow":true}}]}]}'.ljust(1 << 20)
    assert decider.read(answer).allow
    assert decider.read(answer + " ").fault == "an answer of more than 1048576 bytes"


def test_a_backtrace_is_left_out_of_what_is_told() -> None:
    error = policy_error("stack overflow\n\nStack backtrace:\n   0: main", "p.rego")
    assert (error.message, error.source) == ("p.rego: stack overflow", "p.rego")


@pytest.mark.parametrize("answer", ["{", '{"result": [], "result": []}'])
def test_an_answer_that_is_no_json_denies(answer: str) -> None:
    decision = engine("allow := true").read(answer)
    assert (decision.allow, decision.reason) == (False, "policy_error")
    assert decision.fault is not None
    assert decision.fault.startswith("not JSON")


class PanicException(BaseException):
    """What PyO3 raises for a Rust panic."""


class Panicking:
    """An engine of which one evaluation goes wrong in a way that no policy can cause on purpose."""

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def set_input_json(self, value: str) -> None:
        raise self._exc


@pytest.mark.row(48)
def test_a_panic_denies_and_the_engine_is_made_anew() -> None:
    decider = engine("allow := true")
    decider._engine = Panicking(PanicException("unwrap on None"))  # type: ignore[assignment]
    decision = decider.evaluate({})
    assert (decision.allow, decision.fault) == (False, "the engine panicked")
    assert decider.evaluate({}).allow


def test_an_interrupt_passes_through_and_the_engine_is_made_anew() -> None:
    decider = engine("allow := true")
    decider._engine = Panicking(SystemExit())  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        decider.evaluate({})
    assert decider.evaluate({}).allow
