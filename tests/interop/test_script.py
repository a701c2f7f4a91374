"""The script over other people's servers: those that CI has anyway.

``nox -s interop`` runs it over all of them, and writes the page of the documentation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.column import COLUMNS, run_subject
from tests.interop.servers import SUBJECTS
from tests.support.peers import peer

pytestmark = pytest.mark.interop

#: One of each kind that differs in what goes over the wire, but for those whose cells say that
#: something cannot be done: those are waited for.
CHOSEN = [
    name
    for name, subject in SUBJECTS.items()
    if not subject.is_extra and not subject.cannot and name not in {"python-git", "python-time"}
]


@pytest.mark.anyio
@pytest.mark.parametrize("name", CHOSEN)
async def test_the_script_works_with_a_server_of_others(name: str, tmp_path: Path) -> None:
    peer(SUBJECTS[name].peer)
    cells = await run_subject(SUBJECTS[name], tmp_path)
    assert tuple(cells) == COLUMNS
    failed = {column: cell.why for column, cell in cells.items() if cell.state == "failed"}
    assert failed == {}
    assert cells["messages"].state == "works"


def test_every_transport_is_among_them() -> None:
    transports = {subject.transport for subject in SUBJECTS.values()}
    assert {SUBJECTS[name].transport for name in CHOSEN} == transports
