"""What of a list may be seen: several questions at once, and never a part for the whole."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from sark_trio.client.permitted import AT_ONCE, permitted
from sark_trio.errors import InvalidArguments, PolicyUnavailable
from sark_trio.governance.decision import Decision
from sark_trio.governance.pipeline import Governor
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import DISCOVER, Query, Question
from tests.support.governance import Answers, load

pytestmark = pytest.mark.anyio

YES = Decision(allow=True, revision="r")


def tools(count: int, who: Principal | None = None) -> list[Query]:
    known = who or Principal(id="a", roles=("viewer",))
    return [Query(principal=known, action=DISCOVER, server="s", tool=f"t{n}") for n in range(count)]


class Slow:
    """Answers the later questions first; keeps every third tool to itself."""

    revision = None

    def __init__(self) -> None:
        self.asked = 0
        self.under_way = 0
        self.most = 0

    async def decide(self, question: Question) -> Decision:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        number = int(str(question.query.tool)[1:])
        for _ in range(20 - number % 10):
            await anyio.lowlevel.checkpoint()
        self.under_way -= 1
        return Decision(allow=number % 3 != 0)


async def test_questions_are_asked_together_up_to_a_bound_and_answered_in_order() -> None:
    policy, asked = Slow(), tools(50)
    allowed = await permitted(Governor(policy=policy), asked)
    assert allowed == [one for number, one in enumerate(asked) if number % 3 != 0]
    assert (policy.asked, policy.most, policy.under_way) == (50, AT_ONCE, 0)


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_short_lists_are_lists(count: int) -> None:
    asked = tools(count)
    assert await permitted(Governor(policy=Answers(YES)), asked) == asked


async def test_a_policy_in_process_is_asked_the_same() -> None:
    known, nobody = tools(2), tools(2, Principal.anonymous())
    governor = Governor(policy=load("gateway.rego"))
    assert await permitted(governor, [*known, *nobody]) == known


async def test_an_outage_is_no_empty_list_and_asks_no_further() -> None:
    class Failing(Slow):
        async def decide(self, question: Question) -> Decision:
            if question.query.tool == "t5":
                raise OSError
            return await super().decide(question)

    policy = Failing()
    with pytest.raises(PolicyUnavailable):
        await permitted(Governor(policy=policy), tools(200))
    assert policy.asked <= AT_ONCE


async def test_what_cannot_be_asked_is_said_as_it_is() -> None:
    wrong = Query(principal=Principal(id="a"), arguments={"__proto__": 1})
    with pytest.raises(InvalidArguments):
        await permitted(Governor(policy=Answers(YES)), [*tools(3), wrong])


async def test_cancelled_it_is_cancelled() -> None:
    class Silent(Slow):
        async def decide(self, question: Question) -> Decision:
            started.set()
            await anyio.sleep_forever()
            return await super().decide(question)

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(permitted, Governor(policy=Silent()), tools(20))
        await started.wait()
        tasks.cancel_scope.cancel()
