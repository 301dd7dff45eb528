"""CSV: nothing is lost by typing, every field comes back, every fault is named by its place."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.csvtext import write_csv
from data.errors import SchemaError, SourceError
from data.schema import Column, CsvDialect, Kind, Schema
from data.sources import Source, open_source


def source_of(
    folder: Path, content: str | bytes, name: str = "table.csv", schema: Schema | None = None
) -> Source:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(path, schema)


def printed(source: Source) -> bytes:
    file = io.BytesIO()
    write_csv(source.batches(), source.schema, file)
    return file.getvalue()


def fields(content: bytes, delimiter: str = ",") -> list[list[str]]:
    text = io.StringIO(content.decode(), newline="")
    return [record for record in csv.reader(text, delimiter=delimiter) if record]


def typed(folder: Path, cells: list[str]) -> Column:
    """How a column of these cells is typed beside a column of row numbers, after making sure that it comes back."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(
        [["row", "x"], *([index, cell] for index, cell in enumerate(cells))]
    )
    source = source_of(folder, file.getvalue())
    assert fields(printed(source)) == fields(file.getvalue().encode())
    return source.schema.column("x")


# ------------------------------------------------------------------------------------------------- typing


@pytest.mark.parametrize(
    ("cells", "kind", "arrow", "null_text", "text_format"),
    [
        (["1", "-2", "30"], "integer", "int64", None, "int"),
        (["1", "", "30"], "integer", "int64", "", "int"),
        (["1", "NA", "30"], "integer", "int64", "NA", "int"),
        (["1", "NaN", "30"], "integer", "int64", "NaN", "int"),
        (["9007199254740993", "-9223372036854775808"], "integer", "int64", None, "int"),
        (["18446744073709551615", "0"], "integer", "uint64", None, "int"),
        (["1.5", "2", "NA"], "numeric", "double", "NA", "shortest"),
        (["1.50", "2.25", ""], "numeric", "double", "", "fixed:2"),
        (["1.5", "nan", ""], "numeric", "double", "", "fixed:1"),
        (["1.5", "NaN", "inf", "-inf"], "numeric", "double", None, "fixed:1 nan=NaN"),
        (["1.0", "2.5", "1e-07"], "numeric", "double", None, "repr"),
        (["-0.0", "0.0"], "numeric", "double", None, "fixed:1"),
        (["5", "-0"], "numeric", "double", None, "shortest"),
        (["inf", "inf"], "numeric", "double", None, "shortest"),
        (["1", "2", "inf"], "numeric", "double", None, "shortest"),
        (["1,5", "2", "0,25"], "numeric", "double", None, "shortest decimal=,"),
        (["true", "false", ""], "boolean", "bool", "", "bool:true/false"),
        (["TRUE", "TRUE"], "boolean", "bool", None, "bool:TRUE/FALSE"),
        (["2013-01-01T10:00:00Z", "NA"], "timestamp", "timestamp[s, tz=UTC]", "NA", "%Y-%m-%dT%H:%M:%SZ"),
        (["2013-01-01", "2013-02-28"], "timestamp", "timestamp[s]", None, "%Y-%m-%d"),
        (["2013-01-01 00:00:00.001"] * 2, "timestamp", "timestamp[ms]", None, "%Y-%m-%d %H:%M:%S"),
        # What would not come back stays text.
        (["00123", "4", "5"], "text", "string", None, None),
        (["1.10", "1.5", "2"], "text", "string", None, None),
        (["+5", "5", "6"], "text", "string", None, None),
        (["1", " 2", "3"], "text", "string", None, None),
        (["true", "True", "x"], "text", "string", None, None),
        (["2013-02-30", "2013-01-01", "x"], "text", "string", None, None),
        (["123456789012345678901", "1", "2"], "text", "string", None, None),
        (["1", "2", "3", "four"], "text", "string", None, None),
        # Two spellings of null are not one.
        (["1", "NA", "", "2"], "text", "string", "", None),
        (["1.5", "NaN", "nan", "inf", "2"], "text", "string", None, None),
        # A real NA among words is a word; the empty cell is null.
        (["NA", "US", "DE", ""], "text", "string", "", None),
        (["NA", "US", "US", "NA", "NA", "US"], "categorical", "string", None, None),
        (["a", "b", "a", "b", "a"], "categorical", "string", None, None),
        # Nothing but nulls, nothing but one value, one row.
        (["", "", ""], "categorical", "string", "", None),
        (["NA", "NA"], "categorical", "string", "NA", None),
        (["NaN", "NaN"], "numeric", "double", None, "shortest nan=NaN"),
        (["7", "7", "7"], "integer", "int64", None, "int"),
        (["7"], "integer", "int64", None, "int"),
        (["word"], "text", "string", None, None),
    ],
)
def test_columns_are_typed_only_where_nothing_is_lost(tmp_path, cells, kind, arrow, null_text, text_format):
    column = typed(tmp_path, cells)

    assert (column.kind, column.arrow, column.null_text, column.text_format) == (
        kind,
        arrow,
        null_text,
        text_format,
    )


