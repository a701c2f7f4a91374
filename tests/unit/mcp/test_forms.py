"""Forms: what is left out is filled in, what breaks the schema is not sent."""

from __future__ import annotations

from calendar import monthrange
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_trio.errors import InvalidArguments, ProtocolError
from sark_trio.mcp.forms import Field, Form, parse_form


def form(required: tuple[str, ...] = (), **properties: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return parse_form(schema)


def test_defaults_are_filled_in_and_what_was_entered_stays() -> None:
    made = form(
        name={"type": "string", "default": "John"},
        age={"type": "integer", "default": 30},
        seen={"type": "boolean", "default": False},
        note={"type": "string"},
    )
    assert made.complete({"age": 31}) == {"name": "John", "age": 31, "seen": False}


def test_what_is_required_is_missed() -> None:
    with pytest.raises(InvalidArguments, match="'name' is required"):
        form(("name",), name={"type": "string"}).complete({})


def test_fields_that_the_form_does_not_have_are_refused() -> None:
    with pytest.raises(InvalidArguments, match="no field 'other'"):
        form(name={"type": "string"}).complete({"other": 1})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, "x", 1),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "xy", "x"),
        ({"type": "string", "format": "email"}, "a@b.example", "nobody"),
        ({"type": "string", "format": "uri"}, "https://a.example/b", "no uri"),
        ({"type": "string", "format": "uri"}, "urn:x", "http://[broken"),
        ({"type": "string", "format": "uri"}, "urn:x", "nothing"),
        ({"type": "string", "format": "uri"}, "urn:x", "urn:a b"),
        ({"type": "string", "format": "date"}, "2026-07-28", "2026-13-01"),
        ({"type": "string", "format": "date"}, "2028-02-29", "2026-02-29"),
        ({"type": "string", "format": "date"}, "2000-02-29", "1900-02-29"),
        ({"type": "string", "format": "date"}, "2026-04-30", "2026-04-31"),
        ({"type": "string", "format": "date"}, "2026-12-31", "2026-00-10"),
        ({"type": "string", "format": "date"}, "2026-01-01", "2026-01-00"),
        ({"type": "string", "format": "date"}, "0001-01-01", "2026-07-28 "),
        ({"type": "string", "format": "date"}, "2026-07-28", "\u0662\u0660\u0662\u0666-07-28"),
        ({"type": "string", "format": "date-time"}, "2026-07-28T10:00:00Z", "2026-07-28"),
        (
            {"type": "string", "format": "date-time"},
            "2026-06-30t23:59:60.5-12:00",
            "2026-06-31t10:00:00z",
        ),
        (
            {"type": "string", "format": "date-time"},
            "2026-07-28T10:00:00+05:30",
            "2026-07-28T24:00:00Z",
        ),
        (
            {"type": "string", "format": "date-time"},
            "2026-07-28T10:00:00Z",
            "2026-07-28T10:00:00Z\n",
        ),
        ({"type": "string", "enum": ["a", "b"]}, "a", "c"),
        ({"type": "string", "oneOf": [{"const": "#f00", "title": "Red"}]}, "#f00", "Red"),
        ({"type": "number", "minimum": 0, "maximum": 1}, 0.5, 2),
        ({"type": "number", "minimum": 0, "maximum": 1}, 1, 1.5),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "xyz", "wxyz"),
        ({"type": "array", "minItems": 2, "maxItems": 3}, ["a", "b"], ["a"]),
        ({"type": "integer"}, 3.0, 3.5),
        ({"type": "integer", "minimum": 18}, 18, 17),
        ({"type": "boolean"}, True, "yes"),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 1}, ["a"], ["a", "b"]),
        ({"type": "array", "items": {"anyOf": [{"const": "a"}]}}, ["a"], ["z"]),
        ({"type": "integer"}, 1, True),
    ],
)
def test_a_value_is_held_to_its_schema(schema: dict[str, Any], good: Any, bad: Any) -> None:
    made = form(field=schema)
    assert made.complete({"field": good}) == {"field": good}
    with pytest.raises(InvalidArguments, match="'field'") as caught:
        made.complete({"field": bad})
    assert "Red" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"type": "string", "enum": ["a"]}, "b", "is none of its choices"),
        ({"type": "string", "minLength": 1}, "", "is too short or too long"),
        ({"type": "number", "maximum": 1}, 2, "is too small or too large"),
        ({"type": "array", "minItems": 1}, [], "has too few or too many items"),
        (
            {"type": "array", "items": {"enum": ["a"]}},
            ["a", "z"],
            "has an item that is none of its choices",
        ),
    ],
)
def test_what_is_wrong_is_said(schema: dict[str, Any], value: Any, problem: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        form(field=schema).complete({"field": value})
    assert str(caught.value) == f"the form's field 'field' {problem}"


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize("year", [2026, 2028])
def test_a_month_has_its_days(year: int, month: int) -> None:
    made = form(day={"type": "string", "format": "date"})
    _, days = monthrange(year, month)
    assert made.complete({"day": f"{year}-{month:02}-{days}"})
    with pytest.raises(InvalidArguments, match="is no date"):
        made.complete({"day": f"{year}-{month:02}-{days + 1}"})


def test_everything_that_a_field_says_is_read() -> None:
    schema = {"type": "string", "title": "T", "description": "d", "default": "x", "enum": ["x"]}
    made = parse_form({"properties": {"a": schema, "b": {}, "c": {"type": ["string"]}}})
    first, second, third = made.fields
    assert first == Field(
        name="a",
        kind="string",
        title="T",
        description="d",
        required=False,
        has_default=True,
        default="x",
        choices={"x": "x"},
        schema=schema,
    )
    assert second == Field(name="b", kind="string", required=False, has_default=False)
    assert (third.kind, third.title) == ("", None)
    assert (Field(name="b", kind="").required, Field(name="b", kind="").has_default) == (False,) * 2


def test_limits_of_a_form_are_inclusive() -> None:
    made = parse_form({"properties": {str(n): {} for n in range(256)}})
    assert isinstance(made, Form)
    assert len(made.fields) == 256
    assert made.complete({"0": "x" * 65_536})
    many = form(a={"type": "string", "enum": [str(n) for n in range(10_001)]})
    assert len(many.fields[0].choices) == 10_000


def test_a_format_or_kind_of_a_later_revision_is_let_through() -> None:
    made = form(a={"type": "string", "format": "new"}, b={"type": "new"}, c={"type": ["string"]})
    content = {"a": "x", "b": {"any": "thing"}, "c": 1}
    assert made.complete(content) == content


def test_a_text_is_not_longer_than_a_person_types() -> None:
    with pytest.raises(InvalidArguments, match="longer than"):
        form(a={"type": "string"}).complete({"a": "x" * 65_537})


def test_choices_have_titles() -> None:
    made = form(
        plain={"type": "string", "enum": ["a", "b"]},
        named={"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]},
        titled={"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b"}, 7]},
    )
    assert [dict(one.choices) for one in made.fields] == [
        {"a": "a", "b": "b"},
        {"a": "A", "b": "B"},
        {"a": "A", "b": "b"},
    ]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {"type": "array"},
        {"properties": []},
        {"properties": {str(n): {} for n in range(257)}},
        {"properties": {"a": 1}},
        {"properties": {}, "required": "a"},
    ],
)
def test_what_is_no_form_is_refused(schema: Any) -> None:
    with pytest.raises(ProtocolError, match="form is malformed") as caught:
        parse_form(schema)
    assert caught.value.delivery == "answered"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
SCHEMAS = st.dictionaries(
    st.sampled_from(["type", "default", "enum", "oneOf", "items", "minLength", "format"]),
    JSON | st.sampled_from(["string", "number", "integer", "boolean", "array", "email"]),
)


@given(st.dictionaries(st.text(max_size=3), SCHEMAS, max_size=3), JSON)
def test_reading_a_form_never_fails_otherwise(properties: dict[str, Any], content: Any) -> None:
    made = parse_form({"type": "object", "properties": properties})
    if isinstance(content, dict):
        try:
            filled = made.complete(content)
        except InvalidArguments:
            return
        assert set(filled) >= set(content)
