"""Parquet, arrays, lines of JSON, tables and datasets as sources."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.batches import rebatch
from data.errors import DataError, SchemaError, SourceError, UsageError
from data.ingest import ingest
from data.output import write_table
from data.schema import Column, Kind, Schema
from data.sources import TableSource, open_source

TABLE = pa.table(
    {
        "n": pa.array([1, None, 3, 4, 5], pa.int16()),
        "x": pa.array([1.5, None, float("nan"), float("inf"), -0.0]),
        "word": pa.array(["a", "b", "a", "b", None]),
        "text": pa.array(["a", "", "c", "d", "e"]),
        "coded": pa.array(["p", "q", None, "p", "p"]).dictionary_encode(),
        "when": pa.array([0, 1, None, 3, 4], pa.timestamp("us", tz="Europe/Berlin")),
        "day": pa.array([dt.date(2020, 1, 1), None] * 2 + [None]),
        "money": pa.array([decimal.Decimal("1.25"), None, None, decimal.Decimal("-3.50"), None]),
        "list": pa.array([[1, 2], None, [], [None], [3]]),
        "image": pa.array([[1, 2], None, [3, 4], [5, 6], [7, 8]], pa.list_(pa.uint8(), 2)),
        "nested": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}, {"a": 2, "b": None}, None]),
        "void": pa.nulls(5),
        "raw": pa.array([b"\x00", None, b"", b"ab", b"c"]),
        "half": pa.array([1, None, 3, 4, 5], pa.float16()),
    },
    metadata={"pandas": "{}"},
)


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equal types and values, NaN included."""
    return one.schema.equals(other.schema) and repr(one.to_pylist()) == repr(other.to_pylist())


def test_parquet_comes_as_it_is(tmp_path):
    # Arrow cannot read back null arrays of a fixed size.
    table = TABLE.set_column(9, "image", pa.array([[1, 2]] * 5, pa.list_(pa.uint8(), 2)))
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")

    assert same(source.table(), table)
    assert source.rows == 5
    assert source.schema.metadata == {"pandas": "{}"}
    kinds = {column.name: column.kind.value for column in source.schema.columns}
    assert kinds == {
        "n": "integer",
        "x": "numeric",
        "word": "categorical",
        "text": "text",
        "coded": "categorical",
        "when": "timestamp",
        "day": "timestamp",
        "money": "other",
        "list": "other",
        "image": "array",
        "nested": "other",
        "void": "other",
        "raw": "other",
        "half": "numeric",
    }


def test_every_arrow_type_survives_ingestion(tmp_path):
    dataset = ingest(TableSource(TABLE), tmp_path / "dataset")

    assert same(dataset.table(), TABLE)
    assert same(dataset.table(rows=np.array([4, 0])), TABLE.take([4, 0]))
    dataset.verify()


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", None], pa.string_view()),
        pa.array([b"a", None], pa.binary_view()),
        pa.array(["a", None], pa.large_string()),
        pa.array([1, None], pa.duration("ns")),
        pa.array([1, None], pa.time32("s")),
        pa.array([86_400_000, None], pa.date64()),
        pa.array([2**64 - 1, None], pa.uint64()),
        pa.array([None, 1], pa.decimal256(50, 3)),
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())),
        pa.array([{"x": [1, 2]}, None], pa.struct([("x", pa.list_(pa.int8(), 2))])),
        pa.array([1, 2, 1]).dictionary_encode(),
        pa.array(["a", "a", None], pa.large_string()).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["b", "a"]), ordered=True),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, None], pa.binary(16))),
    ],
    ids=lambda array: str(array.type),
)
def test_rarer_arrow_types_survive_ingestion(tmp_path, array):
    table = pa.table({"a": array})
    dataset = ingest(TableSource(table), tmp_path / "dataset")

    assert same(dataset.table(), table)
    dataset.verify()


