"""The leak oracle: what is alive before and after, and what nobody gave back.

Whatever a garbage collector would have tidied up later counts as leaked: it is switched off
meanwhile, since a program must not owe its descriptors to the moment at which one runs.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import final

import anyio
import anyio.lowlevel
from attrs import frozen

from sark_trio.client.gateway import GatewayClient

__all__ = ["Census", "Leaked", "census", "held", "no_collector", "no_leaks"]

#: Rounds of the scheduler that the event loop itself may take to let go of something, such as
#: asyncio of a transport that was closed. They take no time.
SETTLE_ROUNDS = 20
#: For a thread that was told to end.
THREAD_S = 1.0
#: Descriptors that a runtime opens for itself, once, whenever it first needs one.
_RUNTIME = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]")


class Leaked(AssertionError):
    """Something that was opened is still there; the message lists it."""


@final
@frozen(kw_only=True)
class Census:
    """What is alive in this process, by name."""

    tasks: Mapping[int, str]
    #: Descriptor and what it is; empty where the platform does not tell.
    descriptors: Mapping[int, str]
    #: Processes that this one started and that were not reaped, zombies included.
    children: Mapping[int, str]
    threads: Mapping[int, str]

    def since(self, before: Census) -> list[str]:
        """What is here and was not *before*, one line for each."""
        return [
            f"{kind}: {name}"
            for kind, now, then in (
                ("task", self.tasks, before.tasks),
                ("descriptor", self.descriptors, before.descriptors),
                ("child process", self.children, before.children),
                ("thread", self.threads, before.threads),
            )
            for key, name in now.items()
            if then.get(key) != name
        ]


def census() -> Census:
    """What is alive now. Called in a task of the event loop."""
    tasks = {
        task.id: task.name or "?" for task in anyio.get_running_tasks() if not _is_runtime(task)
    }
    threads = {one.ident or 0: one.name for one in threading.enumerate() if _is_ours(one)}
    return Census(
        tasks=tasks, descriptors=_descriptors(), children=dict(_children()), threads=threads
    )


def held(client: GatewayClient) -> dict[str, int]:
    """What *client* has lent or keeps waiting, by name; only what is not zero.

    Empty for a client that nobody is calling: permits of breakers, calls, pending requests,
    pool slots and waiters, audit intents without an outcome.
    """
    snapshot = client.statistics()
    counts = {
        "running calls": snapshot.running_calls,
        "open audit intents": snapshot.audit.open_intents,
    }
    for name, server in snapshot.servers.items():
        counts[f"{name}: permits of the breaker"] = server.breaker.outstanding
        counts[f"{name}: permits settled twice"] = server.breaker.faults
        if (places := server.concurrency) is not None:
            counts[f"{name}: places taken or waited for"] = places.out + places.waiting
        wire = server.wire.details
        counts[f"{name}: pending requests"] = wire.get("pending", 0)
        pool = wire.get("pool", {})
        lent = sum(pool.get(key, 0) for key in ("leased", "granted", "waiting"))
        # Streams are among them, held by whoever listens, and what the pool still reads on.
        kept = pool.get("streams", 0) + pool.get("draining", 0)
        counts[f"{name}: connections lent or waited for"] = max(0, lent - kept)
    return {what: count for what, count in counts.items() if count}


@contextmanager
def no_collector() -> Iterator[None]:
    """Nothing is freed but by whoever owns it."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def no_leaks(client: GatewayClient | None = None) -> AsyncIterator[None]:
    """Whatever the block opens is closed when it ends.

    :param client: one that outlives the block: what it lends must be back as well.
    :raises Leaked: it is not; the block's own exception, if there is one, is raised instead.
    """
    with no_collector():
        before = census()
        yield
        found = await _settled(before, client)
    if found:
        raise Leaked("left behind:\n  " + "\n  ".join(found))


async def _settled(before: Census, client: GatewayClient | None) -> list[str]:
    for thread in threading.enumerate():
        if _is_ours(thread) and thread.ident not in before.threads:
            # One that was told to end may need a moment that no scheduler knows of.
            thread.join(THREAD_S)
    for _ in range(SETTLE_ROUNDS):
        found = census().since(before)
        if client is not None:
            found += [f"{what}: {count}" for what, count in held(client).items()]
        if not found:
            break
        await anyio.lowlevel.checkpoint()
    return found


def _is_runtime(task: anyio.TaskInfo) -> bool:
    """Trio's own tasks, which come with its first use of a thread or a signal."""
    return (task.name or "").startswith(("trio._core.", "trio._threads.", "<init>", "Init"))


def _is_ours(thread: threading.Thread) -> bool:
    """Worker threads of the runtimes are kept for reuse, and end by themselves."""
    return not thread.name.startswith(("Trio thread", "Trio worker", "AnyIO worker", "asyncio_"))


def _descriptors() -> dict[int, str]:
    found = {}
    for path in _entries(Path("/proc/self/fd")):
        try:
            target = str(path.readlink())
        except OSError:
            continue  # the one that listed the folder
        if target not in _RUNTIME:
            found[int(path.name)] = f"{path.name} -> {target}"
    return found


def _children() -> Iterator[tuple[int, str]]:
    """Children of all threads of this process, as Linux lists them."""
    for thread in _entries(Path("/proc/self/task")):
        for pid in _read(thread / "children").split():
            # The command stands in parentheses and may hold anything; the state follows it.
            command, _, rest = _read(Path("/proc", pid, "stat")).rpartition(")")
            # Whether one that lives sleeps or runs is chance, and no news of it.
            ended = ", ended and not reaped" if rest[1:2] in {"Z", "X", ""} else ""
            yield int(pid), f"{command.partition('(')[2]} (pid {pid}{ended})"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # it ended meanwhile


def _entries(folder: Path) -> list[Path]:
    """What is in *folder*; nothing where the platform has none such."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
