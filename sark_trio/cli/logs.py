"""What a command logs: nothing, unless it is told to."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sark_trio.cli.parsing import Parser

__all__ = ["add_logs", "logging_as"]

_LEVELS = ("debug", "info", "warning", "error")


def add_logs(parser: Parser) -> None:
    """``--log-level`` and ``--log-format``."""
    parser.add_argument(
        "--log-level", choices=_LEVELS, help="log what happens, on standard error; default: nothing"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="default: text"
    )


@contextmanager
def logging_as(options: argparse.Namespace) -> Iterator[None]:
    """Log to standard error, as *options* say, for the length of a block."""
    if options.log_level is None:
        yield
        return
    from sark_trio.telemetry.logs import JsonFormatter

    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if options.log_format == "json" else text)
    logger = logging.getLogger("sark_trio")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(options.log_level.upper())
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
