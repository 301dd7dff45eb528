"""Schemas: there and back through Arrow, JSON and YAML; bounds as users write them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.bounds import kept_exact, written_bounds
from data.errors import BoundError, SchemaError
from data.schema import Bound, Column, ColumnStats, CsvDialect, Kind, Schema, parse_bound, resolve_bounds

ARROW = pa.schema(
    [
        pa.field("i", pa.int16()),
        pa.field("f", pa.float32(), nullable=False),
        pa.field("b", pa.bool_()),
        pa.field("s", pa.large_string()),
        pa.field("t", pa.timestamp("us", tz="Europe/Berlin")),
        pa.field("d", pa.date32()),
        pa.field("dict", pa.dictionary(pa.int8(), pa.string())),
        pa.field("image", pa.list_(pa.uint8(), 784)),
        pa.field("list", pa.list_(pa.int64())),
        pa.field("dec", pa.decimal128(10, 2)),
        pa.field("nested", pa.struct([pa.field("x", pa.list_(pa.string()))]), metadata={"unit": "m"}),
        pa.field("raw", pa.binary(4)),
    ],
    metadata={b"pandas": b"{}", b"\xff\xfe": b"\x80", b"text": b"base64:looks like it"},
)
MUST = "must be a finite number >= 0, such as 0.5 (the column's unit) or 1% (of its range)"
KINDS = "integer numeric boolean text timestamp timestamp categorical array other other other other".split()  # noqa: SIM905


def test_a_foreign_arrow_schema_comes_back_with_types_and_metadata():
    schema = Schema.from_arrow(ARROW)
    again = schema.to_arrow()

    assert [column.kind.value for column in schema.columns] == KINDS
    assert again.equals(ARROW)
    assert again.metadata == ARROW.metadata
    assert again.field("nested").metadata[b"unit"] == b"m"
    assert Schema.from_arrow(again) == schema


@pytest.mark.parametrize("way", ["json", "yaml", "arrow"])
def test_a_schema_comes_back(tmp_path, way):
    schema = Schema(
        columns=(
            *Schema.from_arrow(ARROW).columns,
            Column(
                name="x", kind=Kind.numeric, null_text="NA", text_format="fixed:2", bound="1%", nullable=False
            ),
            Column(name='ключ, "\n', kind=Kind.categorical, null_text=""),
        ),
        csv=CsvDialect(delimiter=";", line_end="\r\n"),
        metadata={"a": "b"},
    )
    if way == "json":
        again = Schema.from_json(schema.to_json())
    elif way == "yaml":
        schema.to_yaml(tmp_path / "schema.yaml")
        again = Schema.from_yaml(tmp_path / "schema.yaml")
    else:
        again = Schema.from_arrow(schema.to_arrow())

    assert again == schema
    assert again.digest() == schema.digest()
    assert again.to_arrow().equals(schema.to_arrow(), check_metadata=True)


def test_yaml_as_a_person_writes_it(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(
        "columns:\n"
        "  - {name: delay, kind: integer, bound: 0.5}\n"
        "  - {name: when, kind: timestamp, text_format: '%Y-%m-%dT%H:%M:%SZ'}\n"
        "  - {name: tail, kind: text, nullable: false}\n"
        "csv: {delimiter: ';'}\n"
    )
    schema = Schema.from_yaml(path)

    assert [column.arrow for column in schema.columns] == ["int64", "timestamp[s, tz=UTC]", "string"]
    assert schema.column("delay").bound == "0.5"
    assert schema.csv == CsvDialect(delimiter=";")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("columns: [{name: a, kind: shape}]", SchemaError, "columns.0.kind: Input should be 'numeric', "),
        (
            "columns: [{name: a, kind: integer, colour: red}]",
            SchemaError,
            "unknown key 'columns.0.colour'; known: name, kind, ",
        ),
        (
            "columns: [{name: a, kind: integer}, {name: a, kind: text}]",
            SchemaError,
            "column name 'a' occurs twice; rename one of the columns",
        ),
        (
            "columns: [{name: a, kind: numeric, bound: -1}]",
            BoundError,
            "column 'a': bound '-1': must be a finite number >= 0, ",
        ),
        ("columns: {", SchemaError, "not readable as YAML: "),
        ("5", SchemaError, "top level: "),
        ("!!python/object/apply:os.system ['true']", SchemaError, "not readable as YAML: "),
    ],
)
def test_a_wrong_schema_file_is_refused_by_name(tmp_path, text, error, message):
    path = tmp_path / "schema.yaml"
    path.write_text(text)

    with pytest.raises(error) as raised:
        Schema.from_yaml(path)

    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_a_missing_schema_file():
    with pytest.raises(SchemaError) as raised:
        Schema.from_yaml("no/such.yaml")

    assert str(raised.value) == "no/such.yaml: there is no such schema file"


def test_an_unknown_arrow_type_is_refused_by_name():
    with pytest.raises(SchemaError) as raised:
        _ = Column(name="a", kind=Kind.other, arrow="int65").type

    assert (
        str(raised.value) == "column 'a': 'int65' is not an Arrow type; use one such as int64, double, string"
    )


def test_an_unknown_column_is_refused_by_name():
    with pytest.raises(SchemaError) as raised:
        Schema.from_arrow(pa.schema([("a", pa.int8()), ("b", pa.int8())])).column("c")

    assert str(raised.value) == "there is no column 'c'; the columns are a, b"


def test_the_digest_depends_on_every_part():
    one = Schema(columns=(Column(name="a", kind=Kind.integer),))

    assert one.digest() != Schema(columns=(Column(name="a", kind=Kind.integer, null_text="NA"),)).digest()
    assert one.digest() != Schema(columns=(Column(name="b", kind=Kind.integer),)).digest()


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("0.5", Bound(width=0.5)),
        ("0", Bound()),
        (" 1% ", Bound(width=0.01, relative=True)),
        ("1e-3", Bound(width=1e-3)),
    ],
)
def test_bounds_as_users_write_them(text, bound):
    assert parse_bound(text) == bound


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "-5%", "nan%", "", "%", "half", "1 %%"])
def test_a_bound_that_cannot_be_meant_is_refused(text):
    with pytest.raises(BoundError) as raised:
        parse_bound(text)

    assert str(raised.value) == f"bound {text!r}: {MUST}"


SCHEMA = Schema(
    columns=(
        Column(name="delay", kind=Kind.integer),
        Column(name="month", kind=Kind.integer),
        Column(name="temp", kind=Kind.numeric),
        Column(name="when", kind=Kind.timestamp),
        Column(name="tail", kind=Kind.categorical),
        Column(name="a=b", kind=Kind.numeric, bound="0.25"),
        Column(name="void", kind=Kind.numeric),
    )
)
STATS = {
    "delay": ColumnStats(min=-50, max=150, distinct=200),
    "month": ColumnStats(min=1, max=12, distinct=12),
    "temp": ColumnStats(min=-10.0, max=30.0, distinct=None),
    "when": ColumnStats(min=0, max=86_400, distinct=24),
    "tail": ColumnStats(distinct=100),
    "a=b": ColumnStats(min=0.0, max=1.0, distinct=5),
    "void": ColumnStats(distinct=0),
}


@pytest.mark.parametrize(
    ("specs", "widths"),
    [
        ([], {"a=b": 0.25}),
        (["delay=0.5"], {"delay": 0.5, "a=b": 0.25}),
        (["temp=1%", "when=60"], {"temp": 0.4, "when": 60.0, "a=b": 0.25}),
        (["*=1%"], {"delay": 2.0, "temp": 0.4, "a=b": 0.01}),
        (["*=1%", "delay=0"], {"temp": 0.4, "a=b": 0.01}),
        (["delay=0", "*=1%"], {"delay": 2.0, "temp": 0.4, "a=b": 0.01}),
        (["a=b=0.5"], {"a=b": 0.5}),
        (["tail=0"], {"a=b": 0.25}),
    ],
)
def test_bounds_become_absolute_and_later_ones_win(specs, widths):
    assert resolve_bounds(specs, SCHEMA, STATS) == pytest.approx(widths)


@pytest.mark.parametrize(
    ("specs", "written"),
    [
        ([], ("a=b=0.25",)),
        (["temp=1.0%", "delay=0", "a=b=.5"], ("a=b=0.5", "temp=1%")),
        (["delay=1%", "*=2%"], ("a=b=2%", "delay=2%", "temp=2%", "void=2%")),
    ],
)
def test_bounds_that_mean_the_same_are_written_the_same(specs, written):
    assert written_bounds(specs, SCHEMA, STATS) == written
    assert resolve_bounds(written, SCHEMA, STATS) == resolve_bounds(specs, SCHEMA, STATS)


@given(st.floats(0, 1e300), st.booleans())
def test_a_bound_is_read_back_from_its_spelling(width, relative):
    bound = Bound(width=width, relative=relative)
    assert str(parse_bound(str(bound))) == str(bound)
    if not relative:
        assert parse_bound(str(bound)) == bound


def test_bounds_that_differ_little_are_spelled_apart():
    assert [str(parse_bound(text)) for text in ("3600000000001", "0.5", "5.0", "0.7%", "1e-3%")] == [
        "3600000000001",
        "0.5",
        "5",
        "0.7%",
        "0.001%",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "gate=1",
            "bound 'gate=1': there is no column 'gate'; the columns are delay, month, temp, when, tail, a=b, void",
        ),
        (
            "delay",
            "bound 'delay': must read COLUMN=WIDTH, such as 'dep_delay=5', 'air_time=1%' or '*=0.5%'",
        ),
        (
            "tail=1",
            "column 'tail' is categorical: only numbers, timestamps and images take a bound; leave it exact",
        ),
        (
            "delay=-1",
            f"bound '-1': {MUST} (in 'delay=-1')",
        ),
        (
            "delay=nan",
            f"bound 'nan': {MUST} (in 'delay=nan')",
        ),
    ],
)
def test_a_wrong_bound_is_refused_by_name(spec, message):
    with pytest.raises(BoundError) as raised:
        resolve_bounds([spec], SCHEMA, STATS)

    assert str(raised.value) == message


def test_a_range_too_wide_for_a_percentage():
    stats = {**STATS, "temp": ColumnStats(min=-1.7e308, max=1.7e308)}

    with pytest.raises(BoundError, match="its range is too wide for a percentage; give an absolute bound"):
        resolve_bounds(["temp=100%"], SCHEMA, stats)


@pytest.mark.parametrize(
    ("widths", "lines"),
    [
        ({}, []),
        ({"delay": 1.0, "temp": 0.5, "when": 60.0}, []),
        ({"delay": 0.5}, ["bound 0.5 for column 'delay': whole numbers are kept exact below 1"]),
        (
            {"temp": 0.1, "month": 0.11, "delay": 0.5, "when": 0.25},
            [
                "bound 0.11 for column 'month' and 1 more: whole numbers are kept exact below 1",
                "bound 0.25 for column 'when': timestamps are kept exact below 1 of their unit",
            ],
        ),
    ],
)
def test_bounds_that_allow_no_error_are_told(widths, lines):
    assert kept_exact(widths, SCHEMA) == lines


@given(st.text())
def test_no_text_breaks_the_bound_parser(text):
    try:
        bound = parse_bound(text)
    except BoundError:
        return
    assert 0 <= bound.width < float("inf")


def test_a_changed_copy_forgets_what_was_cached() -> None:
    column = Column(name="a", kind=Kind.integer, nullable=False)
    assert not column.field.nullable
    changed = column.model_copy(update={"nullable": True, "bound": "2"})
    assert changed.field.nullable
    assert changed.field.metadata[b"svae.bound"] == b"2"
