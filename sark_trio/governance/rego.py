"""Rego in this process, by `regorus` (extra ``rego``). White: it is handed a way to read files.

:class:`Rego` says where the policy is; :meth:`Rego.load` reads, compiles, and returns an engine
bound to one revision. A changed policy is another engine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, final

from attrs import define, field, frozen

from sark_trio import errors, jsontext
from sark_trio.governance.decision import Decision, decode_decision, no_decision
from sark_trio.governance.isolation import Isolation

__all__ = ["ReadFile", "Rego", "RegoEngine", "policy_error"]

#: Content of the file of a name, or ``OSError``.
ReadFile = Callable[[str], bytes]

#: The package asked where several are loaded and no query was given.
PACKAGE: Final = "data.mcp.gateway"
#: Bytes of one policy file: regorus parses in milliseconds per 100 KiB.
SOURCE_BYTES_MAX: Final = 1 << 20
#: Bytes of an answer, as for OPA.
ANSWER_BYTES_MAX: Final = 1 << 20

#: What a decision says where the engine itself broke.
PANICKED: Final = "the engine panicked"

_WHERE: Final = re.compile(r"-->\s(?P<file>[^\n]*?):(?P<line>\d+):(?P<column>\d+)\s*\n")
_WHAT: Final = re.compile(r"^error: (?P<what>[^\n]+)", re.MULTILINE)
_QUERY: Final = re.compile(r"data(?:\.[A-Za-z_][A-Za-z0-9_]*)+\Z")


class _Engine(Protocol):
    """What the Python binding of microsoft/regorus and its forks have in common."""

    def add_policy(self, path: str, rego: str) -> str: ...
    def add_data_json(self, data: str) -> None: ...
    def set_input_json(self, value: str) -> None: ...
    def eval_query_as_json(self, query: str) -> str: ...
    def set_rego_v0(self, enable: bool) -> None: ...  # noqa: FBT001 (their signature)


class _PathLike(Protocol):
    """``os.PathLike``; this room does not know ``os``."""

    def __fspath__(self) -> str: ...


@final
class Rego:
    """A policy in Rego: files, or sources as text.

    ``Rego("policy.rego", "more.rego")``, or ``Rego(texts={"policy.rego": "package ..."})``.

    :param files: paths, read by :meth:`load` and by nothing else.
    :param texts: sources by the name that error messages shall use.
    :param query: what to ask, such as ``data.mcp.gateway`` or ``data.mcp.gateway.allow``; by
        default the one package that the sources have, or ``data.mcp.gateway`` among several.
    :param data: the base document that the sources see as ``data``.
    :param v0: read the sources as Rego v0 (OPA before 1.0).
    :param isolation: evaluate in processes of their own; ``None`` evaluates in this one, which
        is faster, and which bounds neither time nor memory: see :class:`Isolation`.
    :raises ValueError: no source at all, or a query that is no reference into ``data``.
    """

    __slots__ = ("data", "files", "isolation", "query", "texts", "v0")

    def __init__(
        self,
        *files: str | _PathLike,
        texts: Mapping[str, str] | None = None,
        query: str | None = None,
        data: Mapping[str, Any] | None = None,
        v0: bool = False,
        isolation: Isolation | None = None,
    ) -> None:
        if not files and not texts:
            raise ValueError("a Rego policy needs at least one file or text")
        if query is not None and not _QUERY.match(query):
            raise ValueError(f"query {query!r} must be a reference such as 'data.mcp.gateway'")
        self.files: Final = tuple(str(file) for file in files)
        self.texts: Final = dict(texts or {})
        self.query: Final = query
        self.data: Final = dict(data or {})
        self.v0: Final = v0
        self.isolation: Final = isolation

    def __repr__(self) -> str:
        names = ", ".join([*self.files, *self.texts])
        return f"<Rego {names} query={self.query or 'by package'}>"

    def load(self, read: ReadFile | None = None) -> RegoEngine:
        """Read the files and compile, to be evaluated in this process.

        :param read: content of the file of that name; only asked for ``files``.
        :raises errors.ConfigError: a file can not be read, or the policy is wrong: file, line
            and column say where; or it is to be isolated, which a client does.
        :raises errors.TransportNotAvailableError: the extra ``rego`` is not installed.
        """
        if self.isolation is not None:
            raise errors.ConfigError("an isolated policy is for a GatewayClient, which loads it")
        engine = self.parse(read)
        engine.check()
        return engine

    def parse(self, read: ReadFile | None = None) -> RegoEngine:
        """Read the files and parse; nothing has been evaluated. Raises as :meth:`load` does."""
        sources = {name: _read(name, read) for name in self.files} | dict(self.texts)
        data = _canonical(dict(self.data), "data").decode()
        whole = _canonical([sources, self.v0, data], "texts")
        build = _Build(sources, data, self.v0)
        packages = build.packages()
        _keep_apart(self.data, packages)
        return RegoEngine(
            build=build,
            query=_choose(self.query, packages),
            revision=f"sha256:{hashlib.sha256(whole).hexdigest()}",
        )


def _canonical(value: Any, source: str) -> bytes:
    try:
        return jsontext.canonical(value)
    except jsontext.JSONError as exc:
        raise errors.ConfigError(str(exc), source=source) from None


def _read(name: str, read: ReadFile | None) -> str:
    if read is None:
        raise errors.ConfigError("is a file, and load() was given no way to read it", source=name)
    try:
        content = read(name)
        if len(content) > SOURCE_BYTES_MAX:
            raise errors.ConfigError(f"is larger than {SOURCE_BYTES_MAX} bytes", source=name)
        return content.decode()
    except OSError as exc:
        raise errors.ConfigError(f"can not be read: {exc.strerror}", source=name) from exc
    except UnicodeDecodeError as exc:
        raise errors.ConfigError(f"can not be read: {exc}", source=name) from exc


def _choose(query: str | None, packages: tuple[str, ...]) -> str:
    if query is not None:
        if not any(
            query == p or query.startswith(f"{p}.") or p.startswith(f"{query}.") for p in packages
        ):
            raise errors.ConfigError(
                f"query {query!r} is in none of the packages {', '.join(packages)}"
            )
        return query
    if len(packages) == 1:
        return packages[0]
    if PACKAGE in packages:
        return PACKAGE
    raise errors.ConfigError(
        f"which of the packages {', '.join(packages)} decides? Say query='data.<package>'"
    )


def _keep_apart(data: Mapping[str, Any], packages: tuple[str, ...]) -> None:
    """Refuse data where rules are: regorus would let it override them, so ``allow`` with them.

    OPA refuses such data, too (``rego_compile_error: conflicting rule``).
    """
    for package in packages:
        below: Any = data
        for segment in package.split(".")[1:]:
            if not isinstance(below, Mapping) or segment not in below:
                break
            below = below[segment]
        else:
            raise errors.ConfigError(
                f"holds a value at {package}, which is a package", source="data"
            )
        if not isinstance(below, Mapping):
            raise errors.ConfigError(f"holds a value above the package {package}", source="data")


@final
@frozen
class _Build:
    """Everything that an engine is made of, to make it again."""

    sources: Mapping[str, str] = field(repr=False)
    data: str = field(repr=False)
    v0: bool

    def packages(self) -> tuple[str, ...]:
        return tuple(sorted(self._fill(_new_engine())))

    def engine(self) -> _Engine:
        engine = _new_engine()
        self._fill(engine)
        return engine

    def _fill(self, engine: _Engine) -> set[str]:
        if self.v0:
            engine.set_rego_v0(True)
        packages = set()
        for name, text in self.sources.items():
            try:
                packages.add(engine.add_policy(name, text))
            except RuntimeError as exc:
                raise policy_error(exc, name) from None
        engine.add_data_json(self.data)
        return packages


def _new_engine() -> _Engine:
    try:
        from regorus import Engine  # noqa: PLC0415 (an extra, and 16 MB)
    except ImportError:
        raise errors.TransportNotAvailableError(
            "Rego in process needs the extra 'rego': pip install 'sark_trio[rego]'"
        ) from None
    engine: _Engine = Engine()
    return engine


def policy_error(said: object, source: str | None = None) -> errors.ConfigError:
    """The file, line and column out of regorus' message; its Rust backtrace is left out."""
    text = str(said)
    what = _WHAT.search(text)
    message = what["what"] if what else text.partition("\n\nStack backtrace")[0].strip()
    where = _WHERE.search(text)
    if where is None:
        return errors.ConfigError(message, source=source)
    return errors.ConfigError(
        message, source=where["file"], line=int(where["line"]), column=int(where["column"])
    )