def test_integers_with_nulls_are_arrow_integers_with_nulls(tmp_path):
    table = source_of(tmp_path, "a,b\n1,x\nNA,y\n9007199254740993,z\n").table()

    assert table.column("a").to_pylist() == [1, None, 9007199254740993]
    assert table.schema.field("a").type == pa.int64()


def test_nullability_is_what_was_seen(tmp_path):
    schema = source_of(tmp_path, "a,b,c\n1,x,\nNA,y,q\n").schema

    assert [column.nullable for column in schema.columns] == [True, False, True]


def test_a_column_that_changes_type_half_way_becomes_text(tmp_path):
    rows = [str(index) for index in range(200_000)] + ["12a"] + [str(index) for index in range(200_000)]
    source = source_of(tmp_path, "n,x\n" + "".join(f"1,{cell}\n" for cell in rows))

    assert source.schema.column("x").kind is Kind.text
    assert source.table().column("x").to_pylist() == rows


# ------------------------------------------------------------------------------------------ coming back

CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            "NA",
            "NaN",
            "nan",
            "null",
            "-",
            "?",
            "0",
            "-0",
            "1.10",
            "1.5",
            "00123",
            "inf",
            "true",
            "2013-01-01",
        ]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.floats().map(lambda value: f"{value:.2f}"),
    st.datetimes().map(lambda value: value.isoformat()),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    st.sampled_from(['"', '""', ",", ";", "a,b", 'say "hi"', "two\nlines", "\r\n", " pad ", "\t", "\\", "'"]),
)
COLUMNS = st.one_of(CELLS, st.sampled_from(["1", "2", "NA"]), st.floats().map(repr), st.integers().map(str))


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width, rows = draw(st.integers(2, 4)), draw(st.integers(1, 8))
    kinds = [
        draw(st.sampled_from([CELLS, st.sampled_from(["1", "2", "NA", ""]), st.floats().map(repr)]))
        for _ in range(width)
    ]
    return [[f"c{index}" for index in range(width)], *([draw(kind) for kind in kinds] for _ in range(rows))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables(),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_every_field_of_any_csv_comes_back(tmp_path, table, delimiter, line_end, quoting):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(table)
    content = file.getvalue().encode()
    dialect = Schema(columns=(), csv=CsvDialect(delimiter=delimiter))

    source = source_of(tmp_path, content, schema=dialect)

    assert fields(printed(source), delimiter) == table


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.one_of(CELLS, st.sampled_from(["", "1"])), min_size=1, max_size=9))
def test_a_single_column_comes_back_empty_cells_included(tmp_path, cells):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([["name"], *([cell] for cell in cells)])

    source = source_of(tmp_path, file.getvalue())

    assert fields(printed(source)) == [["name"], *([cell] for cell in cells)]


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2,y\n",
        "a,b\n1,x\n2,y",
        "a,b\r\n1,x\r\n2,y\r\n",
        "a,b\r1,x\r2,y\r",
        "\ufeffa,b\n1,ä\n",
        "a;b\n1,5;x\n2,5;y\n",
        "a\tb\n1\tx\n",
        "a, b\n1, x\n2, y\n",
        '"a","b"\n"1","x"\n"2","y"\n',
        '"a","b"\n1,"x"\n2,"y"\n',
        'a,b\n1,"x,y"\n2,"say ""hi"""\n3,"two\nlines"\n',
        "a\n1\n\n3\n",
        'a\n1\n""\n3\n',
        ",b\n1,x\n",
        '"a\nb",c\n1,x\n',
        "a,b\n,\n,\n",
        "only\n1\n",
    ],
)
def test_common_files_come_back_byte_for_byte(tmp_path, content):
    assert printed(source_of(tmp_path, content)) == content.encode()


