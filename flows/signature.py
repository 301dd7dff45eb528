"""The signature of a registered model, built by hand from our schema.

MLflow's inferred signatures refuse timestamps with a zone, and make a column required if the sample had no null. So:
nullable columns are optional; nullable integers are `double`, since pandas has no other spelling of a missing integer
that JSON and MLflow both pass on, and text where a value may lie at or beyond 2^53; booleans are text, since the
scoring server makes False of a null in `boolean`; floats are text where a column has both NaN and null, which `double`
cannot tell apart; timestamps with a zone, dates and decimals are ISO text; plain timestamps are `datetime`, text where
a value lies outside what nanoseconds can say. A column counts as nullable if its schema allows nulls and the dataset,
all of it, has some. `vae.frames` brings frames into these types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data.schema import Column, ColumnStats, Kind, Schema
from vae.casts import EXACT_IN_DOUBLE
from vae.frames import Wire

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

OUTPUT = "output"
"""Name of the parameter that chooses between `codes` and `reconstructions`."""


def wire_of(schema: Schema, stats: dict[str, ColumnStats]) -> dict[str, Wire]:
    """How each column travels; those that no model looks at (binary, nested) do not."""
    wire: dict[str, Wire] = {}
    for column in schema.columns:
        known = stats.get(column.name)
        optional = column.nullable and (known is None or known.nulls > 0)
        kind = _wire_type(column, known, optional)
        if kind is not None:
            wire[column.name] = Wire(type=kind, optional=optional, nan=known is not None and known.nans > 0)
    return wire


def _wire_type(column: Column, stats: ColumnStats | None, nullable: bool) -> str | None:
    kind = column.type
    if column.kind is Kind.array:
        return "array:double" if pa.types.is_floating(kind.value_type) else "array:long"
    if pa.types.is_boolean(kind):
        return "string"
    if pa.types.is_integer(kind):
        if _beyond(stats) or pa.types.is_uint64(kind):
            return "string"
        return "double" if nullable else "long"
    if pa.types.is_floating(kind):
        return "string" if stats is not None and stats.nans and stats.nulls else "double"
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return "string" if _beyond_nanoseconds(kind, stats) else "datetime"
    is_time = pa.types.is_temporal(kind) and not pa.types.is_duration(kind)
    is_text = column.kind in (Kind.categorical, Kind.text) or pa.types.is_decimal(kind)
    return "string" if is_time or is_text else None


def _beyond(stats: ColumnStats | None) -> bool:
    return stats is not None and any(
        isinstance(value, int) and abs(value) >= EXACT_IN_DOUBLE for value in (stats.min, stats.max)
    )


def _beyond_nanoseconds(kind: pa.TimestampType, stats: ColumnStats | None) -> bool:
    """Whether a time is outside 1677 to 2262, which is all that MLflow's `datetime` holds."""
    most = 2**63 // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
    return stats is not None and any(
        isinstance(value, int) and abs(value) >= most for value in (stats.min, stats.max)
    )


def build_signature(wire: dict[str, Wire]) -> ModelSignature:
    """MLflow's signature; what comes out depends on a parameter, so outputs are not described."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec
    from mlflow.types import Schema as Inputs
    from mlflow.types.schema import Array

    def typed(kind: str) -> Any:
        inner = kind.removeprefix("array:")
        return DataType[inner] if inner == kind else Array(DataType[inner])

    inputs: list[Any] = [
        ColSpec(typed(way.type), name, required=not way.optional) for name, way in wire.items()
    ]
    return ModelSignature(
        inputs=Inputs(inputs), params=ParamSchema([ParamSpec(OUTPUT, DataType.string, default="codes")])
    )
