"""Policies, questions and engines that the governance tests share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sark_trio.governance.decision import Decision
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query, Question
from sark_trio.governance.rego import Rego, RegoEngine

__all__ = ["POLICIES", "Answers", "load", "query", "read"]

POLICIES = Path(__file__).parent / "policies"


def read(name: str) -> bytes:
    """The content of a file, as a client hands it to ``Rego.load``."""
    return Path(name).read_bytes()


@cache
def load(name: str) -> RegoEngine:
    """The engine of a policy of this folder; compiled once, as engines keep no state."""
    return Rego(str(POLICIES / name)).load(read)


def query(**fields: Any) -> Query:
    """A call of ``db/query`` by an analyst, but for *fields*."""
    defaults: dict[str, Any] = {
        "principal": Principal(id="alice", roles=("analyst",)),
        "server": "db",
        "tool": "query",
        "arguments": {"sql": "select 1"},
    }
    return Query(**{**defaults, **fields})


class Answers:
    """A policy engine that answers as it is told, and remembers what it was asked."""

    def __init__(self, *answers: Any, revision: str | None = None) -> None:
        self._answers = list(answers)
        self.revision = revision
        self.asked: list[bytes] = []

    async def decide(self, question: Question) -> Decision:
        """The next answer; the last one again and again. An exception is raised."""
        self.asked.append(question.encoded)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]
