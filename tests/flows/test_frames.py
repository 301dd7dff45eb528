"""Frames in the types of a signature, and frames as pandas reads them: every kind of column comes back as it was."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data.schema import Column, ColumnStats, Kind, Schema
from flows.signature import build_signature, wire_of
from vae.casts import convert, spell
from vae.frames import Wire, conform, frame_of, request, table_of

UTC_SECOND = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NAN, INF = float("nan"), float("inf")
KINDS = pa.table({
    "small": pa.array([1, 2, None], pa.int32()),
    "wide": pa.array([2**60 + 1, None, -(2**55)], pa.int64()),
    "unsigned": pa.array([2**64 - 1, 0, 1], pa.uint64()),
    "flag": pa.array([True, None, False]),
    "sure": pa.array([True, True, False]),
    "double": pa.array([0.1 + 0.2, None, -0.0]),
    "nans": pa.array([1 / 3, NAN, -INF]),
    "both": pa.array([5e-324, NAN, None]),
    "infinite": pa.array([INF, -INF, None]),
    "single": pa.array([0.1, None, 3.4028234663852886e38], pa.float32()),
    "plain": pa.array([1_600_000_000_123_456, None, -1], pa.timestamp("us")),
    "fine": pa.array([1_600_000_000_123_456_789, None, -1], pa.timestamp("ns")),
    "zoned": pa.array([UTC_SECOND] * 2 + [None], pa.timestamp("ms", "Europe/Paris")),
    "fine_zoned": pa.array([1_600_000_000_123_456_789, None, -1], pa.timestamp("ns", "Asia/Tokyo")),
    "day": pa.array([dt.date(2020, 1, 1), None, dt.date(1969, 1, 1)]),
    "clock": pa.array([18_060_000_000_000, None, 86_399_000_000_005], pa.time64("ns")),
    "money": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-3.00")], pa.decimal128(9, 2)),
    "tiny": pa.array([decimal.Decimal("1E-9"), None, decimal.Decimal(0)], pa.decimal128(12, 9)),
    "text": pa.array(["NA", None, ""]),
    "named": pa.array(["a", None, "a"]).dictionary_encode(),
    "vector": pa.array([[0.1 + 0.2, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64(), 2)),
    "vector32": pa.array([[0.1, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    "counts": pa.array([[2**62 + 1, 2], [3, 4], [5, 6]], pa.list_(pa.int64(), 2)),
    "bytes": pa.array([b"x", b"y", b"z"]),
})  # fmt: skip
TYPES = {
    "small": "double",
    "double": "double",
    "nans": "double",
    "infinite": "double",
    "single": "double",
    "plain": "datetime",
    "fine": "datetime",
    "vector": "array:double",
    "vector32": "array:double",
    "counts": "array:long",
}
"""Of the columns that do not travel as text."""


def stats_of(table: pa.Table) -> dict[str, ColumnStats]:
    stats = {
        name: ColumnStats(nulls=table[name].null_count, nans=1 if name in {"nans", "both"} else 0)
        for name in table.column_names
    }
    if "wide" in stats:
        stats["wide"] = ColumnStats(nulls=1, min=-(2**55), max=2**60 + 1)
    return stats


def wire_for(table: pa.Table) -> dict[str, Wire]:
    return wire_of(Schema.from_arrow(table.schema), stats_of(table))


def enforced(frame: pd.DataFrame, wire: dict[str, Wire]) -> Any:
    """The frame as `predict` of MLflow hands it on."""
    from mlflow.models.utils import _enforce_schema

    return _enforce_schema(frame, build_signature(wire).inputs)


def posted(body: str, wire: dict[str, Wire]) -> Any:
    """What the scoring server makes of a request, without a server."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    def strict(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    content = json.loads(body, parse_constant=strict)
    assert set(content) == {"dataframe_split"}
    return enforced(infer_and_parse_data(content, build_signature(wire).inputs), wire)


def same(left: Any, right: Any) -> bool:
    """Whether two columns hold the same, NaN and nulls told apart, and the sign of zero."""
    return left.type == right.type and repr(left.to_pylist()) == repr(right.to_pylist())


