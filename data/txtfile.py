"""Text files as record batches and back: one row a line, one column `text`; memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute

from data.distinct import with_categories
from data.errors import DataError, SourceError, UsageError
from data.files import DataFile
from data.schema import Column, Kind, Schema, TxtDialect, is_text, listed

pc: Any = pyarrow.compute

NAME = "text"
"""Of the only column."""
_BOM = b"\xef\xbb\xbf"
_MARK = "\ufeff"
_BLOCK = 1 << 22
_LONGEST = 1 << 30
"""Bytes of a line; Arrow's strings end at twice as many."""
_PIECE_ROWS = 16_384
_PIECE_BYTES = 1 << 24


class TxtFiles:
    """Lines of one or several files. An empty line is an empty text; nothing is null.

    Line ends are those of the files if all are alike; where they are mixed, the return of some is part of the text.

    Args:
        files: The files, in order.
        wanted: A given schema, whose kind is taken over; line ends are found, whatever it says of them.

    Raises:
        SourceError: No line at all, bytes that are not UTF-8, by line, or a line beyond 1 GiB.
        SchemaError: `wanted` asks for another column or type.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self.files = files
        self.rows = ends = returns = 0
        has_end, has_mark = True, False
        for file in files:
            for block in _blocks(file):
                _decoded(block)
                has_mark = has_mark or block.bom
                has_end = block.content.endswith(b"\n")
                ends += block.content.count(b"\n")
                returns += block.content.count(b"\r\n")
                self.rows += block.content.count(b"\n") + (not has_end)
        if not self.rows:
            raise SourceError(f"{files[0].path}: has no rows")
        self._dialect = TxtDialect(
            line_end="\r\n" if ends and ends == returns else "\n", final_line_end=has_end, bom=has_mark
        )
        column = Column(name=NAME, kind=Kind.text, nullable=False)
        found = Schema(columns=(column,), txt=self._dialect)
        schema = with_categories(found, self._read(found.to_arrow()))
        self.schema = schema if wanted is None else schema.with_wishes(wanted, files[0].path)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, in batches as the blocks give them."""
        return self._read(self.schema.to_arrow())

    def _read(self, arrow: pa.Schema) -> Iterator[pa.RecordBatch]:
        end = self._dialect.line_end
        for file in self.files:
            for block in _blocks(file):
                lines = pc.list_flatten(pc.split_pattern(pa.array([_decoded(block)], pa.large_string()), end))
                whole = block.content.endswith(b"\n")
                if len(lines) != block.content.count(b"\n") + 1:
                    told = "changed while it was read; try again when nothing writes to it"
                    raise SourceError(f"{file.path}: {told}")
                lines = lines[: len(lines) - whole].cast(pa.string())
                yield pa.RecordBatch.from_arrays([lines], schema=arrow)


class _Block(NamedTuple):
    """A piece of whole lines."""

    file: DataFile
    line: int
    """Number of its first line."""
    content: bytes
    """Never empty; ends in a line end, unless the file ends without one."""
    bom: bool
    """Whether a byte order mark stood before it."""


def _blocks(file: DataFile) -> Iterator[_Block]:
    line, rest, bom = 1, [b""], False
    with file.open() as stream:
        while block := stream.read(_BLOCK):
            head, newline, tail = block.rpartition(b"\n")
            if newline:
                content, bom = _bare(b"".join((*rest, head, newline)), line)
                yield _Block(file, line, content, bom)
                line, rest = line + content.count(b"\n"), []
            rest.append(tail)
            if sum(map(len, rest)) > _LONGEST:
                raise SourceError(f"{file.path}, line {line}: is longer than 1 GiB; break it into several")
    content, bom = _bare(b"".join(rest), line)
    if content:
        yield _Block(file, line, content, bom)


def _bare(content: bytes, line: int) -> tuple[bytes, bool]:
    """Content without the byte order mark that a file may open with, and whether it did."""
    bom = line == 1 and content.startswith(_BOM)
    return content[len(_BOM) :] if bom else content, bom


def _decoded(block: _Block) -> str:
    """The block as text; SourceError names the line that is not UTF-8."""
    try:
        return block.content.decode()
    except UnicodeDecodeError as error:
        line = block.line + block.content.count(b"\n", 0, error.start)
        told = f"byte 0x{block.content[error.start]:02x} is not UTF-8"
        raise SourceError(
            f"{block.file.path}, line {line}: {told}; convert the file (iconv -t UTF-8)"
        ) from error


def check_lines(schema: Schema) -> None:
    """UsageError for a table that is not one column of texts: it cannot be a text file."""
    if len(schema.columns) != 1:
        told = f"a .txt holds one column, the table has {len(schema.columns)} ({listed(schema.names)})"
        raise UsageError(f"{told}; choose one (svae decompress --columns), or write .parquet or .jsonl")
    column = schema.columns[0]
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not is_text(type_):
        raise UsageError(
            f"a .txt holds text, column {column.name!r} is {column.arrow}; write .parquet or .jsonl"
        )


def write_lines(batches: Iterable[pa.RecordBatch], schema: Schema, file: BinaryIO) -> None:
    """Write a column of texts, one a line: for a schema that came from a text file the same bytes.

    Raises:
        DataError: A value that no line can hold; names the row.
    """
    dialect = schema.txt or TxtDialect()
    end, row, last = dialect.line_end, 0, None
    for lines in _pieces(batches):
        _check_values(lines, schema, row)
        # A text that begins like a byte order mark would be taken for one.
        if last is None and (dialect.bom or lines[0].startswith(_MARK)):
            file.write(_BOM)
        file.write((end * (last is not None) + end.join(lines)).encode())
        row, last = row + len(lines), lines[-1]
    # The last line may do without its end, unless nothing else would show that it is there.
    if last is not None and (dialect.final_line_end or not last):
        file.write(end.encode())


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    """Values, never none, in lists of bounded size."""
    for batch in batches:
        step = max(1, min(_PIECE_ROWS, _PIECE_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, step):
            yield batch.column(0).slice(start, step).to_pylist()


def _check_values(values: list[Any], schema: Schema, first: int) -> None:
    """DataError for a null, or for a line end within a value; returns may stand in texts that were lines before."""
    marks = "\n" if schema.txt else "\n\r"
    for row, value in enumerate(values, first):
        if value is None or any(mark in value for mark in marks):
            told = "is null" if value is None else "holds a line end"
            raise DataError(
                f"column {schema.names[0]!r}, row {row:,} (0 is the first): {told}, which a line of .txt cannot; "
                "write .parquet or .jsonl"
            )
