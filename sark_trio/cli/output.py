"""What ``sark`` prints: for people on a terminal, or one JSON document for machines."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO, final

from attrs import frozen

from sark_trio import errors

__all__ = [
    "EXIT_CODES",
    "Output",
    "exit_code",
    "one_line",
    "open_streams",
    "remedy",
    "visible",
    "worst",
]

#: What a terminal would obey or hide instead of show. Tools and servers are strangers.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

#: Standard error.
_STANDARD_MAX: Final = 2
#: The first type that fits decides; docs/reference/cli.md has the same table.
EXIT_CODES: tuple[tuple[type[errors.GatewayError], int], ...] = (
    (errors.Denied, 3),
    (errors.ToolChanged, 3),
    (errors.AuditUnavailable, 6),
    (errors.AuditError, 6),
    (errors.UsageError, 2),
    (errors.CallTimeout, 5),
    (errors.OutcomeUnknown, 5),
    (errors.GatewayError, 4),
)

#: What to do about it. No entry: the message itself says so.
_REMEDIES: tuple[tuple[type[errors.GatewayError], str], ...] = (
    (errors.PolicyUnavailable, "`sark policy eval` shows what is wrong with [policy]"),
    (errors.Denied, "`sark audit tail` and `sark policy eval` show the policy's own words"),
    (errors.ToolChanged, "`sark pins diff` shows what it is now, `sark pins approve` accepts it"),
    (errors.UnknownTool, "`sark tools` lists those that you may use"),
    (errors.CircuitOpen, "wait, or see `sark servers --check`"),
    (errors.CallTimeout, "timeout_s in the configuration gives it more time, or --timeout"),
    (errors.OutcomeUnknown, "look at the server before you repeat the call"),
    (errors.AuthenticationRequired, "give the server credentials: `sark login`, or headers"),
    (errors.ConnectError, "is the server running, and the URL right?"),
    (errors.AuditCorrupt, "keep the files as they are: they are evidence"),
)
_NO_POLICY = "name one: [policy] in sark.toml or --policy FILE.rego; --allow-all to try things out"


def exit_code(error: errors.GatewayError) -> int:
    """The exit status that tells a script what happened."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def worst(failures: Iterable[errors.GatewayError]) -> int:
    """The exit status where some servers failed: theirs, if they agree on one."""
    codes = {exit_code(error) for error in failures}
    return codes.pop() if len(codes) == 1 else (4 if codes else 0)


def remedy(error: errors.GatewayError) -> str | None:
    """What to do about *error*, if its message does not say so."""
    if isinstance(error, errors.PolicyUnavailable) and error.reason == "no_policy":
        return _NO_POLICY
    if isinstance(error, errors.AuditError) and isinstance(error.__cause__, BlockingIOError):
        return "wait for that program, or record elsewhere with --audit DIR"
    return next((words for kind, words in _REMEDIES if isinstance(error, kind)), None)


@final
@frozen
class Output:
    """Where answers go. Errors always go to standard error, in one line with a remedy."""

    as_json: bool = False

    def value(self, value: Mapping[str, Any] | Sequence[Any]) -> None:
        """One JSON document."""
        indent = None if self.as_json else 2
        print(json.dumps(value, ensure_ascii=not _takes_all(sys.stdout), indent=indent))

    def line(self, text: str) -> None:
        """One line for people; nothing for machines."""
        if not self.as_json:
            print(visible(text))

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Columns as wide as they need to be, the last one as it is."""
        cells = [[visible(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
            print("  ".join([*padded, row[-1]]).rstrip())

    def error(self, error: errors.GatewayError) -> None:
        """What went wrong, and what to do about it."""
        if self.as_json:
            facts = {
                "error": type(error).__name__,
                "message": error.message,
                "remedy": remedy(error),
                "delivery": error.delivery,
                "retry_after_s": error.retry_after_s,
                "attempts": error.attempts,
                "server": error.server,
                "request_id": error.request_id,
                "decision_id": error.decision_id,
            }
            print(json.dumps(facts, ensure_ascii=False), file=sys.stderr)
            return
        words, text = remedy(error), error.message
        if error.server is not None and error.server not in text:
            text = f"{error.server}: {text}"
        print(one_line(f"sark: {text}" + (f" ({words})" if words else "")), file=sys.stderr)


def open_streams() -> None:
    """See to it that there are standard streams, and that no text is too much for them.

    A stream that is closed is nobody's: what opens the next file would become it. What a
    terminal's encoding lacks is written as an escape.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_MAX:
        pass  # it stays open, in the place of the one that was missing
    os.close(fd)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - as long as we run
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _takes_all(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"


def visible(text: str) -> str:
    """*text* with everything that a terminal would obey made visible."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def one_line(text: str) -> str:
    """*text* fit for a terminal, and for one line of it."""
    return visible(" ".join(text.split("\n")))
