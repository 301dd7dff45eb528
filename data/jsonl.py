"""Lines of JSON as typed record batches; types are inferred from all lines, memory stays bounded."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.json

from data.csvtext import ColumnTyper, parse_column, render_column
from data.errors import SchemaError, SourceError
from data.files import DataFile, one_line
from data.schema import Column, Kind, Schema

pc: Any = pyarrow.compute
pj: Any = pyarrow.json

_BLOCK = 1 << 23
_LONG_INTEGER = re.compile(rb"(?<![\d.eE+-])-?\d{19,}(?![\d.eE])")
_BEYOND_FLOAT = re.compile(rb"(?<![\d.eE+-])-?\d{16,}(?![\d.eE])")
"""Whole numbers that may lie beyond 2**53."""


class JsonLines:
    """Files of one JSON object a line, as one table.

    Texts that are all timestamps of one spelling become timestamps, as in CSV; other values keep JSON's types, whole
    numbers among fractions become floats, and one that a float cannot hold is refused.
    """

    def __init__(self, files: list[DataFile], wanted: Schema | None = None) -> None:
        self.files = files
        self.rows = 0
        types: dict[str, pa.DataType] = {}
        long_blocks = 0
        for file in files:
            for line, block in _blocks(file):
                long_blocks += _BEYOND_FLOAT.search(block) is not None
                found = self._parse(file, line, block, None)
                self.rows += found.num_rows
                for field in found.schema:
                    types[field.name] = self._unified(file, line, field, types.get(field.name))
        if not self.rows or not types:
            raise SourceError(f"{files[0].path}: has no rows")
        if long_blocks:
            self._check_rounding(pa.struct(list(types.items())))
        self._raw = pa.schema([pa.field(name, _known(type_)) for name, type_ in types.items()])
        self.schema = self._typed(wanted)

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, typed, in batches as the blocks give them."""
        arrow = self.schema.to_arrow()
        for batch in self._read_raw():
            arrays = [
                parse_column(values, column)
                for values, column in zip(batch.columns, self.schema.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=arrow)

    def _read_raw(self) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            for line, block in _blocks(file):
                yield from self._parse(file, line, block, self._raw).to_batches()

    def _check_rounding(self, type_: pa.DataType) -> None:
        """SourceError for a whole number in a column of floats that no float equals."""
        for file in self.files:
            for first, block in _blocks(file):
                for number, raw in enumerate(block.split(b"\n"), first):
                    lost = _rounded(json.loads(raw), type_) if _BEYOND_FLOAT.search(raw) else None
                    if lost is not None:
                        raise SourceError(
                            f"{file.path}, line {number}: {lost} stands among fractions and would be rounded; "
                            "write the column in quotes, or as whole numbers alone"
                        )

    def _typed(self, wanted: Schema | None) -> Schema:
        """Second pass: which texts are timestamps or categories."""
        found = Schema.from_arrow(self._raw)
        texts = [column.name for column in found.columns if column.kind is Kind.text]
        wishes = {column.name: column for column in wanted.columns} if wanted else {}
        typers = {
            name: ColumnTyper(name, wishes.get(name), nulls=(), kinds=(Kind.timestamp,)) for name in texts
        }
        for batch in self._read_raw() if typers else ():
            for name, typer in typers.items():
                typer.feed(batch.column(name).drop_null())
        columns = [
            typers[column.name].finish().model_copy(update={"nullable": True})
            if column.name in typers
            else column
            for column in found.columns
        ]
        schema = Schema(columns=tuple(columns))
        return schema if wanted is None else schema.with_wishes(wanted, self.files[0].path)

    def _parse(self, file: DataFile, line: int, block: bytes, schema: pa.Schema | None) -> pa.Table:
        """One block of lines; SourceError names the line that is at fault."""
        try:
            block.decode()  # Arrow does not look.
            table = pj.read_json(
                io.BytesIO(block),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "error"
                ),
            )
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _explained(file.path, line, block, error) from error
        if schema is None and _LONG_INTEGER.search(block):
            _check_integers(file.path, line, block)
        return table.select(schema.names) if schema is not None else table

    def _unified(self, file: DataFile, line: int, field: pa.Field, known: pa.DataType | None) -> pa.DataType:
        type_ = field.type if known is None else _common(known, field.type)
        if type_ is None:
            told = f"{field.name!r} holds {field.type}, before it held {known}"
            raise SchemaError(f"{file.path}, line {line} or after: {told}; make them one type")
        return type_


