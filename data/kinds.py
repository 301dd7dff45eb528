"""Kinds of columns, the base of all records, and how messages list names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

CATEGORY_CAP = 10_000
"""Most distinct values of a categorical column; distinct values are counted exactly up to here."""


class Frozen(BaseModel):
    """Base of the data package's records: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some settings changed; what was cached of the original is not the copy's."""
        copy = super().model_copy(update=update, deep=deep)
        for name in vars(copy).keys() - type(self).model_fields.keys():
            del vars(copy)[name]
        return copy


class Kind(StrEnum):
    """What a column's values mean to a model."""

    numeric = "numeric"
    integer = "integer"
    boolean = "boolean"
    categorical = "categorical"
    timestamp = "timestamp"
    text = "text"
    array = "array"
    other = "other"


DEFAULT_TYPES = {
    Kind.numeric: "double",
    Kind.integer: "int64",
    Kind.boolean: "bool",
    Kind.categorical: "string",
    Kind.timestamp: "timestamp[s]",
    Kind.text: "string",
}
"""Arrow type of a column whose schema states the kind alone."""


def kind_of(type_: pa.DataType) -> Kind:
    """The kind that an Arrow type alone tells; strings are text until their values have been counted."""
    types = pa.types
    if types.is_boolean(type_):
        return Kind.boolean
    if types.is_integer(type_):
        return Kind.integer
    if types.is_floating(type_):
        return Kind.numeric
    if types.is_timestamp(type_) or types.is_date(type_):
        return Kind.timestamp
    if is_text(type_):
        return Kind.text
    if types.is_dictionary(type_) and is_text(type_.value_type):
        return Kind.categorical
    if types.is_fixed_size_list(type_) and types.is_primitive(type_.value_type):
        return Kind.array
    return Kind.other


def is_text(type_: pa.DataType) -> bool:
    """Whether values are Unicode strings of any layout."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def listed(names: Sequence[str]) -> str:
    """All column names, or the first of very many."""
    return f"the columns are {', '.join(names[:50])}" + (", ..." if len(names) > 50 else "")
