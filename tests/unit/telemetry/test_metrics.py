"""The text format, and that no label can fill the store."""

from __future__ import annotations

import pytest

from sark_trio.telemetry import metrics
from sark_trio.telemetry.events import OTHER, CallInfo
from sark_trio.telemetry.labels import TOOLS_MAX, ToolLabels
from sark_trio.telemetry.metrics import Counter, Family, Gauge, Histogram, Registry


def test_a_counter_grows() -> None:
    counter = Counter("calls_total", "Calls.", ("server", "status"))
    counter.add("db", "ok")
    counter.add("db", "ok", by=2)
    counter.add("db", "error")
    assert counter.value("db", "ok") == 3
    assert counter.value("db", "none") == 0
    assert list(counter.lines()) == [
        "# HELP calls_total Calls.",
        "# TYPE calls_total counter",
        'calls_total{server="db",status="error"} 1',
        'calls_total{server="db",status="ok"} 3',
    ]


def test_a_gauge_goes_up_and_down() -> None:
    gauge = Gauge("open", "Open.")
    gauge.add()
    gauge.add(by=-1)
    assert gauge.value() == 0
    gauge.set(1_234_567_890)
    assert list(gauge.lines())[1:] == ["# TYPE open gauge", "open 1234567890"]


def test_a_histogram_has_cumulative_buckets() -> None:
    histogram = Histogram("seconds", "Time.", ("server",), bounds=(0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        histogram.observe(seconds, "db")
    assert list(histogram.lines())[2:] == [
        'seconds_bucket{server="db",le="0.1"} 2',
        'seconds_bucket{server="db",le="1"} 3',
        'seconds_bucket{server="db",le="+Inf"} 4',
        'seconds_sum{server="db"} 7.65',
        'seconds_count{server="db"} 4',
    ]


def test_values_of_labels_are_escaped() -> None:
    counter = Counter("c", "C.", ("a",))
    counter.add('"\\\n')
    assert list(counter.lines())[-1] == 'c{a="\\"\\\\\\n"} 1'


def test_too_many_label_sets_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 3)
    counter = Counter("c", "C.", ("a", "b"))
    histogram = Histogram("h", "H.", ("a",))
    for number in range(100):
        counter.add(str(number), "x")
        counter.add("0", "x")  # what has a place keeps it
        histogram.observe(0, str(number))
    assert counter.value("0", "x") == 101
    assert counter.value(OTHER, OTHER) == 97
    assert len(list(counter.lines())) == 2 + 4
    assert sum(line.startswith("h_count") for line in histogram.lines()) == 4


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="'no-name' can name no metric"):
        Counter("no-name", "No.")
    with pytest.raises(ValueError, match="'é' can name"):
        Counter("c", "C.", ("é",))
    with pytest.raises(ValueError, match=r"c has the labels \('a',\), not 2"):
        Counter("c", "C.", ("a",)).add("x", "y")
    with pytest.raises(NotImplementedError):
        Family("c", "C.").lines()


def test_a_registry_has_each_name_once() -> None:
    registry = Registry()
    first = registry.add(Counter("a", "A."))
    registry.add(Counter("b", "B."))
    with pytest.raises(ValueError, match="there is a metric 'a' already"):
        registry.add(Gauge("a", "A."))
    first.add()
    assert [line for line in registry.lines() if not line.startswith("#")] == ["a 1"]


# -- names of tools ---------------------------------------------------------------------------


def call(server: str, tool: str) -> CallInfo:
    return CallInfo(request_id="r", server=server, tool=tool, transport="http")


def test_the_first_tools_keep_their_names() -> None:
    labels = ToolLabels(2)
    assert labels.of(call("db", OTHER)) == OTHER
    assert labels.of(call("db", "a")) == "a"
    assert labels.of(call("files", "a")) == "a"
    assert labels.of(call("db", "b")) == OTHER
    assert labels.of(call("db", "a")) == "a"


def test_ten_thousand_tools_have_five_hundred_labels() -> None:
    labels = ToolLabels()
    found = {labels.of(call("db", f"tool{number}")) for number in range(10_000)}
    assert len(found) == TOOLS_MAX + 1


@pytest.mark.parametrize("tools_max", [-1, 1.5, True])
def test_a_limit_is_a_whole_number(tools_max: int) -> None:
    with pytest.raises(ValueError, match="tools_max must be a whole number"):
        ToolLabels(tools_max)
