"""Open Policy Agent over HTTP. Grey: it is handed an ``exchange`` and opens no socket itself.

Allowed is only what OPA says in so many words: status 200, JSON without a duplicate key, at most
1 MiB, a ``result`` that :func:`~.decision.decode_decision` reads as an allow. A refused
connection, a timeout, an error page, half a body: no decision, so denied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final
from urllib.parse import quote, urlsplit

from attrs import define, evolve, field
from attrs.validators import and_, gt, le

from sark_trio import jsontext
from sark_trio.governance.decision import Decision, decode_decision, no_decision
from sark_trio.governance.query import Question

__all__ = ["Exchange", "Headers", "Opa", "read_answer"]

Headers = Sequence[tuple[str, str]]
#: ``await exchange(method, url, headers, body, timeout_s)`` → ``(status, headers, body)``. It
#: ends within *timeout_s*, follows no redirect, and raises any ``Exception`` where it fails.
Exchange = Callable[[str, str, Headers, bytes, float], Awaitable[tuple[int, Headers, bytes]]]

#: ``provenance`` names the revision of each bundle that took part. Without strict errors OPA
#: takes a built-in that fails on its argument for *undefined*: ``contains(input.x, ";")`` in a
#: ``deny`` rule would let a number pass.
_PARAMETERS: Final = "provenance=true&strict-builtin-errors=true"
#: Bytes of an answer: a decision is a few hundred, a package document a few thousand.
ANSWER_BYTES_MAX: Final = 1 << 20
#: Characters of a revision: OPA bundles are named by commit or digest.
REVISION_CHARS_MAX: Final = 1_024


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("url must be http:// or https:// and name a host")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("url must not hold credentials, a query or a fragment")
    return url.rstrip("/")


def _path(path: str) -> str:
    if not path.startswith("/v1/data/") or "//" in path or "?" in path or "#" in path:
        raise ValueError("path must name a document below /v1/data/")
    return quote(path, safe="/%")


def _token(token: str | None) -> str | None:
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("token must be printable ASCII without spaces")
    return token


@final
@define(eq=False)
class Opa:
    """A policy that an OPA server decides.

    :param url: where OPA listens, such as ``http://127.0.0.1:8181``.
    :param path: the document that decides; a package document or a single rule.
    :param timeout_s: seconds for one decision, at most 10.
    :param token: bearer token for OPA's own authentication.
    :param exchange: how to reach it; a client hands its own over with :meth:`bind`.
    :raises ValueError: an option that can not be.
    """

    url: str = field(converter=_base)
    path: str = field(default="/v1/data/mcp/gateway", converter=_path, kw_only=True)
    timeout_s: float = field(default=0.5, validator=and_(gt(0), le(10)), kw_only=True)
    token: str | None = field(default=None, converter=_token, repr=False, kw_only=True)
    exchange: Exchange | None = field(default=None, repr=False, kw_only=True)
    #: The bundle revision that the last answer came from; ``None`` before it, or without bundles.
    revision: str | None = field(default=None, init=False)

    def bind(self, exchange: Exchange) -> Opa:
        """The same policy, reached by *exchange*."""
        return evolve(self, exchange=exchange)

    async def decide(self, question: Question) -> Decision:
        """Ask OPA. Whatever goes wrong is a decision with ``fault`` set; cancellation passes."""
        if self.exchange is None:
            return no_decision("Opa was given no exchange", reason="not_bound")
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        if self.token is not None:
            headers.append(("authorization", f"Bearer {self.token}"))
        try:
            status, _, body = await self.exchange(
                "POST",
                f"{self.url}{self.path}?{_PARAMETERS}",
                headers,
                b'{"input":' + question.encoded + b"}",
                self.timeout_s,
            )
        except TimeoutError:
            return no_decision(f"OPA did not answer within {self.timeout_s} s", reason="timeout")
        except Exception as exc:  # noqa: BLE001 (any failure to ask is a no)
            # The type only: a message may quote what was sent, and that holds the arguments.
            return no_decision(
                f"OPA can not be reached: {type(exc).__name__}", reason="unreachable"
            )
        decision = read_answer(status, body)
        if decision.fault is None:
            self.revision = decision.revision
        return decision


def read_answer(status: int, body: bytes) -> Decision:
    """The decision in OPA's HTTP answer. Never raises."""
    if status != 200:
        return no_decision(f"OPA answered with status {status}", reason="status")
    if len(body) > ANSWER_BYTES_MAX:
        return no_decision(f"OPA answered {len(body)} bytes", reason="too_large")
    try:
        answer = jsontext.decode_strict(body)
    except jsontext.JSONError:
        return no_decision("OPA's answer is not JSON", reason="malformed")
    if not isinstance(answer, dict):
        return no_decision("OPA's answer is not an object", reason="malformed")
    revision = _revision(answer.get("provenance"))
    if "result" not in answer:
        return no_decision("OPA's answer has no result", reason="undefined", revision=revision)
    named = answer.get("decision_id")
    return decode_decision(
        answer["result"],
        decision_id=named if isinstance(named, str) else None,
        revision=revision,
    )


def _revision(provenance: Any) -> str | None:
    """One text for the revisions of all bundles, whatever their order."""
    if not isinstance(provenance, dict):
        return None
    bundles = provenance.get("bundles")
    if not isinstance(bundles, dict):
        single = provenance.get("revision")
        return _short(single) if isinstance(single, str) and single else None
    named = (
        f"{name}={bundle.get('revision') if isinstance(bundle, dict) else None}"
        for name, bundle in sorted(bundles.items())
    )
    return _short(",".join(named)) or None


def _short(revision: str) -> str:
    """Cut off, two revisions could be one, and a decision outlive its policy: digested instead."""
    if len(revision) <= REVISION_CHARS_MAX:
        return revision
    return f"sha256:{hashlib.sha256(revision.encode()).hexdigest()}"
