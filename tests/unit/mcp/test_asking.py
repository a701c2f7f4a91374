"""What servers ask, and what goes back: read once, checked once."""

from __future__ import annotations

from typing import Any

import mcp_types
import pytest

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.asking import (
    ELICIT,
    ROOTS,
    SAMPLE,
    Elicitation,
    Root,
    Sampling,
    UrlElicitation,
    elicit_result,
    parse_elicitation,
    parse_sampling,
    roots_result,
    sampling_result,
)

FORM = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}


def asked(**params: Any) -> Elicitation | UrlElicitation:
    return parse_elicitation({"message": "why", **params}, server="s")


def test_the_words_of_the_protocol() -> None:
    asked = (ELICIT, SAMPLE, ROOTS)
    assert asked == ("elicitation/create", "sampling/createMessage", "roots/list")


def test_without_a_mode_it_is_a_form() -> None:
    form = asked(requestedSchema=FORM)
    assert isinstance(form, Elicitation)
    assert (form.server, form.message, form.form.fields[0].name) == ("s", "why", "n")


def test_a_url_says_where_it_leads() -> None:
    url = asked(mode="url", url="https://user@evil.example/login?x", elicitationId="e")
    assert isinstance(url, UrlElicitation)
    assert (url.host, url.elicitation_id) == ("evil.example", "e")
    assert UrlElicitation(server="s", message="why", url="urn:x").host == ""


def test_a_message_and_a_url_may_be_long() -> None:
    base = "http://a.example/"
    longest = base + "x" * (8_192 - len(base))
    url = asked(message="x" * 65_536, mode="url", url=longest)
    assert isinstance(url, UrlElicitation)
    assert (len(url.message), url.url) == (65_536, longest)
    with pytest.raises(ProtocolError, match="too long"):
        asked(mode="url", url=longest + "x")


@pytest.mark.parametrize(
    "params",
    [
        {"message": 1, "requestedSchema": FORM},
        {"message": "x" * 65_537, "requestedSchema": FORM},
        {"message": "x", "mode": "voice"},
        {"message": "x", "mode": "voice", "url": "https://a.example/"},
        {"message": "x", "mode": "url", "url": ""},
        {"message": "x"},
        {"message": "x", "mode": "url"},
        *(
            {"message": "x", "mode": "url", "url": url}
            for url in (
                "javascript:alert(1)",
                "file:///etc/passwd",
                "data:text/html,x",
                "https://",
                "https://a.example/\n",
                "http://[::1",
                "https://a/" + "x" * 8_200,
                7,
            )
        ),
    ],
)
def test_a_malformed_elicitation_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="malformed") as caught:
        parse_elicitation(params, server="s")
    assert caught.value.delivery == "answered"


def test_answers_to_a_form() -> None:
    form = asked(requestedSchema=FORM)
    assert elicit_result(form, {}) == {"action": "accept", "content": {"n": 1}}
    assert elicit_result(form, "accept") == {"action": "accept", "content": {"n": 1}}
    assert elicit_result(form, {"n": 2})["content"] == {"n": 2}
    assert elicit_result(form, "decline") == {"action": "decline"}
    assert elicit_result(form, "cancel") == {"action": "cancel"}
    for wrong in ("yes", None, True, {"n": "two"}):
        with pytest.raises(InvalidArguments):
            elicit_result(form, wrong)  # type: ignore[arg-type]


def test_a_url_is_only_accepted_or_not() -> None:
    url = asked(mode="url", url="https://a.example/")
    assert elicit_result(url, "accept") == {"action": "accept"}
    with pytest.raises(InvalidArguments, match="no content"):
        elicit_result(url, {"token": "x"})


def text(role: str = "user", words: str = "hi") -> dict[str, Any]:
    return {"role": role, "content": {"type": "text", "text": words}}


def uses(*ids: str) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": one, "name": "t", "input": {}} for one in ids]
    return {"role": "assistant", "content": blocks}


def results(*ids: str) -> dict[str, Any]:
    blocks = [{"type": "tool_result", "toolUseId": one, "content": []} for one in ids]
    return {"role": "user", "content": blocks}


def sampling(*messages: Any, **more: Any) -> Sampling:
    return parse_sampling({"messages": list(messages), "maxTokens": 5, **more}, server="s")


def test_a_sampling_request_is_read_whole() -> None:
    made = sampling(
        text(),
        uses("1", "2"),
        results("2", "1"),
        systemPrompt="be brief",
        temperature=1,
        stopSequences=["x", 7],
        modelPreferences={"speedPriority": 1},
        tools=[{"name": "t", "inputSchema": {}}, 7],
        toolChoice={"mode": "required"},
        metadata={"k": 1},
    )
    assert (made.model_preferences, made.metadata) == ({"speedPriority": 1}, {"k": 1})
    assert made.tools == ({"name": "t", "inputSchema": {}},)
    assert (made.max_tokens, made.system_prompt, made.temperature) == (5, "be brief", 1.0)
    assert (made.stop_sequences, made.tool_choice, len(made.tools)) == (("x",), "required", 1)
    assert len(made.messages) == 3


def test_a_sampling_request_with_the_least() -> None:
    made = parse_sampling({"messages": [text()] * 10_000, "maxTokens": 0}, server="s")
    assert (len(made.messages), made.max_tokens, made.tool_choice) == (10_000, 0, "auto")
    assert Sampling(server="s", messages=(), max_tokens=1).tool_choice == "auto"


@pytest.mark.parametrize("temperature", [True, "0.5", 10**400, -(10**400), None])
def test_a_temperature_that_is_no_number_is_none(temperature: Any) -> None:
    assert sampling(temperature=temperature).temperature is None


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": {"type": "text"}}],
        [{"role": "user"}],
        [{"role": "user", "content": [text()["content"], {}]}],
        [{"role": ["user"], "content": {"type": "text"}}],
        [text(), uses("1"), text()],
        [text(), uses("1", "2"), results("1")],
        [results("1")],
        [uses("1"), {"role": "user", "content": [*results("1")["content"], text()["content"]]}],
    ],
)
def test_messages_that_do_not_fit_together_are_refused(messages: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        sampling(*messages)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"messages": [], "maxTokens": "5"},
        {"messages": [], "maxTokens": -1},
        {"messages": 1},
        {"messages": [text()] * 10_001, "maxTokens": 5},
    ],
)
def test_a_malformed_sampling_request_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        parse_sampling(params, server="s")


def test_the_answer_of_a_model_is_the_official_one() -> None:
    made = sampling_result({"model": "m", "content": {"type": "text", "text": "x"}})
    assert mcp_types.CreateMessageResult.model_validate(made).role == "assistant"
    block = {"type": "text", "text": "x"}
    for wrong, words in (
        ({"content": block}, "no 'model'"),
        ({"role": "x", "model": "m", "content": block}, "unknown role"),
        ({"model": "m"}, "no content"),
        ({"model": "m", "content": {}}, "no content"),
        ({"model": "m", "content": [block, {}]}, "no content"),
    ):
        with pytest.raises(InvalidArguments, match=words):
            sampling_result(wrong)


def test_roots_are_file_uris() -> None:
    made = roots_result([Root("file:///a", "A"), Root("file:///b")])
    assert mcp_types.ListRootsResult.model_validate(made).roots[0].name == "A"
    assert made["roots"][1] == {"uri": "file:///b"}
    with pytest.raises(InvalidArguments, match="file://"):
        Root("https://a.example")
    with pytest.raises(InvalidArguments, match="more than"):
        roots_result([Root("file:///a")] * 1_001)
    assert len(roots_result([Root("file:///a")] * 1_000)["roots"]) == 1_000