def test_how_each_kind_travels() -> None:
    wire = wire_for(KINDS)
    assert {name: way.type for name, way in wire.items() if way.type != "string"} == TYPES
    assert set(KINDS.column_names) - set(wire) == {"bytes"}
    assert [name for name, way in wire.items() if way.nan] == ["nans", "both"]
    assert {name for name, way in wire.items() if not way.optional} == {
        *("unsigned", "sure", "nans", "vector", "vector32", "counts")
    }


@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 0)])
def test_every_kind_travels_and_comes_back(rows: slice) -> None:
    """In a frame and by the server: all rows, each alone (one kind of value, or only null, in a column), and none."""
    wire = wire_for(KINDS)
    table = KINDS.slice(rows.start, rows.stop - rows.start)
    frame = frame_of(table, wire)
    for way, asked in {
        "frame": enforced(frame, wire),
        "conformed": enforced(conform(frame, KINDS.schema, wire), wire),
        "posted": posted(request(frame, KINDS.schema, wire), wire),
    }.items():
        found = table_of(asked, KINDS.schema, wire)
        for name in wire:
            assert same(table[name].combine_chunks(), found[name].combine_chunks()), (way, name)
        assert found["bytes"].null_count == found.num_rows == table.num_rows


@pytest.mark.parametrize(
    "name", [name for name in KINDS.column_names if "vector" not in name and name != "counts"]
)
def test_text_of_a_value_says_all_of_it(name: str) -> None:
    values = KINDS[name].combine_chunks()
    if name != "bytes":
        assert same(values, convert(spell(values), values.type))


def test_the_body_of_a_request() -> None:
    table = KINDS.select(["small", "flag", "double", "nans", "both", "plain"])
    wire = wire_for(table)
    body = request(frame_of(table, wire), table.schema, wire, params={"output": "codes"})
    assert json.loads(body) == {
        "dataframe_split": {
            "columns": table.column_names,
            "data": [
                [1.0, "true", 0.30000000000000004, 0.3333333333333333, "5e-324", "2020-09-13T12:26:40.123456000"],
                [2.0, None, None, "nan", "nan", None],
                [None, "false", -0.0, "-inf", None, "1969-12-31T23:59:59.999999000"],
            ],
        },
        "params": {"output": "codes"},
    }  # fmt: skip


def test_what_json_cannot_say_of_an_array_is_refused() -> None:
    table = KINDS.select(["vector"])
    frame = pd.DataFrame({"vector": [[1.0, NAN], [3.0, 4.0]]})
    wire = wire_for(table)
    found = table_of(conform(frame, table.schema, wire), table.schema, wire)["vector"]
    assert repr(found.to_pylist()) == "[[1.0, nan], [3.0, 4.0]]"
    with pytest.raises(
        ValueError, match="^column 'vector': an array holds NaN or infinity, which JSON cannot say$"
    ):
        request(frame, table.schema, wire)


def test_booleans_as_json_has_them_are_read_too() -> None:
    """By hands that write their own request: a null among them is null, not False."""
    table = KINDS.select(["flag", "sure"])
    wire = wire_for(table)
    data = [[True, True], [None, True], [False, False]]
    body = json.dumps({"dataframe_split": {"columns": ["flag", "sure"], "data": data}})
    assert table_of(posted(body, wire), table.schema, wire).equals(table)


