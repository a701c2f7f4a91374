from __future__ import annotations

from pathlib import Path

import pytest

from sark_trio.cli.demo import story
from sark_trio.cli.demo.machinery import Failed, Stage
from sark_trio.cli.main import main
from sark_trio.errors import ConnectError
from sark_trio.stores import audit


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def verify(*_: object) -> None:
        raise error

    monkeypatch.setattr(audit, "verify_directory", verify)


def test_a_bug_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _break(monkeypatch, RuntimeError("two\nlines"))
    assert main(["audit", "verify", "."]) == 70
    assert capsys.readouterr().err == (
        "sark: a bug: RuntimeError: two lines (set SARK_TRACEBACK=1 to see where)\n"
    )
    monkeypatch.setenv("SARK_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="two"):
        main(["audit", "verify", "."])


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), 130), (OSError("full"), 74), (ConnectError("x"), 4)],
)
def test_ways_out(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    _break(monkeypatch, error)
    assert main(["audit", "verify", "."]) == status
    assert capsys.readouterr().err.startswith("sark: ")


async def _well(_: Stage) -> None:
    """It is well"""


async def _unheld(stage: Stage) -> None:
    """It does not hold"""
    stage.check("two and two is five", holds=False)


async def _raises(_: Stage) -> None:
    """It raises"""
    raise ConnectError("nobody there")


async def _slow(_: Stage) -> None:
    """It takes its time"""
    raise TimeoutError


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    # No step here touches a server.
    return Stage(None, None, tmp_path, say=[].append)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "said"),
    [
        (_unheld, "two and two is five"),
        (_raises, "ConnectError: nobody there"),
        (_slow, "it took more than 10 s"),
    ],
)
async def test_a_step_that_fails_ends_the_story(stage: Stage, step: story.Step, said: str) -> None:
    await story._perform(_well, stage)
    with pytest.raises(Failed) as caught:
        await story._perform(step, stage)
    assert str(caught.value) == said
    assert stage.steps == 2


def test_what_holds_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    Stage(None, None, tmp_path, say=said.append).check("all", holds=True)  # type: ignore[arg-type]
    assert said == ["    ok  all"]


def test_a_story_that_fails_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def tell() -> None:
        raise Failed("not so")

    monkeypatch.setattr(story, "_tell", tell)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "    FAILED  not so\n"
