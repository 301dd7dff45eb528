"""Archives, written: coders chosen by measured size, verified by decoding before the name appears."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from data.atomic import atomic_path
from data.errors import ArchiveError
from data.grid import Coded, State, TableGrid
from data.largetable import AnyTable, StoredTable, column_bytes, is_large
from data.onehot import group_cells
from data.schema import Schema
from vae.codec import blocks
from vae.codec.blocks import BlockModel, Codes, CodesOf
from vae.codec.budget import CELL_BYTES, HELD
from vae.codec.choice import Layout, encode, lay_out, rival_bytes
from vae.codec.columns import pack
from vae.codec.container import (
    DEFAULT_BLOCK_ROWS,
    MAX_GROUP_CELLS,
    MAX_GROUP_ROWS,
    ColumnCoding,
    Header,
    ModelReference,
    Writer,
    replace_report,
)
from vae.codec.needs import Needs
from vae.codec.reader import Archive
from vae.codec.structure import Cells, Derived, Ints, States
from vae.codec.summary import (
    ArchiveReport,
    Seconds,
    StoredColumn,
    StoredReport,
    measure_rivals,
)

Progress = Callable[[dict[str, Any]], None]
"""Called with `phase` (encode, rivals, verify), and `step` of `steps`."""
MAX_VALUE_BYTES = 1 << 26
"""Bytes of one column's values in a group, about."""
LARGE_GROUP_CELLS = 1 << 21
"""Cells of a group, but a block at least, of a table that is not held in memory: as many are while it is written or
read."""
IMAGE_BLOCK_VALUES, IMAGE_GROUP_VALUES = 1 << 20, 1 << 23
"""Values of all images of a block, and of a group, about."""
CLOSE_CALL = 0.85
"""Where the model takes more than this share of what its rivals are estimated to need, both are written."""


