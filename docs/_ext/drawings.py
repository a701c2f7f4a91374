"""Drawings as plain SVG text: the house of rooms, and a machine's states as an arc diagram."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape

from facts import Room, Table

__all__ = ["machine", "rooms"]

_STYLE = (
    "<style>text{font:13px 'DejaVu Sans',Helvetica,sans-serif;fill:#1f2430}"
    ".edge{fill:none;stroke:#7a8194;stroke-width:1.3}"
    ".label{font-size:11px;fill:#4a5168;paint-order:stroke;stroke:#fff;stroke-width:4px}"
    ".paper{fill:#fff}</style>"
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    ' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7a8194"/></marker></defs>'
)
_FILL = {"white": "#ffffff", "grey": "#dfe3ec", "black": "#31384a", "white, some grey": "#f0f2f7"}


def _svg(width: float, height: float, body: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
    paper = f'<rect class="paper" width="{width:g}" height="{height:g}" rx="6"/>'
    return "\n".join([f'{head} width="{width:g}">', _STYLE, paper, *body, "</svg>", ""])


def _box(x: float, y: float, width: float, text: str, fill: str = "#ffffff") -> str:
    ink = "#ffffff" if fill == _FILL["black"] else "#1f2430"
    return (
        f'<rect x="{x - width / 2:g}" y="{y - 15:g}" width="{width:g}" height="30" rx="6"'
        f' fill="{fill}" stroke="#7a8194"/>'
        f'<text x="{x:g}" y="{y + 4.5:g}" text-anchor="middle" style="fill:{ink}">'
        f"{escape(text)}</text>"
    )


def rooms(found: list[Room]) -> str:
    """Rooms by rank, an arrow for each import that no other import implies."""
    below = {each.name: set(each.imports) for each in found}
    rank: dict[str, int] = {}
    for each in found:  # they come bottom first
        rank[each.name] = 1 + max((rank[name] for name in below[each.name]), default=-1)
    rows = [[e for e in found if rank[e.name] == level] for level in range(max(rank.values()) + 1)]
    width, step = 720.0, 74.0
    height = step * len(rows) + 10
    place = {
        each.name: (width * (index + 1) / (len(row) + 1), height - 40 - step * level)
        for level, row in enumerate(rows)
        for index, each in enumerate(row)
    }
    body = []
    for name, targets in below.items():
        implied = {far for near in targets for far in _reach(below, near)}
        for target in sorted(targets - implied):
            (x1, y1), (x2, y2) = place[name], place[target]
            body.append(
                f'<path class="edge" marker-end="url(#tip)" d="M{x1:g} {y1 + 15:g}'
                f' C{x1:g} {y1 + 50:g} {x2:g} {y2 - 50:g} {x2:g} {y2 - 16:g}"/>'
            )
    body += [_box(*place[each.name], 104, each.name, _FILL[each.colour]) for each in found]
    return _svg(width, height, body)


def _reach(below: dict[str, set[str]], start: str) -> set[str]:
    """Everything under *start*, without itself."""
    found: set[str] = set()
    todo = [*below[start]]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(below[name])
    return found


def machine(table: Table) -> str:
    """States in a row; ways forward arch above it, ways back below. The events label them."""
    states = list(
        dict.fromkeys(
            [*table.states, *(target for targets in table.cells.values() for target in targets)]
        )
    )
    gap, box = 170.0, 104.0
    spot = {state: 30 + box / 2 + index * gap for index, state in enumerate(states)}
    ways: dict[tuple[str, str], list[str]] = {}
    for (state, event), targets in table.cells.items():
        for target in targets:
            if target != state:
                ways.setdefault((state, target), []).append(event)
    arcs = [_Arc(spot[a], spot[b], _wrap(events)) for (a, b), events in ways.items()]
    middle = 12 + max((arc.reach for arc in arcs if arc.up), default=20)
    height = 12 + middle + max((arc.reach for arc in arcs if not arc.up), default=20)
    body = [arc.path(middle) for arc in arcs]
    body += [line for arc in arcs for line in arc.words(middle)]
    body += [_box(spot[state], middle, box, state) for state in states]
    return _svg(max(spot.values()) + box / 2 + 30, height, body)


@dataclass(frozen=True)
class _Arc:
    """A way from one state to another: above the row when it leads right, below when left."""

    start: float
    end: float
    label: list[str]

    @property
    def up(self) -> bool:
        return self.end > self.start

    @property
    def top(self) -> float:
        return abs(self.end - self.start) * 0.55

    @property
    def reach(self) -> float:
        """From the row's middle to the last line of the label."""
        return 15 + 0.75 * self.top + 8 + 13 * len(self.label)

    @property
    def _side(self) -> int:
        return -1 if self.up else 1

    def path(self, middle: float) -> str:
        """The arrow; its feet stand apart, so that a way and the way back do not share one."""
        x1, x2 = self.start - 12 * self._side, self.end + 12 * self._side
        foot, bend = middle + self._side * 15, middle + self._side * (15 + self.top)
        curve = f"M{x1:g} {foot:g} C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {foot + self._side:g}"
        return f'<path class="edge" marker-end="url(#tip)" d="{curve}"/>'

    def words(self, middle: float) -> list[str]:
        """The label, outside of the arc's apex."""
        apex = middle + self._side * (15 + 0.75 * self.top)
        first = apex - 5 - 13 * (len(self.label) - 1) if self.up else apex + 14
        x = (self.start + self.end) / 2
        return [
            f'<text class="label" x="{x:g}" y="{first + 13 * row:g}" text-anchor="middle">'
            f"{escape(line)}</text>"
            for row, line in enumerate(self.label)
        ]


def _wrap(events: list[str]) -> list[str]:
    return textwrap.wrap(", ".join(events), width=24, break_long_words=False)
