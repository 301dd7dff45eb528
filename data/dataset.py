"""An ingested dataset, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from data.batches import batch_rows, rebatch
from data.errors import SchemaError, SourceError
from data.files import explained
from data.manifest import Manifest
from data.schema import ColumnStats, Schema, is_text
from data.statistics import ContentDigest

pq: Any = pyarrow.parquet

RowNumbers = np.ndarray[tuple[int], np.dtype[np.int64]]
Splits = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Dataset:
    """A folder of Parquet parts and its manifest."""

    def __init__(self, path: Path, manifest: Manifest, *, reused: bool = False) -> None:
        self.path = path
        """The dataset's folder."""
        self.manifest = manifest
        """All that is known without opening the parts."""
        self.reused = reused
        """Whether `ingest` found its work done already."""

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.manifest.schema

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    @property
    def stats(self) -> dict[str, ColumnStats]:
        """Statistics by column name."""
        return self.manifest.columns

    def table(
        self,
        columns: list[str] | None = None,
        rows: slice | tuple[int, int] | list[int] | RowNumbers | None = None,
    ) -> pa.Table:
        """Some or all of the table.

        Args:
            columns: Names, in the order wished; all by default.
            rows: A range (start, stop), a slice without step, or row numbers in any order; all by default.

        Raises:
            SchemaError: There is no such column.
            SourceError: A part is damaged.
        """
        if isinstance(rows, list | np.ndarray):
            return self._take(np.asarray(rows, np.int64), columns)
        start, stop = self._range(rows)
        return pa.Table.from_batches(self._read(start, stop, columns), schema=self._arrow(columns))

    def batches(self, rows: int | None = None, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The table in batches of exactly `rows` (of `batch_rows`), the last one shorter."""
        arrow = self._arrow(columns)
        return rebatch(self._read(0, self.rows, columns), arrow, rows or batch_rows(arrow))

    def split_of(self, rows: RowNumbers) -> Splits:
        """0 train, 1 validation or 2 test for each of these row numbers."""
        return self.manifest.split.of(rows)

    def is_whole(self) -> bool:
        """Whether every part is there with its size; costs no reading."""
        return self.broken_part() is None

    def broken_part(self) -> Path | None:
        """The first part that is missing or has not its size."""
        paths = ((self.path / part.path, part.bytes) for part in self.manifest.parts)
        return next((path for path, size in paths if not path.is_file() or path.stat().st_size != size), None)

    def verify(self) -> None:
        """Read everything and compare its digest with the manifest's.

        Raises:
            SourceError: A part is damaged, or the content is not what was ingested.
        """
        digest = ContentDigest(self.schema)
        for batch in self.batches():
            digest.add(batch)
        if digest.hexdigest() != self.manifest.digest:
            raise SourceError(
                f"{self.path}: its content is not what its manifest says; ingest the source again"
            )

    def _arrow(self, columns: list[str] | None) -> pa.Schema:
        return (self.schema if columns is None else self.schema.select(columns)).to_arrow()

    def _range(self, rows: slice | tuple[int, int] | None) -> tuple[int, int]:
        wanted = rows if isinstance(rows, slice) else slice(*rows) if rows is not None else slice(None)
        start, stop, step = wanted.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows {rows}: a step is not read; give row numbers")
        return start, max(start, stop)

    def _read(self, start: int, stop: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Rows `start` to `stop`, touching only the row groups that hold them."""
        arrow = self._arrow(columns)
        first = 0
        for part in self.manifest.parts:
            if first < stop and first + part.rows > start:
                yield from _read_part(self.path / part.path, start - first, stop - first, arrow)
            first += part.rows

    def _take(self, numbers: RowNumbers, columns: list[str] | None) -> pa.Table:
        """Rows by number; reads the row groups that hold them, one at a time."""
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < self.rows:
            raise IndexError(f"row numbers must lie in 0 ... {self.rows - 1}")
        order = np.argsort(numbers, kind="stable")
        ascending = numbers[order]
        pieces: list[pa.RecordBatch] = []
        step = batch_rows(self._arrow(None))
        for start in (np.unique(ascending // step) * step).tolist():
            low, high = np.searchsorted(ascending, [start, start + step])
            group = pa.Table.from_batches(self._read(start, start + step, columns))
            pieces += group.take(pa.array(ascending[low:high] - start)).to_batches()
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return pa.Table.from_batches(pieces, schema=self._arrow(columns)).take(pa.array(places))


def open_dataset(path: str | Path) -> Dataset:
    """The dataset in this folder.

    Raises:
        SourceError: There is none, or a part is missing or cut short.
    """
    dataset = Dataset(Path(path), Manifest.read(Path(path)))
    broken = dataset.broken_part()
    if broken is not None:
        raise SourceError(f"{broken}: is missing or cut short; ingest {dataset.manifest.source.uri} again")
    return dataset


def stored_schema(schema: Schema) -> pa.Schema:
    """How the parts hold a table: Parquet gives fixed-size arrays back only as lists if one of them is null.

    Raises:
        SchemaError: A type that Parquet does not hold; names the column.
    """
    fields: list[pa.Field] = []
    for column in schema.columns:
        field = column.field
        stored = _stored_type(field.type)
        if stored is None:
            raise SchemaError(f"column {column.name!r}: {column.arrow} has no place in Parquet; cast it")
        fields.append(field.with_type(stored))
    return pa.schema(fields, schema.to_arrow().metadata)


def _stored_type(type_: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if (
        types.is_run_end_encoded(type_)
        or types.is_union(type_)
        or types.is_interval(type_)
        or _is_list_view(type_)
    ):
        return None
    if types.is_struct(type_):
        fields = [(field, _stored_type(field.type)) for field in type_]
        known = [field.with_type(stored) for field, stored in fields if stored is not None]
        return pa.struct(known) if len(known) == len(fields) else None
    if types.is_dictionary(type_) and not is_text(type_.value_type):
        return type_.value_type
    if types.is_fixed_size_list(type_) or types.is_list(type_):
        stored = _stored_type(type_.value_type)
        return None if stored is None else pa.list_(type_.value_field.with_type(stored))
    return type_


def _restored(stored: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Inverse of storing: values of the type that they had."""
    if pa.types.is_dictionary(type_) and not pa.types.is_dictionary(stored.type):
        stored = stored.dictionary_encode()
    return stored if stored.type == type_ else stored.cast(type_)


def _is_list_view(type_: pa.DataType) -> bool:
    return pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_)


def _read_part(path: Path, start: int, stop: int, arrow: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows `start` to `stop` (which may lie outside) of one part, with the types and metadata of `arrow`."""
    try:
        with explained(str(path)), pq.ParquetFile(path, page_checksum_verification=True) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                low, high = max(start - first, 0), min(stop - first, count)
                if low < high:
                    table = file.read_row_group(group, columns=arrow.names).select(arrow.names)
                    pieces = table.slice(low, high - low).columns
                    columns = [
                        _restored(piece, field.type) for piece, field in zip(pieces, arrow, strict=True)
                    ]
                    yield from pa.Table.from_arrays(columns, schema=arrow).to_batches()
                first += count
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        raise SourceError(f"{path}: is damaged; ingest the source again") from error
