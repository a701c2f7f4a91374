"""The probes: what a server does, what clean means there, and how that is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from attrs import field, frozen

from tests.probes import desks
from tests.probes.desks import MIB, Making, behind, endless, odd, on, raw
from tests.support.faulty import do
from tests.support.http_servers import SSE_HEAD

__all__ = ["PROBES", "Check", "Facts", "Probe"]


@frozen
class Facts:
    """What one client did in one probe."""

    steps: Mapping[str, Any]
    block: Mapping[str, Any]
    left: list[str]
    grown_mib: float | None
    seen: Mapping[str, Any]
    guard_s: float


#: What is not as it should be, in a few words; empty: nothing.
Check = Callable[[Facts], str]
Step = dict[str, Any]
#: What a caller says that it waits.
_LIMIT_S = 3.0


def _call(label: str = "call", /, timeout_s: float | None = None, **arguments: Any) -> Step:
    """A step: the call of the tool, under this name.

    :param timeout_s: what the caller says that it waits; in most probes, nothing.
    """
    return {"label": label, "arguments": arguments, "timeout_s": timeout_s}


def _in_vain(**arguments: Any) -> Step:
    """A call to which nothing will ever come, and whose caller says that it waits 3 s."""
    return {**_call(timeout_s=_LIMIT_S, **arguments), "in_vain": True}


_NEXT = [_call("next", n="next")]
_FAULT = [[_call(n="fault")], _NEXT]
#: Beside it, a call that is answered only after the fault.
_BESIDE = [[_call(n="fault"), _call("sibling", n="sibling")], _NEXT]


@frozen(kw_only=True)
class Probe:
    """One thing that a server does, and what is asked of a client.

    :param checks: beside those of all probes: every step ends, nothing is left, what leaves is
        no group of exceptions.
    :param ci: repeated in every run of the tests, for our own column.
    """

    name: str
    wire: Literal["HTTP", "stdio"]
    does: str
    clean: str
    desk: Making
    steps: list[list[Step]] = field(factory=lambda: _FAULT)
    checks: tuple[Check, ...] = ()
    #: Those that hold on a machine that is not too busy.
    timed: tuple[Check, ...] = ()
    ci: bool = True
    warm: bool = True
    guard_s: float = 20.0
    headers: Mapping[str, str] = field(factory=dict)
    #: The collector runs: memory is measured as a program has it.
    collects: bool = False


# -- checks ---------------------------------------------------------------------------------------


def right(label: str, text: str) -> Check:
    """The step got that answer."""

    def check(facts: Facts) -> str:
        found = facts.steps.get(label, {"kind": "not reached"})
        if found["kind"] == "answer" and found["text"] == text:
            return ""
        return f"{label}: {said(found)} instead of {text!r}"

    return check


def fails(label: str = "call") -> Check:
    """The step got an error: there was no answer to be had."""

    def check(facts: Facts) -> str:
        found = facts.steps.get(label, {"kind": "not reached"})
        if found["kind"] == "answer":
            return f"{label}: what is no answer to it was taken for one ({found['text']!r})"
        return "" if found["kind"] == "error" else f"{label}: {said(found)}"

    return check


def soon(seconds: float, label: str = "call") -> Check:
    def check(facts: Facts) -> str:
        taken = facts.steps.get(label, facts.block)["s"]  # there may be no way to connect
        return "" if taken <= seconds else f"{label} took {taken:.1f} s"

    return check


def grows(mib: float) -> Check:
    """Memory grew by no more."""

    def check(facts: Facts) -> str:
        grown = facts.grown_mib
        return "" if grown is None or grown <= mib else f"memory grew by {grown:.0f} MiB"

    return check


def executed(count: int = 1) -> Check:
    def check(facts: Facts) -> str:
        times = facts.seen["executed"].count("fault")
        return "" if times <= count else f"executed {times} times"

    return check


def told(facts: Facts) -> str:
    """The server learnt that the call was given up."""
    heard = facts.seen["told"] or "cancelled" in str(facts.steps.get("told", {}).get("text"))
    return "" if heard else "the server was not told"


def notified(facts: Facts) -> str:
    """MCP 2025-11-25, "Cancellation": a connection that is closed does not say it."""
    heard = desks.NOTIFIED in facts.seen["told"]
    return "" if heard else "the server got no notification"


def no_secret(facts: Facts) -> str:
    """Nobody else got the credentials, or the call."""
    if facts.seen["secrets"]:
        return "the other origin got the credentials"
    return "the other origin got the call" if facts.seen["strangers"] else ""


def not_early(facts: Facts) -> str:
    """Sent again no sooner than the server asked, or not at all and with a word on when."""
    gap_s = facts.seen["gap_s"]
    found = facts.steps.get("call", {})
    if gap_s is not None and gap_s >= 0:
        return "" if gap_s >= 1 else f"sent again after {gap_s:g} s"
    known = found.get("retry_after_s") is not None or "503" in found.get("message", "")
    return "" if known else "the error tells neither of 503 nor of when to come back"


def own_exception(facts: Facts) -> str:
    """What the application raised in the block left it as it was."""
    block = facts.block
    if (block.get("type"), block.get("groups")) == ("ValueError", 0):
        return ""
    return f"left as {said(block)}"


def closes(seconds: float) -> Check:
    def check(facts: Facts) -> str:
        taken = facts.block["close_s"]
        return "" if taken <= seconds else f"closing took {taken:.1f} s"

    return check


def common(facts: Facts) -> list[str]:
    """What holds for every probe."""
    found = [
        f"{label}: {said(step)}"
        for label, step in facts.steps.items()
        if step["kind"] in {"unfinished", "torn down"}
    ]
    for label, step in {**facts.steps, "the block": facts.block}.items():
        if step.get("groups"):
            found.append(f"{label}: {said(step)}")
    counts = {what: facts.left.count(what) for what in facts.left}
    return [*found, *(f"left: {count} {what}" for what, count in counts.items())]


def said(found: Mapping[str, Any]) -> str:
    """How a step ended, in words."""
    took = f" after {found['s']:.2f} s" if "s" in found and "close_s" not in found else ""
    match found["kind"]:
        case "answer":
            text = found["text"]
            return f"answered {text if len(text) < 30 else text[:30] + '…'!r}{took}"
        case "error":
            groups = found.get("groups", 0)
            inside = f" in {groups} group{'s' if groups > 1 else ''}" if groups else ""
            return f"{found['type']}{inside}{took}"
        case "cancelled":
            return f"cancelled{took}"
        case "unfinished":
            return f"no end{took}"
        case "torn down":
            return "cancelled by the client's own failure"
        case kind:
            return str(kind)


# -- the list -------------------------------------------------------------------------------------

_STRANGER = b'{"jsonrpc":"2.0","id":987654,"result":{"resultType":"complete","content":[%b]}}'
_TEXT = b'{"type":"text","text":"%b"}'
_FOREIGN = _STRANGER % (_TEXT % b"foreign")
_STRING = b'{"jsonrpc":"2.0","id":"@ID","result":{"resultType":"complete","content":[%b]}}' % (
    _TEXT % b"string"
)
_FIRST = b'{"jsonrpc":"2.0","id":@ID,"result":{"resultType":"complete","content":[%b]}}' % (
    _TEXT % b"first"
)
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_BIG_BLOCK = b"x" * MIB
_EVENT_BLOCK = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
_NOT_FOREIGN = "the answer to something else is not given to the caller; the next call works"
_ALONE = "that call fails; the one beside it is answered; the next one works"
_BOUNDED = "the call fails, with less than 64 MiB more memory; the next one works"


def _ids(wire: Literal["HTTP", "stdio"], kind: str, how: str) -> list[Probe]:
    """What may be wrong with an id, on one wire."""
    lone = "hang" if kind != "json" else "answer"
    common_: dict[str, Any] = {"wire": wire, "desk": on(kind)}
    fault = (fails(), right("next", "next"))
    waits = _in_vain if kind != "json" else partial(_call, timeout_s=_LIMIT_S)
    given = [waits(**do(_FOREIGN, end=lone))]
    found = [
        Probe(
            name=f"wrong id, {how}",
            does=f"answers with an id that nobody asked under ({how})",
            clean=_NOT_FOREIGN,
            steps=[given, _NEXT],
            checks=fault,
            **common_,
        ),
        Probe(
            name=f"string id, {how}",
            does=f'answers to id 1 with id "1" ({how}); JSON-RPC: the same value',
            clean=_NOT_FOREIGN,
            steps=[[waits(**do(_STRING, end=lone))], _NEXT],
            checks=fault,
            **common_,
        ),
    ]
    if kind == "json":
        return found
    return [
        *found,
        Probe(
            name=f"wrong id first, {how}",
            does=f"answers with a foreign id, then rightly ({how})",
            clean="the right answer is given to the caller; the next call works",
            steps=[[_call(timeout_s=_LIMIT_S, **do(_FOREIGN, n=7))], _NEXT],
            checks=(right("call", "7"), right("next", "next")),
            **common_,
        ),
        Probe(
            name=f"two answers, {how}",
            does=f"answers twice to one id ({how})",
            clean="the first answer is given to the caller; the next call works",
            steps=[[_call(timeout_s=_LIMIT_S, **do(_FIRST, n=8))], _NEXT],
            checks=(right("call", "first"), right("next", "next")),
            **common_,
        ),
    ]


def _broken(name: str, does: str, act: Any) -> Probe:
    return Probe(
        name=name,
        wire="HTTP",
        does=does,
        clean=_ALONE,
        desk=behind(act),
        steps=_BESIDE,
        checks=(fails(), right("sibling", "sibling"), right("next", "next"), executed()),
    )


def _large(name: str, does: str, act: Any) -> Probe:
    return Probe(
        name=name,
        wire="HTTP",
        does=does,
        clean=_BOUNDED,
        desk=behind(act),
        checks=(fails(), grows(64), right("next", "next")),
        ci=False,
        collects=True,
        guard_s=60,
    )


_HTTP = [
    *_ids("HTTP", "json", "JSON"),
    *_ids("HTTP", "events", "event stream"),
    _broken("cut body", "closes in the middle of a JSON body", raw(desks.half, then="close")),
    _broken("reset body", "resets in the middle of a JSON body", raw(desks.half, then="reset")),
    _broken(
        "cut stream", "closes in the middle of an event", raw(desks.broken_event, then="close")
    ),
    _broken("no UTF-8", "answers with a byte that is no UTF-8", raw(desks.no_utf8)),
    _broken("deep JSON", "answers with 100,000 nested lists", raw(desks.deep)),
    _large(
        "256 MiB body",
        "answers with a JSON body of 256 MiB",
        endless(_JSON_HEAD % (desks.FLOOD_BYTES + 2) + b'"', _BIG_BLOCK, b'"'),
    ),
    _large(
        "endless line",
        "sends an event whose one line is 256 MiB long",
        endless(SSE_HEAD + b"6\r\ndata: \r\n", _EVENT_BLOCK),
    ),
    _large("gzip bomb", "answers with 256 KiB that unpack to 256 MiB", raw(lambda _: desks.bomb())),
    Probe(
        name="silence",
        wire="HTTP",
        does="reads the call and says nothing; the caller sets no time limit",
        clean="the call fails within 60 s by the client's own default; the next one works",
        desk=behind(desks.hang),
        checks=(fails(), right("next", "next"), executed()),
        timed=(soon(60),),
        ci=False,
        guard_s=62,
    ),
    Probe(
        name="silence, with a time limit",
        wire="HTTP",
        does="reads the call and says nothing; the caller waits 3 s",
        clean="the call fails within 4 s; the server is told; the next one works",
        desk=behind(desks.hang),
        steps=[[_in_vain(n="fault")], _NEXT],
        checks=(fails(), told, right("next", "next"), executed()),
        timed=(soon(4),),
    ),
    Probe(
        name="silence in a stream",
        wire="HTTP",
        does="begins a stream of events and says nothing more; the caller waits 3 s",
        clean="the call fails within 4 s; the server is told; the next one works",
        desk=behind(desks.trickle),
        steps=[[_in_vain(n="fault")], _NEXT],
        checks=(fails(), told, right("next", "next"), executed()),
        timed=(soon(4),),
    ),
    *(
        Probe(
            name=f"cancelled, {version}",
            wire="HTTP",
            does=f"is at work when the caller is cancelled ({version})",
            clean=f"the caller is free at once; the server is told, {how}; the next call works",
            desk=behind(desks.trickle, era=era),
            steps=[[{**_call(n="fault"), "cancel_s": 0.5}], _NEXT],
            checks=(told, check, right("next", "next"), executed()),
            timed=(soon(2.5),),
        )
        for version, era, how, check in (
            ("2026-07-28", "modern", "by the end of the connection", told),
            ("2025-11-25", "legacy", "by a notification", notified),
        )
    ),
    Probe(
        name="503 and Retry-After",
        wire="HTTP",
        does="answers 503 with `Retry-After: 1`, and then rightly",
        clean="sent again after a second or more; or an error that tells of 503 or of the second",
        desk=behind(desks.unavailable),
        checks=(not_early, right("next", "next")),
    ),
    Probe(
        name="lost session",
        wire="HTTP",
        does="has forgotten the session: 404 (2025-11-25: a client must start a new one)",
        clean="this call or the next one works, by the same client",
        desk=desks.forgetful(),
        checks=(right("next", "next"), executed()),
    ),
    Probe(
        name="reset after the answer",
        wire="HTTP",
        does="answers, and resets the connection that it seemed to keep",
        clean="both calls are answered, and executed once",
        desk=behind(desks.answer_and_close),
        checks=(right("call", "fault"), right("next", "next"), executed()),
    ),
    _broken("reset before the answer", "executes the call and resets", desks.read_and_reset),
    Probe(
        name="redirect elsewhere",
        wire="HTTP",
        does="answers 307 to another origin; the client has an Authorization header",
        clean="the other origin hears nothing; the call fails; the next one works",
        desk=desks.redirecting(),
        checks=(fails(), no_secret, right("next", "next")),
        headers={"Authorization": "Bearer canary"},
    ),
    Probe(
        name="nobody listens",
        wire="HTTP",
        does="is not there",
        clean="one exception, in no group, within 10 s",
        desk=desks.nobody(),
        warm=False,
        steps=[[_call(n="fault")]],
        timed=(soon(10),),
        ci=False,
    ),
    Probe(
        name="the application's own exception",
        wire="HTTP",
        does="is well; the application raises ValueError in the client's block",
        clean="ValueError leaves the block as it is, in no group",
        desk=behind(desks.plain),
        steps=[[_call(n="fault")], [{"label": "raise", "raises": True}]],
        checks=(right("call", "fault"), own_exception),
    ),
]

_STDIO = [
    *_ids("stdio", "stdio", "stdio"),
    Probe(
        name="dies",
        wire="stdio",
        does="ends in the middle of a call",
        clean="the caller knows within a second",
        desk=on("stdio"),
        steps=[[_call(**do(end="die"))], _NEXT],
        checks=(fails(),),
        timed=(soon(1),),
    ),
    Probe(
        name="garbage",
        wire="stdio",
        does="writes 20 lines that are no JSON, then answers",
        clean="the answer is given to the caller; the next call works",
        desk=on("stdio"),
        steps=[[_call(timeout_s=_LIMIT_S, **do((b"loading...", 20)))], _NEXT],
        checks=(right("call", "7"), right("next", "next")),
    ),
    Probe(
        name="no UTF-8, stdio",
        wire="stdio",
        does="writes a line that is no UTF-8, then answers",
        clean="the answer is given to the caller; the next call works",
        desk=on("stdio"),
        steps=[[_call(timeout_s=_LIMIT_S, **do(b"\xff\xfe"))], _NEXT],
        checks=(right("call", "7"), right("next", "next")),
    ),
    Probe(
        name="babbles",
        wire="stdio",
        does="writes 64 MiB without an end of line, then answers",
        clean="the call ends within 10 s, with less than 64 MiB more memory; the next one works",
        desk=odd("babbles"),
        steps=[[_call(n="fault")], _NEXT],
        checks=(grows(64), right("next", "next")),
        timed=(soon(10),),
        ci=False,
        collects=True,
        guard_s=60,
    ),
    Probe(
        name="floods stderr",
        wire="stdio",
        does="writes 64 MiB to stderr, and then reads what it is asked",
        clean="the call is answered, with less than 64 MiB more memory",
        desk=odd("floods"),
        steps=[[_call(n="fault")]],
        checks=(right("call", "fault"), grows(64)),
        ci=False,
        collects=True,
    ),
    Probe(
        name="ignores the end",
        wire="stdio",
        does="ignores SIGTERM, and that its stdin was closed",
        clean="closing takes 10 s at most, and no process is left",
        desk=odd("stays"),
        steps=[[_call(n="fault")]],
        checks=(right("call", "fault"),),
        timed=(closes(10),),
        ci=False,
    ),
    Probe(
        name="cancelled, stdio",
        wire="stdio",
        does="is at work when the caller is cancelled",
        clean="the caller is free at once; the server is told; the next call works",
        desk=desks.telling(),
        steps=[
            [{**_call(n="fault"), "tool": "hold", "cancel_s": 0.5}],
            [{**_call("told"), "tool": "told"}],
        ],
        checks=(told,),
        timed=(soon(2.5),),
    ),
]

PROBES = {probe.name: probe for probe in (*_HTTP, *_STDIO)}
