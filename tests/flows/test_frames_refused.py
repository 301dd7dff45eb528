"""Frames that a registered model's types cannot hold: refused, with the column and the reason."""

from __future__ import annotations

import datetime as dt
import decimal
import re

import pandas as pd
import pyarrow as pa
import pytest
from pandas import Series

from data.schema import ColumnStats, Schema
from flows.signature import wire_of
from vae.frames import conform, request

NAN, INF = float("nan"), float("inf")
DAYS = Series([pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01"), pd.NaT])
UTC_SECOND = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
TYPES = {
    "wide": pa.int64(),
    "small": pa.int32(),
    "long": pa.int64(),
    "sure": pa.int64(),
    "flag": pa.bool_(),
    "double": pa.float64(),
    "nans": pa.float64(),
    "both": pa.float64(),
    "single": pa.float32(),
    "vector": pa.list_(pa.float64(), 2),
    "vector32": pa.list_(pa.float32(), 2),
    "day": pa.date32(),
    "zoned": pa.timestamp("ms", "Europe/Paris"),
    "plain": pa.timestamp("us"),
    "money": pa.decimal128(9, 2),
    "text": pa.string(),
}
STATS = {
    "wide": ColumnStats(nulls=1, max=2**60),
    "nans": ColumnStats(nans=1),
    "both": ColumnStats(nulls=1, nans=1),
    "sure": ColumnStats(),
}


def of_arrow(values: pa.Array) -> Series:
    return Series(pd.arrays.ArrowExtensionArray(values))


REFUSED = [
    (
        "wide",
        Series([2.0**60, None, 1]),
        "1152921504606846976 as a float has lost digits; read it as dtype='Int64' or as text",
    ),
    (
        "wide",
        Series([2.0**24, None, 1], dtype="float32"),
        "16777216 as a float has lost digits; read it as dtype='Int64' or as text",
    ),
    ("wide", Series([INF, None, 1]), "infinity does not fit into int64"),
    ("wide", Series(["0x10", None, "1"]), "'0x10' is no whole number in decimal digits"),
    ("small", Series([1.5, 2, 3]), "Float value 1.500000 was truncated converting to int32"),
    ("small", Series([2**40, 2, 3]), "Integer value 1099511627776 not in range: -2147483648 to 2147483647"),
    ("small", Series(["0x10", "1", None]), "'0x10' is no whole number in decimal digits"),
    ("small", Series([-INF, 1, None]), "infinity does not fit into int32"),
    (
        "long",
        Series([2**53, 1, None], dtype="Int64"),
        "9007199254740992 is not within 2^53 of 0, as every value was in training",
    ),
    (
        "long",
        Series([-(2**53) - 1, 1, None], dtype="Int64"),
        "-9007199254740993 is not within 2^53 of 0, as every value was in training",
    ),
    ("sure", Series([1, None, 2]), "a value is missing, and in training none ever was"),
    ("flag", Series([2, 1, 0]), "2 does not fit into bool without loss"),
    ("flag", Series(["perhaps", "true", None]), "Failed to parse value: perhaps"),
    ("double", Series(["1e999", "1", "2"]), "'1e999' does not fit into double"),
    ("double", Series(["1e-999", "1", "2"]), "'1e-999' does not fit into double"),
    (
        "double",
        Series([decimal.Decimal("1.00000000000000000001"), None]),
        "1.00000000000000000001 does not fit into double without loss",
    ),
    (
        "double",
        of_arrow(pa.array([1.5, NAN, None])),
        "NaN is a value here that is not null, and in training there was none",
    ),
    ("nans", Series([1.5, NAN, None], dtype=object), "a value is missing, and in training none ever was"),
    (
        "both",
        Series([1.5, NAN]),
        "NaN may be null here or a value of its own; read it as text, or as objects with None for null",
    ),
    ("single", Series([1e300, 1, 2]), "1e+300 does not fit into float without loss"),
    ("single", Series([1e-300, 1, 2]), "1e-300 does not fit into float without loss"),
    (
        "single",
        Series([0.123456789, 1, 2]),
        "0.123456789 does not fit into float without loss; round it first, as astype('float32') does",
    ),
    ("single", Series(["1e300", "1", "2"]), "1e+300 does not fit into float without loss"),
    ("single", Series([2**24 + 1, 1, 2]), "Integer value 16777217 not in range: -16777216 to 16777216"),
    ("vector32", Series([[1e300, 1.0], [1.0, 2.0]]), "1e+300 does not fit into float without loss"),
    ("vector", Series([[None, 1.0], [1.0, 2.0]]), "a number is missing within an array"),
    (
        "vector",
        Series([[1.0], [2.0], [3.0]]),
        "ListType can only be casted to FixedSizeListType if the lists are all the expected size.",
    ),
    (
        "vector",
        Series([1.0, 2.0]),
        "has numbers (double) where the model has lists (fixed_size_list<item: double>[2])",
    ),
    (
        "day",
        DAYS + pd.Timedelta(hours=5),
        "2020-01-01T05:00:00.000000 does not fit into date32[day] without loss",
    ),
    (
        "day",
        Series(["2020-01-01 05:00"] * 3),
        "Failed to parse string: '2020-01-01 05:00' as a scalar of type date32[day]",
    ),
    (
        "day",
        Series([pd.Timestamp("2020-01-01 05:00"), None], dtype=object),
        "Failed to parse string: '2020-01-01T05:00:00' as a scalar of type date32[day]",
    ),
    (
        "zoned",
        Series([1_577_836_800_000] * 3),
        "has numbers (int64) where the model has times (timestamp[ms, tz=Europe/Paris])",
    ),
    (
        "zoned",
        Series(["2020-01-01T00:00:00.0001Z"] * 3),
        "Failed to parse string: '2020-01-01T00:00:00.0001Z' as a scalar of type timestamp[ms, tz=Europe/Paris]",
    ),
    ("zoned", Series([UTC_SECOND, 5], dtype=object), "5 is no time"),
    (
        "zoned",
        of_arrow(pa.array([253_402_300_800_000], pa.timestamp("ms", "UTC"))),
        "a year outside 0 to 9999 has no ISO text, as which times travel",
    ),
    ("plain", DAYS.dt.tz_localize("UTC"), "has a zone (UTC), the model's times have none; take it off"),
    (
        "plain",
        Series([UTC_SECOND.replace(tzinfo=None), UTC_SECOND], dtype=object),
        "has a zone (UTC), the model's times have none; take it off",
    ),
    (
        "plain",
        Series(["2020-01-01T00:00:00Z"]),
        "Failed to parse string: '2020-01-01T00:00:00Z' as a scalar of type timestamp[us]: expected no zone offset.",
    ),
    (
        "plain",
        Series([pd.Timestamp("2020-01-01T00:00:00.123456789")], dtype=object),
        "Failed to parse string: '2020-01-01T00:00:00.123456789' as a scalar of type timestamp[us]",
    ),
    ("plain", Series(["3000-01-01"]), "a time lies outside 1677 to 2262, and in training none did"),
    ("money", Series([1.105, 1, 1]), "Rescaling Decimal value would cause data loss"),
    (
        "text",
        Series([7, 8, 9]),
        "has numbers (int64) where the model has text (string); read it as text (dtype=str)",
    ),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSED)
def test_what_would_change_a_value_is_refused(name: str, values: Series, message: str) -> None:
    schema = pa.schema([(name, TYPES[name])])
    wire = wire_of(Schema.from_arrow(schema), {name: STATS.get(name, ColumnStats(nulls=1))})
    for call in (conform, request):
        with pytest.raises(ValueError, match=f"^{re.escape(f'column {name!r}: {message}')}$"):
            call(pd.DataFrame({name: values}), schema, wire)


def test_a_column_twice() -> None:
    schema = pa.schema([("small", pa.int32())])
    wire = wire_of(Schema.from_arrow(schema), {})
    frame = pd.DataFrame([[1, 2]], columns=["small", "small"])
    with pytest.raises(ValueError, match="^column 'small' occurs twice$"):
        conform(frame, schema, wire)
