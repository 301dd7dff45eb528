"""Archives, read: whole or by parts, with numpy, numba, pyarrow and pcodec alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from data.errors import ArchiveError, SchemaError
from vae.codec.against import compare
from vae.codec.blocks import BlockModel, Codes
from vae.codec.budget import HELD, MAX_RATIO
from vae.codec.engines import lazy_frame, sparse_matrix, to_frame
from vae.codec.parts import Part, Parts
from vae.codec.salvage import Lost, salvaged
from vae.codec.shares import report_of
from vae.codec.summary import ArchiveReport

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import scipy.sparse as sp

    from data.largetable import AnyTable

Rows = slice | range | tuple[int | None, int | None] | None
FREE_VALUES = 1 << 30
"""Values that may be asked for without question."""


class Archive:
    """An open archive. Reads are thread-safe; use it as a context manager or `close` it.

    To iterate over it is to read it block by block, as `blocks` does.

    >>> import vae
    >>> with vae.open("flights.svae") as flights:
    ...     flights.rows, flights.latents, flights.names[:3]
    ...     sum(batch.num_rows for batch in flights)
    (2000, 8, ['year', 'month', 'day'])
    2000
    """

    def __init__(
        self,
        path: str | Path,
        model: BlockModel | None = None,
        *,
        inspect: bool = False,
        threads: int | None = None,
    ) -> None:
        """Open the archive at `path`; arguments and errors are those of `vae.open`."""
        self._parts = Parts(path, model)
        self._threads = threads or os.cpu_count() or 1
        self.path = Path(path)
        self.header = self._parts.header
        try:
            if not inspect:
                self._parts.check_reference()
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def schema(self) -> pa.Schema:
        """The table's schema, with its metadata.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     flights.schema.field("time_hour").type
        TimestampType(timestamp[s, tz=UTC])
        """
        return self._parts.container.schema

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._parts.container.names)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.header.rows

    @property
    def latents(self) -> int:
        """Latents of a row's sparse code."""
        return self.header.latents

    @property
    def model(self) -> BlockModel | None:
        """The integer model, proved sound when it is first asked for; None if the archive has none."""
        return self._parts.model

    def report(self) -> ArchiveReport:
        """Sizes, coders, bounds and errors, as `svae inspect` shows them.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     report = flights.report()
        >>> report.rows, [column.name for column in report.per_column if column.bound > 0]
        (2000, ['air_time'])
        """
        return report_of(self._parts)

    # --------------------------------------------------------------------------------------------------- reading

    def read(self, columns: Sequence[str] | None = None, rows: Rows = None) -> pa.Table:
        """Columns (default: all) and rows (default: all) as an Arrow table.

        Args:
            columns: Names, in the order wanted; streams that these do not depend on are not touched.
            rows: A slice, a range or a pair (start, stop); what lies outside the table is left out.

        Raises:
            SchemaError: An unknown column.
            DamagedError: A damaged stream, named with its column, block and rows.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     flights.read(["carrier", "dep_delay"], rows=slice(100, 200)).num_rows
        100
        """
        names = self._names(columns)
        batches, held = list[pa.RecordBatch](), 0
        for batch in self.batches(names, rows):
            batches.append(batch)
            held += batch.nbytes
            self._check_size(held, HELD, "bytes")
        return pa.Table.from_batches(batches, self._projection(names)[1])

    def to_pandas(self, columns: Sequence[str] | None = None, rows: Rows = None) -> pd.DataFrame:
        """What `read` gives, as a pandas frame.

        A type of integers of which some are null becomes pandas' nullable one (`Int64`), since floats would not hold
        them all. pandas takes null for NaN among floats; `read` tells them apart.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     flights.to_pandas(["carrier", "distance"]).groupby("carrier")["distance"].max().nlargest(1).to_dict()
        {'HA': 4983}
        """
        return to_frame(self.read(columns, rows))

    def batches(self, columns: Sequence[str] | None = None, rows: Rows = None) -> Iterator[pa.RecordBatch]:
        """What `read` gives, as one record batch a group of blocks: they are decoded side by side, one group in memory.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     sum(batch.num_rows for batch in flights.batches(["carrier"]))
        2000
        """
        names = self._names(columns)
        places, schema = self._projection(names)
        start, stop = self._span(rows)
        self._check_size((stop - start) * len(places))
        with ThreadPoolExecutor(self._threads) as pool:
            for part in self._split(start, stop):
                arrays = self._parts.read_part(part, places, pool)
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def blocks(self, columns: Sequence[str] | None = None, rows: Rows = None) -> Iterator[pa.RecordBatch]:
        """What `read` gives, as one record batch a block (32,768 rows as a rule), decoded when it is asked for.

        In memory are the block and, of its group, the columns that are coded by general coders.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     first = next(flights.blocks(["dep_delay"]))  # one block is decoded, and no more
        >>> first.num_rows == min(flights.header.block_rows, flights.rows)
        True
        """
        places, schema = self._projection(self._names(columns))
        return self._stream(places, schema, *self._span(rows))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.blocks()

    def salvage(
        self,
        columns: Sequence[str] | None = None,
        rows: Rows = None,
        *,
        on_lost: Callable[[Lost], None],
    ) -> Iterator[pa.RecordBatch]:
        """What `batches` gives of a damaged archive: the rows of all blocks that are whole, in order.

        A block is lost if any of the columns asked for needs a damaged stream; `on_lost` is told, in order, once the
        rows around it are read. Fewer columns may save more rows: those that a general coder stores have one stream
        for many blocks. Where header, index or tables are damaged, an archive does not open, and nothing is saved.
        ArchiveError, as of `read`, where a group becomes more than the file's length justifies.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     sum(batch.num_rows for batch in flights.salvage(["carrier"], on_lost=print))  # nothing is lost
        2000
        """
        names = self._names(columns)
        places, schema = self._projection(names)
        start, stop = self._span(rows)
        self._check_size((stop - start) * len(places))
        with ThreadPoolExecutor(self._threads) as pool:
            for arrays in salvaged(self._parts, self._split(start, stop), places, pool, on_lost):
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def reader(self, columns: Sequence[str] | None = None, rows: Rows = None) -> pa.RecordBatchReader:
        """The blocks as an Arrow stream, decoded when they are asked for; read it while the archive is open, once.

        DuckDB and others query it. Which columns they need is yours to say: those that you name are decoded as far as
        the stream is read, whether the query uses them or not.

        >>> import duckdb, vae
        >>> with vae.open("flights.svae") as flights:
        ...     late = flights.reader(["carrier", "dep_delay"])
        ...     duckdb.sql("select carrier from late where dep_delay > 900").fetchall()
        [('DL',)]
        """
        places, schema = self._projection(self._names(columns))
        return pa.RecordBatchReader.from_batches(schema, self._stream(places, schema, *self._span(rows)))

    def to_polars(self, rows: Rows = None) -> pl.LazyFrame:
        """A Polars query over the archive, which decodes the columns that it uses, block by block.

        Collect it while the archive is open, as often as you like. Filters are applied to each decoded block. It needs
        the extra `analysis`.

        Raises:
            ExtraError: Polars is not installed.

        >>> import polars as pl, vae
        >>> with vae.open("flights.svae") as flights:
        ...     late = flights.to_polars().filter(pl.col("dep_delay") > 900).select("carrier", "dep_delay")
        ...     late.collect().rows()
        [('DL', 911)]
        """
        start, stop = self._span(rows)

        def read(columns: Sequence[str] | None, count: int | None) -> Iterator[pa.RecordBatch]:
            return self.blocks(columns, (start, stop if count is None else min(stop, start + count)))

        return lazy_frame(self.schema, read)

    def codes(self, rows: Rows = None) -> sp.csr_matrix:
        """The sparse codes as a CSR matrix, float32 (rows, latents), without decoding a column.

        It needs the extra `analysis`. Of a table that a model does not pay for, the archive has no latents.

        Raises:
            ExtraError: scipy is not installed; `dense_codes` does without.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     codes = flights.codes()
        >>> codes.shape, codes.format, round(codes.nnz / 2000, 1)
        ((2000, 8), 'csr', 3.4)
        """
        return sparse_matrix(self._codes(*self._span(rows)), self.latents)

    def dense_codes(self, rows: Rows = None) -> Codes:
        """The sparse codes with their zeros, as an array, int8 (rows, latents).

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     flights.dense_codes(rows=(0, 2)).tolist()
        [[-2, 0, 0, 0, 0, 0, -1, 0], [0, 0, 0, 1, 1, 0, 0, 1]]
        """
        start, stop = self._span(rows)
        self._check_size((stop - start) * self.latents)
        none = np.zeros((0, self.latents), np.int8)
        return np.concatenate([none, *self._codes(start, stop)])

    def _codes(self, start: int, stop: int) -> Iterator[Codes]:
        """The codes of the blocks of these rows, a group at once."""
        if self.header.model is None:
            yield np.zeros((stop - start, 0), np.int8)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for part in self._split(start, stop):
                inside = self._parts.blocks(part)
                decoded = pool.map(lambda block, p=part: self._parts.read_block(p, block, 0).codes, inside)
                first = part.start - inside.start * self.header.block_rows
                yield np.concatenate(list(decoded))[first : first + part.stop - part.start]

    def _stream(
        self, places: Sequence[int], schema: pa.Schema, start: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        """Columns, block by block; what a group's blocks share is decoded with the first of them."""
        with ThreadPoolExecutor(self._threads) as pool:
            for whole in self._split(start, stop):
                kept = self._parts.kept()
                for part in self._parts.cut(whole):
                    arrays = self._parts.read_part(part, places, pool, kept)
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def verify(
        self, against: AnyTable | None = None, progress: Callable[[float], None] | None = None
    ) -> dict[str, float]:
        """Check every checksum; with a table, compare every value with it.

        Returns the largest error of each column (without a table: what was found when the archive was written).

        Raises:
            DamagedError: A damaged part, by name.
            ArchiveError: A column that is not the table's, within its bound.

        >>> import vae
        >>> with vae.open("flights.svae") as flights:
        ...     {name: error for name, error in flights.verify().items() if error}
        {'air_time': 2.0}
        """
        parts, header = self._parts, self.header
        _ = self.model  # proved sound by being loaded
        if against is not None:
            bounds = [0.0 if grid is None else grid.bound for grid in parts.grids[: len(self.names)]]
            return compare(self.path, self.schema, self.rows, self.batches(), bounds, against, progress)
        for number in range(header.streams()):
            parts.container.load(parts.container.stream(number), parts.stream_name(number))
            if progress is not None:
                progress((number + 1) / header.streams())
        return {name: c.max_error for name, c in zip(self.names, parts.stored.per_column, strict=False)}

    def close(self) -> None:
        """Close the file."""
        self._parts.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _projection(self, names: Sequence[str]) -> tuple[list[int], pa.Schema]:
        """Places of columns, and their schema; SchemaError if one is unknown."""
        places = [self._find(name) for name in names]
        return places, pa.schema([self.schema.field(place) for place in places], self.schema.metadata)

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        """The columns asked for; a single name would be taken for its letters."""
        if isinstance(columns, str):
            raise TypeError(f"columns={columns!r}: give a list of names, such as [{columns!r}]")
        return self.names if columns is None else list(columns)

    def _find(self, name: str) -> int:
        place = self._parts.place.get(name)
        if place is None or place >= len(self.names):
            raise SchemaError(f"there is no column {name!r}; the columns are {', '.join(self.names)}")
        return place

    def _span(self, rows: Rows) -> tuple[int, int]:
        if isinstance(rows, range):
            rows = slice(rows.start, rows.stop, rows.step)
        asked = slice(*rows) if isinstance(rows, tuple) else slice(None) if rows is None else rows
        if not isinstance(asked, slice):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"rows={rows!r}: give a slice, a range or a pair (start, stop)")
        start, stop, step = asked.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows in steps of {step}: only whole runs of rows are read")
        return start, max(start, stop)

    def _check_size(self, count: int, free: int = FREE_VALUES, what: str = "values") -> None:
        if count > free and count > MAX_RATIO * self._parts.container.size:
            raise ArchiveError(
                f"{self.path}: {count:,} {what} from a file of {self._parts.container.size:,} bytes; "
                "read fewer rows or columns at a time"
            )

    def _split(self, start: int, stop: int) -> Iterable[Part]:
        size = self.header.group_rows
        for group in range(start // size, -(-stop // size)) if stop > start else ():
            yield Part(group, max(0, start - group * size), min(size, stop - group * size))
