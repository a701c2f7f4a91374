"""Who imports what: the package keeps the rules, and the checker finds what breaks them."""

from __future__ import annotations

import tomllib

import pytest

from tests.tidy import layers
from tests.tidy.source import ROOT, package_files

FILES = package_files()


@pytest.mark.security(27)
@pytest.mark.parametrize("path", FILES)
def test_module_keeps_the_rules_of_its_room(path: str) -> None:
    assert layers.violations(path, FILES[path]) == []


def test_no_two_modules_import_each_other() -> None:
    assert layers.cycles(FILES) == []


def test_every_exception_is_still_needed() -> None:
    unused = [
        f"{path} does not import {module}"
        for path, module in layers.EXCEPTIONS
        if path in FILES and f"import {module}" not in FILES[path]
    ]
    assert unused == []


@pytest.mark.security(36)
def test_base_dependencies_are_the_six_of_the_architecture() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0] for line in project["dependencies"]}
    assert names == {"anyio", "attrs", "h11", "httpcore", "msgspec", "trio"}


PLANTED = [
    # white: impure modules, by any spelling and in any place
    ("machines/breaker.py", "import time", "white room imports time"),
    ("machines/breaker.py", "from time import monotonic", "white room imports time"),
    ("machines/breaker.py", "import anyio", "white room imports anyio"),
    ("mcp/codec.py", "import httpcore, json", "white room imports httpcore"),
    ("errors.py", "import logging", "white room imports logging"),
    ("mcp/codec.py", "def f():\n    import random", "white room imports random"),
    (
        "mcp/codec.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ssl",
        "white room imports ssl",
    ),
    ("mcp/codec.py", "try:\n    import os\nexcept ImportError:\n    pass", "imports os"),
    ("mcp/codec.py", "from urllib import request", "white room imports urllib"),
    ("governance/query.py", "import datetime as d", "white room imports datetime"),
    ("governance/query.py", "def f():\n    open('policy')", "white room calls open()"),
    # white: no async at all
    ("machines/retry.py", "async def f(): ...", "white room is async"),
    ("machines/retry.py", "f = lambda xs: [x async for x in xs]", "white room is async"),
    ("machines/retry.py", "class A:\n  async def f(self):\n    pass", "white room is async"),
    # grey: may await, and no more
    ("governance/opa.py", "import anyio", "grey room imports anyio"),
    ("telemetry/hooks.py", "import asyncio", "grey room imports asyncio"),
    # direction, absolute and relative
    ("machines/pool.py", "from sark_trio.mcp import codec", "machines must not import mcp"),
    ("machines/pool.py", "from ..mcp import codec", "machines must not import mcp"),
    ("machines/pool.py", "from .. import mcp", "machines must not import mcp"),
    ("machines/pool.py", "from sark_trio import mcp", "machines must not import mcp"),
    ("machines/pool.py", "import sark_trio.mcp.codec as c", "machines must not import mcp"),
    ("machines/pool.py", "from sark_trio import Denied", "machines must not import root"),
    (
        "governance/query.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..mcp.codec import x",
        "governance must not import mcp",
    ),
    ("governance/pipeline.py", "from sark_trio.telemetry import e", "not import telemetry"),
    ("telemetry/log.py", "from sark_trio.governance import e", "not import governance"),
    ("net/pool.py", "from sark_trio.client.config import x", "net must not import client"),
    ("transports/http.py", "from sark_trio.governance import x", "not import governance"),
    ("cli/main.py", "from sark_trio.net import pool", "cli must not import net"),
    ("cli/main.py", "def f():\n    from ..governance import opa", "not import governance"),
    ("client/call.py", "from sark_trio.testing import clock", "client must not import testing"),
    ("errors.py", "from . import machines", "errors must not import machines"),
    # complete mediation
    ("client/call.py", "from sark_trio.transports import http", "only client/upstream.py"),
    ("client/call.py", "from sark_trio.transports.http import H", "only client/upstream.py"),
    ("client/call.py", "from ..transports.stdio import S", "only client/upstream.py"),
    ("client/call.py", "import sark_trio.transports", "only client/upstream.py"),
    ("client/call.py", "from sark_trio.transports.events import E", "only client/upstream.py"),
    ("client/chapters/events.py", "from ...transports.http import H", "only client/upstream.py"),
    ("gateway/app.py", "from sark_trio.transports.base import T", "not import transports"),
    ("client/call.py", "from sark_trio.client.wires import wire_of", "only client/upstream.py"),
    ("client/call.py", "from sark_trio.client import wires", "only client/upstream.py"),
    ("client/call.py", "from . import wires", "only client/upstream.py"),
    ("transports/http.py", "from sark_trio.transports.stdio import x", "another one (stdio)"),
    ("transports/http.py", "from . import sse", "another one (sse)"),
    # runtimes, dependencies, extras
    ("net/pool.py", "import trio", "black rooms speak anyio, not trio"),
    ("client/call.py", "from asyncio import sleep", "black rooms speak anyio, not asyncio"),
    ("net/pool.py", "import requests", "requests is not a dependency"),
    ("governance/rego.py", "import regorus", "only inside a function"),
    ("transports/_websocket_trio.py", "import trio_websocket", "only inside a function"),
    ("transports/_websocket_asyncio.py", "import asyncio", "black rooms speak anyio"),
    ("transports/websocket.py", "def f():\n    import wsproto", "only in transports/_websocket_"),
    ("client/call.py", "def f():\n    import regorus", "only in client/rego_child.py"),
    ("net/pool.py", "import importlib\nimportlib.import_module('trio')", "hides an import"),
    ("net/pool.py", "t = __import__('trio')", "hides an import"),
    # private names, import-time reads, new rooms
    ("mcp/codec.py", "from sark_trio.machines.pool import _x", "_x is private"),
    ("net/tls.py", "import os\nHOME = os.environ['HOME']", "read when imported"),
    ("net/tls.py", "import os\nclass A:\n    x = os.getenv('X')", "read when imported"),
    ("utils/misc.py", "", "no such room"),
]


