"""The text format, and that no label can fill the store."""

from __future__ import annotations

import pytest

from sark_trio.telemetry import metrics
from sark_trio.telemetry.events import OTHER
from sark_trio.telemetry.metrics import (
    CALL_SECONDS,
    CONTENT_TYPE,
    DECISION_SECONDS,
    Counter,
    Family,
    Gauge,
    Histogram,
    Registry,
)


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
    assert list(histogram.lines()) == [
        "# HELP seconds Time.",
        "# TYPE seconds histogram",
        'seconds_bucket{server="db",le="0.1"} 2',
        'seconds_bucket{server="db",le="1"} 3',
        'seconds_bucket{server="db",le="+Inf"} 4',
        'seconds_sum{server="db"} 7.65',
        'seconds_count{server="db"} 4',
    ]


def test_times_are_sorted_into_the_same_buckets_everywhere() -> None:
    """Those of calls are the OpenTelemetry conventions' for MCP: dashboards compare them."""
    calls = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
    decisions = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
    assert Histogram("seconds", "Time.").bounds == CALL_SECONDS == calls
    assert decisions == DECISION_SECONDS


def test_the_text_has_the_content_type_that_prometheus_asks_for() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


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


def test_ten_thousand_label_sets_have_series_of_their_own() -> None:
    gauge = Gauge("g", "G.", ("a",))
    for number in range(10_001):
        gauge.set(7, str(number))
    assert (gauge.value("9999"), gauge.value("10000"), gauge.value(OTHER)) == (7, 0, 7)


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
