"""Rows as pandas frames: as a registered model's signature asks for them, and as pandas reads them.

A signature names one type a column, and MLflow refuses a frame of others before the model sees it: whole numbers where
`double` stands, timestamps where ISO text does. pandas reads the same column one way or another by what this batch
holds. So `conform` brings any frame of the same values into the signature's types; what would change one is refused.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as _pc

from data.schema import is_text
from vae.casts import EXACT_IN_DOUBLE, convert, spell, zone_refused
from vae.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

pc = cast(Any, _pc)

NULL_KEY = b"svae.null"
"""Where a field says how its source spells null (see `data.schema`)."""
_NEVER_MISSING = "a value is missing, and in training none ever was"


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
        column = table[name]
        if column.null_count and (way.type == "long" or (way.type == "double" and way.nan)):
            raise ValueError(f"column {name!r}: {_NEVER_MISSING}")
        if way.type.startswith("array:") and pc.list_flatten(column).null_count:
            raise ValueError(f"column {name!r}: a number is missing within an array")
    return frame_of(table, named).set_axis(frame.index)


def request(
    frame: pd.DataFrame,
    schema: pa.Schema,
    wire: Mapping[str, Wire],
    params: Mapping[str, Any] | None = None,
) -> str:
    """The frame as the JSON that a served model takes, each value as it is.

    Floats have all their digits, times nine of a second; NaN and infinities, which JSON has no numbers for, are text.

    Raises:
        ValueError: As `conform`; or an array holds NaN or infinity, which the server would not read.
    """
    asked = conform(frame, schema, wire)
    columns = [_cells(asked[name], wire[name], name) for name in asked.columns]
    rows = list(zip(*columns, strict=True)) if columns else [()] * len(asked)
    body = {"dataframe_split": {"columns": list(asked.columns), "data": rows}}
    return json.dumps(body | ({"params": dict(params)} if params else {}), allow_nan=False)


def _cells(series: Any, way: Wire, name: str) -> list[Any]:
    """The values of a column that conforms, as JSON has them."""
    if way.type == "double":
        return [_json_number(value, way.nan) for value in series.tolist()]
    if way.type == "datetime":
        return spell(pa.array(series)).to_pylist()
    cells = series.tolist()
    if way.type == "array:double" and any(not math.isfinite(v) for cell in cells if cell for v in cell):
        raise ValueError(f"column {name!r}: an array holds NaN or infinity, which JSON cannot say")
    return cells


def _json_number(value: float, nan: bool) -> float | str | None:
    """JSON's spelling of a double, the server's for what JSON has no number for.

    >>> [_json_number(value, nan=False) for value in (0.1, math.inf, math.nan)], _json_number(math.nan, nan=True)
    ([0.1, 'inf', None], 'nan')
    """
    if math.isnan(value) and not nan:
        return None
    return value if math.isfinite(value) else repr(value)


def frame_of(table: pa.Table, wire: Mapping[str, Wire]) -> pd.DataFrame:
    """A table as the frame that the signature asks for.

    Raises:
        ValueError: A column holds what its type on the wire cannot; names the column.
    """
    import pandas as pd

    series: dict[str, Any] = {}
    for name, way in wire.items():
        with _named(name):
            series[name] = _wire_series(cast(Any, table.column(name).combine_chunks()), way)
    return pd.DataFrame(series)


def _wire_series(values: pa.Array, way: Wire) -> pd.Series[Any]:
    import pandas as pd

    if way.type == "double":
        return pd.Series(_doubles(values, way).to_numpy(zero_copy_only=False), dtype="float64")
    if way.type == "string":
        return pd.Series(spell(values).to_pylist(), dtype=object)
    if way.type == "long":
        return pd.Series(values.to_numpy(zero_copy_only=False), dtype="int64")
    if way.type == "datetime":
        return pd.Series(_nanoseconds(values).to_numpy(zero_copy_only=False))
    if way.type == "boolean" and values.null_count == 0:  # of versions registered before booleans were text
        return pd.Series(values.to_numpy(zero_copy_only=False), dtype=bool)
    return pd.Series(values.to_pylist(), dtype=object)


def _doubles(values: pa.Array, way: Wire) -> pa.Array:
    if pa.types.is_integer(values.type):
        found = pc.min_max(values).as_py()
        worst = max((value or 0 for value in found.values()), key=abs)
        if abs(worst) >= EXACT_IN_DOUBLE:
            raise pa.ArrowInvalid(f"{worst} is not within 2^53 of 0, as every value was in training")
    numbers = convert(values, pa.float64())
    if not way.nan and pc.any(pc.is_nan(numbers)).as_py():
        raise pa.ArrowInvalid("NaN is a value here that is not null, and in training there was none")
    return numbers


def _nanoseconds(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.timestamp("ns"))
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid("a time lies outside 1677 to 2262, and in training none did") from error


def table_of(frame: pd.DataFrame, schema: pa.Schema, wire: Mapping[str, Wire]) -> pa.Table:
    """The frame as a table of the model's types; an optional column that is not there is null.

    Raises:
        ValueError: A column is missing, or holds what the model's type cannot; names the column.
    """
    columns: list[Any] = []
    for field in schema:
        way = wire.get(field.name)
        if way is not None and field.name in frame.columns:
            columns.append(_typed(frame[field.name], field, way))
        elif way is None or way.optional:
            columns.append(pa.nulls(len(frame), field.type))
        else:
            raise ValueError(
                f"column {field.name!r} is missing; only those that had nulls in training may be"
            )
    return pa.Table.from_arrays(columns, schema=schema)


def _typed(series: Any, field: pa.Field, way: Wire) -> pa.Array:
    if series.ndim > 1:
        raise ValueError(f"column {field.name!r} occurs twice")
    with _named(field.name):
        return convert(_without_null_text(_arrow(series, field.type, way), field), field.type)


def _without_null_text(values: pa.Array, field: pa.Field) -> pa.Array:
    """Null where a text says so as the source of the training did: NA among numbers, never among words."""
    null_text = (field.metadata or {}).get(NULL_KEY)
    if null_text is None or not is_text(values.type) or _holds_text(field.type):
        return values
    return pc.if_else(pc.equal(values, null_text.decode()), pa.scalar(None, values.type), values)


def _holds_text(kind: Any) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


@contextlib.contextmanager
def _named(name: str) -> Generator[None]:
    """Errors of the values in here name the column."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise ValueError(f"column {name!r}: {' '.join(str(error).split())}") from error


