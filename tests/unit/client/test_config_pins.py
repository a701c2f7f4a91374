"""``[pins]`` and what servers say of pins and addresses, in a configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sark_trio import Http, Pins, Registry, load
from sark_trio.errors import ConfigError


def read(tmp_path: Path, text: str) -> object:
    (tmp_path / "sark.toml").write_text(text)
    return load(tmp_path / "sark.toml")


def test_nothing_is_pinned_by_default(tmp_path: Path) -> None:
    (tmp_path / "sark.toml").write_text("")
    assert load(tmp_path / "sark.toml").pins is None


def test_pins_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "sark.toml").write_text(
        """
[pins]
path = "state/pins.json"
mode = "warn"
first_use = false

[servers.db]
url = "https://db.example/mcp"
pins = "refuse"
addresses = "public"

[servers.crm]
registry = "https://gateway.example"
server = "crm"
addresses = "public"
"""
    )
    settings = load(tmp_path / "sark.toml")
    assert settings.pins == Pins(tmp_path / "state/pins.json", mode="warn", first_use=False)
    db, crm = settings.servers["db"], settings.servers["crm"]
    assert isinstance(db, Http)
    assert isinstance(crm, Registry)
    assert (db.pins, db.addresses, crm.pins, crm.addresses) == ("refuse", "public", None, "public")


def test_a_path_is_enough(tmp_path: Path) -> None:
    (tmp_path / "sark.toml").write_text('[pins]\npath = "pins.json"\n')
    assert load(tmp_path / "sark.toml").pins == Pins(tmp_path / "pins.json", mode="refuse")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[pins]\n", "pins.path: missing"),
        ('[pins]\npath = "a"\nmode = "maybe"\n', "pins: mode: 'maybe' is not one of off"),
        ('[pins]\npath = "a"\nfirstuse = true\n', "did you mean 'first_use'"),
        (
            '[servers.x]\nurl = "https://x"\npins = "no"\n',
            "servers.x: pins: 'no' is not one of off, warn, refuse",
        ),
        (
            '[servers.x]\nurl = "http://x"\naddresses = "public"\n',
            "servers.x: addresses: a URL that is not trusted has to be https",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert why in str(caught.value)
