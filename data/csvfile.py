"""CSV files as typed record batches: one pass to find delimiter and types, one to read; memory stays bounded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from data.csvscan import check_quotes, find_fault, read_header, read_records, sniff_dialect
from data.csvtext import ColumnTyper, parse_column
from data.errors import SchemaError, SourceError
from data.files import DataFile, one_line
from data.schema import Column, Schema, listed

pc: Any = pyarrow.compute
pcsv: Any = pyarrow.csv

_BLOCK = 1 << 22
_LARGEST_BLOCK = 1 << 30
_LOCATED_BYTES = 1 << 28
"""Stored bytes that are gone through once more, at most, for a note to say where a text is."""
_TOO_LONG = ("straddling", "Could not skip initial")
_NO_ROWS = ("Empty CSV file", "Could not skip initial")
"""What Arrow says of records longer than a block, and of a file that ends with its header."""


class CsvFiles:
    """One or several CSV files with the same header, as one table.

    Args:
        files: The files, in order.
        wanted: A given schema; its columns are binding, others are inferred.

    Raises:
        SourceError: A malformed file, by line and column.
        SchemaError: A column that is not what `wanted` says.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self.files = files
        self.wanted = wanted
        self.rows = 0
        self.notes: tuple[str, ...] = ()
        self._block = _BLOCK
        self.dialect = sniff_dialect(files[0])
        if wanted is not None and wanted.csv is not None:
            self.dialect = self.dialect.model_copy(update=wanted.csv.model_dump(exclude_unset=True))
        self.schema = self._infer()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, typed, in batches as the file's blocks give them."""
        columns, arrow = self.schema.columns, self.schema.to_arrow()
        for file in self.files:
            for texts in self._texts(file, _End()):
                try:
                    arrays = [
                        parse_column(cells, column) for cells, column in zip(texts, columns, strict=True)
                    ]
                except (ValueError, pa.ArrowException) as error:
                    told = "changed while it was read; try again when nothing writes to it"
                    raise SourceError(f"{file.path}: {told}") from error
                yield pa.RecordBatch.from_arrays(arrays, schema=arrow)

    def _infer(self) -> Schema:
        """First pass: type all columns from all rows."""
        while True:
            self._names = self._read_names()
            try:
                return self._infer_once()
            except _NotPaddedError:
                # Not every delimiter is followed by a space: then the spaces belong to the fields.
                self.dialect = self.dialect.model_copy(update={"delimiter": self.dialect.delimiter[0]})
            except _RowTooLongError:
                self._block *= 4

    def _infer_once(self) -> Schema:
        self.rows = 0
        typers = [ColumnTyper(name, self._wish(name)) for name in self._names]
        end = _End()
        for file in self.files:
            rows_before = self.rows
            for texts in self._texts(file, end):
                self.rows += len(texts[0])
                for typer, cells in zip(typers, texts, strict=True):
                    typer.feed(cells)
            # An odd number of quotes, or records over several lines: one that is never closed may be among them.
            records = self.rows - rows_before + self.dialect.header
            if end.quotes % 2 or (end.quotes and end.lines + (not end.has_line_end) > records):
                check_quotes(file, self.dialect)
        if not self.rows:
            raise SourceError(f"{self.files[0].path}: has a header but no rows")
        columns = [self._typed(position, typer) for position, typer in enumerate(typers)]
        self.notes = self._told_of({k: typer for k, typer in enumerate(typers) if typer.strays})
        seen = {"final_line_end": end.has_line_end, "quoted_empty": end.quoted_empty and len(columns) == 1}
        return Schema(columns=tuple(columns), csv=self.dialect.model_copy(update=seen))

    def _typed(self, position: int, typer: ColumnTyper) -> Column:
        try:
            return typer.finish()
        except SchemaError as error:
            places = {} if typer.misfit is None else self._locate({position: typer.misfit})
            raise SchemaError(f"{places.get(position, self.files[0].path)}: {error}") from error

    def _told_of(self, typers: dict[int, ColumnTyper]) -> tuple[str, ...]:
        """That a few cells, mistakes perhaps, make text of columns."""
        large = sum(file.size for file in self.files) > _LOCATED_BYTES
        places = {} if large else self._locate({k: typer.strays[0] for k, typer in typers.items()})
        notes = list[str]()
        for position, typer in typers.items():
            first, *others = typer.strays
            more = f" and {len(others)} more" if others else ""
            notes.append(
                f"{places.get(position, self.files[0].path)}: column {typer.name!r} is taken for text, for "
                f"{first[:80]!r}{more}; all else in it has one type. Mend it, or say kind text in a schema"
            )
        return tuple(notes)

    def _wish(self, name: str) -> Column | None:
        return self.wanted.column(name) if self.wanted is not None and name in self.wanted.names else None

    def _read_names(self) -> list[str]:
        """Column names, the same in all files."""
        if not self.dialect.header:
            if self.wanted is None or not self.wanted.names:
                raise SourceError(
                    f"{self.files[0].path}: has no header; give a schema that names all columns"
                )
            return self.wanted.names
        names = read_header(self.files[0], self.dialect).fields
        for file in self.files[1:]:
            if read_header(file, self.dialect).fields != names:
                raise SourceError(
                    f"{file.path}: its columns are not those of {self.files[0].path}; ingest them apart"
                )
        missing = [name for name in (self.wanted.names if self.wanted else []) if name not in names]
        if missing:
            told = f"has no column {missing[0]!r}, which the schema asks for"
            raise SchemaError(f"{self.files[0].path}: {told}; {listed(names)}")
        return names

    def _texts(self, file: DataFile, end: _End) -> Iterator[list[pa.Array]]:
        """The cells of one file, a list of string arrays (one a column) for each block."""
        numbers = [str(index) for index in range(len(self._names))]
        skipped = read_header(file, self.dialect).end if self.dialect.header else 0
        with file.open() as stream:
            try:
                reader = pcsv.open_csv(
                    _Watched(stream, end),
                    pcsv.ReadOptions(block_size=self._block, column_names=numbers, skip_rows=skipped),
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
                message = str(error)
                if any(words in message for words in _TOO_LONG) and end.bytes >= self._block < _LARGEST_BLOCK:
                    raise _RowTooLongError from error
                fault = find_fault(file, self.dialect, len(numbers))
                if fault is None and any(words in message for words in _NO_ROWS):
                    return
                told = f"{file.path}: not readable as CSV: {one_line(error)}"
                raise fault or SourceError(told) from error

    def _unpad(self, columns: list[pa.Array]) -> list[pa.Array]:
        """Take the space after each delimiter away, if the dialect has one."""
        if len(self.dialect.delimiter) == 1:
            return columns
        for cells in columns[1:]:
            if not pc.all(pc.starts_with(cells, " "), min_count=0).as_py():
                raise _NotPaddedError
        return [columns[0], *(pc.utf8_slice_codeunits(cells, 1) for cells in columns[1:])]

    def _locate(self, texts: dict[int, str]) -> dict[int, str]:
        """File and line of the first cell of each column that has its text, in one pass."""
        left, places = dict(texts), dict[int, str]()
        for file in self.files:
            records = (record for record in read_records(file, self.dialect) if record.fields)
            if self.dialect.header:
                next(records, None)
            for line, _, fields in records if left else ():
                for position in [k for k, text in left.items() if len(fields) > k and fields[k] == text]:
                    places[position] = f"{file.path}, line {line}"
                    del left[position]
                if not left:
                    break
        return places


class _End:
    """What only the bytes tell, gathered as they go by."""

    def __init__(self) -> None:
        self.has_line_end = True
        self.quoted_empty = False
        # Of the current file:
        self.quotes = 0
        self.lines = 0
        self.bytes = 0


class _Watched(io.RawIOBase):
    """A stream that takes note of how its text is written."""

    def __init__(self, stream: BinaryIO, end: _End) -> None:
        self._stream = stream
        self._end = end
        end.bytes = end.quotes = end.lines = 0
        self._last = b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        if block:
            end = self._end
            end.bytes += len(block)
            end.quotes += block.count(b'"')
            end.lines += max(block.count(b"\n"), block.count(b"\r"))
            end.quoted_empty = end.quoted_empty or b'\n""' in self._last + block[:2] or b'\n""' in block
            end.has_line_end = block.endswith((b"\n", b"\r"))
            self._last = block[-2:]
        return block


class _NotPaddedError(Exception):
    """Some delimiter is not followed by a space."""


class _RowTooLongError(Exception):
    """A record is longer than a block."""
