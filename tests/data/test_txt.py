"""Text files: one row a line, and back to the same bytes."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import DataError, SourceError, UsageError
from data.ingest import ingest
from data.output import write_table
from data.schema import Column, Kind, Schema, TxtDialect
from data.sources import open_source


def lines_of(folder, content, name="t.txt"):
    """A text file of these bytes, as a source."""
    path = folder / name
    path.write_bytes(content)
    return open_source(path)


def written(folder, rows, schema=None):
    """The bytes that a column of texts becomes."""
    table = rows if isinstance(rows, pa.Table) else pa.table({"text": pa.array(rows, pa.string())})
    write_table(table, schema or Schema.from_arrow(table.schema), folder / "again.txt")
    return (folder / "again.txt").read_bytes()


@pytest.mark.parametrize(
    ("content", "rows", "dialect"),
    [
        (b"a\nb\n", ["a", "b"], TxtDialect()),
        (b"a\nb", ["a", "b"], TxtDialect(final_line_end=False)),
        (b"a\r\nb\r\n", ["a", "b"], TxtDialect(line_end="\r\n")),
        (b"a\r\nb", ["a", "b"], TxtDialect(line_end="\r\n", final_line_end=False)),
        (b"a\r\nb\r", ["a", "b\r"], TxtDialect(line_end="\r\n", final_line_end=False)),
        (b"a\r\r\nb\r\n", ["a\r", "b"], TxtDialect(line_end="\r\n")),
        (b"a\r\nb\nc\r\n", ["a\r", "b", "c\r"], TxtDialect()),
        (b"a\rb", ["a\rb"], TxtDialect(final_line_end=False)),
        (b"\n", [""], TxtDialect()),
        (b"\r\n\r\n", ["", ""], TxtDialect(line_end="\r\n")),
        (b"\na\n\n", ["", "a", ""], TxtDialect()),
        (b"\xef\xbb\xbfa\n", ["a"], TxtDialect(bom=True)),
        (b"\xef\xbb\xbf\xef\xbb\xbfa\n", ["\ufeffa"], TxtDialect(bom=True)),
        (b'a\0b, "c" \xe2\x80\xa8d\x0b\n \t\n', ['a\0b, "c" \u2028d\x0b', " \t"], TxtDialect()),
    ],
)
def test_lines_are_rows_and_come_back_byte_for_byte(tmp_path, content, rows, dialect):
    source = lines_of(tmp_path, content)

    assert source.table().to_pydict() == {"text": rows}
    assert source.schema.txt == dialect
    assert Schema.from_arrow(source.table().schema) == source.schema
    assert (source.rows, source.source_bytes) == (len(rows), len(content))
    assert written(tmp_path, source.table(), source.schema) == content


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from(["\n", "\r\n", "\r", "a", "\xe9\u20ac", "\ufeff"]), min_size=1),
    block=st.integers(1, 9),
)
def test_any_text_comes_back_whatever_the_blocks(tmp_path, pieces, block):
    content = "".join(pieces).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.txtfile._BLOCK", block)
        source = lines_of(tmp_path, content)
        if content == b"\xef\xbb\xbf":
            return
        rows = source.table()["text"].to_pylist()
        assert written(tmp_path, source.table(), source.schema) == content

    plain = content.decode().removeprefix("\ufeff")
    lines = plain.split("\n") if not plain.endswith("\n") else plain.split("\n")[:-1]
    if plain.count("\n") == plain.count("\r\n") > 0:
        lines = [line.removesuffix("\r") for line in lines[: plain.count("\n")]] + lines[plain.count("\n") :]
    assert rows == lines


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r") | st.just("\ufeff"), max_size=5),
        min_size=1,
    ),
    dialect=st.builds(
        TxtDialect, line_end=st.sampled_from(["\n", "\r\n"]), final_line_end=st.booleans(), bom=st.booleans()
    ),
)
def test_any_texts_come_back(tmp_path, rows, dialect):
    schema = Schema(columns=(Column(name="text", kind=Kind.text),), txt=dialect)

    again = lines_of(tmp_path, written(tmp_path, rows, schema))

    assert again.table()["text"].to_pylist() == rows


@pytest.mark.parametrize(("word", "kind"), [("row {}", "text"), ("row", "categorical")])
def test_the_kind_is_that_of_other_texts(tmp_path, word, kind):
    source = lines_of(tmp_path, "".join(f"{word.format(row)}\n" for row in range(100)).encode())

    assert source.schema.columns == (Column(name="text", kind=Kind(kind), nullable=False, ipc=None),)
    wanted = Schema(columns=(Column(name="text", kind=Kind.categorical),))
    assert open_source(source.uri, wanted).schema.column("text").kind is Kind.categorical


def test_packed_lines_read_alike(tmp_path):
    content = b"a\r\nb\r\n"
    plain = lines_of(tmp_path, content)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "t.txt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anything", content)

    for name in ("t.txt.gz", "t.txt.zip"):
        packed = open_source(tmp_path / name)
        assert packed.table().equals(plain.table(), check_metadata=True)
        assert (packed.source_bytes, packed.stored_bytes) == (len(content), (tmp_path / name).stat().st_size)


def test_a_folder_or_glob_of_text_files_is_one_table(tmp_path):
    for name, content in {"2.txt": "c\nd", "1.txt": "a\nb", "3.TXT": "\ufeffe\n"}.items():
        (tmp_path / name).write_text(content)

    source = open_source(tmp_path)
    assert source.table()["text"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert source.rows == 5
    assert open_source(tmp_path / "[12].txt").table()["text"].to_pylist() == ["a", "b", "c", "d"]
    dataset = ingest(source, tmp_path.with_name("dataset"))
    assert dataset.schema == source.schema


def test_notes_beside_data_are_no_data(tmp_path):
    (tmp_path / "README.txt").write_text("where it is from\n")
    (tmp_path / "a.csv").write_text("a\n1\n")

    assert open_source(tmp_path).table().to_pydict() == {"a": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty"),
        (b"\xef\xbb\xbf", ": has no rows"),
        (b"a\n\nb\xff\n", ", line 3: byte 0xff is not UTF-8; convert the file (iconv -t UTF-8)"),
        (b"a\nb\xc3", ", line 2: byte 0xc3 is not UTF-8; convert the file (iconv -t UTF-8)"),
        (b"a" * 99, ", line 1: is longer than 1 GiB; break it into several"),
        (b"a\n" * 9 + b"b" * 99 + b"\n", ", line 10: is longer than 1 GiB; break it into several"),
    ],
)
def test_what_is_not_lines_of_text_is_refused_by_place(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr("data.txtfile._BLOCK", 8)
    monkeypatch.setattr("data.txtfile._LONGEST", 64)

    with pytest.raises(SourceError) as error:
        lines_of(tmp_path, content).table()

    assert str(error.value) == f"{tmp_path}/t.txt{message}"


def test_a_packed_file_of_nothing_has_no_rows(tmp_path):
    with pytest.raises(SourceError) as error:
        lines_of(tmp_path, gzip.compress(b""), "t.txt.gz").table()

    assert str(error.value) == f"{tmp_path}/t.txt.gz: has no rows"


def test_lines_that_change_while_they_are_read_are_refused(tmp_path):
    source = lines_of(tmp_path, b"a\r\nb\r\n")
    assert source.rows == 2
    (tmp_path / "t.txt").write_bytes(b"a\nb\n")

    with pytest.raises(SourceError) as error:
        source.table()

    told = "changed while it was read; try again when nothing writes to it"
    assert str(error.value) == f"{tmp_path}/t.txt: {told}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"n": [1], "text": ["a"]},
            "a .txt holds one column, the table has 2 (the columns are n, text); choose one (svae decompress "
            "--columns), or write .parquet or .jsonl",
        ),
        ({"n": [1]}, "a .txt holds text, column 'n' is int64; write .parquet or .jsonl"),
        (
            {"n": np.zeros((1, 2)).tolist()},
            "a .txt holds text, column 'n' is list<item: double>; write .parquet or .jsonl",
        ),
    ],
)
def test_what_is_not_one_column_of_texts_is_a_wrong_call(tmp_path, table, message):
    with pytest.raises(UsageError) as error:
        written(tmp_path / "new", pa.table(table))

    assert str(error.value) == f"{tmp_path}/new/again.txt: {message}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "told"), [(None, "is null"), ("a\nb", "holds a line end"), ("a\r", "holds a line end")]
)
def test_what_no_line_can_hold_is_refused_and_leaves_nothing(tmp_path, value, told):
    with pytest.raises(DataError) as error:
        written(tmp_path / "new", ["a"] * 20_000 + [value])

    assert str(error.value) == (
        f"column 'text', row 20,000 (0 is the first): {told}, which a line of .txt cannot; write .parquet or .jsonl"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
    ],
    ids=lambda array: str(array.type),
)
def test_texts_of_any_layout_are_written(tmp_path, array):
    assert written(tmp_path, pa.table({"any name": array})) == b"a\nb\n"


def test_no_rows_are_no_lines(tmp_path):
    assert written(tmp_path, []) == b""
