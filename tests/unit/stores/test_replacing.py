"""A file is replaced as a whole, or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sark_trio.stores.replacing import replace_file


def test_what_is_read_is_the_new_text_and_nobody_elses_business(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    for text in (b"first", b"second"):
        replace_file(path, text)
        assert path.read_bytes() == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="irectory"):
        replace_file(path, b"text")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "kept", b"text")