def test_a_type_that_parquet_does_not_hold_is_refused_by_name(tmp_path):
    table = pa.table({"span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})

    with pytest.raises(SchemaError) as error:
        ingest(TableSource(table), tmp_path / "dataset")

    assert str(error.value) == "column 'span': month_day_nano_interval has no place in Parquet; cast it"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_parquet_in_the_order_of_names(tmp_path):
    (tmp_path / "year=2021").mkdir()
    (tmp_path / "year=2020").mkdir()
    pq.write_table(pa.table({"a": [3]}), tmp_path / "year=2021" / "1.parquet")
    pq.write_table(pa.table({"a": [2]}), tmp_path / "year=2020" / "2.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "year=2020" / "1.parquet")

    assert open_source(tmp_path).table().to_pydict() == {"a": [1, 2, 3], "year": [2020, 2020, 2021]}
    assert open_source(tmp_path / "year=2020" / "*.parquet").table().to_pydict() == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PAR1 and so on", "is not Parquet, or is damaged or cut short; fetch it again"),
    ],
)
def test_bad_parquet_is_refused(tmp_path, content, message):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)

    with pytest.raises(SourceError) as error:
        open_source(path).table()

    assert str(error.value) == f"{path}: {message}"


def test_a_flipped_byte_in_parquet_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table({"a": np.random.default_rng(0).normal(size=5000)})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)

    with pytest.raises(SourceError, match="damaged or cut short"):
        open_source(path).table()


def test_parquet_without_rows_is_refused(tmp_path):
    pq.write_table(TABLE.slice(0, 0), tmp_path / "t.parquet")

    with pytest.raises(SourceError) as error:
        open_source(tmp_path / "t.parquet").table()

    assert str(error.value) == f"{tmp_path}/t.parquet: has no rows"


def test_parquet_files_of_one_folder_must_agree(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")

    with pytest.raises(SourceError) as error:
        open_source(tmp_path).table()

    assert (
        str(error.value)
        == f"{tmp_path}/2.parquet: its columns are not those of {tmp_path}/1.parquet; ingest them apart"
    )


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            Column(name="q", kind=Kind.integer),
            "has no column 'q', which the schema asks for; the columns are ",
        ),
        (
            Column(name="x", kind=Kind.integer),
            "column 'x' is double, the schema asks for int64; mend one of them",
        ),
    ],
)
def test_parquet_that_is_not_what_the_schema_says(tmp_path, wish, message):
    pq.write_table(TABLE, tmp_path / "t.parquet")

    with pytest.raises(SchemaError) as error:
        open_source(tmp_path / "t.parquet", Schema(columns=(wish,))).table()

    assert str(error.value).startswith(f"{tmp_path}/t.parquet: {message}")


def test_wishes_for_a_typed_source(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    wishes = Schema(
        columns=(Column(name="word", kind=Kind.text), Column(name="x", kind=Kind.numeric, bound="1%"))
    )

    schema = open_source(tmp_path / "t.parquet", wishes).schema

    assert schema.column("word").kind is Kind.text
    assert schema.column("x").bound == "1%"


# ------------------------------------------------------------------------------------------------ arrays


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(
        dtype=st.one_of(
            hnp.integer_dtypes(endianness="?"),
            hnp.unsigned_integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
            hnp.boolean_dtypes(),
            st.sampled_from(["M8[s]", "M8[ns]", "m8[ms]", "U3", "<U1"]),
        ),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
        elements={"allow_nan": False},
        fill=None,
    ),
    fortran=st.booleans(),
)
def test_every_array_comes_back(tmp_path, array, fortran):
    if array.dtype.kind == "U":
        array = array.reshape(-1)
        array = np.array([text.replace("\0", "") for text in array.tolist()], array.dtype)
    if array.dtype.kind in "mM":
        array = np.where(np.isnat(array), np.zeros(1, array.dtype), array)
        if array.dtype.kind == "M":
            array = array.reshape(-1)
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else array)
    source = open_source(tmp_path / "a.npy")

    write_table(source.batches(), source.schema, tmp_path / "b.npy")
    restored = np.load(tmp_path / "b.npy")

    assert restored.shape == array.shape
    assert restored.dtype.kind == array.dtype.kind
    assert np.array_equal(restored, array)
    assert source.source_bytes == array.nbytes or array.dtype.kind == "U"
    if array.dtype.kind != "U":
        assert restored.dtype == array.dtype


