"""Writes ``_generated/`` before the build reads its sources: drawings, tables, laws, reference."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import drawings
import facts
import traces
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from tests.tidy.security import holders
from tests.tidy.source import project_files

__all__ = ["setup"]

ROOT = Path(__file__).resolve().parents[2]
FACADE = "sark_trio.client.gateway"


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("builder-inited", _generate)
    app.connect("missing-reference", _by_last_name)
    return {"parallel_read_safe": True}


def _generate(app: Sphinx) -> None:
    target = Path(app.srcdir) / "_generated"
    (target / "reference").mkdir(parents=True, exist_ok=True)
    _write(target / "rooms.svg", drawings.rooms(facts.rooms()))
    _write(target / "rooms.md", _rooms_page())
    tables = facts.transition_tables()
    for table in tables:
        if table.is_diagram:
            _write(target / f"{table.slug}.svg", drawings.machine(table))
    _write(target / "machines.md", "\n".join(_machine_section(table) for table in tables))
    _write(target / "laws.md", _laws_page())
    _write(target / "security.md", _security_table())
    _write(target / "names.md", _names_table())
    _write(target / "traceability.md", traces.page())
    _write(target / "crowds.md", traces.crowds())
    for old in (target / "reference").glob("*.md"):
        old.unlink()
    for room, modules in facts.public_modules().items():
        _write(target / "reference" / f"{room}.md", _reference_page(room, modules))


def _by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    """Docstrings name things of other modules by their last name, and pages by where they are
    exported from; find them if there is but one, or one that is nearer than all others.
    """
    if node.get("refdomain") != "py":
        return None
    domain, target = env.domains.python_domain, node["reftarget"]
    kinds = domain.objtypes_for_role(node["reftype"]) or ()
    last = f".{target.rpartition('.')[2] if target.startswith('sark_trio.') else target}"
    found = {
        name
        for name, entry in domain.objects.items()
        if name.endswith(last) and entry.objtype in kinds
    }
    module = node.get("py:module") or ""
    for near in (f"{FACADE}.GatewayClient.", f"{module}.", f"{'.'.join(module.split('.')[:2])}."):
        found = {name for name in found if name.startswith(near)} or found
    if len(found) != 1:
        return None
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], found.pop(), node, content
    )


def _write(path: Path, text: str) -> None:
    """Only what changed, so that an incremental build stays one."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def _rooms_page() -> str:
    lines = ["| room | colour | imports | in one sentence |", "|---|---|---|---|"]
    for room in facts.rooms():
        below = ", ".join(f"`{name}`" for name in room.imports) or "nothing"
        lines.append(f"| `{room.name}` | {room.colour} | {below} | {_as_markdown(room.summary)} |")
    return "\n".join([*lines, ""])


def _names_table() -> str:
    lines = ["| `from sark_trio import` | |", "|---|---|"]
    for each in facts.public_names():
        shown = f"{{py:obj}}`{each.name} <{each.home}>`" if each.home else f"`{each.name}`"
        lines.append(f"| {shown} | {_as_markdown(each.summary)} |")
    return "\n".join([*lines, ""])


def _as_markdown(text: str) -> str:
    """The few marks of reStructuredText that first lines of docstrings use."""
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return plain.replace("|", "\\|")


def _machine_section(table: facts.Table) -> str:
    lines = [f"### `{table.module}`", "", _as_markdown(table.summary), ""]
    if table.is_diagram:
        lines += [
            f"```{{image}} ../_generated/{table.slug}.svg",
            ":alt: " + table.module,
            "```",
            "",
        ]
    lines += [
        "| event | " + " | ".join(table.states) + " |",
        "|---" * (len(table.states) + 1) + "|",
    ]
    for event in table.events:
        cells = (", ".join(table.cells.get((state, event), ())) for state in table.states)
        lines.append(f"| {event} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _laws_page() -> str:
    """Ask pytest which test states which law; nothing is run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "laws.json"
        pytest = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "law"]
        done = subprocess.run(
            [*pytest, f"--laws-json={path}", "tests"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        # 5: no law is there at all. Anything else that is not 0 is a broken test file.
        if done.returncode not in {0, 5}:
            raise RuntimeError(f"pytest could not collect the laws:\n{done.stdout[-4000:]}")
        rows = json.loads(path.read_text())
    lines = ["| law | sentence | test |", "|---|---|---|"]
    for row in rows:
        sentence = _as_markdown(row["sentence"])
        lines.append(f"| {row['law']} | {sentence} | `{row['test'].removeprefix('tests/')}` |")
    return "\n".join([*lines, ""])


def _security_table() -> str:
    """Which tests hold which line about security."""
    held: dict[int, list[str]] = {}
    for path, text in project_files(under="tests/", suffix=".py").items():
        for test, numbers in holders(text):
            for number in numbers:
                held.setdefault(number, []).append(f"`{path.removeprefix('tests/')}::{test}`")
    lines = ["| line | held by |", "|---|---|"]
    lines += [f"| {number} | {', '.join(tests)} |" for number, tests in sorted(held.items())]
    return "\n".join([*lines, ""])


def _reference_page(room: str, modules: list[facts.Module]) -> str:
    lines = [f"# {room}", ""]
    for module in modules:
        lines += [
            f"## `{module.name}`",
            "",
            "```{eval-rst}",
            f".. automodule:: {module.name}",
            f"   :members: {', '.join(module.exported)}",
            "   :undoc-members:",
            "   :show-inheritance:",
            # Its methods are its chapters', and wanted where the class is looked up.
            *(["   :inherited-members:"] if module.name == FACADE else []),
            "```",
            "",
        ]
    return "\n".join(lines)
