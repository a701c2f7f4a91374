"""What is published: the same bytes for everybody who builds it, and nothing but the package."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tidy.source import ROOT

pytestmark = pytest.mark.security(36)

PARTS = ("LICENSE", "README.md", "pyproject.toml", "sark_trio")


def copied(source: Path, folder: Path, umask: int) -> Path:
    """The parts of *source* that are built, as somebody else would have checked them out."""
    before = os.umask(umask)
    try:
        folder.mkdir()
        for part in PARTS:
            if (source / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / part, folder / part, ignore=ignored, copy_function=_copy)
            else:
                _copy(source / part, folder / part)
    finally:
        os.umask(before)
    return folder


def _copy(source: str | Path, to: str | Path) -> None:
    Path(to).write_bytes(Path(source).read_bytes())


def built(folder: Path, **env: str) -> Path:
    """The wheel of the sources in *folder*."""
    out = folder / "dist"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", **env}
    subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two, by people who have nothing in common but the sources and the date."""
    folder = tmp_path_factory.mktemp("wheel")
    here = copied(ROOT, folder / "here", 0o022)
    there = copied(here, folder / "elsewhere and deeper", 0o077)
    for file in there.rglob("*"):
        os.utime(file, (1, 1))
    return built(here, TZ="UTC", PYTHONHASHSEED="1"), built(
        there, TZ="Asia/Kathmandu", PYTHONHASHSEED="2", LC_ALL="C"
    )


def test_whoever_builds_it_builds_the_same_bytes(wheels: tuple[Path, Path]) -> None:
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    assert first == second


def test_nothing_but_the_package_is_in_it(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = wheel.read(metadata).decode()
    tops = {name.split("/")[0] for name in names}
    assert {re.sub(r"-[\d.]+\.dist-info$", "-info", top) for top in tops} == {
        "sark_trio",
        "sark_trio-info",
    }
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", said, re.MULTILINE)
    assert sorted(needed) == ["anyio", "attrs", "h11", "httpcore", "msgspec", "trio"]
    assert not [name for name in names if name.endswith((".pyc", ".toml", ".env", ".pem"))]
