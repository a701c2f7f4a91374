"""``x-mcp-header``: every rule, and where an annotation is none."""

from __future__ import annotations

from typing import Any

import pytest

from sark_trio.mcp.headers import ParamHeader
from sark_trio.mcp.schemas import (
    PARAM_HEADERS_MAX,
    InvalidParamHeader,
    parse_param_headers,
)

REGION = {"type": "string", "x-mcp-header": "Region"}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_a_schema_without_annotations_mirrors_nothing() -> None:
    assert parse_param_headers({"type": "object"}) == ()
    assert parse_param_headers(schema(a={"type": "string"})) == ()
    assert parse_param_headers({}) == ()


@pytest.mark.parametrize("kind", ["string", "integer", "boolean"])
def test_primitives_are_mirrored(kind: str) -> None:
    found = parse_param_headers(schema(region={"type": kind, "x-mcp-header": "Region"}))
    assert found == (ParamHeader("Mcp-Param-Region", ("region",)),)


def test_nested_properties_are_mirrored_in_document_order() -> None:
    nested = schema(shard={"type": "integer", "x-mcp-header": "Shard"})
    found = parse_param_headers(schema(target=nested, region=REGION))
    assert found == (
        ParamHeader("Mcp-Param-Shard", ("target", "shard")),
        ParamHeader("Mcp-Param-Region", ("region",)),
    )


@pytest.mark.parametrize(
    "bad", ["", "a b", "a:b", "é", "a\r\nb", "a\n", "\0", "x" * 129, None, 1, True, ["Region"], {}]
)
def test_the_value_is_a_header_name_token(bad: Any) -> None:
    with pytest.raises(InvalidParamHeader, match="property 'region'"):
        parse_param_headers(schema(region={"type": "string", "x-mcp-header": bad}))


@pytest.mark.parametrize("kind", ["number", "object", "array", "null", ["string", "null"], None])
def test_other_types_are_refused(kind: Any) -> None:
    with pytest.raises(InvalidParamHeader, match="only"):
        parse_param_headers(schema(region={"type": kind, "x-mcp-header": "Region"}))


def test_a_missing_type_is_refused() -> None:
    with pytest.raises(InvalidParamHeader, match="only"):
        parse_param_headers(schema(region={"$ref": "#/$defs/r", "x-mcp-header": "Region"}))


def test_names_are_unique_whatever_their_case() -> None:
    twice = schema(a=REGION, b={"type": "string", "x-mcp-header": "rEGION"})
    with pytest.raises(InvalidParamHeader, match="used twice"):
        parse_param_headers(twice)


@pytest.mark.parametrize(
    "elsewhere",
    [
        REGION,  # the root itself
        schema(a={"type": "array", "items": REGION}),
        schema(a={"type": "array", "prefixItems": [REGION]}),
        schema(a={"type": "array", "items": schema(b=REGION)}),
        {"anyOf": [schema(region=REGION)]},
        {"allOf": [{"oneOf": [REGION]}]},
        {"not": REGION},
        {"if": schema(region=REGION)},
        {"then": REGION, "else": {}},
        {"$defs": {"properties": REGION}},
        {"definitions": {"r": REGION}},
        {"patternProperties": {"^r": REGION}},
        {"dependentSchemas": {"r": schema(r=REGION)}},
        {"additionalProperties": REGION},
        {"unknownKeyword": {"deeper": [REGION]}},
        {"properties": [REGION]},
        schema(**{"x-mcp-header": {"x-mcp-header": {"type": "string"}, "type": "string"}}),
    ],
)
def test_an_annotation_elsewhere_is_refused(elsewhere: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamHeader):
        parse_param_headers(elsewhere)


@pytest.mark.parametrize(
    "keyword", ["patternProperties", "$defs", "definitions", "dependentSchemas"]
)
def test_a_name_of_the_authors_choice_may_be_that_of_data(keyword: str) -> None:
    with pytest.raises(InvalidParamHeader, match="no chain"):
        parse_param_headers({keyword: {"default": REGION}})


@pytest.mark.parametrize("keyword", ["const", "default", "enum", "examples"])
def test_data_is_no_annotation(keyword: str) -> None:
    assert parse_param_headers(schema(a={"type": "object", keyword: [REGION]})) == ()


def test_a_property_may_be_named_as_the_annotation_is() -> None:
    assert parse_param_headers(schema(**{"x-mcp-header": {"type": "string"}})) == ()
    found = parse_param_headers(schema(**{"x-mcp-header": REGION}))
    assert found == (ParamHeader("Mcp-Param-Region", ("x-mcp-header",)),)


def test_a_property_may_be_named_as_a_keyword_is() -> None:
    found = parse_param_headers(schema(default=REGION, properties=schema(items={})))
    assert found == (ParamHeader("Mcp-Param-Region", ("default",)),)


def test_there_are_not_too_many() -> None:
    def many(count: int) -> dict[str, Any]:
        return schema(
            **{f"p{n}": {"type": "string", "x-mcp-header": f"H{n}"} for n in range(count)}
        )

    assert len(parse_param_headers(many(PARAM_HEADERS_MAX))) == PARAM_HEADERS_MAX == 64
    with pytest.raises(InvalidParamHeader, match="more than"):
        parse_param_headers(many(PARAM_HEADERS_MAX + 1))


def test_a_deep_schema_does_not_recurse() -> None:
    deep: dict[str, Any] = REGION
    for _ in range(5_000):
        deep = {"items": deep}
    with pytest.raises(InvalidParamHeader):
        parse_param_headers(deep)