def _arrow(series: Any, kind: pa.DataType, way: Wire) -> pa.Array:
    """The values as they are; of objects that have no type in common, their text."""
    import pandas as pd

    if isinstance(series.dtype, pd.DatetimeTZDtype):  # which Arrow reads by a way that pandas 3 warns of
        moments = cast(Any, pa.array(series.dt.tz_convert(None)))
        return moments.cast(pa.timestamp(moments.type.unit, "UTC"))
    plain_float = not pd.api.types.is_extension_array_dtype(series.dtype) and series.dtype.kind == "f"
    if plain_float and way.nan and way.type == "string" and series.hasnans:
        raise pa.ArrowInvalid(
            "NaN may be null here or a value of its own; read it as text, or as objects with None for null"
        )
    if series.dtype == object:
        return _of_objects(series, kind, way)
    return _whole(pa.array(series, from_pandas=not way.nan))


def _whole(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _of_objects(series: Any, kind: pa.DataType, way: Wire) -> pa.Array:
    import pandas as pd

    if pa.types.is_temporal(kind) and any(isinstance(value, dt.datetime) for value in series):
        return _texts(series, lambda value: _moment(value, kind))  # Arrow cuts them to microseconds
    if way.type.startswith("array:"):  # NaN within one is a number, only in place of one is it null
        return _whole(pa.array([None if gone else value for value, gone in _and_missing(series)]))
    plain = [None if value is pd.NA else value for value in series]
    try:
        return _whole(pa.array(plain, from_pandas=not way.nan))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        if way.type != "string":
            raise
        return _texts(series, lambda value: value.isoformat() if hasattr(value, "isoformat") else str(value))


def _and_missing(series: Any) -> Iterator[tuple[Any, bool]]:
    """Each value, and whether it is None, NaN, NA or NaT."""
    import pandas as pd

    return zip(series, pd.isna(series), strict=True)


def _texts(series: Any, spelled: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if gone else spelled(value) for value, gone in _and_missing(series)], pa.string())


def _moment(value: Any, kind: Any) -> str:
    """ISO text of a time, in UTC if it has a zone."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dt.date):  # of which datetimes are a kind
        raise pa.ArrowTypeError(f"{value!r} is no time")
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        return value.isoformat()
    if not getattr(kind, "tz", None):
        raise pa.ArrowTypeError(zone_refused(value.tzinfo))
    return value.astimezone(dt.UTC).isoformat()
