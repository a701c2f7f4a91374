from __future__ import annotations

import json

import pytest

from sark_trio import errors
from sark_trio.cli.output import EXIT_CODES, Output, exit_code, one_line, remedy, visible, worst


def every_error() -> list[type[errors.GatewayError]]:
    found, todo = [], [errors.GatewayError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return found


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x"), 2),
        (errors.UnknownTool("x"), 2),
        (errors.Denied("x"), 3),
        (errors.PolicyUnavailable("x"), 3),
        (errors.ConnectError("x"), 4),
        (errors.ProtocolError("x"), 4),
        (errors.CircuitOpen("x"), 4),
        (errors.RemoteError("x", code=1), 4),
        (errors.CallTimeout("x"), 5),
        (errors.OutcomeUnknown("x"), 5),
        (errors.AuditUnavailable("x"), 6),
        (errors.AuditCorrupt("x"), 6),
    ],
)
def test_exit_status_follows_the_type(error: errors.GatewayError, status: int) -> None:
    assert exit_code(error) == status


def test_every_error_has_an_exit_status() -> None:
    assert all(any(issubclass(kind, known) for known, _ in EXIT_CODES) for kind in every_error())


def test_no_entry_of_the_table_is_hidden_by_an_earlier_one() -> None:
    kinds = [kind for kind, _ in EXIT_CODES]
    for index, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:index])


def test_several_failures_have_their_common_status_or_4() -> None:
    down, denied = errors.ConnectError("x"), errors.Denied("x")
    assert worst([]) == 0
    assert worst([denied, denied]) == 3
    assert worst([denied, down]) == 4


def test_remedies_fit_the_reason() -> None:
    assert "--allow-all" in (remedy(errors.PolicyUnavailable("x", reason="no_policy")) or "")
    assert "sark policy eval" in (remedy(errors.PolicyUnavailable("x", reason="timeout")) or "")
    assert remedy(errors.UnknownServer("x")) is None
    locked = errors.AuditError("x")
    assert remedy(locked) is None
    locked.__cause__ = BlockingIOError()
    assert "--audit DIR" in (remedy(locked) or "")


def test_an_error_is_one_line_that_names_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(errors.ConnectError("no\nroute \x1b[31m", server="db"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("sark: db: no route \\x1b[31m (is the server running, and the URL right?)\n")
    Output().error(errors.UnknownServer("db: no server", server="db"))
    assert capsys.readouterr().err == "sark: db: no server\n"


def test_an_error_for_machines_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).error(errors.CircuitOpen("sick", server="db", retry_after_s=1.5))
    facts = json.loads(capsys.readouterr().err)
    assert facts["error"] == "CircuitOpen"
    assert (facts["server"], facts["retry_after_s"], facts["delivery"]) == ("db", 1.5, "not_sent")
    assert facts["remedy"]


def test_lines_are_for_people_and_values_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (Output(), Output(as_json=True)):
        output.line("hello")
        output.value({"a": "ä"})
    assert capsys.readouterr().out == 'hello\n{\n  "a": "ä"\n}\n{"a": "ä"}\n'


def test_columns_line_up_and_leave_no_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table([("A", "LONGER", "C"), ("long", "b", "c\x07"), ("x", "y", "")])
    assert capsys.readouterr().out == "A     LONGER  C\nlong  b       c\\x07\nx     y\n"


@pytest.mark.security(31)
@pytest.mark.parametrize("code", [0x00, 0x07, 0x1B, 0x7F, 0x9B, 0x200B, 0x202E, 0x2066])
def test_what_a_terminal_obeys_is_shown_instead(code: int) -> None:
    shown = visible(f"a{chr(code)}b")
    assert shown == f"a\\x{code:02x}b"
    assert visible(shown) == shown


def test_other_scripts_stay_as_they_are() -> None:
    assert visible("héllo 世界 🎉\tx") == "héllo 世界 🎉\tx"
    assert one_line("a\nb") == "a b"