@final
@define(eq=False, kw_only=True)
class RegoEngine:
    """One compiled policy. Synchronous, not for two threads at once."""

    query: str
    #: SHA-256 of sources and data.
    revision: str
    _build: _Build = field(repr=False)
    _engine: _Engine | None = field(default=None, init=False, repr=False)

    def check(self) -> None:
        """Evaluate once on an empty input: what is only found when rules are scheduled shows.

        :raises errors.ConfigError: the policy can not be evaluated at all.
        """
        try:
            self._evaluate(b"{}")
        except RuntimeError as exc:
            raise policy_error(exc) from None

    def evaluate(self, value: bytes | Mapping[str, Any]) -> Decision:
        """Decide on a policy input, encoded or not.

        Total: an error of the policy (two rules that conflict, say) is a decision with
        ``fault`` set. An engine that panicked is thrown away and made anew.
        """
        encoded = value if isinstance(value, bytes) else jsontext.encode(value)
        try:
            answer = self._evaluate(encoded)
        except RuntimeError as exc:
            return self.failed(str(exc))
        except BaseException as exc:
            # PyO3 turns a Rust panic into a BaseException; the engine's state is unknown then.
            self._engine = None
            if type(exc).__name__ != "PanicException":
                raise
            return self.failed(PANICKED)
        return self.read(answer)

    def read(self, answer: str | bytes) -> Decision:
        """What an engine's *answer* to the query, as JSON, comes to. Total."""
        if len(answer) > ANSWER_BYTES_MAX:
            return self.failed(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        try:
            # A query without a value has no ``result``, as in OPA's answers.
            rows = jsontext.decode_strict(answer).get("result", [])
        except jsontext.JSONError as exc:
            return self.failed(str(exc))
        if not rows:
            fault = f"{self.query} has no value"
            return no_decision(fault, reason="undefined", revision=self.revision)
        return decode_decision(rows[0]["expressions"][0]["value"], revision=self.revision)

    def failed(self, what: str, *, reason: str = "policy_error") -> Decision:
        """No decision, since an engine said *what* instead of an answer."""
        fault = str(policy_error(what))
        return no_decision(fault, reason=reason, revision=self.revision)

    def program(self, isolation: Isolation) -> bytes:
        """Everything that another process needs to evaluate this, as JSON."""
        return jsontext.encode(
            {
                "sources": list(self._build.sources.items()),
                "data": self._build.data,
                "v0": self._build.v0,
                "query": self.query,
                "answer_bytes_max": ANSWER_BYTES_MAX,
                "evaluation_s": isolation.evaluation_s,
                "memory_bytes_max": isolation.memory_bytes_max,
            }
        )

    def _evaluate(self, encoded: bytes) -> str:
        if self._engine is None:
            self._engine = self._build.engine()
        self._engine.set_input_json(encoded.decode())
        return self._engine.eval_query_as_json(self.query)
