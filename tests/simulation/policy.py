"""Simulated policy: a function in this process, or a service on the network."""

from __future__ import annotations

import trio
from attrs import define, field

from sark_trio import Decision, Question, jsontext
from tests.simulation.dice import Dice
from tests.simulation.network import Wire
from tests.simulation.web import Listener, receive, reply

__all__ = ["Policy", "PolicyService"]

#: How OPA must not answer (laws, fault matrix, row 46), beside errors and half answers.
_NO_DECISIONS = (
    b"{}",
    b'{"result":null}',
    b'{"result":"true"}',
    b'{"result":1}',
    b'{"result":{}}',
    b'{"result":{"allow":"yes"}}',
    b'{"result":{"allow":true,"deny":["x"]}}',
    b'{"result":tru',
    b"<html>",
)


@define
class Policy:
    """Denies ``admin``, and fails now and then."""

    dice: Dice
    revision: str = "1"
    #: Numbers of the calls that it has allowed.
    allowed: set[int] = field(factory=set)

    async def decide(self, question: Question) -> Decision:
        """See :class:`sark_trio.Policy`."""
        await trio.lowlevel.checkpoint()
        if self.dice.strikes("slow policy"):
            await trio.sleep(self.dice.seconds("slow policy", 0, 3))
        if self.dice.strikes("policy that raises"):
            raise RuntimeError("policy")
        ttl_s = self.dice.seconds("ttl", 0, 2)
        query = question.query
        allow = query.tool != "admin"
        if allow:
            self.allowed.add(query.arguments.get("n", -1))
        return Decision(allow=allow, ttl_s=ttl_s)


@define(eq=False)
class PolicyService(Listener):
    """Open Policy Agent, as far as a client sees it: allows everything but the tool ``admin``."""

    #: Numbers of the calls that it has allowed.
    allowed: set[int] = field(factory=set)

    async def exchange(self, wire: Wire) -> bool:
        """See :meth:`Listener.exchange`."""
        request = await receive(wire)
        if request is None:
            return False
        question = jsontext.decode(request.body)["input"]
        if self.chaos.strikes("slow policy"):
            await trio.sleep(self.chaos.seconds("slow policy", 0, 2))
        if self.chaos.strikes("policy errors"):
            await reply(wire, 500, b"no", kind=b"text/plain")
            return True
        if self.chaos.strikes("policy without a decision"):
            choice = self.chaos.size("policy without a decision", len(_NO_DECISIONS)) - 1
            await reply(wire, 200, _NO_DECISIONS[choice])
            return True
        allow = question.get("tool_name") != "admin"
        if allow:
            self.allowed.add((question.get("parameters") or {}).get("n", -1))
        await reply(wire, 200, jsontext.encode({"result": {"allow": allow, "cache_ttl": 1}}))
        return True
