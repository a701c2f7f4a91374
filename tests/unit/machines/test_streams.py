"""What the head of a response says about an event stream, and what follows its end."""

from __future__ import annotations

import pytest

from sark_trio.machines.streams import SEEN_MAX, TABLE, VERDICTS, End, Event, Phase, judge, tally


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("status", "content_type", "end"),
    [
        (200, "text/event-stream", None),
        (200, "Text/Event-Stream ; charset=utf-8", None),
        (200, "application/json", End.NOT_A_STREAM),
        (200, "text/event-streams", End.NOT_A_STREAM),
        (200, "text/event-stream~", End.NOT_A_STREAM),
        (200, None, End.NOT_A_STREAM),
        (202, "text/event-stream", End.NOT_A_STREAM),
        (204, "text/event-stream", End.NO_CONTENT),
        (299, None, End.NOT_A_STREAM),
        (300, None, End.REFUSED),
        (302, None, End.REFUSED),
        (400, "text/event-stream", End.REFUSED),
        (401, None, End.UNAUTHORIZED),
        (403, None, End.REFUSED),
        (404, None, End.NOT_FOUND),
        (405, None, End.REFUSED),
        (429, None, End.THROTTLED),
        (500, "text/event-stream", End.SERVER_ERROR),
        (599, None, End.SERVER_ERROR),
        (600, None, End.REFUSED),
        (100, None, End.REFUSED),
    ],
)
def test_the_head_says_it(status: int, content_type: str | None, end: End | None) -> None:
    assert judge(status, content_type) is end


def test_the_latest_ids_are_counted_and_one_that_comes_again_is_late() -> None:
    ids = [str(number) for number in range(SEEN_MAX)]
    assert tally(ids) == dict.fromkeys(ids, 1)
    found = tally([*ids, "0", "new"])
    assert len(found) == SEEN_MAX
    assert (found["0"], list(found)[-2:], "1" in found) == (2, ["0", "new"], False)


def test_every_end_has_a_verdict_and_every_phase_can_be_closed() -> None:
    assert VERDICTS.keys() == set(End)
    assert all((phase, Event.STOPPED) in TABLE for phase in set(Phase) - {Phase.CLOSED})
    assert not any(source is Phase.CLOSED for source, _ in TABLE)
