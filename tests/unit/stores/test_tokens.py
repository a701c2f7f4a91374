from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio.errors import ConfigError, TransportNotAvailableError
from sark_trio.stores import tokens
from sark_trio.stores.tokens import (
    TEXTS_MAX,
    FileTokens,
    MemoryTokens,
    SharedTokenStore,
    TokenStore,
)
from sark_trio.stores.tokens_keyring import KeyringTokens

pytestmark = pytest.mark.anyio


class KeyringError(Exception):
    pass


class Keyring(types.ModuleType):
    """A keyring of the library's shape, in memory: no test asks the desktop of who runs it."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.errors = types.ModuleType("keyring.errors")
        self.errors.KeyringError = KeyringError  # type: ignore[attr-defined]
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise KeyringError("s3cret")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self.kept[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    made = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", made)
    monkeypatch.setitem(sys.modules, "keyring.errors", made.errors)
    return made


@pytest.fixture(params=["memory", "files", "keyring"])
def store(request: pytest.FixtureRequest, tmp_path: Path, keyring: Keyring) -> TokenStore:
    kinds: dict[str, Any] = {
        "memory": MemoryTokens,
        "files": lambda: FileTokens(tmp_path / "a" / "b"),
        "keyring": KeyringTokens,
    }
    made: TokenStore = kinds[request.param]()
    return made


async def test_texts_are_kept_by_name(store: TokenStore) -> None:
    assert await store.load("x") is None
    await store.delete("x")
    await store.save("x", "1")
    await store.save("https://h/../../etc", "2 \u00e9")
    await store.save("x", "s3cret")
    assert await store.load("x") == "s3cret"
    assert await store.load("https://h/../../etc") == "2 \u00e9"
    await store.delete("x")
    assert await store.load("x") is None
    assert "s3cret" not in repr(store)


async def test_memory_is_bounded() -> None:
    store = MemoryTokens()
    for number in range(TEXTS_MAX + 1):
        await store.save(str(number), "t")
    assert await store.load("0") is None
    assert await store.load("1") == "t"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


async def test_files_are_ours_alone_and_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    store = FileTokens(folder)
    await store.save("x", "1")
    path = only_file(folder)
    before = path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    await store.save("x", "2")
    assert only_file(folder).stat().st_ino != before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
async def test_a_file_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    store = FileTokens(tmp_path)
    await store.save("x", "1")
    only_file(tmp_path).chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        await store.load("x")


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store = FileTokens(tmp_path / "tokens")
    await store.save("x", "1")
    path = only_file(tmp_path / "tokens")
    other = tmp_path / "other"
    path.rename(other)
    path.symlink_to(other)
    with pytest.raises(ConfigError, match="cannot be kept"):
        await store.load("x")


@pytest.mark.parametrize("data", [b"", b"\xff", b"x" * (1024 * 1024 + 1)])
async def test_a_file_that_is_none_of_ours(tmp_path: Path, data: bytes) -> None:
    store = FileTokens(tmp_path)
    await store.save("x", "1")
    only_file(tmp_path).write_bytes(data)
    with pytest.raises(ConfigError, match="sign in again"):
        await store.load("x")


async def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be kept"):
        await FileTokens(tmp_path / "file").save("x", "1")
    with pytest.raises(ConfigError, match="cannot be kept"):
        await FileTokens(tmp_path / "file").delete("x")


async def test_a_save_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileTokens(tmp_path)
    await store.save("x", "1")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space"):
        await store.save("x", "2")
    assert await store.load("x") == "1"
    assert only_file(tmp_path).suffix == ".json"


async def test_a_locked_keyring_is_told_without_its_words(keyring: Keyring) -> None:
    keyring.locked = True
    with pytest.raises(ConfigError, match="refuses") as caught:
        await KeyringTokens().load("x")
    assert "s3cret" not in str(caught.value)


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(TransportNotAvailableError, match="sark_trio\\[keyring\\]"):
        await KeyringTokens().load("x")


async def test_those_who_share_a_directory_take_turns_by_name(tmp_path: Path) -> None:
    one, two = FileTokens(tmp_path / "a"), FileTokens(tmp_path / "a")
    assert isinstance(one, SharedTokenStore)
    assert not isinstance(MemoryTokens(), SharedTokenStore)
    inside: list[str] = []

    async def turn(store: FileTokens, who: str) -> None:
        async with store.turn("n"):
            inside.append(who)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert inside == [who]
            inside.remove(who)

    async with anyio.create_task_group() as tasks:
        for store, who in ((one, "one"), (two, "two"), (one, "three")):
            tasks.start_soon(turn, store, who)
    async with one.turn("n"), two.turn("another"):
        pass
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()]
    assert modes == [0o600, 0o600]


async def test_nobody_waits_for_ever_for_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = FileTokens(tmp_path), FileTokens(tmp_path)
    turns: list[str] = []
    async with one.turn("n"):
        monkeypatch.setattr(tokens, "TURN_S", 0.05)
        async with two.turn("n"):
            turns.append("two")
        assert turns == ["two"], "whoever holds it may hang"
        monkeypatch.undo()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with two.turn("n"):
                raise AssertionError
        assert scope.cancelled_caught
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be kept"):
        async with FileTokens(file).turn("n"):
            raise AssertionError
