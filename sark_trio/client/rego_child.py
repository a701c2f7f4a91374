"""The child of :mod:`.isolated`: evaluates Rego for its parent, and does nothing else.

It is run as a file by an interpreter of its own, with the folder of ``regorus`` as its argument,
and imports nothing of this package: that would take a second, and this takes 20 ms. Both ways go
frames: four bytes of length, then as many. First comes the program, as JSON, then questions; each
is answered with ``=`` and what the engine said, or ``!`` and why it said nothing.

The policy gets no descriptor beyond those that are open, so it reaches neither a file nor a
network, and an alarm of the kernel's ends an evaluation even if nobody is there to kill us.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO, Final

__all__ = ["main"]

#: The alarm is for a parent that is gone: it comes well after the parent's own patience.
ORPHAN_FACTOR: Final = 2
ORPHAN_S: Final = 1.0


def main(folder: str) -> None:
    """Serve whoever is at the other end of our standard streams, until it is gone."""
    sys.path.insert(0, folder)
    questions, answers = _channels()
    program = json.loads(_receive(questions) or b"{}")
    try:
        engine = _engine(program)
        _limit(int(program["memory_bytes_max"]))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the parent has to be told
        _send(answers, b"!" + str(exc).encode())
        return
    _send(answers, b"=")
    alarm_s = ORPHAN_FACTOR * program["evaluation_s"] + ORPHAN_S
    while (question := _receive(questions)) is not None:
        signal.setitimer(signal.ITIMER_REAL, alarm_s)
        try:
            answer = _evaluate(engine, program, question)
        except RuntimeError as exc:
            answer = b"!" + str(exc).encode()
        except BaseException:  # noqa: BLE001 - PyO3's for a panic: the engine's state is unknown
            answer = b"!the engine panicked"
            engine = _engine(program)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _channels() -> tuple[BinaryIO, BinaryIO]:
    """The parent's two ends, which nothing that prints gets hold of."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    # Both are inherited, and the parent may have ignored or blocked it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    return questions, answers


def _engine(program: dict[str, Any]) -> Any:
    from regorus import Engine  # noqa: PLC0415 - only now is it on the path

    engine = Engine()
    if program["v0"]:
        engine.set_rego_v0(True)
    for name, text in program["sources"]:
        engine.add_policy(name, text)
    engine.add_data_json(program["data"])
    return engine


def _limit(memory_bytes_max: int) -> None:
    """Let the policy take so much beyond what the interpreter and its own text took already."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - nothing more is imported
        taken = int(file.read().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, taken + memory_bytes_max),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def _evaluate(engine: Any, program: dict[str, Any], question: bytes) -> bytes:
    engine.set_input_json(question.decode())
    answer: str = engine.eval_query_as_json(program["query"])
    most = program["answer_bytes_max"]
    if len(answer) > most:
        raise RuntimeError(f"an answer of more than {most} bytes")
    return b"=" + answer.encode()


def _receive(channel: BinaryIO) -> bytes | None:
    """The next frame, or ``None`` where the parent is gone."""
    head = channel.read(4)
    length = int.from_bytes(head, "big")
    frame = channel.read(length)
    return frame if len(head) == 4 and len(frame) == length else None


def _send(channel: BinaryIO, frame: bytes) -> None:
    channel.write(len(frame).to_bytes(4, "big") + frame)
    channel.flush()


if __name__ == "__main__":
    main(sys.argv[1])