def write_jsonl(batches: Iterable[pa.RecordBatch], schema: Schema, file: BinaryIO) -> None:
    """Write rows as lines of JSON: timestamps and what JSON has no type for as text, NaN as `NaN`."""
    for batch in batches:
        columns = [
            _plain(values, column) for values, column in zip(batch.columns, schema.columns, strict=True)
        ]
        for row in zip(*columns, strict=True):
            record = dict(zip(schema.names, row, strict=True))
            file.write(
                json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=_as_text).encode()
                + b"\n"
            )


def _plain(values: pa.Array, column: Column) -> list[Any]:
    if column.kind is not Kind.timestamp:
        return values.to_pylist()
    texts = render_column(values, column)
    return pc.if_else(values.is_valid(), texts, None).to_pylist()


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _blocks(file: DataFile) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines, each with the number of its first line."""
    line, rest = 1, b""
    with file.open() as stream:
        while block := stream.read(_BLOCK):
            head, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest += block
                continue
            whole, rest = rest + head + newline, tail
            if whole.strip():
                yield line, whole
            line += whole.count(b"\n")
    if rest.strip():
        yield line, rest


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None if there is none."""
    types = pa.types
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if all(types.is_string(type_) or types.is_timestamp(type_) for type_ in (one, other)):
        return pa.string()
    if types.is_list(one) and types.is_list(other):
        item = _common(one.value_type, other.value_type)
        return None if item is None else pa.list_(item)
    if types.is_struct(one) and types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            merged = _common(fields.get(field.name, pa.null()), field.type)
            if merged is None:
                return None
            fields[field.name] = merged
        return pa.struct(list(fields.items()))
    return None


def _rounded(value: Any, type_: pa.DataType) -> int | None:
    """A whole number in `value` that its type, a float, would round."""
    types = pa.types
    if isinstance(value, int) and types.is_floating(type_):
        return value if int(float(value)) != value else None
    found: Iterable[int | None] = ()
    if isinstance(value, list) and types.is_list(type_):
        found = (_rounded(item, type_.value_type) for item in value)
    if isinstance(value, dict) and types.is_struct(type_):
        found = (_rounded(value[field.name], field.type) for field in type_ if field.name in value)
    return next((lost for lost in found if lost is not None), None)


def _known(type_: pa.DataType) -> pa.DataType:
    """The type to read with: what Arrow takes for a timestamp stays text until every spelling has been checked."""
    types = pa.types
    if types.is_timestamp(type_) or types.is_null(type_):
        return pa.string()
    if types.is_list(type_):
        return pa.list_(_known(type_.value_type))
    if types.is_struct(type_):
        return pa.struct([(field.name, _known(field.type)) for field in type_])
    return type_


def _explained(path: str, first: int, block: bytes, error: Exception) -> SourceError:
    """What is wrong in a block, by line and column."""
    for number, raw in enumerate(block.split(b"\n"), first):
        try:
            value = json.loads(raw) if raw.strip() else {}
        except json.JSONDecodeError as wrong:
            return SourceError(
                f"{path}, line {number}, column {wrong.colno}: not JSON: {wrong.msg}; mend the line"
            )
        except UnicodeDecodeError as wrong:
            told = f"byte 0x{raw[wrong.start]:02x} is not UTF-8"
            return SourceError(f"{path}, line {number}: {told}; convert the file (iconv -t UTF-8)")
        if not isinstance(value, dict):
            return SourceError(
                f'{path}, line {number}: is no object; each line must read {{"name": value, ...}}'
            )
    told, _, row = one_line(error).removeprefix("JSON parse error: ").partition(" in row ")
    lines = [number for number, raw in enumerate(block.split(b"\n"), first) if raw.strip()]
    line = lines[int(row)] if row.isdigit() and int(row) < len(lines) else first
    return SourceError(f"{path}, line {line}: {told}; mend the line, or make the types one")


def _check_integers(path: str, first: int, block: bytes) -> None:
    """SourceError for a whole number that 64 bits cannot hold: Arrow would round it."""
    for number, raw in enumerate(block.split(b"\n"), first):
        if _LONG_INTEGER.search(raw):
            json.loads(raw, parse_int=lambda text, line=number: _checked(text, f"{path}, line {line}"))


def _checked(text: str, place: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise SourceError(f"{place}: {text} is beyond 64 bits; write it in quotes")
    return number
