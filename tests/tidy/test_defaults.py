"""No default is without a limit: every number that an option leaves out is a finite one.

``None`` may stand for "what is configured one level up", or for "it was not said". Where it
stands for no limit at all, that is written down here with its reason, and on the page about
security.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import sark_trio
from tests.tidy.source import ROOT

pytestmark = pytest.mark.security(25)

#: Fields and parameters for which ``None`` is no limit, and why that is so.
UNLIMITED = {
    "StdioTransport.limits": "as Stdio.limits",
    "Stdio.limits": "a limit that fits every program does not exist; decision 019",
    "Local.connect_local_server(limits)": "as Stdio.limits",
    "ResourceLimits.address_space_bytes_max": "Node, Go and the JVM reserve addresses ahead",
    "ResourceLimits.processes_max": "the kernel counts those of the user, not of the server",
    "ResourceLimits.cpu_percent_max": "to use a processor is what most tools are for",
}
#: By name: ``None`` asks the next one for the number, and the last one has it.
FALLBACKS = {
    "timeout_s": "the tool's rule, the server, the client: 30 s, and never more than 300",
    "cache_ttl_s": "nothing is kept",
    "kept_s": "nothing is kept",
    "idle_s": "the time limit of the connection",
    "timeout": "httpcore's interface: every call of ours gives one (net/connection.py)",
    "default": "a default of a setting in a file is its reader's",
}
#: Types that say what was found: ``None`` is "not known", and nothing is limited by them.
REPORTS = frozenset(
    (  # noqa: SIM905 -- one word each says enough
        "AttemptFinished AuditCorrupt CallFinished CallInfo ChildProcess Completion ConfigError"
        " Decision Entry Evidence Failed Fault GatewayError GiveUp Ledger ListFetched Lost"
        " MessageTooLarge Outcome ProcessExited Progress Reject Resource ResourceLimitExceeded"
        " Sampling ServerEvent ServerHealth Task TokenSet Verdict Victim _Flight"
    ).split()
)
#: Places and facts among parameters.
FACTS = {
    "Principal.expires_at": "a key has no end; a token has one (tokens without are refused)",
    "Operations.follow_audit(after)": "from now on",
    "AuditLog.follow(after)": "from now on",
    "Reconnector.on_closed(retry_after_s)": "the server did not say",
    "Handlers.retry_ms": "the server did not say",
    "Outbox.put(call_id)": "it belongs to no call",
    "Batch.waiting_since": "nobody waits: earlier than that is everything",
    "Deadline.at": "a deadline that does not exist is later than any other",
    "_Stream.receive_some(_max_bytes)": "trio's interface: we read as much as we like",
}


def defaults(kind: type) -> Iterator[tuple[str, str, object]]:
    """Name, annotation and default of whatever *kind* and its public methods may be given."""
    if attrs.has(kind):
        for field in attrs.fields(kind):
            if field.init and field.default is not attrs.NOTHING:
                yield f"{kind.__name__}.{field.name}", str(field.type), field.default
    for name, method in vars(kind).items():
        public = not name.startswith("_") or (name == "__init__" and not attrs.has(kind))
        if not public or not inspect.isfunction(method):
            continue
        for parameter in inspect.signature(method).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                where = f"{kind.__name__}.{name}({parameter.name})".replace(".__init__", "")
                yield where, str(parameter.annotation), parameter.default


def problem(where: str, annotation: str, default: object) -> str | None:
    """What is wrong with a default."""
    name = re.split(r"[.(]", where.rstrip(")"))[-1]
    known = where in UNLIMITED or where in FACTS or name in FALLBACKS
    known = known or re.split(r"[.(]", where)[0] in REPORTS
    if isinstance(default, float) and not math.isfinite(default):
        return None if known else f"{where} is {default}"
    limits = re.search(r"\b(?:int|float|ResourceLimits)\b", annotation)
    if default is not None or limits is None or not annotation.endswith("None"):
        return None
    return None if known else f"{where} has no limit, and no reason"


def kinds() -> Iterator[type]:
    """Every class of the package."""
    for module in pkgutil.walk_packages(sark_trio.__path__, "sark_trio."):
        if module.name.endswith("__main__"):
            continue
        found = importlib.import_module(module.name)
        for thing in vars(found).values():
            if inspect.isclass(thing) and thing.__module__ == module.name:
                yield thing


def test_no_default_is_without_a_limit() -> None:
    found = {each[0]: problem(*each) for kind in kinds() for each in defaults(kind)}
    assert [what for what in found.values() if what is not None] == []
    assert {*UNLIMITED, *FACTS} <= set(found)


def test_what_has_no_limit_is_on_the_page() -> None:
    page = (ROOT / "docs/explanation/security.md").read_text()
    names = {re.split(r"[.(]", where.rstrip(")"))[-1] for where in UNLIMITED}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


@attrs.frozen(kw_only=True)
class Planted:
    """An option that somebody forgot to bound."""

    items_max: int | None = None
    timeout_s: float | None = None
    wait_s: float = math.inf
    name: str | None = None

    def fetch(self, pages_max: int | None = None, seconds: float = 3.0) -> None:
        """Of a method, too."""


def test_planted_defaults_are_found() -> None:
    check: Callable[..., Any] = problem
    assert [what for each in defaults(Planted) if (what := check(*each))] == [
        "Planted.items_max has no limit, and no reason",
        "Planted.wait_s is inf",
        "Planted.fetch(pages_max) has no limit, and no reason",
    ]