def test_matrices_become_columns_and_images_become_arrays(tmp_path):
    np.save(tmp_path / "m.npy", np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "i.npy", np.zeros((3, 28, 28), np.uint8))

    assert open_source(tmp_path / "m.npy").table().to_pydict() == {
        "c0": [0.0, 2.0, 4.0],
        "c1": [1.0, 3.0, 5.0],
    }
    column = open_source(tmp_path / "i.npy").schema.columns[0]
    assert (column.name, column.kind.value, column.arrow) == (
        "values",
        "array",
        "fixed_size_list<item: uint8>[784]",
    )


def test_structured_arrays_become_columns(tmp_path):
    array = np.array([(1, 2.5, "ab"), (2, np.nan, "c")], [("a", ">i4"), ("b", "f8"), ("t", "U3")])
    np.save(tmp_path / "s.npy", array)
    source = open_source(tmp_path / "s.npy")

    write_table(source.table(), source.schema, tmp_path / "again.npy")

    assert source.schema.names == ["a", "b", "t"]
    assert np.load(tmp_path / "again.npy").tobytes() == array.tobytes()


def test_several_arrays_of_one_file_are_columns_side_by_side(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(70_000, 2)), np.arange(70_000)
    np.savez_compressed(tmp_path / "z.npz", x=x, y=y)
    source = open_source(tmp_path / "z.npz")

    assert source.schema.names == ["x_0", "x_1", "y"]
    assert source.source_bytes == x.nbytes + y.nbytes
    write_table(source.batches(), source.schema, tmp_path / "again.npz")
    again = np.load(tmp_path / "again.npz")
    assert np.array_equal(again["x"], x)
    assert np.array_equal(again["y"], y)


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_saved(np.array(5)), "is a single value; save an array whose first axis is the rows"),
        (_saved(np.zeros((0, 3))), "has no rows"),
        (_saved(np.array([1 + 2j])), "values of type complex128 are not read; save numbers, text or times"),
        (_saved(np.array([None])), "values of type object are not read; save numbers, text or times"),
        (
            _saved(np.zeros(3, "M8[M]")),
            "times of type datetime64[M] are not read; save them as datetime64[s] or finer",
        ),
        (_saved(np.arange(100.0))[:-8], "is cut short; fetch it again"),
        (b"\x93NUMPY", "is not an array: EOF: reading magic string, expected 8 bytes got 6"),
    ],
)
def test_arrays_that_are_not_rows_of_values(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)

    with pytest.raises(SourceError) as error:
        open_source(path).table()

    assert str(error.value) == f"{path}: {message}"


def test_arrays_of_different_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "z.npz", x=np.zeros(3), y=np.zeros(4))

    with pytest.raises(SourceError) as error:
        open_source(tmp_path / "z.npz").table()

    assert (
        str(error.value)
        == f"{tmp_path}/z.npz, array 'y': has 4 rows, others have 3; save arrays of one length"
    )


# ----------------------------------------------------------------------------------------- lines of JSON


