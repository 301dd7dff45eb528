"""Tables too large for memory: columns and runs of rows are read from a dataset when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.atomic import made_parents, remove_tree, temporary_name
from data.dataset import Dataset
from data.ingest import Progress, ingest
from data.schema import ColumnStats
from data.sources import DatasetSource, Source
from data.statistics import table_stats

LARGE_CELLS = 1 << 24
"""Cells of a table beyond which it is not held in memory as a whole: 128 MiB of numbers of 8 bytes."""
LARGE_BYTES = 1 << 28
"""Bytes of a source, as handed over, beyond which its rows are not either: cells of text may be long."""


class StoredTable:
    """A dataset's rows, with what `pa.Table` offers of columns and rows by the same names.

    >>> import pyarrow as pa, tempfile
    >>> from data.sources import TableSource
    >>> dataset = ingest(TableSource(pa.table({"x": [1, 2, 3], "y": ["a", "b", "c"]})), tempfile.mkdtemp())
    >>> table = StoredTable(dataset)
    >>> table.num_rows, table.slice(1, 1).to_pylist(), table.column("y")[2].as_py()
    (3, [{'x': 2, 'y': 'b'}], 'c')
    """

    def __init__(self, dataset: Dataset, schema: pa.Schema | None = None) -> None:
        """The rows of `dataset` under `schema`, which has its names and types; by default under its own."""
        self.dataset = dataset
        self.schema = dataset.schema.to_arrow() if schema is None else schema
        self._column_bytes: dict[str, int] = {}
        self._last: tuple[tuple[int, int], pa.Table] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.dataset.rows

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return len(self.schema)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @property
    def nbytes(self) -> int:
        """What the table would take in memory."""
        return sum(self.column_bytes(name) for name in self.schema.names)

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column."""
        _give_back()
        values = self.dataset.table([name]).column(0)
        self._column_bytes[name] = values.nbytes
        return values

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.column(name)

    def column_bytes(self, name: str) -> int:
        """What a column would take in memory; one whose values differ in length is read for it, once."""
        kind = self.schema.field(name).type
        if name in self._column_bytes:
            return self._column_bytes[name]
        return (
            math.ceil(self.num_rows * kind.bit_width / 8)
            if pa.types.is_primitive(kind)
            else self.column(name).nbytes
        )

    def slice(self, offset: int = 0, length: int | None = None) -> pa.Table:
        """A run of rows; the last one that was asked for is kept."""
        stop = self.num_rows if length is None else min(self.num_rows, offset + length)
        if self._last is None or self._last[0] != (offset, stop):
            self._last = None  # before another is read beside it
            _give_back()
            self._last = (offset, stop), self._named(self.dataset.table(rows=(offset, stop)))
        return self._last[1]

    def part(self, names: Sequence[str], offset: int, length: int) -> pa.Table:
        """Some columns of a run of rows."""
        return self.dataset.table(list(names), (offset, offset + length))

    def take(self, indices: pa.Array) -> pa.Table:
        """Rows by number."""
        numbers = indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return self._named(self.dataset.table(rows=cast(npt.NDArray[np.int64], numbers)))

    def _named(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_arrays(table.columns, schema=self.schema)


def _give_back() -> None:
    """What Arrow keeps of memory that it no longer needs may be as much as a column."""
    cast(Any, pa).default_memory_pool().release_unused()


AnyTable = pa.Table | StoredTable
"""In memory or on disk."""


def is_large(rows: int, columns: int) -> bool:
    """Whether a table of this shape is not to be held in memory as a whole."""
    return rows * columns > LARGE_CELLS


def part_of(table: AnyTable, names: Sequence[str], offset: int, length: int) -> pa.Table:
    """Some columns of a run of rows."""
    if isinstance(table, StoredTable):
        return table.part(names, offset, length)
    return table.select(list(names)).slice(offset, length)


def column_bytes(table: AnyTable, name: str) -> int:
    """What a column takes in memory, or would."""
    return table.column_bytes(name) if isinstance(table, StoredTable) else table.column(name).nbytes


def table_of(dataset: Dataset) -> AnyTable:
    """A dataset's rows: in memory, unless they are too many."""
    large = is_large(dataset.rows, len(dataset.schema.columns))
    return StoredTable(dataset) if large else dataset.table()


def stats_of(table: AnyTable) -> dict[str, ColumnStats]:
    """Statistics of every column, by name."""
    return table.dataset.stats if isinstance(table, StoredTable) else table_stats(table)


@contextmanager
def rows_of(source: Source, beside: Path, progress: Progress | None = None) -> Generator[AnyTable]:
    """A source's rows: in memory, or if they are too many on disk, in a dataset beside `beside` that goes afterwards.

    Args:
        source: The source; one that is a dataset is used as it lies.
        beside: A path whose folder has room; it is made if it is missing, and goes again on an error.
        progress: Called with rows done and rows in all while a dataset is made.

    Raises:
        SchemaError: A null that may not be.
    """
    schema = source.schema
    if not is_large(source.rows or 0, len(schema.columns)) and source.source_bytes <= LARGE_BYTES:
        yield source.table()
    elif isinstance(source, DatasetSource):
        for column in schema.columns:
            if not column.nullable and source.dataset.stats[column.name].nulls:
                raise source.forbidden_null(column.name)
        yield StoredTable(source.dataset, schema.to_arrow())
    else:
        with made_parents(beside):
            work = temporary_name(beside)
            try:
                work.mkdir()
                yield StoredTable(ingest(source, work / "rows", progress=progress), schema.to_arrow())
            finally:
                remove_tree(work)