class Options(NamedTuple):
    """What a call of `write` asks for."""

    embed_model: bool = True
    block_rows: int = DEFAULT_BLOCK_ROWS
    threads: int | None = None
    progress: Progress | None = None
    fitted: bool = False

    def tell(self, phase: str, step: int, steps: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress({"phase": phase, "step": step, "steps": max(1, steps)})


def write(
    table: AnyTable,
    path: str | Path,
    *,
    bounds: Mapping[str, float] | None = None,
    model: BlockModel | None = None,
    grid: TableGrid | None = None,
    codes: Codes | CodesOf | None = None,
    derived: Sequence[Derived] | None = None,
    rivals: bool = False,
    embed_model: bool = True,
    facts: Mapping[str, Any] | None = None,
    family: str = "quantized",
    block_rows: int = DEFAULT_BLOCK_ROWS,
    threads: int | None = None,
    progress: Progress | None = None,
    fitted: bool = False,
) -> ArchiveReport:
    """Write `table` as an archive; the name appears when every value has been read back and compared.

    Args:
        table: Any Arrow table, or one on disk, of which a column or a group of rows is in memory at a time.
        path: Where to; written under a temporary name beside it.
        bounds: Largest |x - restored| of columns that need not be exact, absolute. Default: those of `grid`.
        model: Codes the columns that it names; without one, general coders and derived columns do it all.
        grid: The grids that the model was made for; made from the table if missing.
        codes: The sparse codes, int8 (rows, latents), if the model has latents, or what makes them of a group's rows.
        derived: Columns that follow from others; looked for among those without model if missing.
        rivals: Measure also what CSV, Parquet and pcodec make of the table.
        embed_model: Or refer to it by its digest, for jobs of many files.
        facts: For the report: `source_bytes` (of the source as handed over; default: what the table takes in memory),
            `stored_bytes` (on disk; default: `source_bytes`), `train_seconds`, `codes_seconds`, and of the codes on
            rows held out from training `code_score` and `code_score_rows`.
        family: Name of the latent family, for the report.
        block_rows: Rows of a block; fewer where the table is very wide or its values very long.
        threads: Threads that encode; default: as many as there are processors.
        progress: Called with `phase` (encode, rivals, verify), and `step` of `steps`.
        fitted: Whether `grid` was fitted to this very table, so that no column need be looked at again.

    Raises:
        BoundError: A bound for an unknown column, or one that is not the grid's of a column that the model codes.
        SchemaError: Two columns of one name, or a model of columns that the table lacks.
        ArchiveError: What was written does not read back; nothing is left behind.
    """
    options = Options(embed_model, block_rows, threads, progress, fitted)
    started = time.perf_counter()
    layout = lay_out(table, bounds, model, grid, codes, derived)
    facts = facts or {}
    source_bytes = int(facts.get("source_bytes", table.nbytes))
    report = StoredReport(
        source_bytes=source_bytes,
        stored_bytes=int(facts.get("stored_bytes", source_bytes)),
        per_column=tuple(
            StoredColumn(kind=kind, bound=bound)
            for kind, bound in zip(_kinds(table), layout.bounds, strict=True)
        )
        + (StoredColumn(kind="one_hot"),) * (len(layout.names) - table.num_columns),
        family="none" if codes is None or model is None else family,
        code_score=facts.get("code_score") if codes is not None and model is not None else None,
        code_score_rows=facts.get("code_score_rows", 0) if codes is not None and model is not None else 0,
    )
    with atomic_path(path) as temporary:
        layout, report = _write_best(layout, grid, temporary, report, options)
        encode = time.perf_counter() - started + float(facts.get("codes_seconds", 0.0))
        seconds = Seconds(train=round(float(facts.get("train_seconds", 0.0)), 3), encode=round(encode, 3))
        if rivals:
            options.tell("rivals", 0, 1)
            # they know no groups of rows: here the whole table is in memory
            whole = table.dataset.table() if isinstance(table, StoredTable) else table
            measured = measure_rivals(whole, {g.name: g for g in layout.grids if g is not None})
            report = report.model_copy(update={"rivals": measured})
            options.tell("rivals", 1, 1)
        return _verify(layout, temporary, Path(path), report, seconds, options)


def _kinds(table: AnyTable) -> list[str]:
    return [str(column.kind) for column in Schema.from_arrow(table.schema).columns]


# -------------------------------------------------------------------------------------------------------- writing


def _write_best(
    layout: Layout, grid: TableGrid | None, path: Path, report: StoredReport, options: Options
) -> tuple[Layout, StoredReport]:
    """Write with the model, and without it too if that may be smaller; the smaller file remains at `path`.

    `grid` is what was known of the columns before the layout chose among them; it tells of those that the layout left
    to other coders if it is of this very table.
    """
    sizes = _write_file(layout, path, report, options)
    if layout.model is None:
        return layout, report
    report = _with_nonzero(report, layout, sizes.nonzero)
    table = layout.table
    rivals = {place: rival_bytes(layout, place) for place in layout.coded}
    columns = [c.model_copy(update={"rival_bytes": rivals.get(i)}) for i, c in enumerate(report.per_column)]
    report = report.model_copy(update={"per_column": tuple(columns)})
    if sizes.neural <= CLOSE_CALL * sum(rivals.values()):
        return layout, report
    known = grid if grid and options.fitted else TableGrid(columns=tuple(g for g in layout.grids if g))
    plain = lay_out(table, {n: b for n, b in zip(table.column_names, layout.bounds, strict=True) if b}, None,
                     known, None, [d for d in layout.derived if d])  # fmt: skip
    other = path.with_name(path.name.removesuffix(".tmp") + ".rivals.tmp")
    try:
        own = [c for c in columns if c.kind != "one_hot"]
        groups = [StoredColumn(kind="one_hot")] * (len(plain.names) - len(own))
        per_column = (*(c.model_copy(update={"rival_bytes": None}) for c in own), *groups)
        no_codes = {"family": "none", "mean_nonzero": 0.0, "code_score": None, "code_score_rows": 0}
        without = report.model_copy(update={**no_codes, "per_column": per_column})
        _write_file(plain, other, without, options)
        if other.stat().st_size < path.stat().st_size:
            other.replace(path)
            return plain, without
    finally:
        other.unlink(missing_ok=True)
    return layout, report


class Sizes(NamedTuple):
    """Bytes of a written archive."""

    neural: int
    """The model, the codes and the streams and categories of neural columns."""
    nonzero: int
    """Entries of all codes that are not zero."""


def _write_file(layout: Layout, path: Path, report: StoredReport, options: Options) -> Sizes:
    """Write all of an archive to `path`, a group of rows in memory at a time."""
    blob = b"" if layout.model is None else layout.model.to_bytes()
    needs = Needs()
    with needs.noted():
        tables, table_sizes = blocks.pack_tables(layout.grids, layout.derived, layout.dictionaries)
    embedded = blob if options.embed_model else b""
    neural, nonzero = len(embedded) + sum(table_sizes[place] for place in layout.coded), 0
    header = _header(layout, blob, options)
    with path.open("wb") as file, ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
        oldest = 1 if layout.model is None else layout.model.version
        oldest = max([oldest, *(blocks.grid_version(grid) for grid in layout.grids if grid is not None)])
        writer = Writer(file, header, layout.table.schema, oldest)
        writer.part(tables)
        writer.part(embedded)
        for group in range(header.groups):
            start = group * header.group_rows
            part = layout.table.slice(start, header.group_rows)
            coded = _cells(layout, part, pool)
            for coder, stream in zip(
                layout.coders,
                _column_streams(layout, part, coded, header.block_rows, needs, pool),
                strict=True,
            ):
                writer.part(stream)
                neural += len(stream) if coder == "neural" else 0
            if layout.model is not None:
                symbols, states = _modelled(layout, coded, part.num_rows)
                codes = _codes(layout, start, symbols, states)
                nonzero += int(np.count_nonzero(codes))
                for stream in _block_streams(layout.model, symbols, states, codes, header.block_rows, pool):
                    writer.part(stream)
                    neural += len(stream)
            options.tell("encode", group + 1, header.groups)
        content = _with_nonzero(report, layout, nonzero).model_dump(mode="json", exclude_defaults=True)
        writer.finish(content, needs.version)
    return Sizes(neural, nonzero)


def _with_nonzero(report: StoredReport, layout: Layout, nonzero: int) -> StoredReport:
    """The report with the mean number of entries of a row's code that are not zero, of `nonzero` in all."""
    return report.model_copy(update={"mean_nonzero": nonzero / max(1, layout.table.num_rows)})


def _rows_by_bytes(table: AnyTable) -> int:
    """Rows that take no more bytes than a group may have, of a column and, read again, of all."""
    taken = [column_bytes(table, name) for name in table.column_names]
    held = sum(taken) + CELL_BYTES * table.num_rows * sum(map(_leaves, table.schema.types))
    shares = (max(taken, default=0) / MAX_VALUE_BYTES, held / HELD)
    return max(1, int(table.num_rows / max(*shares, 1e-9)))


def _leaves(kind: pa.DataType) -> int:
    """Cells of a value: those within it count as well."""
    if isinstance(kind, pa.FixedSizeListType):
        return max(1, kind.list_size * _leaves(kind.value_type))
    if isinstance(kind, pa.StructType):
        return 1 + sum(_leaves(field.type) for field in kind)
    return 1


def _header(layout: Layout, blob: bytes, options: Options) -> Header:
    table = layout.table
    columns = max(1, len(layout.names))
    by_bytes = _rows_by_bytes(table)
    cells = LARGE_GROUP_CELLS if is_large(table.num_rows, table.num_columns) else MAX_GROUP_CELLS // 2
    block_rows = max(1, min(options.block_rows, MAX_GROUP_CELLS // 2 // columns, by_bytes))
    group_rows = min(MAX_GROUP_ROWS, cells // columns, by_bytes)
    values = sum(grid.values_of_image for grid in layout.grids if grid is not None and grid.shape)
    if values:
        block_rows = min(block_rows, max(1, IMAGE_BLOCK_VALUES // values))
        group_rows = min(group_rows, max(block_rows, IMAGE_GROUP_VALUES // values))
    needed = -(-table.num_rows // block_rows)
    reference = None
    if layout.model is not None:
        digest = hashlib.sha256(blob).hexdigest()
        reference = ModelReference(sha256=digest, size=len(blob), embedded=options.embed_model)
    codings = [
        ColumnCoding(
            coder=cast(Any, coder),
            grid=None if grid is None else blocks.strip_grid(grid),
            derived=None if function is None else blocks.strip_derived(function),
        )
        for coder, grid, function in zip(layout.coders, layout.grids, layout.derived, strict=True)
    ]
    return Header(
        rows=table.num_rows, block_rows=block_rows, group_blocks=max(1, min(group_rows // block_rows, needed)),
        columns=tuple(codings), coded=tuple(layout.coded), model=reference,
        latents=0 if layout.model is None else layout.model.latents,
    )  # fmt: skip


def _column_streams(
    layout: Layout,
    part: pa.Table,
    coded: Mapping[int, Coded],
    block_rows: int,
    needs: Needs,
    pool: ThreadPoolExecutor,
) -> Iterator[bytes]:
    """What a group holds of each column outside its blocks."""
    starts = range(0, part.num_rows, block_rows)

    def stream(place: int) -> bytes:
        with needs.noted():
            return _column_stream(layout, part, place, coded, starts, block_rows)

    return pool.map(stream, range(len(layout.names)))


def _modelled(layout: Layout, coded: Mapping[int, Coded], rows: int) -> tuple[Ints, States]:
    """Symbols and states of the model's columns, (rows, columns); of images (rows, values) and (rows, 1)."""
    if layout.coded and (images := coded[layout.coded[0]]).symbols.ndim > 1:
        return images.symbols, images.state[:, None]
    symbols, states = (
        np.zeros((rows, len(layout.coded)), np.int64),
        np.zeros((rows, len(layout.coded)), np.uint8),
    )
    for k, place in enumerate(layout.coded):
        symbols[:, k], states[:, k] = coded[place].symbols, coded[place].state
    return symbols, states


def _codes(layout: Layout, start: int, symbols: Ints, states: States) -> Codes:
    """The codes of a group's rows; ValueError if they are not the model's."""
    latents = 0 if layout.model is None else layout.model.latents
    if not callable(layout.codes):
        return (
            np.zeros((len(symbols), 0), np.int8)
            if layout.codes is None
            else layout.codes[start:][: len(symbols)]
        )
    codes = layout.codes(symbols, states)
    if codes.shape != (len(symbols), latents):
        raise ValueError(f"codes: {codes.shape}; the model asks for {(len(symbols), latents)}")
    return codes


def _block_streams(
    model: BlockModel, symbols: Ints, states: States, codes: Codes, block_rows: int, pool: ThreadPoolExecutor
) -> Iterator[bytes]:
    """The streams of a group's blocks, in order."""

    def encode_rows(start: int) -> list[bytes]:
        rows = slice(start, start + block_rows)
        return model.encode_block(symbols[rows], states[rows], np.ascontiguousarray(codes[rows], np.int8))

    for streams in pool.map(encode_rows, range(0, len(symbols), block_rows)):
        yield from streams


def _cells(layout: Layout, part: pa.Table, pool: ThreadPoolExecutor) -> dict[int, Coded]:
    """The cells of every column and one-hot group that has a grid, by place."""
    grids = [grid for grid in layout.grids if grid is not None]
    own = [grid for grid in grids if not grid.one_hot]
    encoded = pool.map(lambda grid: encode(grid, part), own)
    coded = dict(zip((grid.name for grid in own), encoded, strict=True))
    groups = [grid for grid in grids if grid.one_hot]
    coded |= dict(
        zip(
            (grid.name for grid in groups),
            pool.map(lambda group: group_cells(group, own, coded), groups),
            strict=True,
        )
    )
    return {place: coded[name] for place, name in enumerate(layout.names) if name in coded}


def _column_stream(
    layout: Layout, part: pa.Table, place: int, coded: Mapping[int, Coded], starts: range, block_rows: int
) -> bytes:
    """What a group holds of a column outside its blocks."""
    if layout.grids[place] is None:
        return pack(part.column(place))
    nudges = blocks.pack_nudges(coded[place])
    names = layout.names
    coder, function = layout.coders[place], layout.derived[place]
    if coder == "rival":
        return nudges + blocks.pack_cells(coded[place])
    if function is not None:
        grids = {g.name: g for g in layout.grids if g is not None}

        def get(name: str) -> Cells:
            source = coded[names.index(name)]
            return Cells(source.symbols, source.state)

        return nudges + blocks.pack_exceptions(coded[place], function.evaluate(grids, get, part.num_rows))
    if coded[place].symbols.ndim > 1:
        return blocks.pack_states(coded[place].state)
    escaped = coded[place].state == State.ESCAPE
    counts = [int(escaped[start : start + block_rows].sum()) for start in starts]
    return nudges + blocks.pack_escapes(counts, coded[place].escapes)


def _verify(
    layout: Layout, path: Path, target: Path, report: StoredReport, seconds: Seconds, options: Options
) -> ArchiveReport:
    """Decode what was written and compare it; then write down what was found."""
    started = time.perf_counter()
    model = None if options.embed_model else layout.model
    try:
        with Archive(path, model, threads=options.threads) as archive:
            rows = layout.table.num_rows
            errors = archive.verify(
                layout.table, lambda share: options.tell("verify", round(share * rows), rows)
            )
            if not archive.schema.equals(layout.table.schema, check_metadata=True):
                raise ArchiveError("the schema is not the table's")
    except ArchiveError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ArchiveError(f"{target}: not written: it would not have read back: {why}") from error
    seconds = seconds.model_copy(update={"verify": round(time.perf_counter() - started, 3)})
    columns = [
        column.model_copy(update={"max_error": errors[name]}) if name in errors else column
        for name, column in zip(layout.names, report.per_column, strict=True)
    ]
    report = report.model_copy(update={"per_column": tuple(columns), "seconds": seconds})
    replace_report(path, report.model_dump(mode="json", exclude_defaults=True))
    with Archive(path, inspect=True) as archive:
        return archive.report()
