"""The file of pins: only ours, replaced as a whole, changed by one at a time."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from sark_trio.errors import ConfigError, UsageError
from sark_trio.mcp.pins import Definition, PinBook
from sark_trio.mcp.tools import Tool, parse_tool
from sark_trio.stores import pins as pins_module
from sark_trio.stores.pins import PinFile


def definition(name: str = "echo", text: str = "says it again") -> Definition:
    raw = {"name": name, "inputSchema": {"type": "object"}, "description": text}
    tool = parse_tool(raw)
    assert isinstance(tool, Tool)
    return Definition.of(tool)


def met(book: PinBook, server: str = "desk", **tools: Definition) -> tuple[PinBook, None]:
    return book.judge(server, tools, first_use=True, at="now").book, None


@pytest.fixture
def file(tmp_path: Path) -> PinFile:
    return PinFile(tmp_path / "state" / "pins.json")


def change(file: PinFile, server: str = "desk", **tools: Definition) -> None:
    file.change(lambda book: met(book, server, **tools))


def test_no_file_is_an_empty_book_and_looking_makes_none(file: PinFile) -> None:
    assert file.read() == PinBook()
    assert file.tools() == ()
    file.change(lambda book: (book, None))
    assert not file.path.parent.exists()


@pytest.mark.security(14)
def test_only_we_can_read_and_change_it_and_no_half_of_it_is_left(file: PinFile) -> None:
    change(file, echo=definition())
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in file.path.parent.iterdir()}
    assert names == {"pins.json", "pins.json.lock"}
    before = file.path.stat()
    change(file, echo=definition())
    after = file.path.stat()  # not written anew; reading it changes the time of its last access
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.security(14)
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_change_approves_nothing(file: PinFile, mode: int) -> None:
    change(file, echo=definition())
    file.path.chmod(mode)
    with pytest.raises(ConfigError, match=r"others can change .* chmod go-w"):
        file.read()


@pytest.mark.security(14)
def test_a_link_is_not_followed(file: PinFile, tmp_path: Path) -> None:
    elsewhere = PinFile(tmp_path / "elsewhere.json")
    change(elsewhere, echo=definition())
    file.path.parent.mkdir()
    file.path.symlink_to(elsewhere.path)
    with pytest.raises(ConfigError, match="pins cannot be kept here"):
        file.read()


def test_what_is_no_book_is_not_overwritten(file: PinFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text("{}")
    with pytest.raises(ConfigError, match="no book of pins"):
        change(file, echo=definition())
    assert file.path.read_text() == "{}"


def test_the_size_is_bounded_both_ways(file: PinFile, monkeypatch: pytest.MonkeyPatch) -> None:
    change(file, echo=definition())
    monkeypatch.setattr(pins_module, "FILE_BYTES_MAX", file.path.stat().st_size)
    with pytest.raises(ConfigError, match="would be larger"):
        change(file, echo=definition(), other=definition("other"))
    monkeypatch.setattr(pins_module, "FILE_BYTES_MAX", 10)
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        file.read()


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="pins cannot be kept here"):
        change(PinFile(tmp_path / "file" / "pins.json"), echo=definition())


def test_a_write_that_fails_leaves_what_was_there(
    file: PinFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(file, echo=definition())
    before = file.path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        change(file, other=definition("other"))
    assert file.path.read_bytes() == before
    assert len(list(file.path.parent.iterdir())) == 2


def test_a_lock_that_is_not_let_go_is_not_waited_for_for_ever(
    file: PinFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins_module, "LOCK_S", 0.0)
    change(file, echo=definition())
    lock = os.open(f"{file.path}.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        change(file, echo=definition())  # changes nothing, so it needs no lock
        with pytest.raises(ConfigError, match="does not let go"):
            change(file, echo=definition(text="other"))
    finally:
        os.close(lock)


def test_a_lock_that_is_a_link_is_not_taken(file: PinFile) -> None:
    change(file, echo=definition())
    lock = file.path.with_name("pins.json.lock")
    lock.unlink()
    lock.symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="pins cannot be kept here"):
        change(file, echo=definition(text="other"))


def test_what_somebody_else_did_meanwhile_is_not_done_again(file: PinFile) -> None:
    change(file, echo=definition())
    looks: list[PinBook] = []

    def once(book: PinBook) -> tuple[PinBook, int]:
        looks.append(book)
        return (book.recorded() if len(looks) == 1 else book), len(looks)

    before = file.path.stat()
    assert file.change(once) == 2
    assert file.path.stat() == before


def test_an_interrupt_leaves_nothing_behind(file: PinFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        change(file, echo=definition())
    assert [path.name for path in file.path.parent.iterdir()] == ["pins.json.lock"]


def test_no_change_is_lost_where_many_write(file: PinFile) -> None:
    def write(number: int) -> None:
        for count in range(5):
            change(file, f"s{number}-{count}", echo=definition())

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read().servers) == 40


# -- deciding ---------------------------------------------------------------------------------


@pytest.fixture
def changed(file: PinFile) -> PinFile:
    """Two tools changed; one did not."""
    same, one, two = definition("same"), definition("one"), definition("two")
    change(file, same=same, one=one, two=two)
    change(file, same=same, one=definition("one", "new"), two=definition("two", "new"))
    return file


def states(file: PinFile) -> dict[str, str]:
    return {tool.tool_name: tool.state for tool in file.tools("desk")}


def test_one_or_all_that_wait_are_approved(changed: PinFile) -> None:
    assert states(changed) == {"one": "changed", "same": "pinned", "two": "changed"}
    assert changed.approve("desk", "one", by="ann") == ("one",)
    assert states(changed) == {"one": "pinned", "same": "pinned", "two": "changed"}
    assert changed.approve("desk", by="ann") == ("two",)
    (one, same, two) = changed.tools()
    assert (one.by, same.by, two.by) == ("ann", "first use", "ann")
    assert (two.approved, two.found) == (definition("two", "new").fingerprint, None)


def test_one_or_all_that_wait_are_refused(changed: PinFile) -> None:
    assert changed.refuse("desk", by="ann") == ("one", "two")
    assert changed.refuse("desk", "same", by="ann") == ("same",)
    assert states(changed) == dict.fromkeys(("one", "same", "two"), "refused")
    assert changed.approve("desk", "same", by="ann") == ("same",)


def test_nothing_to_decide_is_a_mistake(changed: PinFile) -> None:
    for server, tool in (("desk", "other"), ("nobody", None), ("nobody", "one")):
        with pytest.raises(UsageError):
            changed.approve(server, tool, by="ann")
    with pytest.raises(UsageError, match="waits for approval"):
        changed.approve("desk", "same", by="ann")


@pytest.mark.security(14)
def test_only_what_was_shown_is_approved(changed: PinFile) -> None:
    shown = changed.tools("desk")[0].found
    assert shown is not None
    change(
        changed,
        same=definition("same"),
        one=definition("one", "newer"),
        two=definition("two", "new"),
    )
    for wrong in (shown, shown[:12], ""):
        with pytest.raises(UsageError, match="is now"):
            changed.approve("desk", "one", by="ann", fingerprint=wrong)
    now = definition("one", "newer").fingerprint
    assert changed.approve("desk", "one", by="ann", fingerprint=now[:12]) == ("one",)


def test_a_tool_is_shown_with_what_is_different(changed: PinFile) -> None:
    one, same, _ = changed.tools("desk")
    (difference,) = one.differences
    assert (difference.path, difference.before, difference.after) == (
        "/description",
        '"says it again"',
        '"new"',
    )
    assert same.differences == ()
    assert changed.tools("other") == ()