@pytest.mark.parametrize(("path", "text", "problem"), PLANTED)
def test_planted_violation_is_found(path: str, text: str, problem: str) -> None:
    found = layers.violations(path, text)
    assert len(found) == 1
    assert problem in found[0]
    assert found[0].startswith(f"{path}:")


ALLOWED = [
    ("machines/breaker.py", "from attrs import frozen\nfrom collections.abc import Mapping"),
    ("machines/breaker.py", "from sark_trio.errors import GatewayError"),
    ("mcp/codec.py", "from ..machines.lines import Lines\nfrom ..jsontext import decode"),
    ("mcp/headers.py", "from urllib import parse\nfrom email.utils import parsedate_to_datetime"),
    ("governance/opa.py", "async def f(exchange):\n    return await exchange()"),
    ("governance/rego.py", "def f():\n    import regorus\n    return regorus"),
    ("net/pool.py", "import anyio\nimport httpcore\nimport ssl\nimport time"),
    ("net/tls.py", "import os\ndef f():\n    return os.environ"),
    ("client/upstream.py", "from sark_trio.transports.http import H"),
    ("client/wires.py", "from sark_trio.transports.http import H"),
    ("client/upstream.py", "from sark_trio.client.wires import wire_of"),
    ("client/call.py", "from sark_trio.transports.base import Outgoing"),
    ("client/chapters/events.py", "from sark_trio.transports.events import EventStreams"),
    ("client/lifetime.py", "import asyncio"),
    ("transports/http.py", "from .base import Transport\nfrom .http_session import Session"),
    ("transports/stdio.py", "from sark_trio.transports.process import Process"),
    ("testing/checks.py", "from sark_trio.transports.memory import M"),
    ("cli/main.py", "from sark_trio import GatewayClient"),
    ("__init__.py", "from importlib import import_module\nx = import_module('sark_trio.errors')"),
]


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_what_is_allowed_is_not_reported(path: str, text: str) -> None:
    assert layers.violations(path, text) == []


def test_cycles_are_found_and_typing_only_imports_make_none() -> None:
    there = "from sark_trio.machines.b import x"
    back = "from . import a"
    assert layers.cycles({"machines/a.py": there, "machines/b.py": back}) == [
        "sark_trio.machines.a -> sark_trio.machines.b -> sark_trio.machines.a"
    ]
    typing = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {back}"
    assert layers.cycles({"machines/a.py": there, "machines/b.py": typing}) == []
    lazy = f"def f():\n    {back}"
    assert layers.cycles({"machines/a.py": there, "machines/b.py": lazy}) == []


def test_colours_are_known_per_file() -> None:
    assert layers.colour("governance/query.py") == "white"
    assert layers.colour("governance/opa.py") == "grey"
    assert layers.colour("telemetry/hooks.py") == "grey"
    assert layers.colour("client/call.py") == "black"