@pytest.mark.parametrize(
    ("largest", "kind"), [(2**53 - 1, "double"), (2**53, "string"), (2**53 + 1, "string")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_whole_numbers_at_the_edge_of_doubles(largest: int, kind: str, sign: int) -> None:
    table = pa.table({"wide": pa.array([sign * largest, None, 0])})
    low, high = sorted([sign * largest, 0])
    schema = Schema.from_arrow(table.schema)
    wire = wire_of(schema, {"wide": ColumnStats(nulls=1, min=low, max=high)})
    assert wire["wide"].type == kind
    for frame in (
        frame_of(table, wire),
        pd.DataFrame({"wide": pd.Series([sign * largest, None, 0], dtype="Int64")}),
    ):
        for asked in (
            enforced(conform(frame, table.schema, wire), wire),
            posted(request(frame, table.schema, wire), wire),
        ):
            assert table_of(asked, table.schema, wire).equals(table)


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
    "double": [pd.Series([0.1 + 0.2, None, -0.0], dtype="Float64"), pd.Series(["0.30000000000000004", None, "-0.0"])],
    "single": [
        pd.Series([0.1, None, 3.4028235e38]),
        pd.Series(["0.1", None, "3.402823466e38"]),
        pd.Series([0.100000001, None, 3.4028234663852886e38], dtype="Float64"),
    ],
    "both": [
        pd.Series(["5e-324", "NaN", None]),
        pd.Series([5e-324, NAN, None], dtype=object),
        pd.Series([5e-324, NAN, pd.NA], dtype=object),
        pd.Series(pd.arrays.ArrowExtensionArray(KINDS["both"].combine_chunks())),
    ],
    "fine": [
        pd.Series([pd.Timestamp(1_600_000_000_123_456_789), None, pd.Timestamp(-1)], dtype=object),
        pd.Series(["2020-09-13T12:26:40.123456789", None, pd.Timestamp(-1)], dtype=object),
    ],
    "fine_zoned": [
        pd.Series([pd.Timestamp(1_600_000_000_123_456_789, tz="UTC"), None, pd.Timestamp(-1)], dtype=object),
        pd.Series(["2020-09-13T21:26:40.123456789+09:00", None, "1969-12-31 23:59:59.999999999"]),
    ],
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
        pd.Series(["05:01:00", None, "23:59:59.000000005"]),
    ],
    "money": [
        pd.Series([decimal.Decimal("1.1"), None, decimal.Decimal(-3)]),
        pd.Series([1.1, None, -3.0]),
        pd.Series(["1.10", None, "-3"]),
    ],
    "text": [pd.Series(["NA", None, ""], dtype="string"), pd.Series(["NA", None, ""], dtype="category")],
    "vector": [pd.Series([np.array([0.1 + 0.2, 2]), [3, 4], [5.0, 6.0]])],
}  # fmt: skip


@pytest.mark.parametrize("name", NATURAL)
def test_a_column_in_other_dtypes(name: str) -> None:
    table = KINDS.select([name])
    column = table[name].combine_chunks()
    wire = wire_for(table)
    for series in NATURAL[name]:
        frame = pd.DataFrame({name: series.set_axis([7, 8, 9])})
        assert same(table_of(frame, table.schema, wire)[name].combine_chunks(), column), series
        asked = enforced(conform(frame, table.schema, wire), wire)
        assert list(asked.index) == [7, 8, 9]
        assert same(table_of(asked, table.schema, wire)[name].combine_chunks(), column), series
        asked = posted(request(frame, table.schema, wire), wire)
        assert same(table_of(asked, table.schema, wire)[name].combine_chunks(), column), series
    # As floats, they might be NaN where that is a value beside null.
    empty = pd.DataFrame(
        {name: pd.Series([np.nan] * 3) if name != "both" else pd.Series([None] * 3, dtype=object)}
    )
    assert table_of(empty, table.schema, wire)[name].null_count == 3


def test_times_that_nanoseconds_cannot_say_travel_as_text() -> None:
    late = pa.table({"plain": pa.array([dt.datetime(9999, 1, 1), None], pa.timestamp("s"))})  # noqa: DTZ001
    seconds = late["plain"].cast(pa.int64())[0].as_py()
    wire = wire_of(Schema.from_arrow(late.schema), {"plain": ColumnStats(nulls=1, max=seconds)})
    assert wire["plain"].type == "string"
    assert table_of(frame_of(late, wire), late.schema, wire).equals(late)


def test_null_as_the_source_spells_it() -> None:
    """NA is null among numbers, as `svae codes` reads it, and a word among words."""
    columns = (
        Column(name="count", kind=Kind.integer, null_text="NA"),
        Column(name="word", kind=Kind.text, null_text=""),
    )
    schema = Schema(columns=columns)
    wire = wire_of(schema, {"count": ColumnStats(nulls=1), "word": ColumnStats(nulls=1)})
    read = pd.read_csv(io.StringIO("count,word\n1,NA\nNA,\n,null\n"), keep_default_na=False, na_values=[""])
    for asked in (
        enforced(conform(read, schema.to_arrow(), wire), wire),
        posted(request(read, schema.to_arrow(), wire), wire),
    ):
        found = table_of(asked, schema.to_arrow(), wire)
        assert found.to_pydict() == {"count": [1, None, None], "word": ["NA", None, "null"]}
    with pytest.raises(ValueError, match="^column 'count': 'null' is no whole number in decimal digits$"):
        conform(read.assign(count="null"), schema.to_arrow(), wire)
