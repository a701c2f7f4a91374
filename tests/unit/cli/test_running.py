"""A command ends in order when a signal comes, and its failures are what they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from sark_trio.cli.main import main
from sark_trio.cli.running import Interrupted, Signals, run
from sark_trio.errors import AuditError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Signals that come too early or too late end no test run."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def send(number: signal.Signals) -> None:
    """Send a signal to this process, and let the event loop notice."""
    os.kill(os.getpid(), number)
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@BACKENDS
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cancels_and_cleaning_up_goes_on(
    backend: str, number: signal.Signals, status: int
) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            await send(number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await send(signal.SIGINT)  # whoever is impatient does not break it off
                done.append("closed")

    with pytest.raises(Interrupted) as caught:
        run(work, backend=backend)
    assert (caught.value.status, str(caught.value)) == (status, number.name)
    assert done == ["closed"]


@BACKENDS
def test_each_further_signal_is_a_further_step_and_a_hang_up_reloads(backend: str) -> None:
    taken: list[str] = []

    async def work() -> str:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            await send(number)
        await send(signal.SIGINT)  # there is no third step
        return "done"

    signals = Signals(
        steps=(lambda: taken.append("stop"), lambda: taken.append("hurry")),
        reload=lambda: taken.append("reload"),
    )
    assert run(work, backend=backend, signals=signals) == "done"
    assert taken == ["reload", "stop", "hurry"]
    assert signals.ended_by is None


@BACKENDS
def test_a_failure_is_itself_with_its_cause_and_in_no_group(backend: str) -> None:
    async def work() -> None:
        raise AuditError("in use") from BlockingIOError()

    with pytest.raises(AuditError) as caught:
        run(work, backend=backend)
    assert isinstance(caught.value.__cause__, BlockingIOError)


def test_the_command_says_that_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("sark_trio.stores.audit.verify_directory", interrupted)
    assert main(["audit", "verify", "."]) == 143
    assert capsys.readouterr().err == "sark: interrupted\n"
