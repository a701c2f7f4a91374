"""The commands and links that the README and the pages give are the ones that work."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tidy.source import ROOT, project_files

README = (ROOT / "README.md").read_text()
PAGES = project_files(suffix=".md")


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_readme_has_one_line_for_the_demo_and_one_for_the_tests() -> None:
    demo, tests = shell_lines(README)
    assert demo.endswith("sark demo")
    assert tests.endswith("nox -s tests")


def test_ci_runs_the_readme_line_for_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert shell_lines(README)[1] in [line.strip() for line in script.splitlines()]


def test_pages_give_the_readme_lines() -> None:
    demo, tests = shell_lines(README)
    assert tests in shell_lines(PAGES["docs/howto/run-the-tests.md"])
    assert demo.replace(" -q", "") in shell_lines(PAGES["docs/tutorial/quickstart.md"])


def test_every_nox_verb_that_a_page_names_exists() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    verbs = {_verb(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = {verb for text in PAGES.values() for verb in re.findall(r"nox -s ([\w-]+)", text)}
    assert named <= verbs


def _verb(session: ast.FunctionDef) -> str:
    """What nox calls it: its name, or what its decorator says instead."""
    given = [
        keyword.value.value
        for decorator in session.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    ]
    return str(given[0]) if given else session.name


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGES[page])
    here = (ROOT / page).parent
    assert [target for target in targets if not (here / target).exists()] == []
