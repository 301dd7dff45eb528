"""Archives, read: whole or by parts, with numpy, numba, pyarrow and pcodec alone."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from data.errors import ArchiveError, DamagedError, ModelError, SchemaError
from data.grid import Coded
from vae.codec import blocks, structure
from vae.codec.blocks import BlockModel, Codes
from vae.codec.compare import largest_error
from vae.codec.container import Container
from vae.codec.structure import Cells
from vae.codec.summary import ArchiveReport, ByteShares, CodesSummary, ColumnReport, StoredColumn, StoredReport

Rows = slice | range | tuple[int | None, int | None] | None
FREE_BYTES = 1 << 30
"""What a read may ask for without question."""
MAX_RATIO = 10_000
"""Beyond that, more than so many times the file's length is a decompression bomb."""


class Part(NamedTuple):
    """Rows `start` to `stop` of a group, counted within it."""

    group: int
    start: int
    stop: int


class Archive:
    """An open archive. Reads are thread-safe; use it as a context manager or `close` it."""

    def __init__(
        self, path: str | Path, model: BlockModel | None = None, *, inspect: bool = False, threads: int | None = None
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
        self._container = Container(path)
        self.path = Path(path)
        self.header = self._container.header
        self._threads = threads or os.cpu_count() or 1
        self._given = model
        self._model: BlockModel | None = None
        self._lock = threading.Lock()
        try:
            self._fill()
            if not inspect:
                self._check_reference()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        container = self._container
        kinds: list[pa.DataType] = [field.type for field in container.schema]
        try:
            filled = blocks.unpack_tables(container.load(container.tables, "tables"), self.header.columns, kinds)
            self._grids, self._functions, self._dictionaries = filled
            self._derived = self._check_columns()
            self._stored = StoredReport.model_validate(container.report)
            if len(self._stored.per_column) != len(kinds):
                raise ValueError("the report is not of these columns")
        except ValidationError as error:
            raise container.damaged("header", str(error.errors(include_url=False)[0]["msg"])) from error
        except (ValueError, TypeError) as error:
            raise container.damaged("header", " ".join(str(error).split())[:200]) from error
        except DamagedError as error:
            raise error if str(self.path) in str(error) else container.damaged("tables", str(error)) from error

    def _check_columns(self) -> list[int]:
        """Places of the derived columns, each after what it is a function of."""
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError("two columns have one name")
        self._place = {name: place for place, name in enumerate(names)}
        functions = [function for function in self._functions if function is not None]
        for place, (name, grid, function) in enumerate(zip(names, self._grids, self._functions, strict=True)):
            if (grid and grid.name != name) or (function and function.name != name):
                raise ValueError(f"column {place} is not {name!r}")
            for source in function.sources if function else ():
                if source not in self._place or self._grids[self._place[source]] is None:
                    raise ValueError(f"column {name!r} follows from {source!r}, which has no symbols")
        return [self._place[function.name] for function in structure.order(functions)]

    def _check_reference(self) -> None:
        reference = self.header.model
        if reference and not reference.embedded and self._given is None:
            raise ModelError(
                f"{self.path}: needs the model with SHA-256 {reference.sha256}, which it does not contain; "
                "hand that model over"
            )

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def schema(self) -> pa.Schema:
        """The table's schema, with its metadata."""
        return self._container.schema

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return cast(list[str], self._container.schema.names)

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
        with self._lock:
            if self._model is None and self.header.model is not None:
                self._model = self._load_model()
            return self._model

    def _load_model(self) -> BlockModel:
        reference, container = self.header.model, self._container
        assert reference is not None
        self._check_reference()
        blob = container.load(container.model, "model") if reference.embedded else b""
        if not reference.embedded and self._given is not None:
            blob = self._given.to_bytes()
        if hashlib.sha256(blob).hexdigest() != reference.sha256 or len(blob) != reference.size:
            if not reference.embedded:
                raise ModelError(f"{self.path}: needs the model with SHA-256 {reference.sha256}, got another one")
            raise container.damaged("model", "its digest differs")
        if self._given is not None and self._given.to_bytes() == blob:
            model = self._given
        else:
            from vae.codec.integer import IntegerModel

            try:
                model = IntegerModel.from_bytes(blob)
            except ModelError as error:
                raise container.damaged("model", str(error)) from error
        if model.columns != [self.names[i] for i in self.header.coded] or model.latents != self.latents:
            raise container.damaged("model", "it is not one of these columns")
        return model

    def report(self) -> ArchiveReport:
        """Sizes, coders, bounds and errors, as `svae inspect` shows them."""
        entries, header, stored = self._container, self.header, self._stored
        tables = self._table_sizes()
        sizes = list(tables)
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
                self.names, header.columns, stored.per_column, sizes, bits, strict=True
            )
        )
        shares = ByteShares(
            model=entries.model.length, codes=codes, columns=sum(sizes),
            container=entries.size - entries.model.length - codes - sum(sizes),
        )  # fmt: skip
        summary = CodesSummary(
            family=stored.family, latents=self.latents, mean_nonzero=stored.mean_nonzero,
            bits_per_row=8 * codes / max(1, self.rows),
        )  # fmt: skip
        return ArchiveReport(
            rows=self.rows, columns=len(per_column), source_bytes=stored.source_bytes,
            stored_bytes=stored.stored_bytes, archive_bytes=entries.size, ratio=stored.source_bytes / entries.size,
            bytes=shares, rivals=stored.rivals, per_column=per_column, codes_summary=summary, seconds=stored.seconds,
            model_sha256=header.model.sha256 if header.model else None,
        )  # fmt: skip

    def _table_sizes(self) -> list[int]:
        return blocks.pack_tables(self._grids, self._functions, self._dictionaries)[1]

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
            for part in self._parts(start, stop):
                arrays = self._read_part(part, places, pool)
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def codes(self, rows: Rows = None) -> Codes:
        """The sparse codes, int8 (rows, latents), without decoding a column."""
        start, stop = self._span(rows)
        self._check_size((stop - start) * self.latents)
        out = [np.zeros((0, self.latents), np.int8)]
        if self.header.model is not None:
            with ThreadPoolExecutor(self._threads) as pool:
                for part in self._parts(start, stop):
                    decoded = pool.map(lambda b, p=part: self._read_block(p.group, b, 0)[2], self._blocks(part))
                    first = part.start - self._blocks(part).start * self.header.block_rows
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
        container, header = self._container, self.header
        if header.model is not None:
            assert self.model is not None
        if against is None:
            for number in range(header.streams()):
                container.load(container.stream(number), self._stream_name(number))
                if progress is not None:
                    progress((number + 1) / header.streams())
            return {name: c.max_error for name, c in zip(self.names, self._stored.per_column, strict=True)}
        return self._compare(against, progress)

    def _compare(self, table: pa.Table, progress: Callable[[float], None] | None) -> dict[str, float]:
        if table.num_rows != self.rows or not table.schema.equals(self.schema, check_metadata=True):
            what = "rows" if table.num_rows != self.rows else "columns, types or metadata"
            raise ArchiveError(f"{self.path}: is not of this table: its {what} differ")
        errors = dict.fromkeys(self.names, 0.0)
        at = 0
        for batch in self.batches():
            part = table.slice(at, batch.num_rows)
            for name, column, bound in zip(self.names, batch.columns, self._bounds(), strict=True):
                original = cast(pa.Array, part.column(self._place[name]).combine_chunks())
                error = largest_error(original, column, bound)
                if error is None:
                    raise ArchiveError(
                        f"{self.path}: column {name!r} of rows {at} to {at + batch.num_rows - 1} is not "
                        f"{'the original' if bound == 0 else f'within {bound:g} of the original'}"
                    )
                errors[name] = max(errors[name], error)
            at += batch.num_rows
            if progress is not None:
                progress(at / max(1, self.rows))
        return errors

    def _bounds(self) -> list[float]:
        return [0.0 if grid is None else grid.bound for grid in self._grids]

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------- the parts

    def _find(self, name: str) -> int:
        place = self._place.get(name)
        if place is None:
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
        if cells > FREE_BYTES and cells > MAX_RATIO * self._container.size:
            raise ArchiveError(
                f"{self.path}: {cells:,} values from a file of {self._container.size:,} bytes; "
                "read fewer rows or columns at a time"
            )

    def _parts(self, start: int, stop: int) -> Iterable[Part]:
        size = self.header.group_rows
        for group in range(start // size, -(-stop // size)) if stop > start else ():
            yield Part(group, max(0, start - group * size), min(size, stop - group * size))

    def _blocks(self, part: Part) -> range:
        size = self.header.block_rows
        return range(part.start // size, -(-part.stop // size))

    def _rows_of(self, group: int, block: int | None) -> tuple[int, int]:
        """First and last row of a block, or of a group."""
        header = self.header
        first = group * header.group_rows + (0 if block is None else block * header.block_rows)
        count = header.group_rows if block is None else header.block_rows
        return first, min(self.rows, first + count, (group + 1) * header.group_rows) - 1

    def _stream_name(self, number: int) -> str:
        header = self.header
        per_group = header.stream_of_column(1, 0)
        group, place = divmod(number, per_group)
        if place < len(header.columns):
            return self._name(group, None, self.names[place])
        block, place = divmod(place - len(header.columns), 1 + len(header.coded))
        return self._name(group, block, self.names[header.coded[place - 1]] if place else None)

    def _name(self, group: int, block: int | None, column: str | None) -> str:
        what = "the codes" if column is None else f"column {column!r}"
        first, last = self._rows_of(group, block)
        number = "" if block is None else f", block {group * self.header.group_blocks + block}"
        return f"stream of {what}{number} (rows {first} to {last})"

    def _load(self, number: int) -> bytes:
        return self._container.load(self._container.stream(number), self._stream_name(number))

    def _read_part(self, part: Part, places: Sequence[int], pool: ThreadPoolExecutor) -> list[pa.Array]:
        """Columns of some rows of a group."""
        needed = self._closure(places)
        depth = 1 + max((k for k, place in enumerate(self.header.coded) if place in needed), default=-1)
        decoded = [pool.submit(self._read_block, part.group, b, depth) for b in self._blocks(part) if depth]
        direct = [place for place in needed if self.header.columns[place].coder == "rival"]
        values = dict(zip(direct, pool.map(lambda place: self._read_rival(part, place), direct), strict=True))
        coded = {place: v for place, v in values.items() if isinstance(v, Coded)}
        neural = [place for place in self.header.coded[:depth] if place in needed]
        results = [future.result() for future in decoded]
        for place in neural:
            coded[place] = self._join_blocks(part, place, results)
        for place in self._derived:
            if place in needed:
                coded[place] = self._derive(part, place, coded)
        arrays = {place: v for place, v in values.items() if isinstance(v, pa.Array)}
        gridded = [place for place in dict.fromkeys(places) if place not in arrays]
        decode = pool.map(lambda place: self._decode(part, place, coded[place]), gridded)
        arrays |= dict(zip(gridded, decode, strict=True))
        return [arrays[place] for place in places]

    def _closure(self, places: Sequence[int]) -> set[int]:
        """The columns and all that they are functions of."""
        needed = set(places)
        for place in reversed(self._derived):
            function = self._functions[place]
            if place in needed and function is not None:
                needed |= {self._place[source] for source in function.sources}
        return needed

    def _read_block(self, group: int, block: int, depth: int) -> tuple[Any, Any, Codes]:
        model, header = self.model, self.header
        assert model is not None
        number = header.stream_of_block(group, block)
        streams = [self._load(number + k) for k in range(depth + 1)]
        first, last = self._rows_of(group, block)
        try:
            symbols, states, codes = model.decode_block(streams, last - first + 1, depth)
            for k, place in enumerate(header.coded[:depth]):
                grid = self._grids[place]
                assert grid is not None
                blocks.check_cells(grid, Cells(symbols[:, k], states[:, k]))
        except DamagedError as error:
            raise self._container.damaged(self._name(group, block, None), str(error)) from error
        return symbols, states, codes

    def _read_rival(self, part: Part, place: int) -> Coded | pa.Array:
        first, last = self._rows_of(part.group, None)
        grid, kind = self._grids[place], self._plain(place)
        number = self.header.stream_of_column(part.group, place)
        data = self._load(number)
        try:
            if grid is None:
                return blocks.unpack(data, kind, last - first + 1).slice(part.start, part.stop - part.start)
            whole = blocks.unpack_cells(data, grid, kind, last - first + 1)
            return blocks.window(whole, part.start, part.stop)
        except DamagedError as error:
            raise self._container.damaged(self._stream_name(number), str(error)) from error

    def _join_blocks(self, part: Part, place: int, decoded: Sequence[tuple[Any, Any, Codes]]) -> Coded:
        """A neural column of the part, with its escapes."""
        k = self.header.coded.index(place)
        symbols = np.concatenate([block[0][:, k] for block in decoded])
        states = np.concatenate([block[1][:, k] for block in decoded])
        number = self.header.stream_of_column(part.group, place)
        inside = self._blocks(part)
        try:
            counts, escapes = blocks.unpack_escapes(
                self._load(number), self._plain(place), self.header.block_count(part.group)
            )
            before = int(counts[: inside.start].sum())
            here = int((states == 3).sum())
            if int(counts[inside.start : inside.stop].sum()) != here:
                raise DamagedError("the number of escapes is not that of the blocks")
        except DamagedError as error:
            raise self._container.damaged(self._stream_name(number), str(error)) from error
        start = part.start - inside.start * self.header.block_rows
        whole = Coded(symbols, states, escapes.slice(before, here))
        return blocks.window(whole, start, start + part.stop - part.start)

    def _derive(self, part: Part, place: int, coded: dict[int, Coded]) -> Coded:
        function, grid, kind = self._functions[place], self._grids[place], self._plain(place)
        assert function is not None
        assert grid is not None
        first, last = self._rows_of(part.group, None)
        number = self.header.stream_of_column(part.group, place)
        grids = {g.name: g for g in self._grids if g is not None}

        def get(name: str) -> Cells:
            source = coded[self._place[name]]
            return Cells(source.symbols, source.state)

        try:
            cells = function.evaluate(grids, get, part.stop - part.start)
            rows, wrong = blocks.unpack_exceptions(self._load(number), grid, kind, last - first + 1)
        except (DamagedError, OverflowError) as error:
            raise self._container.damaged(self._stream_name(number), str(error)) from error
        here = slice(*np.searchsorted(rows, [part.start, part.stop]))
        wrong = blocks.window(wrong, here.start, here.stop)
        cells.symbols[rows[here] - part.start] = wrong.symbols
        cells.states[rows[here] - part.start] = wrong.state
        return Coded(cells.symbols, cells.states, wrong.escapes)

    def _decode(self, part: Part, place: int, coded: Coded) -> pa.Array:
        grid = self._grids[place]
        assert grid is not None
        try:
            plain = blocks.decode_cells(grid, coded, self._plain(place))
            return blocks.dress(plain, self.schema.field(place).type, self._dictionaries[place])
        except DamagedError as error:
            number = self.header.stream_of_column(part.group, place)
            raise self._container.damaged(self._stream_name(number), str(error)) from error

    def _plain(self, place: int) -> pa.DataType:
        """The type of what a grid codes of a column, or the column's own."""
        kind = self.schema.field(place).type
        if self._grids[place] is not None and isinstance(kind, pa.DictionaryType):
            return kind.value_type
        return kind
