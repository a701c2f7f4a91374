"""What a server's answer to a probe or an ``initialize`` says about its era.

The reading half of ``era``: it takes what came over the wire, from a peer that may be of any
age or no MCP server at all, and makes one :class:`Signal` of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from sark_trio.errors import HTTPStatusError, ProtocolError
from sark_trio.mcp.codec import decode
from sark_trio.mcp.faults import HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION
from sark_trio.mcp.messages import Failure, Success
from sark_trio.mcp.versions import choose

__all__ = [
    "Evidence",
    "Signal",
    "contradicts",
    "read_discovery",
    "read_error",
    "read_initialization",
    "read_status",
]

#: ``-32601`` is none of them: every modern server knows ``server/discover``.
_MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION})
#: What the official SDKs of the session era answer to a request without a session.
_NO_SESSION: Final = frozenset({-32600, -32000})

#: As much of a peer's words as a message of ours repeats.
_QUOTE_CHARS_MAX: Final = 200
#: Versions of a peer that a message of ours repeats.
_QUOTE_VERSIONS_MAX: Final = 8
#: Statuses that are about credentials, rate or timing, not about the request's shape.
_NOT_ABOUT_ERA: Final = frozenset({401, 403, 407, 408, 425, 429})


class Signal(Enum):
    """What an answer means."""

    FITS = "the answer that was asked for, in a version that we speak"
    NAMED = "the peer names a version that we speak and have not tried"
    NONE_COMMON = "the peer names versions, none of them of use"
    MISMATCH = "a modern error about our headers"
    CAPABILITY = "a modern error about our capabilities"
    FOREIGN = "nothing that a modern server answers to the probe"
    SILENT = "no answer in time"
    EXITED = "the process ended"
    UNRELATED = "a failure that says nothing about the era"


@frozen(kw_only=True)
class Evidence:
    """One answer, understood."""

    signal: Signal
    #: What happened, as one clause; for the message if this ends the negotiation.
    text: str = ""
    #: The version that fits or is named.
    version: str = ""
    result: Mapping[str, Any] = field(factory=dict)
    status: int | None = None


def read_discovery(result: Any, wanted: Sequence[str], untried: Sequence[str]) -> Evidence:
    """The answer to ``server/discover``.

    :param wanted: the versions that fit as they are, best first.
    :param untried: other versions that may still be tried, best first.
    """
    named = result.get("supportedVersions") if isinstance(result, Mapping) else None
    if not isinstance(named, list):
        text = "the server did not answer server/discover with a list of versions"
        return Evidence(signal=Signal.FOREIGN, text=text)
    return _read_versions(named, wanted, untried, result)


def read_initialization(result: Any, wanted: Sequence[str], untried: Sequence[str]) -> Evidence:
    """The answer to ``initialize``; the parameters as for :func:`read_discovery`."""
    named = result.get("protocolVersion") if isinstance(result, Mapping) else None
    if type(named) is not str:
        text = "the server did not answer initialize with a version"
        return Evidence(signal=Signal.FOREIGN, text=text)
    return _read_versions([named], wanted, untried, result)


def read_error(
    code: int, message: str, data: Any, untried: Sequence[str], status: int | None = None
) -> Evidence:
    """A JSON-RPC error.

    Legacy servers list versions as modern ones do, but under a code of their own
    (2025-11-25, Lifecycle, "Error Handling"): the list is followed under any code.
    """
    text = f"the server answered error {code}: {_quote(message)}"
    named = data.get("supported") if isinstance(data, Mapping) else None
    version = choose(named, untried) if isinstance(named, list) else None
    if version is not None:
        return Evidence(signal=Signal.NAMED, text=text, version=version, status=status)
    if code == UNSUPPORTED_VERSION:
        listed = _listed(named if isinstance(named, list) else [])
        text = f"the server supports {listed}, and we share none that is left to try"
        return Evidence(signal=Signal.NONE_COMMON, text=text, status=status)
    signal = {
        HEADER_MISMATCH: Signal.MISMATCH,
        MISSING_CAPABILITY: Signal.CAPABILITY,
    }.get(code, Signal.FOREIGN)
    return Evidence(signal=signal, text=text, status=status)


def read_status(status: int, body: bytes, untried: Sequence[str]) -> Evidence:
    """An HTTP status that is no success.

    A JSON-RPC error in the body outranks the status where only modern servers give it;
    legacy servers, too, put errors of their own into the body of any 4xx or 5xx.
    """
    text = f"the server answered HTTP {status}"
    failure = _failure_in(body)
    if failure is not None:
        evidence = read_error(failure.code, failure.message, failure.data, untried, status)
        if evidence.signal is not Signal.FOREIGN:
            return evidence
        text = f"{evidence.text} (HTTP {status})"
    about_era = status < 500 and status not in _NOT_ABOUT_ERA
    signal = Signal.FOREIGN if about_era else Signal.UNRELATED
    return Evidence(signal=signal, text=text, status=status)


def contradicts(answer: Success | Failure | HTTPStatusError, *, modern: bool) -> bool:
    """Whether *answer* casts doubt on the era that was agreed: the server may be another now.

    No error proves it; asking anew does. MCP 2026-07-28, "Backward Compatibility with
    Initialization-Based Versions": what was found is kept until it turns out wrong.
    """
    if isinstance(answer, HTTPStatusError):
        return modern and 400 <= answer.status < 500 and answer.status not in _NOT_ABOUT_ERA
    if isinstance(answer, Success):
        return False
    if modern:
        return answer.code == UNSUPPORTED_VERSION or answer.code in _NO_SESSION
    return answer.code in _MODERN_ERRORS


def _read_versions(
    named: list[Any],
    wanted: Sequence[str],
    untried: Sequence[str],
    result: Mapping[str, Any],
) -> Evidence:
    version = choose(named, wanted)
    if version is not None:
        return Evidence(signal=Signal.FITS, version=version, result=result)
    text = f"the server speaks {_listed(named)}, and we share none that is left to try"
    version = choose(named, untried)
    if version is not None:
        return Evidence(signal=Signal.NAMED, text=text, version=version)
    return Evidence(signal=Signal.NONE_COMMON, text=text)


def _failure_in(body: bytes) -> Failure | None:
    try:
        message = decode(body)
    except ProtocolError:
        return None
    return message if isinstance(message, Failure) else None


def _listed(named: list[Any]) -> str:
    versions = [version for version in named if type(version) is str]
    return _quote(", ".join(versions[:_QUOTE_VERSIONS_MAX])) if versions else "no version"


def _quote(words: str) -> str:
    # ascii: a peer's newlines, bidi marks and escapes must not dress up our message.
    return ascii(words[:_QUOTE_CHARS_MAX])