def test_empty_lines_between_records_are_no_records(tmp_path):
    source = source_of(tmp_path, "\n\na,b\n\n1,2\n\n3,4\n\n")

    assert source.table().to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_a_very_long_text_comes_back(tmp_path):
    long = "x" * 9_000_000
    source = source_of(tmp_path, f"a,b\n{long},1\ny,2\n")

    assert source.table().column("a").to_pylist() == [long, "y"]
    assert printed(source) == f"a,b\n{long},1\ny,2\n".encode()


def test_spaces_after_only_some_delimiters_belong_to_the_fields(tmp_path):
    rows = "".join(f"{index}, x\n" for index in range(20_000))
    source = source_of(tmp_path, f"a, b\n{rows}5,y\n")

    assert source.schema.names == ["a", " b"]
    assert source.table().column(" b").to_pylist()[-2:] == [" x", "y"]


# ------------------------------------------------------------------------------------ packed and divided


def test_packed_files_read_alike(tmp_path):
    content = "a,b\n1,x\n2,y\n"
    plain = source_of(tmp_path, content)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(content.encode()))
    with zipfile.ZipFile(tmp_path / "table.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anything.csv", content)

    for name in ("table.csv.gz", "table.csv.zip"):
        packed = open_source(tmp_path / name)
        assert packed.table().equals(plain.table(), check_metadata=True)
        assert packed.source_bytes == len(content)
        assert packed.stored_bytes == (tmp_path / name).stat().st_size


def test_a_folder_or_glob_is_one_table_typed_over_all_files(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "2.csv").write_text("a,b\nNA,y\n")
    (folder / "1.csv").write_text("a,b\n1,x\n")
    (folder / "_hidden.csv").write_text("q\n1\n")

    for uri in (folder, folder / "[12].csv"):
        source = open_source(uri)
        assert source.table().to_pylist() == [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]
        assert source.rows == 2
        assert source.source_bytes == 17


# ------------------------------------------------------------------------------------------ stray cells


def with_cells(cells: list[str]) -> str:
    return "a,b\n" + "".join(f"{cell},{row % 7}\n" for row, cell in enumerate(cells))


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_a_few_cells_that_make_text_of_a_column_are_told(tmp_path, monkeypatch, block):
    monkeypatch.setattr("data.csvfile._BLOCK", block)
    cells = [f"{row}.25" for row in range(400)]
    source = source_of(tmp_path, with_cells([*cells[:300], "oops", *cells[300:], "NA", "oops", "odd"]))

    assert source.notes == ()  # nothing has been read
    assert source.schema.column("a").kind is Kind.text
    (note,) = source.notes
    assert note.startswith(
        f"{tmp_path / 'table.csv'}, line 302: column 'a' is taken for text, for 'oops' and 1 more;"
    )
    assert note.endswith("Mend it, or say kind text in a schema")


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("stray", ["a", "kg"])
@pytest.mark.parametrize("row", [0, 1, 350])
def test_it_is_found_wherever_it_is_even_if_it_is_the_header_again(tmp_path, monkeypatch, stray, row, block):
    monkeypatch.setattr("data.csvfile._BLOCK", block)
    cells = [str(row) for row in range(400)]
    cells.insert(row, stray)
    source = source_of(tmp_path, with_cells(cells))
    assert source.schema.column("a").kind is Kind.text
    (note,) = source.notes
    assert f"table.csv, line {row + 2}: column 'a' is taken for text, for {stray!r};" in note


def test_in_very_large_files_no_line_is_sought(tmp_path, monkeypatch):
    monkeypatch.setattr("data.csvfile._LOCATED_BYTES", 100)
    source = source_of(tmp_path, with_cells([*(str(row) for row in range(400)), "x"]))
    assert source.schema.column("a").kind is Kind.text
    assert source.notes[0].startswith(f"{tmp_path / 'table.csv'}: column 'a' is")


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([*(str(row) for row in range(400)), "NA", "", "x"], id="two spellings of null"),
        pytest.param([f"{row}.25" for row in range(400)], id="numbers"),
        pytest.param([f"A{row}" for row in range(400)], id="texts"),
        pytest.param([str(row) if row % 50 else f"A{row}" for row in range(1, 400)], id="many"),
        pytest.param([*(f"{row % 9}" for row in range(400)), "x"], id="few values"),
        pytest.param([*(f"{row:03}" for row in range(400)), *(f"{row}" for row in range(400))], id="two types"),
    ],
)  # fmt: skip
def test_columns_of_one_type_and_of_texts_are_not(tmp_path, cells):
    source = source_of(tmp_path, with_cells(cells))
    assert source.schema.column("b").kind is Kind.integer
    assert source.notes == ()


