"""``sark audit verify`` and ``sark audit tail``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sark_trio.cli.options import add_config, add_output, read_settings
from sark_trio.cli.output import Output
from sark_trio.cli.parsing import Commands, add_command, count
from sark_trio.errors import AuditError

__all__ = ["add_parsers"]

_WHERE = "default: where the configuration says"


def add_parsers(commands: Commands) -> None:
    """The commands about the audit log. They only read, also while it is being written."""
    audit = add_command(commands, "audit", "verify or read the audit log")
    parsers = audit.add_subparsers(required=True, title="commands", metavar="COMMAND")

    verify = add_command(
        parsers,
        "verify",
        "find the first record that was tampered with",
        "sark audit verify",
        "sark audit verify audit/ --checkpoints checkpoints",
    )
    verify.add_argument("directory", type=Path, nargs="?", metavar="DIR", help=_WHERE)
    verify.add_argument(
        "--checkpoints", type=Path, metavar="FILE", help="without it a cut-off end is not seen"
    )
    verify.set_defaults(command=_verify)
    add_output(verify)
    add_config(verify)

    tail_ = add_command(
        parsers,
        "tail",
        "print the last records",
        "sark audit tail -n 5",
        "sark audit tail audit/ --json",
    )
    tail_.add_argument("directory", type=Path, nargs="?", metavar="DIR", help=_WHERE)
    tail_.add_argument("-n", "--lines", type=count, default=20, metavar="N", help="default: 20")
    tail_.set_defaults(command=_tail)
    add_output(tail_)
    add_config(tail_)


def _place(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """The directory of the log, and the file of its checkpoints."""
    if options.directory is not None:
        return options.directory, None
    audit = read_settings(options).audit
    assert audit is not None
    return audit.directory, audit.checkpoints


def _verify(options: argparse.Namespace, output: Output) -> int:
    from sark_trio.stores.audit import verify_directory

    directory, checkpoints = _place(options)
    report = verify_directory(directory, options.checkpoints or checkpoints)
    if not report.segments and report.ok:
        raise AuditError(f"there is no audit log in {directory}: is it the right directory?")
    fault = report.fault
    facts: dict[str, Any] = {
        "ok": report.ok,
        "records": report.records,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "in_doubt": list(report.in_doubt),
        "fault": None
        if fault is None
        else {
            "index": fault.index,
            "segment": fault.segment,
            "offset": fault.offset,
            "reason": fault.reason,
        },
    }
    if output.as_json:
        output.value(facts)
        return 0 if report.ok else 1
    if fault is not None:
        output.line(f"NOT WHOLE: record {fault.index}, {fault.segment} at byte {fault.offset}:")
        output.line(f"  {fault.reason}")
        output.line(f"  the {report.records} records before it are as they were written")
        return 1
    records, segments = _count(report.records, "record"), _count(report.segments, "segment")
    output.line(f"{records} in {segments}: every link holds")
    if report.checkpoints:
        output.line(f"agrees with {_count(report.checkpoints, 'checkpoint')}")
    else:
        output.line("no checkpoints, so a cut-off end would not be seen: give --checkpoints FILE")
    if report.in_doubt:
        calls = _count(len(report.in_doubt), "call")
        output.line(f"{calls} without an outcome (running, or a crash):")
        for request_id in report.in_doubt:
            output.line(f"  {request_id}")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _tail(options: argparse.Namespace, output: Output) -> int:
    from sark_trio.stores.audit import tail

    records = tail(_place(options)[0], options.lines)
    if output.as_json:
        output.value(records)
        return 0
    for record in records:
        output.line(_one_line(record))
    return 0


def _one_line(record: dict[str, Any]) -> str:
    """The record as somebody wants to read it who looks for what happened."""
    words = [str(record["seq"]), str(record["ts"]), str(record["kind"])]
    if record.get("name"):  # of an event
        words += [str(record["name"]), json.dumps(record.get("details"), ensure_ascii=False)]
    if record.get("request_id"):
        words.append(str(record["request_id"])[:8])
    if record.get("principal_id"):
        words.append(str(record["principal_id"]))
    if record.get("server"):
        words.append(f"{record['server']}/{record.get('tool') or record.get('method')}")
    words += [str(record[name]) for name in ("outcome", "reason", "error") if record.get(name)]
    if record.get("args") is not None:
        words.append(json.dumps(record["args"], ensure_ascii=False))
    return "  ".join(words)
