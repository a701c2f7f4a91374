"""Every row under a thousand concurrent calls: the table of ``tests/crowds``, a test id a cell.

With every change, one cell of each row; all of them with ``SARK_CROWDS=all``, which is what
``python -m tests.deep crowds`` says.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from tests.crowds.crowd import crowd
from tests.crowds.fault import TRANSPORTS
from tests.crowds.table import NOT_THERE, Cell, cells, every_change, faults
from tests.tidy.trace import rows

PLAYED = list(cells()) if os.environ.get("SARK_CROWDS") == "all" else every_change()


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=pytest.mark.row(cell.row), id=cell.name) for cell in PLAYED],
)
def test_a_thousand_calls(cell: Cell, tmp_path: Path) -> None:
    if cell.fault.alone is not None:
        cell.fault.alone(tmp_path, cell.backend)
    else:
        anyio.run(crowd, cell.fault, cell.wire, tmp_path, backend=cell.backend)


def test_each_row_has_a_cell_or_a_reason_on_each_transport() -> None:
    there = {
        (cell.row, name) for cell in cells() for name, w in TRANSPORTS.items() if cell.wire in w
    }
    excused = {(row, name) for row, reasons in NOT_THERE.items() for name in reasons}
    assert there | excused == {(row.number, name) for row in rows() for name in TRANSPORTS}
    assert there & excused == set()


def test_each_change_meets_each_row_each_wire_and_each_event_loop() -> None:
    often = every_change()
    slow = {row for row, each in faults().items() if all(one.slow for one in each)}
    assert {cell.row for cell in often} == set(faults()) - slow
    for name, wires in TRANSPORTS.items():
        backends = [cell.backend for cell in often if cell.wire in wires]
        assert min(backends.count("asyncio"), backends.count("trio")) >= 2, name
