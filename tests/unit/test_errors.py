"""The error tree: what every error carries, and that it survives copying."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from sark_trio import errors
from sark_trio.errors import GatewayError, status_error

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, GatewayError)
]
NEEDED = {"status": 500, "code": -32603}
#: A value for everything that an error can be made with.
FIELDS = {
    "delivery": "answered",
    "retry_after_s": 1.5,
    "attempts": 2,
    "server": "db",
    "request_id": "r",
    "decision_id": "d",
    "source": "sark.toml",
    "line": 3,
    "column": 7,
    "reason": "why",
    "phase": "policy",
    "exit_code": -9,
    "stderr_tail": "ouch",
    "limit": "rss_bytes_max",
    "value": 2.5,
    "allowed": 1.5,
    "limit_bytes": 10,
    "status": 418,
    "www_authenticate": ("Basic",),
    "code": -32001,
    "data": {"a": 1},
    "index": 4,
    "segment": "s",
    "offset": 5,
}


def make(kind: type[GatewayError]) -> GatewayError:
    wanted = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            names = inspect.signature(base.__init__).parameters
            wanted |= {name: NEEDED[name] for name in names if name in NEEDED}
    return kind("what was wrong", **wanted)


def fields_of(kind: type[GatewayError]) -> dict[str, object]:
    """What *kind* can be made with: its own fields, and those that it hands on."""
    found: dict[str, object] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            taken = inspect.signature(base.__init__).parameters.values()
            named = [each.name for each in taken if each.kind is each.KEYWORD_ONLY]
            found |= {name: FIELDS[name] for name in named}
            if not any(each.kind is each.VAR_KEYWORD for each in taken):
                break
    return found


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_keeps_what_it_is_made_with(kind: type[GatewayError]) -> None:
    given = fields_of(kind)
    error = kind("no", **given)
    assert {name: getattr(error, name) for name in given} == given


def test_what_is_not_said_has_a_default() -> None:
    assert vars(GatewayError("no")) == {
        "delivery": "unknown",
        "retry_after_s": None,
        "attempts": 0,
        "server": None,
        "request_id": None,
        "decision_id": None,
    }
    assert errors.CallTimeout("no").phase == "answer"
    assert errors.ProcessExited("no").stderr_tail == ""


def test_a_refusal_has_its_reason_in_one_word() -> None:
    refusals = [make(kind) for kind in ALL if issubclass(kind, errors.Refused)]
    reasons = {type(error).__name__: error.reason for error in refusals}  # type: ignore[attr-defined]
    assert reasons == {
        "Refused": "refused",
        "Denied": "denied",
        "PolicyUnavailable": "policy_unavailable",
        "CircuitOpen": "open",
        "ServerDown": "down",
        "ToolChanged": "tool_changed",
        "Overloaded": "overloaded",
        "AuditUnavailable": "audit_unavailable",
    }


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^[ │]*[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    assert sorted(["GatewayError", *drawn]) == sorted(kind.__name__ for kind in ALL)


def test_the_tree_is_drawn_with_the_right_parents() -> None:
    assert errors.__doc__ is not None
    lines = re.findall(r"^    ([ │]*)[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    path = ["GatewayError"]
    for indent, name in lines:
        path[len(indent) // 4 + 1 :] = [name]
        parent = getattr(errors, path[-2])
        assert getattr(errors, name).__bases__[0] is parent, name


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_carries_a_delivery_and_survives_copying(kind: type[GatewayError]) -> None:
    error = make(kind)
    assert error.delivery in {"not_sent", "unknown", "answered"}
    assert error.message == "what was wrong"
    error.server = "db"
    error.add_note("a note")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)


def test_what_is_added_to_a_twin_is_not_the_others() -> None:
    error, cause = GatewayError("no"), OSError("gone")
    error.__cause__ = cause
    error.add_note("first")
    twin = error.twin()
    twin.request_id = "r"
    twin.add_note("second")
    assert twin.__cause__ is cause
    assert twin.__traceback__ is None
    assert error.request_id is None
    assert (error.__notes__, twin.__notes__) == (["first"], ["first", "second"])


def test_a_copy_without_notes_has_none() -> None:
    twin = GatewayError("no", delivery="answered", attempts=2).twin()
    assert not hasattr(twin, "__notes__")
    assert (twin.delivery, twin.attempts, twin.__cause__) == ("answered", 2, None)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_timeout_is_also_pythons_timeout(kind: type[GatewayError]) -> None:
    assert issubclass(kind, TimeoutError) is kind.__name__.endswith(("Timeout",))


@pytest.mark.fault(2)
def test_a_denial_is_also_pythons_permission_error() -> None:
    assert issubclass(errors.Denied, PermissionError)
    assert issubclass(errors.PolicyUnavailable, errors.Denied)


@pytest.mark.parametrize(
    ("status", "retry_after_s", "kind"),
    [
        (401, None, errors.AuthenticationRequired),
        (403, None, errors.Forbidden),
        (404, None, errors.HTTPStatusError),
        (429, None, errors.RateLimited),
        (429, 3.0, errors.RateLimited),
        (503, 3.0, errors.RateLimited),
        (503, None, errors.HTTPStatusError),
        (500, 3.0, errors.HTTPStatusError),
    ],
)
def test_a_status_has_one_error(
    status: int, retry_after_s: float | None, kind: type[GatewayError]
) -> None:
    error = status_error(status, "no", retry_after_s=retry_after_s)
    assert type(error) is kind
    assert error.status == status
    assert error.retry_after_s == retry_after_s
    assert error.delivery == "answered"


def test_a_configuration_error_says_where() -> None:
    error = errors.ConfigError("no such key", source="sark.toml", line=3, column=7)
    assert str(error) == "sark.toml:3:7: no such key"
    assert str(errors.ConfigError("no such key", source="sark.toml")) == "sark.toml: no such key"
    assert str(errors.ConfigError("no such key")) == "no such key"
