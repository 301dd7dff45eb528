"""CSV files as typed record batches: one pass to find delimiter and types, one to read; memory stays bounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from data.csvtext import ColumnTyper, parse_column
from data.errors import SchemaError, SourceError
from data.files import DataFile, one_line
from data.schema import Column, CsvDialect, Schema, listed

pc: Any = pyarrow.compute
pcsv: Any = pyarrow.csv

_SAMPLE = 1 << 16
_BLOCK = 1 << 22
_LARGEST_BLOCK = 1 << 30
_DELIMITERS = (",", ";", "\t", "|")
_BOM = b"\xef\xbb\xbf"


class CsvFiles:
    """One or several CSV files with the same header, as one table.

    Args:
        files: The files, in order.
        wanted: A given schema; its columns are binding, others are inferred.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self.files = files
        self.wanted = wanted
        self.rows = 0
        self.schema = Schema(columns=())
        self._block = _BLOCK
        self._open_ended = False
        self.dialect = (wanted and wanted.csv) or self._sniff(files[0])
        self.names = self._read_names(files[0])
        for file in files[1:]:
            if self.dialect.header and self._read_names(file) != self.names:
                raise SourceError(
                    f"{file.path}: its columns are not those of {files[0].path}; ingest them apart"
                )
        self._infer()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, typed, in batches as the file's blocks give them."""
        arrow = self.schema.to_arrow()
        for file in self.files:
            for texts in self._texts(file):
                try:
                    arrays = [
                        parse_column(cells, column)
                        for cells, column in zip(texts, self.schema.columns, strict=True)
                    ]
                except (ValueError, pa.ArrowException) as error:
                    raise SourceError(
                        f"{file.path}: changed while it was read; try again when nothing writes to it"
                    ) from error
                yield pa.RecordBatch.from_arrays(arrays, schema=arrow)

    def _infer(self) -> None:
        """First pass: type all columns from all rows."""
        while True:
            try:
                self._infer_once()
            except _NotPaddedError:
                # Not every delimiter is followed by a space: then the spaces belong to the fields.
                self.dialect = self.dialect.model_copy(update={"delimiter": self.dialect.delimiter[0]})
                self.names = self._read_names(self.files[0])
            except _RowTooLongError:
                self._block *= 4
            else:
                return

    def _infer_once(self) -> None:
        self.rows = 0
        typers = [ColumnTyper(name, self._wish(name)) for name in self.names]
        for file in self.files:
            for texts in self._texts(file):
                self.rows += len(texts[0])
                for typer, cells in zip(typers, texts, strict=True):
                    typer.feed(cells)
        place = self.files[0].path
        if not self.rows:
            raise SourceError(f"{place}: has a header but no rows")
        columns: list[Column] = []
        for position, typer in enumerate(typers):
            try:
                columns.append(typer.finish())
            except SchemaError as error:
                where = "" if typer.misfit is None else self._locate(position, typer.misfit)
                raise SchemaError(f"{where or place}: {error}") from error
        final = self.dialect.model_copy(update={"final_line_end": not self._open_ended})
        self.schema = Schema(columns=tuple(columns), csv=final)

    def _wish(self, name: str) -> Column | None:
        if self.wanted is None or name not in self.wanted.names:
            return None
        return self.wanted.column(name)

    def _texts(self, file: DataFile) -> Iterator[list[pa.Array]]:
        """The cells of one file, a list of string arrays (one a column) for each block."""
        numbers = [str(index) for index in range(len(self.names))]
        with file.open() as stream:
            watched = _Watched(stream)
            try:
                reader = pcsv.open_csv(
                    watched,
                    pcsv.ReadOptions(
                        block_size=self._block,
                        column_names=numbers,
                        skip_rows_after_names=1 if self.dialect.header else 0,
                    ),
                    pcsv.ParseOptions(
                        delimiter=self.dialect.delimiter[0],
                        newlines_in_values=True,
                        ignore_empty_lines=len(numbers) > 1,
                    ),
                    pcsv.ConvertOptions(
                        column_types=dict.fromkeys(numbers, pa.string()), strings_can_be_null=False
                    ),
                )
                for batch in reader:
                    yield self._unpad(batch.columns)
            except pa.ArrowInvalid as error:
                raise self._explain(file, error) from error
            self._open_ended = not watched.last.endswith((b"\n", b"\r"))

    def _unpad(self, columns: list[pa.Array]) -> list[pa.Array]:
        """Take the space after each delimiter away, if the dialect has one."""
        if len(self.dialect.delimiter) == 1:
            return columns
        for cells in columns[1:]:
            if not pc.all(pc.starts_with(cells, " "), min_count=0).as_py():
                raise _NotPaddedError
        return [columns[0], *(pc.utf8_slice_codeunits(cells, 1) for cells in columns[1:])]

    def _sniff(self, file: DataFile) -> CsvDialect:
        with file.open() as stream:
            sample = stream.read(_SAMPLE)
        return sniff_dialect(sample, file.path)

    def _read_names(self, file: DataFile) -> list[str]:
        """Column names of one file, checked."""
        if not self.dialect.header:
            if self.wanted is None:
                raise SourceError(f"{file.path}: has no header; give a schema that names the columns")
            return self.wanted.names
        with file.open() as stream:
            records = self._records(stream, file.path)
            names = next(records, (1, []))[1]
        if not names:
            raise SourceError(f"{file.path}: is empty")
        for position, name in enumerate(names):
            if name in names[:position]:
                both = f"columns {names.index(name) + 1} and {position + 1}"
                raise SourceError(
                    f"{file.path}, line 1: column name {name!r} occurs twice ({both}); rename one"
                )
        missing = [name for name in (self.wanted.names if self.wanted else []) if name not in names]
        if missing:
            raise SchemaError(
                f"{file.path}: has no column {missing[0]!r}, which the schema asks for; {listed(names)}"
            )
        return names

    def _records(self, stream: BinaryIO, place: str) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of each record, read slowly, for headers and for explaining errors.

        Raises:
            SourceError: Text that is not UTF-8, by line and column.
        """
        csv.field_size_limit(_LARGEST_BLOCK)
        lines = _decoded_lines(stream, place, self.dialect)
        reader = csv.reader(lines, delimiter=self.dialect.delimiter[0])
        padded = len(self.dialect.delimiter) > 1
        line = 1
        for fields in reader:
            if fields or (line > 1 and len(getattr(self, "names", ())) == 1):
                yield line, [field[1:] if padded and index else field for index, field in enumerate(fields)]
            line = reader.line_num + 1

    def _explain(self, file: DataFile, error: pa.ArrowInvalid) -> Exception:
        """What is wrong in the file, by line and column."""
        if "straddling" in str(error) and self._block < _LARGEST_BLOCK:
            return _RowTooLongError()
        with file.open() as stream:
            try:
                for line, fields in self._records(stream, file.path):
                    if fields and len(fields) != len(self.names):
                        told = f"has {len(fields)} fields, the header has {len(self.names)}"
                        return SourceError(f"{file.path}, line {line}: {told}; mend the line")
            except (SourceError, csv.Error) as found:
                return (
                    found
                    if isinstance(found, SourceError)
                    else SourceError(f"{file.path}: {one_line(found)}")
                )
        return SourceError(f"{file.path}: not readable as CSV: {one_line(error)}")

    def _locate(self, position: int, text: str) -> str:
        """File and line of the first cell with this text."""
        for file in self.files:
            with file.open() as stream:
                for line, fields in self._records(stream, file.path):
                    if len(fields) > position and fields[position] == text:
                        return f"{file.path}, line {line}"
        return ""


def sniff_dialect(sample: bytes, place: str) -> CsvDialect:
    """Delimiter, quoting and line end from the first bytes of a file.

    Raises:
        SourceError: The file is empty.
    """
    bom = sample.startswith(_BOM)
    text = sample.removeprefix(_BOM).decode("utf-8", errors="replace")
    if not text.strip():
        raise SourceError(f"{place}: is empty")
    line_end = "\r\n" if "\r\n" in text else "\n" if "\n" in text else "\r" if "\r" in text else "\n"
    records = {
        delimiter: _sample_records(text, delimiter, len(sample) == _SAMPLE) for delimiter in _DELIMITERS
    }
    delimiter = max(_DELIMITERS, key=lambda candidate: _evenness(records[candidate]))
    padded = delimiter in ",;" and '"' not in text and _is_padded(records[delimiter])
    return CsvDialect(
        delimiter=delimiter + " " * padded,
        line_end=line_end,
        quoting=_sniff_quoting(text, delimiter, records[delimiter]),
        bom=bom,
    )


def _sample_records(text: str, delimiter: str, is_cut: bool) -> list[list[str]]:
    """The first records of a sample, the last one left out if it may be cut."""
    try:
        records = [
            record for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if record
        ]
    except csv.Error:
        return []
    return records[
        : 100 if len(records) > 100 else len(records) - 1 if is_cut and len(records) > 1 else len(records)
    ]


def _evenness(records: list[list[str]]) -> tuple[bool, int]:
    """Higher for a delimiter that cuts all records into equally many fields, and for more fields."""
    width = len(records[0]) if records else 0
    return (width > 1 and all(len(record) == width for record in records), width)


def _is_padded(records: list[list[str]]) -> bool:
    """Whether a space follows every delimiter."""
    return len(records[0]) > 1 and all(field.startswith(" ") for record in records for field in record[1:])


def _sniff_quoting(text: str, delimiter: str, records: list[list[str]]) -> Any:
    """Whether all fields, the header and words, or only those that must stand in quotes."""
    lines = text.splitlines()
    quoted: list[list[bool]] = []
    for line, record in zip(lines[:20], records[:20], strict=False):
        fields = line.split(delimiter)
        if len(fields) != len(record):
            break
        quoted.append([field.startswith('"') for field in fields])
    if not quoted or not all(quoted[0]):
        return "minimal"
    return "all" if all(all(marks) for marks in quoted) else "text"


class _Watched(io.RawIOBase):
    """A stream that remembers the last bytes read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.last = b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        if block:
            self.last = block[-2:]
        return block

    def readinto(self, buffer: Any) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _decoded_lines(stream: BinaryIO, place: str, dialect: CsvDialect) -> Iterator[str]:
    """Lines as text, ends kept."""
    for number, raw in enumerate(io.BufferedReader(_Watched(stream)), 1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            column = line[: error.start].count(dialect.delimiter[0].encode()) + 1
            told = f"byte 0x{line[error.start]:02x} is not UTF-8"
            raise SourceError(
                f"{place}, line {number}, column {column}: {told}; convert the file (iconv -t UTF-8)"
            ) from error


class _NotPaddedError(Exception):
    """Some delimiter is not followed by a space."""


class _RowTooLongError(Exception):
    """A record is longer than a block."""
