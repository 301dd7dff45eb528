"""Archives, read: whole or by parts, with numpy, numba, pyarrow and pcodec alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from data.errors import ArchiveError, SchemaError
from data.stored import one_array
from vae.codec import blocks
from vae.codec.blocks import BlockModel, Codes
from vae.codec.compare import first_difference, largest_error
from vae.codec.parts import Part, Parts
from vae.codec.summary import ArchiveReport, ByteShares, CodesSummary, ColumnReport

Rows = slice | range | tuple[int | None, int | None] | None
FREE_BYTES = 1 << 30
"""What a read may ask for without question."""
MAX_RATIO = 10_000
"""Beyond that, more than so many times the file's length is a decompression bomb."""


class Archive:
    """An open archive. Reads are thread-safe; use it as a context manager or `close` it."""

    def __init__(
        self,
        path: str | Path,
        model: BlockModel | None = None,
        *,
        inspect: bool = False,
        threads: int | None = None,
    ) -> None:
        """Open the archive at `path`.

        Args:
            path: A local file.
            model: The model of an archive that only refers to it.
            inspect: Open it without its model, to look at the schema and the report.
            threads: Threads that decode; default: as many as there are processors.

        Raises:
            ArchiveError: No such file, not an archive, or one of a newer version.
            DamagedError: Header or index is damaged.
            ModelError: The model is elsewhere and was not handed over.
        """
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
        """The table's schema, with its metadata."""
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
        """Sizes, coders, bounds and errors, as `svae inspect` shows them."""
        parts, header, stored = self._parts, self.header, self._parts.stored
        entries = parts.container
        sizes = blocks.pack_tables(parts.grids, parts.functions, parts.dictionaries)[1]
        codes = 0
        for group in range(header.groups):
            for place in range(len(header.columns)):
                sizes[place] += entries.stream(header.stream_of_column(group, place)).length
            for block in range(header.block_count(group) if header.model else 0):
                first = header.stream_of_block(group, block)
                codes += entries.stream(first).length
                for k, place in enumerate(header.coded):
                    sizes[place] += entries.stream(first + 1 + k).length
        bits = [8 * size / max(1, self.rows) for size in sizes]
        per_column = tuple(
            ColumnReport(name=name, coder=coding.coder, bytes=size, bits_per_value=b, **column.model_dump())
            for name, coding, column, size, b in zip(
                parts.names, header.columns, stored.per_column, sizes, bits, strict=True
            )
        )
        shares = ByteShares(
            model=entries.model.length, codes=codes, columns=sum(sizes),
            container=entries.size - entries.model.length - codes - sum(sizes),
        )  # fmt: skip
        summary = CodesSummary(
            family=stored.family, latents=self.latents, mean_nonzero=stored.mean_nonzero,
            bits_per_row=8 * codes / max(1, self.rows), score=stored.code_score, score_rows=stored.code_score_rows,
        )  # fmt: skip
        return ArchiveReport(
            rows=self.rows, columns=len(self.names), source_bytes=stored.source_bytes,
            stored_bytes=stored.stored_bytes, archive_bytes=entries.size, ratio=stored.source_bytes / entries.size,
            bytes=shares, rivals=stored.rivals, per_column=per_column, codes_summary=summary, seconds=stored.seconds,
            model_sha256=header.model.sha256 if header.model else None,
        )  # fmt: skip

    # --------------------------------------------------------------------------------------------------- reading

    def read(self, columns: Sequence[str] | None = None, rows: Rows = None) -> pa.Table:
        """Columns (default: all) and rows (default: all) as an Arrow table.

        Args:
            columns: Names, in the order wanted; streams that these do not depend on are not touched.
            rows: A slice, a range or a pair (start, stop); what lies outside the table is left out.

        Raises:
            SchemaError: An unknown column.
            DamagedError: A damaged stream, named with its column, block and rows.
        """
        names = self.names if columns is None else list(columns)
        chunks = list(self.batches(names, rows))
        schema = pa.schema([self.schema.field(self._find(name)) for name in names], self.schema.metadata)
        return pa.Table.from_batches(chunks, schema)

    def batches(self, columns: Sequence[str] | None = None, rows: Rows = None) -> Iterator[pa.RecordBatch]:
        """The same, as one record batch a group of blocks, one group in memory at a time."""
        names = self.names if columns is None else list(columns)
        places = [self._find(name) for name in names]
        schema = pa.schema([self.schema.field(place) for place in places], self.schema.metadata)
        start, stop = self._span(rows)
        self._check_size((stop - start) * len(places))
        with ThreadPoolExecutor(self._threads) as pool:
            for part in self._split(start, stop):
                arrays = self._parts.read_part(part, places, pool)
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def codes(self, rows: Rows = None) -> Codes:
        """The sparse codes, int8 (rows, latents), without decoding a column."""
        start, stop = self._span(rows)
        self._check_size((stop - start) * self.latents)
        out = [np.zeros((0, self.latents), np.int8)]
        if self.header.model is None:
            return np.zeros((stop - start, 0), np.int8)
        with ThreadPoolExecutor(self._threads) as pool:
            for part in self._split(start, stop):
                inside = self._parts.blocks(part)
                decoded = pool.map(
                    lambda block, g=part.group: self._parts.read_block(g, block, 0).codes, inside
                )
                first = part.start - inside.start * self.header.block_rows
                out.append(np.concatenate(list(decoded))[first : first + part.stop - part.start])
        return np.concatenate(out)

    def verify(
        self, against: pa.Table | None = None, progress: Callable[[float], None] | None = None
    ) -> dict[str, float]:
        """Check every checksum; with a table, compare every value with it.

        Returns the largest error of each column (without a table: what was found when the archive was written).

        Raises:
            DamagedError: A damaged part, by name.
            ArchiveError: A column that is not the table's, within its bound.
        """
        parts, header = self._parts, self.header
        _ = self.model  # proved sound by being loaded
        if against is not None:
            return self._compare(against, progress)
        for number in range(header.streams()):
            parts.container.load(parts.container.stream(number), parts.stream_name(number))
            if progress is not None:
                progress((number + 1) / header.streams())
        return {name: c.max_error for name, c in zip(self.names, parts.stored.per_column, strict=False)}

    def _compare(self, table: pa.Table, progress: Callable[[float], None] | None) -> dict[str, float]:
        self._check_table(table)
        errors = dict.fromkeys(self.names, 0.0)
        bounds = [0.0 if grid is None else grid.bound for grid in self._parts.grids[: len(errors)]]
        at = 0
        for batch in self.batches():
            part = table.slice(at, batch.num_rows)
            for place, (name, bound) in enumerate(zip(self.names, bounds, strict=True)):
                given, back = one_array(part.column(place)), batch.column(place)
                error = largest_error(given, back, bound)
                if error is None:
                    row = first_difference(given, back, bound)
                    what = "the original" if bound == 0 else f"within {bound:g} of the original"
                    raise ArchiveError(
                        f"{self.path}: column {name!r} of row {at + row} is not {what}: "
                        f"{_brief(back[row])}, not {_brief(given[row])}"
                    )
                errors[name] = max(errors[name], error)
            at += batch.num_rows
            if progress is not None:
                progress(at / max(1, self.rows))
        return errors

    def _check_table(self, table: pa.Table) -> None:
        """ArchiveError unless the table has these columns, of these types, and as many rows."""
        if table.column_names != self.names:
            raise ArchiveError(
                f"{self.path}: holds columns {self.names}, the other table {table.column_names}"
            )
        for mine, other in zip(self.schema, table.schema, strict=True):
            if mine.type != other.type:
                raise ArchiveError(
                    f"{self.path}: column {mine.name!r} is {mine.type}, in the other table {other.type}"
                )
        if table.num_rows != self.rows:
            raise ArchiveError(f"{self.path}: holds {self.rows} rows, the other table {table.num_rows}")

    def close(self) -> None:
        """Close the file."""
        self._parts.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, name: str) -> int:
        place = self._parts.place.get(name)
        if place is None or place >= len(self.names):
            raise SchemaError(f"there is no column {name!r}; the columns are {', '.join(self.names)}")
        return place

    def _span(self, rows: Rows) -> tuple[int, int]:
        if isinstance(rows, range):
            rows = slice(rows.start, rows.stop, rows.step)
        asked = slice(*rows) if isinstance(rows, tuple) else rows or slice(None)
        start, stop, step = asked.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows in steps of {step}: only whole runs of rows are read")
        return start, max(start, stop)

    def _check_size(self, cells: int) -> None:
        if cells > FREE_BYTES and cells > MAX_RATIO * self._parts.container.size:
            raise ArchiveError(
                f"{self.path}: {cells:,} values from a file of {self._parts.container.size:,} bytes; "
                "read fewer rows or columns at a time"
            )

    def _split(self, start: int, stop: int) -> Iterable[Part]:
        size = self.header.group_rows
        for group in range(start // size, -(-stop // size)) if stop > start else ():
            yield Part(group, max(0, start - group * size), min(size, stop - group * size))


def _brief(value: pa.Scalar) -> str:
    """A value for a message."""
    text = repr(value.as_py())
    return text if len(text) <= 60 else f"{text[:60]}..."
