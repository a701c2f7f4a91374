"""A million events of chance for each machine, each of them answered by a naive oracle, too.

A machine has a function here that plays one episode: from a seed, some hundreds of events, since
an oracle rereads all of an episode for each of them. It returns how many events there were.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import chain, repeat
from random import Random
from typing import Any

from attrs import evolve

from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConnectError,
    GatewayError,
    OutcomeUnknown,
    ProtocolError,
    ReadTimeout,
    RemoteError,
    status_error,
)
from sark_trio.machines.adaptive import AdaptiveConcurrency, AdaptiveLimiter
from sark_trio.machines.backoff import RetryConfig
from sark_trio.machines.breaker import Breaker
from sark_trio.machines.budget import BudgetOptions, RetryBudget
from sark_trio.machines.circuit import BreakerOptions, Mode, Outcome
from sark_trio.machines.correlate import Correlator
from sark_trio.machines.freshness import CacheOptions, Hit, ResponseCache, Serve
from sark_trio.machines.limiter import ConcurrencyLimiter, Fault, RateLimiter, RateOptions
from sark_trio.machines.lines import LineSplitter, TooLong
from sark_trio.machines.pool import PoolOptions
from sark_trio.machines.reconnect import ReconnectOptions, Reconnector
from sark_trio.machines.retry import RetryMachine, Safety, Wait, classify
from sark_trio.machines.sse import SSEParser
from sark_trio.machines.supervise import SuperviseOptions, Supervisor
from sark_trio.machines.window import window_for
from tests.models import adaptive as adaptive_model
from tests.models import breaker as breaker_model
from tests.models import freshness as freshness_model
from tests.models import pool as pool_model
from tests.models import reconnect as reconnect_model
from tests.models.budget import Account
from tests.models.correlate import CorrelatorModel
from tests.models.limiter import Buckets
from tests.models.lines import split
from tests.models.retry import Had, RetryModel
from tests.models.sse import interpret
from tests.models.supervise import SupervisorModel, crowded

__all__ = ["MACHINES", "play"]

Episode = Callable[[Random], int]


def adaptive(rng: Random) -> int:
    low = rng.randint(1, 4)
    options = AdaptiveConcurrency(
        limit_min=low,
        limit_max=low + rng.randint(0, 12),
        limit_start=rng.randint(1, 20),
        keep_percent=rng.choice([1, 50, 70, 95]),
        slow_ratio=rng.choice([None, 1.5, 2.0]),
        waiters_max=rng.randint(0, 6),
    )
    real = adaptive_model.Crowd(AdaptiveLimiter(options))
    naive = adaptive_model.Crowd(adaptive_model.AdaptiveModel(options))
    for _ in range(150):
        event, pick = rng.choice(adaptive_model.EVENTS), rng.randrange(20)
        dt = rng.randint(-16, 256) / 64
        assert real.do(event, pick, dt) == naive.do(event, pick, dt)
        real.machine.check_invariants()
        assert real.machine.limit == naive.machine.present()[0]
    return 150


def breaker(rng: Random) -> int:
    plain = BreakerOptions()
    options = BreakerOptions(
        failures=rng.choice([1, 2, 5]),
        probes=rng.randint(1, 3),
        successes=rng.randint(1, 3),
        open_multiplier=rng.choice([1.0, 2.0]),
        rate=rng.choice(breaker_model.RULES),
    )
    options = rng.choice([plain, options, options])
    real = breaker_model.Play(Breaker(options))
    naive = breaker_model.ModelPlay(breaker_model.BreakerModel(options))
    kinds = ["acquire"] * 4 + ["settle"] * 6 + ["again", "forge", "tick", "tick"]
    if rng.random() < 0.5:
        kinds += ["force", "reset"]
    for _ in range(200):
        kind = rng.choice(kinds)
        newest = kind == "settle" and rng.random() < 0.5
        event = breaker_model.Event(
            kind,
            dt=rng.choice(breaker_model.DTS),
            pick=-1 if newest else rng.randrange(8),
            outcome=rng.choice([Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, *Outcome]),
            duration_s=rng.choice([0.0, 0.5, 9.875, 10.0, 40.0]),
            mode=rng.choice(list(Mode)),
        )
        number = real.number(event)
        expected = naive.do(event, number)
        assert breaker_model.in_words(real.do(event)) == expected
        assert real.breaker.state is naive.model.phase
        assert real.breaker.generation == naive.model.generation
    return 200


def budget(rng: Random) -> int:
    cap = rng.randint(2_000, 100_000)
    options = BudgetOptions(
        start=rng.randint(0, 2_000),
        cap=cap,
        per_first=rng.randint(0, 700),
        per_second=rng.randint(0, 3_000),
        idle_max=rng.randint(0, 2_000),
    )
    real, naive, ticks, latest = RetryBudget(options), Account(options), 2**20, 0
    for _ in range(500):
        ticks = max(0, ticks + rng.choice([0, rng.randint(0, 4_000), rng.randint(-(2**20), 2**22)]))
        latest = max(latest, ticks)
        if rng.random() < 0.5:
            real.on_first(ticks / 2**20)
            naive.on_first(Fraction(latest, 2**20))
        else:
            assert real.take(ticks / 2**20) is naive.take(Fraction(latest, 2**20))
        assert real.statistics().balance == int(naive.held)
        real.check_invariants()
    return 500


def cache(rng: Random) -> int:
    options = rng.choice(
        [
            CacheOptions(),
            CacheOptions(
                entries_max=rng.randint(0, 3),
                bytes_max=rng.choice([0, 100, 1000]),
                waiters_max=rng.randint(1, 6),
                stale_s=rng.choice([0.0, 5.0, 300.0]),
                early=rng.choice([0.0, 0.1, 0.5]),
            ),
        ]
    )
    machine: ResponseCache[Any] = ResponseCache(options)
    real = freshness_model.Play(machine)
    naive = freshness_model.Play(freshness_model.CacheModel(options))
    for _ in range(300):
        step = rng.choice(freshness_model.EVENTS), rng.randrange(24), rng.randrange(24)
        got, expected = real.do(*step), naive.do(*step)
        if isinstance(got, Hit | Serve):
            assert (got.value.flight, got.value.key) == (expected.value.flight, expected.value.key)
            expected = evolve(expected, value=got.value)
        assert got == expected
        machine.check_invariants()
    return 300


def correlate(rng: Random) -> int:
    real: Correlator[object] = Correlator(pending_max=3)
    naive = CorrelatorModel(pending_max=3)
    waiters: dict[int, object] = {}
    strange = [None, True, "1", 1.0, b"1", (1,), -1, 2**70]
    for _ in range(300):
        number: Any = rng.choice([rng.randint(0, len(waiters) + 1), rng.choice(strange)])
        match rng.choice(["open", "open", "resolve", "resolve", "cancel", "peek", "end"]):
            case "open":
                waiter, expected = object(), naive.may_open()
                opened = real.open(0.0, waiter)
                assert type(opened).__name__ == expected
                if isinstance(opened, int):
                    naive.opened(opened)
                    waiters[opened] = waiter
            case "resolve":
                epoch = rng.choice([real.epoch, real.epoch, rng.randint(0, 3)])
                got = real.resolve(number, epoch=epoch)
                assert type(got).__name__ == naive.resolve(number, epoch)
            case "cancel":
                assert (real.cancel(number) is not None) is naive.cancel(number)
            case "peek":
                known = type(number) is int and number in naive.pending()
                assert real.peek(number) is (waiters[number] if known else None)
            case "end" if rng.random() < 0.2:
                assert [pending.id for pending in real.close("gone")] == naive.close()
            case "end":
                assert real.reopen() == naive.reopen()
        real.check_invariants()
        assert real.statistics().pending == len(naive.pending())
    return 300


def limiter(rng: Random) -> int:
    options = RateOptions(per_s=rng.choice([0.5, 1.0, 3.0, 64.0, 1e3]), burst=rng.randint(1, 6))
    real = RateLimiter(options, keys_max=rng.randint(1, 4))
    naive = Buckets(interval=Fraction(options.interval_ns, 10**9), burst=options.burst)
    most = rng.randint(1, 4)
    places, held = ConcurrencyLimiter(most), Counter[str]()
    at = 0
    for _ in range(250):
        key, at = rng.choice("abcd"), max(0, at + rng.randint(-200, 3_000))
        crowd = real.statistics().crowded
        allowed = real.take(at / 1024, key).allowed
        if real.statistics().crowded > crowd:
            return 2 * _ + 1  # from here on its own bucket and the shared one differ
        assert allowed is naive.take(Fraction(round(at / 1024 * 10**9), 10**9), key)
        real.check_invariants()
        key = rng.choice("abc")
        if rng.random() < 0.55:
            assert places.acquire(key) is (held[key] < most)
            held[key] += held[key] < most
        else:
            assert places.release(key) == (None if held[key] else Fault("not_held"))
            held[key] -= held[key] > 0
        places.check_invariants()
        assert places.statistics().held == held.total()
    return 500


_LETTERS = [b"\n", b"\r", b"\r\n", b'{"a":1}', b"1", b"\xff", b"\xe2\x80\xa8", b"xxxxxx"]


def lines(rng: Random) -> int:
    stream = b"".join(rng.choices(_LETTERS, k=300))
    limit = rng.randint(1, 14)
    splitter, found, at, feeds = LineSplitter(line_bytes_max=limit), [], 0, 0
    while at < len(stream):
        size = rng.randint(0, 8)
        fed = splitter.feed(stream[at : at + size])
        found += [None if isinstance(item, TooLong) else item for item in fed]
        at, feeds = at + size, feeds + 1
        splitter.check_invariants()
    assert found == split(stream, limit)
    return feeds


def pool(rng: Random) -> int:
    options = PoolOptions(
        total=rng.randint(1, 4),
        per_origin=rng.randint(1, 3),
        idle_max=rng.randint(0, 3),
        waiters_max=rng.randint(2, 8),
        idle_s=30.0,
        age_max_s=rng.choice([20.0, 70.0, 3600.0]),
    )
    shell = pool_model.PoolShell(options, with_model=True)
    likely = [*pool_model.EVENTS, "want", "dialed", "give_back"]
    for _ in range(300):
        shell.do(rng.choice(likely), rng.randrange(10))
        shell.now += rng.choice([0.0, 0.0, 0.0, 8.0, -4.0])
        shell.pool.check_invariants()
    if shell.choices("shutdown"):
        shell.do("shutdown", 0)
    shell.quiesce()
    shell.pool.check_invariants()
    return 300


def reconnect(rng: Random) -> int:
    log = reconnect_model.log_of(rng.choices("ab", k=rng.randint(0, 40)))
    trouble = [rng.choice([0, 0, 0, 1, 2, 3, 4]) for _ in range(150)]
    wanted = rng.choice(["ab", "a", ""])
    reader = reconnect_model.Reader(
        Reconnector(ReconnectOptions(reconnects_max=1_000)),
        log,
        wanted.__contains__,
        chain([rng.randrange(6) for _ in range(20)], repeat(0)),
        chain(trouble, repeat(reconnect_model.FINE)),
    )
    assert reader.read() is None
    assert reader.got == [event for event in log if event.type in wanted]
    return len(reader.trail) + 2 * reader.connects


def _error(rng: Random) -> GatewayError:
    asked_s = rng.choice([None, None, 0.0, 5.0, rng.random() * 400])
    kind = rng.choice([ConnectError, ReadTimeout, ProtocolError, CallTimeout, OutcomeUnknown])
    return rng.choice(
        [
            *[lambda: ConnectError("refused", delivery="not_sent")] * 4,
            lambda: kind("no", delivery=rng.choice(["not_sent", "unknown"])),
            lambda: status_error(rng.choice([400, 429, 500, 503]), "no", retry_after_s=asked_s),
            lambda: CircuitOpen("open", retry_after_s=asked_s),
            lambda: RemoteError("no", code=-1),
        ]
    )()


def retry(rng: Random) -> int:
    config = RetryConfig(
        attempts=rng.randint(1, 6),
        initial_delay_s=rng.choice([0.25, 1.0, 7.0]),
        max_delay_s=rng.choice([0.5, 30.0]),
        jitter=rng.choice([0.0, 0.25, 1.0]),
        throttled_means_not_executed=rng.random() < 0.5,
    )
    safety, deadline = rng.choice(list(Safety)), rng.choice([float("inf"), rng.random() * 60])
    account = RetryBudget(BudgetOptions(start=rng.randint(0, 8) * 1000, per_second=0))
    real, naive = RetryMachine(config, safety, deadline), RetryModel(config, safety, deadline)
    now = 0.0
    for number in range(8):
        now += rng.choice([0.0, rng.random() * 20])
        failure, jitter = classify(_error(rng)), rng.random()
        tokens = account.statistics().balance // 1000
        expected = naive.on_failure(Had(failure, now, jitter, tokens))
        step = real.on_failure(now, failure, jitter, account)
        real.check_invariants()
        if isinstance(step, Wait):
            assert expected == ("wait", step.seconds)
            now += step.seconds
            continue
        assert expected == ("give up", step.reason, step.attempts, step.delivery)
        return number + 1
    return 8


_WORDS = [
    *(b"\r", b"\n", b"\r\n", b"\n\n", b":", b" ", b"\0", b"d", b"7", b"\xff", b"\xef\xbb\xbf"),
    *(b"data", b"data:", b"data: ", b"event: e", b"id", b"id: 1", b"id:\0", b"retry: 15"),
    *(b": ping\n", b"\xe2\x80", b"\xf0\x9f\x98", b"\xed\xa0\x80", "\u2028".encode()),
]


def sse(rng: Random) -> int:
    stream = b"".join(rng.choices(_WORDS, k=120))
    parser, found, at, feeds = SSEParser(), [], 0, 0
    while at < len(stream):
        size = rng.randint(0, 8)
        found += parser.feed(stream[at : at + size])
        at, feeds = at + size, feeds + 1
        parser.check_invariants()
    told = [(e.event, e.text, e.id, e.retry_ms) for e in found]  # type: ignore[union-attr]
    assert (told, parser.last_event_id, parser.retry_ms) == interpret(stream)
    return feeds


def supervise(rng: Random) -> int:
    exact = RetryConfig(initial_delay_s=0.25, max_delay_s=4.0, jitter=0.0)
    options = rng.choice(
        [
            SuperviseOptions(backoff=exact),
            SuperviseOptions(
                restarts_max=rng.randint(0, 3),
                window_s=4.0,
                cool_off_s=8.0,
                timeouts_max=rng.randint(1, 3),
                probe_s=1.0,
                backoff=exact,
            ),
        ]
    )
    real, naive, now = Supervisor(options), SupervisorModel(options), 0.0
    often = ["start", "start", "ended", "answered", "heard", "timed_out", "tick"]
    for _ in range(250):
        event = rng.choice(often * 8 + ["reset", "close" if rng.random() < 0.05 else "reset"])
        now = max(0.0, now + rng.choice([0, 0, 16, rng.randint(-64, 256)]) / 64)
        arguments = (now, 0.5) if event == "ended" else (now,)
        got = getattr(real, event)(*arguments)
        told = type(got).__name__.replace("NoneType", "None")
        assert told == getattr(naive, event)(*arguments)
        real.check_invariants()
    for restarts in naive.restarts:
        assert crowded(restarts, options.window_s) <= options.restarts_max
    return 250


def window(rng: Random) -> int:
    rule = rng.choice([rule for rule in breaker_model.RULES if rule is not None])
    real, calls, now, latest = window_for(rule), list[breaker_model.Call](), 0.0, 0.0
    for _ in range(150):
        now = max(0.0, now + rng.randint(-64, 4096) / 1024)
        latest = max(latest, now)
        failed, slow = rng.random() < 0.5, rng.random() < 0.3
        real.record(now, failed=failed, slow=slow)
        calls.append(breaker_model.Call(failed, slow, latest))
        assert real.counts(now) == breaker_model.recount(rule, calls, latest)
    return 150


MACHINES: dict[str, Episode] = {
    episode.__name__: episode
    for episode in (
        *(adaptive, breaker, budget, cache, correlate, limiter, lines, pool),
        *(reconnect, retry, sse, supervise, window),
    )
}


def play(name: str, events: int, seed: int = 0) -> str:
    """So many events of machine *name*; a line that says what was done.

    :raises AssertionError: machine and oracle differ; a note says with which seed.
    """
    began, done, episodes = time.monotonic(), 0, 0
    while done < events:
        try:
            done += MACHINES[name](Random(f"{name} {seed + episodes}"))
        except BaseException as exc:
            exc.add_note(f"machine {name}, seed {seed + episodes}")
            raise
        episodes += 1
    took_s = time.monotonic() - began
    return f"events: {name}: {done:,} in {episodes:,} episodes, {took_s:.0f} s: as the oracle says"