def test_text_that_is_meant_is_not_told_of(tmp_path):
    cells = [*(str(row) for row in range(400)), "x"]
    schema = Schema(columns=(Column(name="a", kind=Kind.text),))
    source = source_of(tmp_path, with_cells(cells), schema=schema)
    assert source.schema.column("a").kind is Kind.text
    assert source.notes == ()


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b", "has a header but no rows"),
        (b"a,b\n1,2\n3\n", "line 3: has 1 field, the header has 2; mend the line"),
        (b"a,b\n1,2\n3,4,5\n", "line 3: has 3 fields, the header has 2; mend the line"),
        (
            b'a,b,c\n1,"2,3\n4,5,6\n',
            "line 2: has 2 fields, the header has 3; mend the line: a quote in it takes in the lines after it",
        ),
        (b'a,b\n"two\nlines",2\n3,4,5\n', "line 4: has 3 fields, the header has 2; mend the line"),
        (b"a,b,a\n1,2,3\n", "line 1: column name 'a' occurs twice (columns 1 and 3); rename one"),
        (
            b"a,b\n1,2\n3,\xff\n",
            "line 3, column 2: byte 0xff is not UTF-8; convert the file (iconv -t UTF-8)",
        ),
        (b"a,\xe9\n1,2\n", "line 1, column 2: byte 0xe9 is not UTF-8; convert the file (iconv -t UTF-8)"),
        (b'a,b\n1,2\n3,"open\n4,5\n', "line 3: a quote is opened and never closed; mend the line"),
    ],
)
def test_a_malformed_file_is_refused_by_its_place(tmp_path, content, message):
    with pytest.raises(SourceError) as error:
        source_of(tmp_path, content).table()

    place = tmp_path / "table.csv"
    separator = ", " if message.startswith("line") else ": "
    assert str(error.value) == f"{place}{separator}{message}"


@pytest.mark.parametrize("name", ["table.csv.gz", "table.csv.zip"])
def test_a_damaged_package_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match=r"damaged or cut short: .*; fetch it again$"):
        source_of(tmp_path, b"PK nothing of the kind", name).table()


def test_a_package_that_is_cut_short_is_refused(tmp_path):
    content = gzip.compress(b"a,b\n" + bytes(str(list(range(40_000))), "ascii"))[:-1000]

    with pytest.raises(SourceError, match=r"table\.csv\.gz: damaged or cut short: .*; fetch it again$"):
        source_of(tmp_path, content, "table.csv.gz").table()


def test_a_zip_of_several_files_is_refused_by_their_names(tmp_path):
    path = tmp_path / "two.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x\n1\n")
        archive.writestr("b.csv", "x\n1\n")

    with pytest.raises(SourceError) as error:
        open_source(path).table()

    told = "must hold one file, holds a.csv, b.csv; unpack it and name a file or the folder"
    assert str(error.value) == f"{path}: {told}"


def test_files_of_one_folder_must_agree(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "2.csv").write_text("a,c\n1,x\n")

    with pytest.raises(SourceError) as error:
        open_source(tmp_path).table()

    assert (
        str(error.value)
        == f"{tmp_path}/2.csv: its columns are not those of {tmp_path}/1.csv; ingest them apart"
    )


# ----------------------------------------------------------------------------------------- given schemas


def test_a_schema_decides_what_it_names_and_leaves_the_rest(tmp_path):
    schema = Schema(
        columns=(
            Column(name="zip", kind=Kind.categorical),
            Column(name="country", kind=Kind.categorical, null_text="NA"),
            Column(name="n", kind=Kind.integer, arrow="int16", bound="2"),
        )
    )
    source = source_of(tmp_path, "zip,country,n,rest\n10115,NA,7,1\n80331,DE,8,2\n", schema=schema)

    found = source.schema
    assert [column.kind.value for column in found.columns] == [
        "categorical",
        "categorical",
        "integer",
        "integer",
    ]
    assert found.column("n").bound == "2"
    assert source.table().to_pydict() == {
        "zip": ["10115", "80331"],
        "country": [None, "DE"],
        "n": [7, 8],
        "rest": [1, 2],
    }
    assert source.table().schema.field("n").type == pa.int16()