def test_lines_of_json(tmp_path):
    lines = [
        {"n": 1, "x": 1, "when": "2020-01-01T00:00:00Z", "zip": "00123", "tags": ["a"], "o": {"k": 1}},
        {"n": None, "x": 2.5, "when": None, "zip": "2020-01-01", "tags": [], "late": True},
        {"x": -1e300, "when": "2021-06-01T12:00:00Z", "zip": "", "o": None},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    source = open_source(path)

    types = {column.name: column.arrow for column in source.schema.columns}
    assert types == {
        "n": "int64",
        "x": "double",
        "when": "timestamp[s, tz=UTC]",
        "zip": "string",
        "tags": "list<item: string>",
        "o": "struct<k: int64>",
        "late": "bool",
    }
    assert source.table().column("zip").to_pylist() == ["00123", "2020-01-01", ""]
    write_table(source.batches(), source.schema, tmp_path / "again.jsonl")
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [{key: value for key, value in line.items() if value is not None} for line in again] == [
        {key: value for key, value in line.items() if value is not None} for line in lines
    ]


def test_types_are_unified_over_all_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("data.jsonl._BLOCK", 64)
    path = tmp_path / "t.jsonl"
    lines = [f'{{"a": {index}, "b": null, "l": []}}' for index in range(50)]
    lines += [
        '{"a": 1.5, "b": "x", "l": [1], "s": {"x": 1}}',
        '{"a": 2, "b": "y", "l": [2.5], "s": {"y": "z"}}',
    ]
    path.write_text("\n".join(lines))
    source = open_source(path)

    assert source.rows == 52
    assert [str(type_) for type_ in source.table().schema.types] == [
        "double",
        "string",
        "list<item: double>",
        "struct<x: int64, y: string>",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", ": has no rows"),
        (b'{"a":1}\n{"a":\n', ", line 2, column 6: not JSON: Expecting value; mend the line"),
        (b'{"a":1}\n\n[1]\n', ', line 3: is no object; each line must read {"name": value, ...}'),
        (b'{"a":1}\n{"a":"\xff"}\n', ", line 2: byte 0xff is not UTF-8; convert the file (iconv -t UTF-8)"),
        (
            b'{"a":9223372036854775808}\n',
            ", line 1: 9223372036854775808 is beyond 64 bits; write it in quotes",
        ),
        (
            b'{"a":1}\n{"a":"x"}\n',
            ", line 2: Column(/a) changed from number to string; mend the line, or make the types one",
        ),
        (
            b'{"a":1,"a":2}\n',
            ", line 1: Column(/a) was specified twice; mend the line, or make the types one",
        ),
    ],
)
def test_bad_lines_of_json_are_refused_by_place(tmp_path, content, message):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)

    with pytest.raises(SourceError) as error:
        open_source(path).table()

    assert str(error.value) == f"{path}{message}"


def test_a_type_that_changes_between_blocks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data.jsonl._BLOCK", 64)
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 12345678}\n' * 4 + '{"a": "x"}\n' * 9)  # The first four fill a block.

    with pytest.raises(SchemaError, match=r"'a' holds string, before it held int64; make them one type$"):
        open_source(path).table()


# --------------------------------------------------------------------------------------- names and sizes


ENDINGS = ".csv, .tsv, .parquet, .npy, .npz, .jsonl, .ndjson, .txt, .idx, -ubyte, .png, .jpg, .jpeg"
KNOWN = f"known are {ENDINGS}, and .gz or .zip of text files and idx"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{d}/none.csv", "there is no such file"),
        ("{d}/*.csv", "no file matches"),
        ("{d}/notes.doc", f"not a known kind of file; {KNOWN}"),
        ("{d}/mixed", "holds files of several kinds (csv, jsonl); name one kind with a glob"),
        ("{d}/bare", f"no data files here; {KNOWN}"),
        (
            "nosuch://b/a.csv",
            "no file system for this address: Unrecognized filesystem type in URI: nosuch://b/a.csv",
        ),
        (
            "sample:moon",
            "there is no such sample; there are flights, weather, solar, adult, mnist, verses, fashion-mnist",
        ),
    ],
)
def test_a_source_that_is_not_there_is_refused_by_name(tmp_path, uri, message):
    (tmp_path / "notes.doc").write_text("x")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text("a\n1\n")
    (tmp_path / "mixed" / "a.jsonl").write_text("{}\n")
    (tmp_path / "bare").mkdir()

    with pytest.raises(SourceError) as error:
        open_source(uri.format(d=tmp_path))

    assert str(error.value) == f"{uri.format(d=tmp_path)}: {message}"


