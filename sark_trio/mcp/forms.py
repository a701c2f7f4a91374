"""Forms that a server wants filled in: MCP 2026-07-28, "Requested Schema".

A form is flat: named fields of a few primitive kinds. What a person entered is completed with
the defaults of the schema and checked before it is sent; a field of a kind that no revision
knows is passed through unchecked, since a later one may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, final
from urllib.parse import urlsplit

from attrs import field, frozen

from sark_trio.errors import InvalidArguments, ProtocolError

__all__ = ["Field", "Form", "parse_form"]

#: A form is for people: nobody fills in more.
FIELDS_MAX: Final = 256
#: A person does not type more into one field; a server's ``maxLength`` may be anything.
TEXT_CHARS_MAX: Final = 65_536
#: Choices of one field that are compared.
CHOICES_MAX: Final = 10_000

Kind = Literal["string", "number", "integer", "boolean", "array"]
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
}
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\Z")
#: RFC 3339, section 5.6: full-date, and what follows it in a date-time.
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME: Final = re.compile(
    r"[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_MONTH_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _is_uri(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme) and not re.search(r"\s", text)
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    found = _DATE.fullmatch(text)
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= month <= 12 and 1 <= day <= _MONTH_DAYS[month - 1] + (leap and month == 2)


def _is_date_time(text: str) -> bool:
    return _is_date(text[:10]) and _TIME.fullmatch(text, 10) is not None


_FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {
    "email": lambda text: _EMAIL.match(text) is not None,
    "uri": _is_uri,
    "date": _is_date,
    "date-time": _is_date_time,
}


@final
@frozen(kw_only=True)
class Field:
    """One field of a form.

    :param kind: ``string``, ``number``, ``integer``, ``boolean``, ``array`` (several choices),
        or whatever else the server wrote.
    :param choices: the values that are allowed, each with its title; empty: any.
    """

    name: str
    kind: str
    title: str | None = None
    description: str | None = None
    required: bool = False
    has_default: bool = False
    default: Any = None
    choices: Mapping[str, str] = field(factory=dict)
    #: The field's schema as it came.
    schema: Mapping[str, Any] = field(factory=dict, repr=False)


@final
@frozen
class Form:
    """The fields of a form, in the server's order."""

    fields: tuple[Field, ...]
    #: The schema as it came.
    schema: Mapping[str, Any] = field(repr=False)

    def complete(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """*content* with the defaults of fields that it leaves out.

        :raises InvalidArguments: a field is missing, unknown, or breaks its schema. The message
            names the field, never its value.
        """
        known = {one.name for one in self.fields}
        for name in content:
            if name not in known:
                raise InvalidArguments(f"the form has no field {str(name)[:80]!r}")
        filled: dict[str, Any] = {}
        for one in self.fields:
            if one.name in content:
                _check(one, content[one.name])
                filled[one.name] = content[one.name]
            elif one.has_default:
                filled[one.name] = one.default
            elif one.required:
                raise InvalidArguments(f"the form's field {one.name!r} is required")
        return filled


def parse_form(schema: Any) -> Form:
    """The form that a ``requestedSchema`` describes.

    :raises ProtocolError: it describes none, or one with too many fields.
    """
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise _malformed("its schema describes no object")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or len(properties) > FIELDS_MAX:
        raise _malformed(f"its fields are no object of at most {FIELDS_MAX}")
    required = schema.get("required") or []
    if not isinstance(required, list):
        raise _malformed("'required' is not a list")
    return Form(
        tuple(_field(name, one, required=name in required) for name, one in properties.items()),
        schema,
    )


def _field(name: str, schema: Any, *, required: bool) -> Field:
    if not isinstance(schema, Mapping):
        raise _malformed(f"field {name[:80]!r} has no schema")
    kind = schema.get("type", "string")
    return Field(
        name=name,
        kind=kind if type(kind) is str else "",
        title=_text(schema.get("title")),
        description=_text(schema.get("description")),
        required=required,
        has_default="default" in schema,
        default=schema.get("default"),
        choices=_choices(schema),
        schema=schema,
    )


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def _choices(schema: Mapping[str, Any]) -> dict[str, str]:
    """Value to title: ``enum`` (with ``enumNames`` until 2025-11-25), ``oneOf`` or ``anyOf``."""
    items = schema.get("items")
    source = items if isinstance(items, Mapping) else schema
    titled = source.get("oneOf") or source.get("anyOf")
    if isinstance(titled, list):
        pairs = [(one.get("const"), one.get("title")) for one in titled if isinstance(one, Mapping)]
    else:
        values = source.get("enum")
        values = values if isinstance(values, list) else []
        names = source.get("enumNames")
        names = names if isinstance(names, list) and len(names) == len(values) else values
        pairs = list(zip(values, names, strict=True))
    return {
        value: title if type(title) is str else value
        for value, title in pairs[:CHOICES_MAX]
        if type(value) is str
    }


def _check(one: Field, value: Any) -> None:
    kinds = _TYPES.get(one.kind)
    if kinds is None:
        return
    whole = type(value) is float and value.is_integer()
    if type(value) not in kinds and not (one.kind == "integer" and whole):
        raise InvalidArguments(f"the form's field {one.name!r} wants a value of type {one.kind}")
    problem = ""
    if one.kind == "string":
        problem = _check_text(one, value)
    elif one.kind in {"number", "integer"}:
        problem = _check_number(one.schema, value)
    elif one.kind == "array":
        problem = _check_items(one, value)
    if problem:
        raise InvalidArguments(f"the form's field {one.name!r} {problem}")


def _check_text(one: Field, text: str) -> str:
    if len(text) > TEXT_CHARS_MAX:
        return f"is longer than {TEXT_CHARS_MAX} characters"
    if one.choices and text not in one.choices:
        return "is none of its choices"
    low, high = _bounds(one.schema, "minLength", "maxLength")
    if not low <= len(text) <= high:
        return "is too short or too long"
    wanted = one.schema.get("format")
    test = _FORMATS.get(wanted) if type(wanted) is str else None
    return f"is no {wanted}" if test is not None and not test(text) else ""


def _check_number(schema: Mapping[str, Any], value: float) -> str:
    low, high = _bounds(schema, "minimum", "maximum")
    return "" if low <= value <= high else "is too small or too large"


def _check_items(one: Field, values: list[Any]) -> str:
    low, high = _bounds(one.schema, "minItems", "maxItems")
    if not low <= len(values) <= high:
        return "has too few or too many items"
    if one.choices and not all(type(each) is str and each in one.choices for each in values):
        return "has an item that is none of its choices"
    return ""


def _bounds(schema: Mapping[str, Any], low: str, high: str) -> tuple[float, float]:
    """Bounds that are no numbers are none."""
    found = [schema.get(low), schema.get(high)]
    numbers = [one if type(one) in {int, float} else None for one in found]
    least, most = numbers
    return (
        float("-inf") if least is None else least,
        float("inf") if most is None else most,
    )


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(f"the server's form is malformed: {what}", delivery="answered")