def test_a_pattern_of_ones_own(tmp_path):
    schema = Schema(columns=(Column(name="when", kind=Kind.timestamp, text_format="%d/%m/%Y %H:%M:%S"),))
    content = "when,x\n16/12/2006 17:24:00,1\n"

    assert printed(source_of(tmp_path, content, schema=schema)) == content.encode()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            Column(name="a", kind=Kind.integer),
            ", line 3: column 'a': '2x' is not a number; mend the data, or make the kind text",
        ),
        (
            Column(name="a", kind=Kind.integer, nullable=False, null_text="2x"),
            ": column 'a': holds nulls, its schema allows none (nullable: false)",
        ),
        (
            Column(name="q", kind=Kind.integer),
            ": has no column 'q', which the schema asks for; the columns are a, b",
        ),
    ],
)
def test_data_that_is_not_what_the_schema_says(tmp_path, column, message):
    with pytest.raises(SchemaError) as error:
        source_of(tmp_path, "a,b\n1,x\n2x,y\n", schema=Schema(columns=(column,))).table()

    assert str(error.value) == f"{tmp_path}/table.csv{message}"


def test_a_file_without_header_takes_its_names_from_the_schema(tmp_path):
    names = Schema(
        columns=(Column(name="a", kind=Kind.integer), Column(name="b", kind=Kind.text)),
        csv=CsvDialect(header=False),
    )
    source = source_of(tmp_path, "1,x\n2,y\n", schema=names)

    assert source.table().to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert printed(source) == b"1,x\n2,y\n"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((), ": has no header; give a schema that names all columns"),
        (
            (Column(name="a", kind=Kind.integer),),
            ", line 1: has 2 fields, the schema names 1; name all columns, or mend the line",
        ),
    ],
    ids=["none", "too few"],
)
def test_a_file_without_header_needs_the_names_of_all_columns(tmp_path, columns, message):
    schema = Schema(columns=columns, csv=CsvDialect(header=False))
    with pytest.raises(SourceError) as error:
        source_of(tmp_path, "1,x\n2,y\n", schema=schema).table()

    assert str(error.value) == f"{tmp_path}/table.csv{message}"


def test_an_all_null_column_takes_the_type_asked_for(tmp_path):
    schema = Schema(columns=(Column(name="a", kind=Kind.numeric), Column(name="b", kind=Kind.timestamp)))
    source = source_of(tmp_path, "a,b,c\n,NA,1\n,NA,2\n", schema=schema)

    assert source.table().schema.types[:2] == [pa.float64(), pa.timestamp("s")]
    assert printed(source) == b"a,b,c\n,NA,1\n,NA,2\n"


def test_columns_that_never_were_text_print_so_that_nulls_and_empty_texts_differ():
    table = pa.table(
        {"t": ["", None, 'a"b'], "x": [1.5, None, 2.0], "raw": [b"\x01", None, b""], "l": [[1], None, []]}
    )
    file = io.BytesIO()

    write_csv(table.to_batches(), Schema.from_arrow(table.schema), file)

    assert file.getvalue() == b't,x,raw,l\n"",1.5,01,[1]\n,,,\n"a""b",2,"",[]\n'


def test_a_header_longer_than_a_block_is_read(tmp_path):
    name = "n" * 5_000_000

    assert source_of(tmp_path, f"{name},b\n1,2\n").table().to_pydict() == {name: [1], "b": [2]}


@pytest.mark.parametrize("cells", [["1.50", "0.10", "NA"], ["0.1", "16777216"], ["1e-07", "0.5"]])
def test_narrower_floats_come_back_too(tmp_path, cells):
    schema = Schema(columns=(Column(name="x", kind=Kind.numeric, arrow="float"),))
    content = "x,y\n" + "".join(f"{cell},1\n" for cell in cells)
    source = source_of(tmp_path, content, schema=schema)

    assert source.table().schema.field("x").type == pa.float32()
    assert printed(source) == content.encode()
