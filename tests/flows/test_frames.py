"""Frames in the types of a signature, and frames as pandas reads them: every kind of column comes back as it was."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data.schema import ColumnStats, Schema
from flows.signature import build_signature, wire_of
from vae.frames import conform, frame_of, table_of

KINDS = pa.table({
    "small": pa.array([1, 2, None], pa.int32()),
    "wide": pa.array([2**60 + 1, None, -(2**55)], pa.int64()),
    "unsigned": pa.array([2**64 - 1, 0, 1], pa.uint64()),
    "flag": pa.array([True, None, False]),
    "sure": pa.array([True, True, False]),
    "double": pa.array([1.5, None, -0.0]),
    "nans": pa.array([1.5, float("nan"), 2.0]),
    "plain": pa.array([1_600_000_000_123_456, None, -1], pa.timestamp("us")),
    "zoned": pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * 2 + [None], pa.timestamp("ms", "Europe/Paris")),
    "day": pa.array([dt.date(2020, 1, 1), None, dt.date(1969, 1, 1)]),
    "money": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-3.00")], pa.decimal128(9, 2)),
    "text": pa.array(["a", None, ""]),
    "vector": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64(), 2)),
    "bytes": pa.array([b"x", b"y", b"z"]),
})  # fmt: skip


def test_every_kind_travels_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.models.utils import _enforce_schema

    schema = Schema.from_arrow(KINDS.schema)
    stats = {
        name: ColumnStats(nulls=KINDS[name].null_count, nans=1 if name == "nans" else 0)
        for name in KINDS.column_names
    }
    stats["wide"] = ColumnStats(nulls=1, min=-(2**55), max=2**60 + 1)
    wire = wire_of(schema, stats)
    assert {name: way.type for name, way in wire.items()} == {
        "small": "double",
        "wide": "string",
        "unsigned": "string",
        "flag": "boolean",
        "sure": "boolean",
        "double": "double",
        "nans": "double",
        "plain": "datetime",
        "zoned": "string",
        "day": "string",
        "money": "string",
        "text": "string",
        "vector": "array:double",
    }
    assert [name for name, way in wire.items() if way.nan] == ["nans"]
    frame = _enforce_schema(frame_of(KINDS, wire), build_signature(wire).inputs)
    found = table_of(frame, KINDS.schema, wire)
    for name in wire:
        left, right = KINDS[name].combine_chunks(), found[name].combine_chunks()
        if name == "nans":
            assert np.isnan(right[1].as_py())
            left, right = left.take([0, 2]), right.take([0, 2])
        assert left.equals(right), name
    assert found["bytes"].null_count == 3


DAYS = pd.Series([pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01"), pd.NaT])
NATURAL = {
    "small": [pd.Series([1, 2, None]), pd.Series([1, 2, None], dtype="Int8"), pd.Series(["1", "2", None])],
    "wide": [
        pd.Series([2**60 + 1, None, -(2**55)], dtype="Int64"),
        pd.Series([2**60 + 1, None, -(2**55)], dtype=object),
    ],
    "unsigned": [pd.Series([2**64 - 1, 0, 1], dtype="uint64")],
    "flag": [
        pd.Series([True, None, False]),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([1.0, None, 0.0]),
    ],
    "sure": [pd.Series([1, 1, 0]), pd.Series(["True", "True", "False"])],
    "double": [pd.Series([1.5, None, -0.0], dtype="Float32"), pd.Series(["1.5", None, "-0.0"])],
    "plain": [
        pd.Series(["2020-09-13 12:26:40.123456", None, "1969-12-31T23:59:59.999999"]),
        pd.Series(["2020-09-13 12:26:40.123456", None, "1969-12-31T23:59:59.999999"], dtype="datetime64[ns]"),
    ],
    "zoned": [
        DAYS.dt.tz_localize("UTC").astype("datetime64[s, UTC]"),
        DAYS.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        pd.Series(["2020-01-01T00:00:00.000000000Z", "2020-01-01 01:00:00+01:00", None]),
        pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "2020-01-01 00:00", None], dtype=object),
        DAYS,
    ],
    "day": [
        pd.Series([dt.date(2020, 1, 1), None, dt.date(1969, 1, 1)]),
        pd.Series(["2020-01-01", None, "1969-01-01T00:00:00.000"]),
        pd.Series(["2020-01-01", None, "1969-01-01"], dtype="datetime64[ns]"),
    ],
    "clock": [
        pd.Series([dt.time(5, 1), None, dt.time(23, 59, 59, 5)]),
        pd.Series(["05:01:00", None, "23:59:59.000005"]),
    ],
    "money": [
        pd.Series([decimal.Decimal("1.1"), None, decimal.Decimal(-3)]),
        pd.Series([1.1, None, -3.0]),
        pd.Series(["1.10", None, "-3"]),
    ],
    "text": [pd.Series(["a", None, ""], dtype="string"), pd.Series(["a", None, ""], dtype="category")],
    "vector": [pd.Series([np.array([1, 2]), [3, 4], [5.0, 6.0]])],
}  # fmt: skip


@pytest.mark.parametrize("name", NATURAL)
def test_a_column_in_other_dtypes(name: str) -> None:
    from mlflow.models.utils import _enforce_schema

    clock = pa.array([dt.time(5, 1), None, dt.time(23, 59, 59, 5)], pa.time64("us"))
    table = KINDS.append_column("clock", clock).select([name])
    column = table[name].combine_chunks()
    stats = ColumnStats(nulls=column.null_count, max=2**60 + 1 if name == "wide" else 1)
    wire = wire_of(Schema.from_arrow(table.schema), {name: stats})
    inputs = build_signature(wire).inputs
    for series in NATURAL[name]:
        frame = pd.DataFrame({name: series.set_axis([7, 8, 9])})
        assert table_of(frame, table.schema, wire)[name].combine_chunks().equals(column), series
        asked = _enforce_schema(conform(frame, table.schema, wire), inputs)
        assert list(asked.index) == [7, 8, 9]
        assert table_of(asked, table.schema, wire)[name].combine_chunks().equals(column), series
    empty = pd.DataFrame({name: pd.Series([np.nan] * 3)})
    assert table_of(empty, table.schema, wire)[name].null_count == 3


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("wide", pd.Series([2.0**60, None, 1]), "as a float has lost digits; read it as dtype='Int64' or as text"),
        ("small", pd.Series([1.5, 2, 3]), "truncated"),
        ("small", pd.Series([2**40, 2, 3]), "not in range"),
        ("flag", pd.Series([2, 1, 0]), "does not fit into bool without loss"),
        ("day", DAYS + pd.Timedelta(hours=5), "does not fit into date32.day. without loss"),
        ("day", pd.Series(["2020-01-01 05:00"] * 3), "2020-01-01 05:00"),
        ("zoned", pd.Series([1_577_836_800_000] * 3), "has numbers .int64. where the model has times"),
        ("zoned", pd.Series(["2020-01-01T00:00:00.0001Z"] * 3), "2020-01-01T00:00:00.0001Z"),
        ("plain", DAYS.dt.tz_localize("UTC"), "has a zone .UTC., the model's times have none"),
        ("money", pd.Series([1.105, 1, 1]), "loss"),
        ("text", pd.Series([7, 8, 9]), "has numbers .int64. where the model has text .string.; read it as text"),
        ("vector", pd.Series([[1.0], [2.0], [3.0]]), "list"),
    ],
)  # fmt: skip
def test_what_would_change_a_value_is_refused(name: str, values: pd.Series, message: str) -> None:
    table = KINDS.select([name])
    wire = wire_of(Schema.from_arrow(table.schema), {name: ColumnStats(nulls=1)})
    with pytest.raises(ValueError, match=f"column '{name}': .*{message}"):
        conform(pd.DataFrame({name: values}), table.schema, wire)


def test_times_that_nanoseconds_cannot_say_travel_as_text() -> None:
    late = pa.table({"plain": pa.array([dt.datetime(9999, 1, 1), None], pa.timestamp("s"))})  # noqa: DTZ001
    seconds = late["plain"].cast(pa.int64())[0].as_py()
    wire = wire_of(Schema.from_arrow(late.schema), {"plain": ColumnStats(nulls=1, max=seconds)})
    assert wire["plain"].type == "string"
    assert table_of(frame_of(late, wire), late.schema, wire).equals(late)
