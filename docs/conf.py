"""Sphinx: MyST pages, the furo theme, and what ``_ext`` generates from the code."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "sark_trio"
author = "The sark_trio authors"
copyright = author  # noqa: A001 -- the name that Sphinx wants
release = version = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]

extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
exclude_patterns = ["_build", "_generated/*.md"]
html_theme = "furo"
html_title = "sark_trio"
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
toc_object_entries = False
# Two rooms may have a type of the same name; a signature says only its last part.
suppress_warnings = ["ref.python"]
# Only our own names can be looked up: the site is built without asking other sites for theirs.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sark_trio\.)[a-z]\w*\..*"),
    # A type in a signature may be an alias or a private name; prose must name what exists.
    (r"py:class", r"[\w.]+"),
    (r"py:class", r".*[ \[\]|'].*"),
    # Type variables.
    (r"py:obj", r"sark_trio\..*\.(_\w+|[A-Z]\w?|Item|T_co)"),
]
