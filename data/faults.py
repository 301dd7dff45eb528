"""What pydantic finds wrong in a file that a person wrote, as one line: the key, the value and the way out."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

LONGEST_VALUE = 100
"""Characters of a value at fault that are shown."""


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of what was to be `model`; where a key is missing, one that is not known counts before it.

    >>> from data.schema import Schema
    >>> try:
    ...     Schema.model_validate({"columns": [{"name": "a", "knd": "text"}]})
    ... except ValidationError as error:
    ...     first_fault(error, Schema)
    "unknown key 'columns.0.knd'; did you mean 'kind'?"
    """
    faults = error.errors(include_url=False, include_context=False)
    fault = faults[0]
    if fault["type"] == "missing":
        fault = next((other for other in faults if other["type"] == "extra_forbidden"), fault)
    key = ".".join(str(part) for part in fault["loc"]) or "top level"
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if known else ""
        return f"unknown key {key!r}{hint}"
    message = fault["msg"].removeprefix("Value error, ")
    value = repr(fault["input"])
    shown = value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"
    return f"{key}: {message} (got {shown})"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    for part in location:
        if isinstance(part, int):
            continue
        inner = _model_in(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that `annotation` is, may be, or has many of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _model_in(part))), None)
