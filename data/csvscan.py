"""CSV read slowly and by the line: for sniffing, for headers, and to say where a file is at fault."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from data.errors import SourceError
from data.files import DataFile, one_line
from data.schema import CsvDialect

_SAMPLE = 1 << 16
_SAMPLE_RECORDS = 100
_LARGEST_FIELD = 1 << 30
_DELIMITERS = (",", ";", "\t", "|")
_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One record."""

    line: int
    """Number of its first line."""
    end: int
    """Number of its last line."""
    fields: list[str]
    """Its fields; none on an empty line."""


def sniff_dialect(file: DataFile) -> CsvDialect:
    """Delimiter, quoting and line end from the first bytes of a file.

    Raises:
        SourceError: The file is empty.
    """
    with file.open() as stream:
        sample = stream.read(_SAMPLE)
    text = sample.removeprefix(_BOM).decode("utf-8", errors="replace")
    if not text.strip():
        raise SourceError(f"{file.path}: is empty")
    records = {mark: _sample_records(text, mark, is_cut=len(sample) == _SAMPLE) for mark in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda mark: _evenness(records[mark]))
    padded = delimiter in ",;" and '"' not in text and _is_padded(records[delimiter])
    return CsvDialect(
        delimiter=delimiter + " " * padded,
        line_end="\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n",
        quoting=_sniff_quoting(text, delimiter, records[delimiter]),
        bom=sample.startswith(_BOM),
    )


def read_records(file: DataFile, dialect: CsvDialect, *, strict: bool = False) -> Iterator[Record]:
    """All records of a file.

    Raises:
        SourceError: Text that is not UTF-8, by line and column; with `strict` also a quote that is never closed.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    padded = len(dialect.delimiter) > 1
    with file.open() as stream:
        reader = csv.reader(_lines(stream, file.path, dialect), delimiter=dialect.delimiter[0], strict=strict)
        line = 1
        try:
            for fields in reader:
                cells = [field[1:] if padded and index else field for index, field in enumerate(fields)]
                yield Record(line, reader.line_num, cells)
                line = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise SourceError(
                    f"{file.path}, line {line}: a quote is opened and never closed; mend the line"
                ) from error
            raise SourceError(f"{file.path}, line {line}: not readable as CSV: {one_line(error)}") from error


def read_header(file: DataFile, dialect: CsvDialect) -> Record:
    """The first record that holds anything; SourceError for a name that occurs twice, or if there is none."""
    header = next((record for record in read_records(file, dialect) if record.fields), None)
    if header is None:
        raise SourceError(f"{file.path}: is empty")
    for position, name in enumerate(header.fields):
        if name in header.fields[:position]:
            both = f"columns {header.fields.index(name) + 1} and {position + 1}"
            raise SourceError(
                f"{file.path}, line {header.line}: column name {name!r} occurs twice ({both}); rename one"
            )
    return header


def find_fault(file: DataFile, dialect: CsvDialect, width: int) -> SourceError | None:
    """What is wrong in a file whose records should have `width` fields, by line and column."""
    try:
        for line, _, fields in read_records(file, dialect):
            if fields and len(fields) != width:
                found = f"has {len(fields)} field{'s' * (len(fields) != 1)}"
                wanted, way_out = "the header has", "mend the line"
                if any("\n" in field for field in fields):
                    way_out = "mend the line: a quote in it takes in the lines after it"
                if not dialect.header:
                    wanted, way_out = "the schema names", "name all columns, or mend the line"
                return SourceError(f"{file.path}, line {line}: {found}, {wanted} {width}; {way_out}")
    except SourceError as error:
        return error
    return None


def check_quotes(file: DataFile, dialect: CsvDialect) -> None:
    """SourceError if a quote is opened and never closed: it would swallow the rest of the file."""
    try:
        for _ in read_records(file, dialect, strict=True):
            pass
    except SourceError as error:
        # Strictness has other complaints, too, about what every reader accepts.
        if "never closed" in str(error):
            raise


def _lines(stream: BinaryIO, place: str, dialect: CsvDialect) -> Iterator[str]:
    """Lines as text, ends kept."""
    split = _split_at_returns(stream) if dialect.line_end == "\r" else io.BufferedReader(_Readable(stream))
    for number, raw in enumerate(split, 1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            column = line[: error.start].count(dialect.delimiter[0].encode()) + 1
            told = f"byte 0x{line[error.start]:02x} is not UTF-8"
            raise SourceError(
                f"{place}, line {number}, column {column}: {told}; convert the file (iconv -t UTF-8)"
            ) from error


def _split_at_returns(stream: BinaryIO) -> Iterator[bytes]:
    """Lines that end in a carriage return, as old Macs wrote them."""
    rest = b""
    while block := stream.read(_SAMPLE):
        *lines, rest = (rest + block).split(b"\r")
        yield from (line + b"\r" for line in lines)
    if rest:
        yield rest


class _Readable(io.RawIOBase):
    """Arrow's and zip's streams as Python's own kind, which splits lines quickly."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _sample_records(text: str, delimiter: str, *, is_cut: bool) -> list[list[str]]:
    """The first records of a sample, the last one left out if it may be cut."""
    try:
        lines = io.StringIO(text, newline="")
        records = [record for record in csv.reader(lines, delimiter=delimiter) if record]
    except csv.Error:
        return []
    return records[:-1][:_SAMPLE_RECORDS] if is_cut and len(records) > 1 else records[:_SAMPLE_RECORDS]


def _evenness(records: list[list[str]]) -> tuple[bool, int]:
    """Higher for a delimiter that cuts all records into equally many fields, and for more fields."""
    width = len(records[0]) if records else 0
    return (width > 1 and all(len(record) == width for record in records), width)


def _is_padded(records: list[list[str]]) -> bool:
    """Whether a space follows every delimiter."""
    return len(records[0]) > 1 and all(field.startswith(" ") for record in records for field in record[1:])


def _sniff_quoting(text: str, delimiter: str, records: list[list[str]]) -> Any:
    """Whether all fields, the header and words, or only those that must stand in quotes."""
    quoted: list[list[bool]] = []
    for line, record in zip(text.splitlines()[:20], records[:20], strict=False):
        fields = line.split(delimiter)
        if len(fields) != len(record):
            break
        quoted.append([field.startswith('"') for field in fields])
    if not quoted or not all(quoted[0]):
        return "minimal"
    return "all" if all(all(marks) for marks in quoted) else "text"
