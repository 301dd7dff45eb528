"""Rows as pandas frames: as a registered model's signature asks for them, and as pandas reads them.

A signature names one type a column, and MLflow refuses a frame of others before the model sees it: whole numbers where
`double` stands, timestamps where ISO text does. pandas reads the same column one way or another by what this batch
holds. So `conform` brings any frame of the same values into the signature's types; what would change one is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as _pc

from vae.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

pc = cast(Any, _pc)

EXACT_IN_DOUBLE = 2**53


class Wire(Settings):
    """How a column travels to a served model."""

    type: str
    """Name of an MLflow type, `array:` before it for fixed-size arrays."""
    optional: bool = False
    """Whether the column may be left out, and its values be null."""
    nan: bool = False
    """Whether NaN is a value of its own; else it is how pandas spells null."""


def conform(frame: pd.DataFrame, schema: pa.Schema, wire: Mapping[str, Wire]) -> pd.DataFrame:
    """The frame in the types of the signature; columns that no model looks at are dropped.

    Raises:
        ValueError: A column is missing, or holds what the model's type cannot; names the column.
    """
    table = table_of(frame, schema, wire)
    named = {name: way for name, way in wire.items() if name in frame.columns}
    for name, way in named.items():
        if way.type == "long" and table[name].null_count:
            raise ValueError(f"column {name!r}: a value is missing, and in training none ever was")
    return frame_of(table, named).set_axis(frame.index)


def frame_of(table: pa.Table, wire: Mapping[str, Wire]) -> pd.DataFrame:
    """A table as the frame that the signature asks for."""
    import pandas as pd

    return pd.DataFrame({name: _wire_series(table.column(name), way.type) for name, way in wire.items()})


def _wire_series(column: pa.ChunkedArray, kind: str) -> pd.Series[Any]:
    import pandas as pd

    if kind == "double":
        return pd.Series(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype="float64")
    if kind == "string":
        return pd.Series([_iso(value) for value in column.to_pylist()], dtype=object)
    if kind == "long":
        return pd.Series(column.to_numpy(zero_copy_only=False), dtype="int64")
    if kind == "datetime":
        return pd.Series(column.cast(pa.timestamp("ns")).to_numpy(zero_copy_only=False))
    if kind == "boolean" and column.null_count == 0:
        return pd.Series(column.to_numpy(zero_copy_only=False), dtype=bool)
    return pd.Series(column.to_pylist(), dtype=object)


def _iso(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def table_of(frame: pd.DataFrame, schema: pa.Schema, wire: Mapping[str, Wire]) -> pa.Table:
    """The frame as a table of the model's types; an optional column that is not there is null.

    Raises:
        ValueError: A column is missing, or holds what the model's type cannot; names the column.
    """
    columns: list[Any] = []
    for field in schema:
        way = wire.get(field.name)
        if way is not None and field.name in frame.columns:
            columns.append(_typed(frame[field.name], field.type, way, field.name))
        elif way is None or way.optional:
            columns.append(pa.nulls(len(frame), field.type))
        else:
            raise ValueError(
                f"column {field.name!r} is missing; only those that had nulls in training may be"
            )
    return pa.Table.from_arrays(columns, schema=schema)


def _typed(series: Any, kind: pa.DataType, way: Wire, name: str) -> pa.Array:
    if series.ndim > 1:
        raise ValueError(f"column {name!r} occurs twice")
    try:
        return _cast(_arrow(series, way), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise ValueError(f"column {name!r}: {' '.join(str(error).split())}") from error


def _arrow(series: Any, way: Wire) -> pa.Array:
    """The values as they are; of objects that have no type in common, their text."""
    import pandas as pd

    if isinstance(series.dtype, pd.DatetimeTZDtype):  # which Arrow reads by a way that pandas 3 warns of
        moments = cast(Any, pa.array(series.dt.tz_convert(None)))
        return moments.cast(pa.timestamp(moments.type.unit, "UTC"))
    try:
        values = cast(Any, pa.array(series, from_pandas=not way.nan))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        if series.dtype != object or way.type != "string":
            raise
        gone = pd.isna(series)
        values = pa.array(
            [None if no else _iso(value) for value, no in zip(series, gone, strict=True)], pa.string()
        )
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _family(kind: pa.DataType) -> str:
    """What converts into each other without a second meaning: a number is no date, though Arrow would have it so.

    >>> _family(pa.date32()), _family(pa.decimal128(9, 2)), _family(pa.large_string())
    ('times', 'numbers', 'text')
    """
    is_any = pa.types
    if is_any.is_string(kind) or is_any.is_large_string(kind) or is_any.is_string_view(kind):
        return "text"
    if (
        is_any.is_boolean(kind)
        or is_any.is_decimal(kind)
        or is_any.is_integer(kind)
        or is_any.is_floating(kind)
    ):
        return "numbers"
    return "times" if is_any.is_temporal(kind) else "others"


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.null_count == len(values):
        return pa.nulls(len(values), kind)
    if pa.types.is_dictionary(kind):
        return _cast(values, kind.value_type).cast(kind)
    given, wanted = _family(values.type), _family(kind)
    if given == "text":
        return _parsed(values, kind)
    if given != wanted:
        way_out = "; read it as text (dtype=str)" if wanted == "text" else ""
        raise pa.ArrowInvalid(f"has {given} ({values.type}) where the model has {wanted} ({kind}){way_out}")
    if given == "numbers":
        return _number(values, kind)
    if given == "times":
        return _time(values, kind)
    return values.cast(kind)


def _number(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind) and not pa.types.is_decimal(values.type):
        # By the text: 1.1 as a double is not 1.10, and Arrow asks room for the most digits an integer could have.
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string()).cast(kind)
    if pa.types.is_integer(kind) and pa.types.is_floating(values.type):
        largest = pc.max(pc.abs(values)).as_py()
        if largest is not None and largest >= EXACT_IN_DOUBLE:
            raise pa.ArrowInvalid(
                f"{largest:.0f} as a float has lost digits; read it as dtype='Int64' or as text"
            )
    found = values.cast(kind)
    return _unchanged(values, found) if pa.types.is_boolean(kind) else found


def _time(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(values.type) and values.type.tz and not getattr(kind, "tz", "no"):
        raise pa.ArrowInvalid(f"has a zone ({values.type.tz}), the model's times have none; take it off")
    return _unchanged(values, values.cast(kind))


def _unchanged(values: pa.Array, found: pa.Array) -> pa.Array:
    """`found`, if it says all that `values` do: Arrow takes 2 for true, and drops the hour of a date."""
    if not found.cast(values.type).equals(values):
        raise pa.ArrowInvalid(f"{values.type} does not fit into {found.type} without loss")
    return found


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    texts = texts.cast(pa.string())
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            # Arrow reads either only texts with an offset or only texts without: say UTC where nothing is said.
            has_zone = pc.match_substring_regex(texts, r"(Z|[+-]\d\d:?\d\d)$")
            texts = pc.if_else(has_zone, texts, pc.binary_join_element_wise(texts, "Z", ""))
        return _moments(texts, kind)
    if pa.types.is_time(kind):  # Arrow reads no times of day, but moments
        day = _moments(pc.binary_join_element_wise("1970-01-01", texts, "T"), pa.timestamp("ns"))
        return day.cast(pa.time64("ns")).cast(kind)
    if pa.types.is_date(kind):
        with contextlib.suppress(pa.ArrowInvalid):  # as JSON spells the date of a timestamp: with midnight
            return _unchanged(day := _moments(texts, pa.timestamp("us")), day.cast(kind))
    return texts.cast(kind)


def _moments(texts: pa.Array, kind: Any) -> pa.Array:
    """Timestamps from text; Arrow reads no more digits of a second than the unit has, even if all are 0."""
    for unit in (kind.unit, "us", "ns"):
        with contextlib.suppress(pa.ArrowInvalid):
            return texts.cast(pa.timestamp(unit, kind.tz)).cast(kind)
    return texts.cast(kind)