def test_a_uri_names_a_file_too(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")

    assert open_source((tmp_path / "a.csv").as_uri()).table().to_pydict() == {"a": [1]}


def test_the_digest_is_of_bytes_not_of_names_and_times(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.csv").write_text("a\n1\n")
    (tmp_path / "c.csv").write_text("a\n2\n")

    a, b, c = (open_source(tmp_path / f"{name}.csv").digest() for name in "abc")

    assert a == b
    assert a != c


def test_a_dataset_is_a_source_with_the_sizes_of_its_own(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,x\n2,y\n")
    dataset = ingest(tmp_path / "a.csv", tmp_path / "dataset")
    source = open_source(tmp_path / "dataset")

    assert source.table().equals(dataset.table(), check_metadata=True)
    assert (source.rows, source.source_bytes, source.digest()) == (2, 12, dataset.manifest.digest)


@given(sizes=st.lists(st.integers(0, 7), max_size=8), rows=st.integers(1, 9))
def test_rebatching_keeps_rows_and_order(sizes, rows):
    schema = pa.schema([("a", pa.int64())])
    numbers = iter(range(sum(sizes)))
    batches = [
        pa.record_batch([pa.array([next(numbers) for _ in range(size)], pa.int64())], schema)
        for size in sizes
    ]

    again = list(rebatch(batches, schema, rows))

    assert [value for batch in again for value in batch.column(0).to_pylist()] == list(range(sum(sizes)))
    assert all(batch.num_rows == rows for batch in again[:-1])


# ------------------------------------------------------------------------------------------------ output


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ".npz"])
def test_a_table_is_written_by_the_ending_of_its_name(tmp_path, ending):
    table = pa.table({"n": [1, 2, 3], "x": [1.5, 2.0, -0.0], "w": ["a", "b", "c"]})
    path = tmp_path / "deep" / f"t{ending}"

    write_table(table, Schema.from_arrow(table.schema), path)

    assert open_source(path).table().to_pydict() == table.to_pydict()


def test_columns_of_several_types_become_records(tmp_path):
    table = pa.table({"n": [1, 2], "x": [1.5, None], "w": ["a", "bc"]})

    write_table(table, Schema.from_arrow(table.schema), tmp_path / "t.npy")

    array = np.load(tmp_path / "t.npy")
    assert array.dtype.names == ("n", "x", "w")
    assert array["w"].tolist() == ["a", "bc"]
    assert np.isnan(array["x"][1])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, None]), "column 'a': an array of int64 cannot hold its nulls; write .parquet or .csv instead"),
        (
            pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
            "column 'a': an array cannot hold its nulls; write .parquet instead",
        ),
        (pa.array([[1], [2]]), "column 'a': an array cannot hold list<item: int64>; write .parquet instead"),
    ],
)  # fmt: skip
def test_what_an_array_cannot_hold_is_refused_and_leaves_nothing(tmp_path, column, message):
    table = pa.table({"a": column})

    with pytest.raises(DataError) as error:
        write_table(table, Schema.from_arrow(table.schema), tmp_path / "new" / "t.npy")

    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_a_wrong_call(tmp_path):
    with pytest.raises(UsageError) as error:
        write_table(TABLE, Schema.from_arrow(TABLE.schema), tmp_path / "t.xlsx")

    assert (
        str(error.value)
        == f"{tmp_path}/t.xlsx: the name must end in one of .parquet, .csv, .npy, .npz, .jsonl, .txt, "
        "or have no ending for a folder of PNG images"
    )


def test_words_that_look_like_null_stay_words_under_the_schema_that_was_inferred(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text("tail,dest\nN1,\nNA,X\nN1,Y\n")
    first = open_source(source)
    again = open_source(source, Schema.from_arrow(first.table().schema))
    assert first.schema.column("tail").nullable is False
    assert again.table().equals(first.table())


@pytest.mark.parametrize(
    "lines",
    [
        ['{"id":9007199254740993}', '{"id":0.5}'],
        ['{"id":0.5}', '{"id":-9007199254740993}'],
        ['{"id":{"a":[9007199254740993, 0.5]}}'],
    ],
)
def test_a_whole_number_that_a_float_would_round_is_refused(tmp_path, lines):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SourceError, match="9007199254740993 stands among fractions and would be rounded"):
        open_source(str(path)).table()


def test_long_whole_numbers_that_a_float_holds_are_kept(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id":9007199254740992000}\n{"id":0.5}\n')
    assert open_source(str(path)).table()["id"].to_pylist() == [9007199254740992000.0, 0.5]


@pytest.mark.parametrize("ending", ["parquet", "csv", "npz", "npy", "jsonl"])
def test_rows_are_written_whatever_their_schema_says_of_nulls(tmp_path, ending):
    strict = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.float64())])
    table = pa.table({"a": [1, 2], "b": [0.5, 1.5]})
    write_table(table, Schema.from_arrow(strict), tmp_path / f"t.{ending}")
    assert open_source(tmp_path / f"t.{ending}").table().to_pydict() == table.to_pydict()
