"""Counters, gauges and histograms, and the text that Prometheus reads (format 0.0.4).

Small on purpose: what an application has of its own metrics belongs to its own library. Every
family is bounded, whatever its labels: the series after :data:`SERIES_MAX` are counted together,
under ``_other``. Not for several threads at once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeVar, final

from attrs import define, field

from sark_trio.telemetry.events import OTHER

__all__ = [
    "CALL_SECONDS",
    "CONTENT_TYPE",
    "DECISION_SECONDS",
    "Counter",
    "Family",
    "Gauge",
    "Histogram",
    "Kind",
    "Registry",
    "Sample",
    "family_lines",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Label sets of one family. More than this many are a mistake in a label, not a fact.
SERIES_MAX: Final = 10_000
#: Upper bounds of buckets. Calls: as the OpenTelemetry conventions for MCP have them.
CALL_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
#: A policy in process answers within 0.1 ms, one on the network within some milliseconds.
DECISION_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)

Sample = tuple[Mapping[str, str], float]
Kind = Literal["counter", "gauge", "histogram"]


@define(eq=False)
class Family:
    """All series of one name."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        for name in (self.name, *self.labels):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} can name no metric and no label")

    def lines(self) -> Iterator[str]:
        """Its text."""
        raise NotImplementedError

    def _key(self, series: Mapping[tuple[str, ...], object], values: tuple[str, ...]) -> _Key:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)}")
        if values not in series and len(series) >= SERIES_MAX:
            return (OTHER,) * len(values)
        return values

    def _named(self, key: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(self.labels, key, strict=True))


_Key = tuple[str, ...]


@define(eq=False)
class _Numbers(Family):
    _series: dict[_Key, float] = field(factory=dict, init=False)

    def add(self, *values: str, by: float = 1.0) -> None:
        """One more, or *by* more, of the series with these label values."""
        key = self._key(self._series, values)
        self._series[key] = self._series.get(key, 0.0) + by

    def value(self, *values: str) -> float:
        """What that series is at."""
        return self._series.get(values, 0.0)

    def _lines(self, kind: Kind) -> Iterator[str]:
        samples = [(self._named(key), value) for key, value in sorted(self._series.items())]
        return family_lines(self.name, kind, self.help, samples)


@final
@define(eq=False)
class Counter(_Numbers):
    """A number that grows."""

    def lines(self) -> Iterator[str]:
        """Its text."""
        return self._lines("counter")


@final
@define(eq=False)
class Gauge(_Numbers):
    """A number that goes up and down."""

    def set(self, amount: float, *values: str) -> None:
        """The series with these label values is at *amount* now."""
        self._series[self._key(self._series, values)] = amount

    def lines(self) -> Iterator[str]:
        """Its text."""
        return self._lines("gauge")


@define(eq=False)
class _Buckets:
    counts: list[int]
    total: float = 0.0


@final
@define(eq=False)
class Histogram(Family):
    """How often something took how long; *bounds* are the buckets' upper ends, ascending."""

    bounds: tuple[float, ...] = field(default=CALL_SECONDS, kw_only=True)
    _series: dict[_Key, _Buckets] = field(factory=dict, init=False)

    def observe(self, amount: float, *values: str) -> None:
        """Count *amount* in the series with these label values."""
        key = self._key(self._series, values)
        buckets = self._series.get(key)
        if buckets is None:
            buckets = self._series[key] = _Buckets([0] * (len(self.bounds) + 1))
        buckets.counts[bisect_left(self.bounds, amount)] += 1
        buckets.total += amount

    def lines(self) -> Iterator[str]:
        """Its text: cumulative buckets, sum and count."""
        yield from family_lines(self.name, "histogram", self.help, ())
        ends = [f"{bound:g}" for bound in self.bounds] + ["+Inf"]
        for key, buckets in sorted(self._series.items(), key=lambda item: item[0]):
            named, below = self._named(key), 0
            for end, count in zip(ends, buckets.counts, strict=True):
                below += count
                yield f"{self.name}_bucket{_labels({**named, 'le': end})} {below}"
            yield f"{self.name}_sum{_labels(named)} {buckets.total:.15g}"
            yield f"{self.name}_count{_labels(named)} {below}"


_F = TypeVar("_F", bound=Family)


@final
@define(eq=False)
class Registry:
    """Families by name."""

    _families: dict[str, Family] = field(factory=dict, init=False)

    def add(self, family: _F) -> _F:
        """Take in *family*, and hand it back.

        :raises ValueError: there is one of that name.
        """
        if family.name in self._families:
            raise ValueError(f"there is a metric {family.name!r} already")
        self._families[family.name] = family
        return family

    def lines(self) -> Iterator[str]:
        """The text of all families, in the order in which they came."""
        for family in self._families.values():
            yield from family.lines()


def family_lines(name: str, kind: Kind, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The text of one family whose samples are at hand."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value:.15g}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
