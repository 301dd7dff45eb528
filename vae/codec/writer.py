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
from data.errors import ArchiveError, BoundError, SchemaError
from data.grid import Coded, ColumnGrid, State, TableGrid, fit_column
from data.schema import Schema
from vae.codec import blocks, structure
from vae.codec.blocks import BlockModel, Codes, undress
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
from vae.codec.reader import Archive
from vae.codec.structure import Cells, Derived
from vae.codec.summary import (
    ArchiveReport,
    Seconds,
    StoredColumn,
    StoredReport,
    measure_rivals,
)

Progress = Callable[[str, float], None]
"""Called with a stage (`encode`, `rivals`, `verify`) and the share of it that is done."""
SEARCH_ROWS = 1 << 20
"""Rows on which columns that follow from others are looked for, if the caller did not."""
MAX_VALUE_BYTES = 1 << 26
"""Bytes of one column's values in a group, about."""
CLOSE_CALL = 0.85
"""Where the model takes more than this share of what its rivals are estimated to need, both are written."""


class Options(NamedTuple):
    """What a call of `write` asks for."""

    embed_model: bool = True
    block_rows: int = DEFAULT_BLOCK_ROWS
    threads: int | None = None
    progress: Progress | None = None

    def tell(self, stage: str, share: float) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(stage, share)


class Layout(NamedTuple):
    """How each column of a table is to be stored."""

    table: pa.Table
    grids: list[ColumnGrid | None]
    derived: list[Derived | None]
    dictionaries: list[pa.Array | None]
    coders: list[str]
    coded: list[int]
    """Neural columns in coding order."""
    bounds: list[float]
    model: BlockModel | None
    codes: Codes | None


def write(
    table: pa.Table,
    path: str | Path,
    *,
    bounds: Mapping[str, float] | None = None,
    model: BlockModel | None = None,
    grid: TableGrid | None = None,
    codes: Codes | None = None,
    derived: Sequence[Derived] | None = None,
    rivals: bool = False,
    embed_model: bool = True,
    source_bytes: int | None = None,
    stored_bytes: int | None = None,
    family: str = "quantized",
    train_seconds: float = 0.0,
    block_rows: int = DEFAULT_BLOCK_ROWS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ArchiveReport:
    """Write `table` as an archive; the name appears when every value has been read back and compared.

    Args:
        table: Any Arrow table.
        path: Where to; written under a temporary name beside it.
        bounds: Largest |x - restored| of columns that need not be exact, absolute. Default: those of `grid`.
        model: Codes the columns that it names; without one, general coders and derived columns do it all.
        grid: The grids that the model was made for; made from the table if missing.
        codes: The sparse codes, int8 (rows, latents), if the model has latents.
        derived: Columns that follow from others; looked for among those without model if missing.
        rivals: Measure also what CSV, Parquet and pcodec make of the table.
        embed_model: Or refer to it by its digest, for jobs of many files.
        source_bytes: Bytes of the source as handed over; default: what the table takes in memory.
        stored_bytes: Bytes of the source on disk; default: `source_bytes`.
        family: Name of the latent family, for the report.
        train_seconds: Likewise.
        block_rows: Rows of a block; fewer where the table is very wide or its values very long.
        threads: Threads that encode; default: as many as there are processors.
        progress: Told the stage and the share done.

    Raises:
        BoundError: A bound for an unknown column, or one that is not the grid's of a column that the model codes.
        SchemaError: Two columns of one name, or a model of columns that the table lacks.
        ArchiveError: What was written does not read back; nothing is left behind.
    """
    options = Options(embed_model, block_rows, threads, progress)
    started = time.perf_counter()
    layout = _lay_out(table, bounds, model, grid, codes, derived)
    report = StoredReport(
        source_bytes=table.nbytes if source_bytes is None else source_bytes,
        stored_bytes=stored_bytes if stored_bytes is not None else source_bytes or table.nbytes,
        per_column=tuple(
            StoredColumn(kind=kind, bound=bound) for kind, bound in zip(_kinds(table), layout.bounds, strict=True)
        ),
        family="none" if codes is None or model is None else family,
        mean_nonzero=0.0 if codes is None or not len(codes) else float((codes != 0).sum(axis=1).mean()),
    )
    with atomic_path(path) as temporary:
        layout, report = _write_best(layout, temporary, report, options)
        seconds = Seconds(train=train_seconds, encode=time.perf_counter() - started)
        if rivals:
            options.tell("rivals", 0.0)
            measured = measure_rivals(table, {g.name: g for g in layout.grids if g is not None})
            report = report.model_copy(update={"rivals": measured})
            options.tell("rivals", 1.0)
        return _verify(layout, temporary, Path(path), report, seconds, options)


def _kinds(table: pa.Table) -> list[str]:
    return [str(column.kind) for column in Schema.from_arrow(table.schema).columns]


# -------------------------------------------------------------------------------------------------------- choices


def _lay_out(
    table: pa.Table,
    bounds: Mapping[str, float] | None,
    model: BlockModel | None,
    grid: TableGrid | None,
    codes: Codes | None,
    derived: Sequence[Derived] | None,
) -> Layout:
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"column name {name!r} occurs twice; rename one of the columns")
    neural = [] if model is None else model.columns
    for name in neural:
        if name not in names:
            raise SchemaError(f"the model codes column {name!r}, which the table lacks; use a model of this table")
    if model is not None and (codes is None or codes.shape != (table.num_rows, model.latents)):
        if model.latents or codes is not None:
            shape = "none" if codes is None else codes.shape
            raise ValueError(f"codes: {shape}; the model asks for {(table.num_rows, model.latents)}")
        codes = np.zeros((table.num_rows, 0), np.int8)
    grids = _grids(table, bounds, grid, neural)
    wanted = [0.0 if g is None else g.bound for g in grids]
    usable = {g.name: g for g in grids if g is not None}
    if derived is None:
        derived = _search(table, usable, keep=neural)
    functions = {d.name: d for d in derived if d.name not in neural and _possible(d, usable)}
    functions = {name: d for name, d in functions.items() if _function_pays(table, d, usable)}
    sources = {source for d in functions.values() for source in d.sources}
    coders = ["neural" if n in neural else "derived" if n in functions else "rival" for n in names]
    dictionaries: list[pa.Array | None] = []
    for place, name in enumerate(names):
        g = grids[place]
        if g is not None and coders[place] == "rival" and g.bound == 0 and name not in sources:
            grids[place] = g if _grid_pays(table.column(place), g) else None
        dictionaries.append(_dictionary(table.column(place)) if grids[place] is not None else None)
    places = [names.index(name) for name in neural]
    functions_by_place = [functions.get(name) for name in names]
    return Layout(table, grids, functions_by_place, dictionaries, coders, places, wanted, model, codes)


def _grids(
    table: pa.Table, bounds: Mapping[str, float] | None, grid: TableGrid | None, neural: Sequence[str]
) -> list[ColumnGrid | None]:
    """A grid for each column that has one; those of the model as they are."""
    names = table.column_names
    for name in bounds or {}:
        if name not in names:
            raise BoundError(f"there is no column {name!r} to bound; the columns are {', '.join(names)}")
    given = {} if grid is None else {g.name: g for g in grid.columns}
    out: list[ColumnGrid | None] = []
    for name, column in zip(names, table.columns, strict=True):
        own = given.get(name)
        bound = (own.bound if own is not None else 0.0) if bounds is None else bounds.get(name, 0.0)
        if own is None or not _same_bound(own, bound, column.type):
            if name in neural:
                have = "none" if own is None else f"{own.bound:g}"
                raise BoundError(f"column {name!r}: bound {bound:g}, but the grid of the model is of {have}")
            own = fit_column(name, column, bound)
        dictionary = isinstance(column.type, pa.DictionaryType) and name not in neural
        out.append(None if own.kind == "opaque" or dictionary else own)
    return out


def _same_bound(grid: ColumnGrid, bound: float, kind: pa.DataType) -> bool:
    whole = not pa.types.is_floating(kind)
    return grid.bound == (float(int(bound)) if whole else bound)


def _possible(function: Derived, grids: Mapping[str, ColumnGrid]) -> bool:
    return all(name in grids for name in (function.name, *function.sources))


def _search(table: pa.Table, grids: Mapping[str, ColumnGrid], keep: Sequence[str]) -> list[Derived]:
    if table.num_rows > SEARCH_ROWS:
        starts = range(0, table.num_rows, table.num_rows // 16)
        table = pa.concat_tables([table.slice(start, SEARCH_ROWS // 17) for start in starts])
    coded = {name: _encode(g, table.column(name)) for name, g in grids.items()}
    return structure.find(TableGrid(columns=tuple(grids.values())), coded, keep=keep)


def _dictionary(column: pa.ChunkedArray) -> pa.Array | None:
    if not isinstance(column.type, pa.DictionaryType):
        return None
    chunks = cast(Any, column).unify_dictionaries().chunks
    return chunks[0].dictionary if chunks else pa.array([], column.type.value_type)


def _encode(grid: ColumnGrid, column: Any) -> Coded:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return grid.encode(undress(cast(pa.Array, whole)))


def _sample(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.slice(max(0, len(column) - DEFAULT_BLOCK_ROWS) // 2, DEFAULT_BLOCK_ROWS)


def _grid_pays(column: pa.ChunkedArray, grid: ColumnGrid) -> bool:
    """Whether a column is smaller on its exact grid than as it is, judged by a block."""
    sample = _sample(column)
    table = blocks.pack_tables([grid], [None], [None])[1][0]
    share = len(sample) / max(1, len(column))
    on_grid = len(blocks.pack_cells(_encode(grid, sample), quick=True)) + share * table
    return grid.kind == "category" and len(column) > len(sample) or on_grid < len(pack(sample, quick=True))


def _rival_bytes(column: pa.ChunkedArray, grid: ColumnGrid) -> int:
    """What the rival coders need for a column, judged by a block."""
    sample = _sample(column)
    table = blocks.pack_tables([grid], [None], [None])[1][0]
    return table + len(blocks.pack_cells(_encode(grid, sample), quick=True)) * len(column) // max(1, len(sample))


def _function_pays(table: pa.Table, function: Derived, grids: Mapping[str, ColumnGrid]) -> bool:
    """Whether a derived column is smaller than by the rival coders, judged by a block."""
    names = (function.name, *function.sources)
    cells = {name: _encode(grids[name], _sample(table.column(name))) for name in names}
    rows = len(cells[function.name].symbols)
    predicted = function.evaluate(grids, lambda name: Cells(cells[name].symbols, cells[name].state), rows)
    wrong = len(blocks.pack_exceptions(cells[function.name], predicted))
    shared = blocks.pack_tables([None], [function], [None])[1][0] * rows / max(1, table.num_rows)
    return wrong + shared < len(blocks.pack_cells(cells[function.name], quick=True))


# -------------------------------------------------------------------------------------------------------- writing


def _write_best(
    layout: Layout, path: Path, report: StoredReport, options: Options
) -> tuple[Layout, StoredReport]:
    """Write with the model, and without it too if that may be smaller; the smaller file remains at `path`."""
    sizes = _write_file(layout, path, report, options)
    if layout.model is None:
        return layout, report
    table = layout.table
    rivals = {place: _rival_bytes(table.column(place), cast(ColumnGrid, layout.grids[place])) for place in layout.coded}
    columns = [c.model_copy(update={"rival_bytes": rivals.get(i)}) for i, c in enumerate(report.per_column)]
    report = report.model_copy(update={"per_column": tuple(columns)})
    if sizes.neural <= CLOSE_CALL * sum(rivals.values()):
        return layout, report
    plain = _lay_out(table, {n: b for n, b in zip(table.column_names, layout.bounds, strict=True) if b}, None,
                     TableGrid(columns=tuple(g for g in layout.grids if g)), None,
                     [d for d in layout.derived if d])  # fmt: skip
    other = path.with_name(path.name.removesuffix(".tmp") + ".rivals.tmp")
    try:
        without = report.model_copy(update={"family": "none", "mean_nonzero": 0.0})
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


def _write_file(layout: Layout, path: Path, report: StoredReport, options: Options) -> Sizes:
    """Write all of an archive to `path`."""
    blob = b"" if layout.model is None else layout.model.to_bytes()
    tables, table_sizes = blocks.pack_tables(layout.grids, layout.derived, layout.dictionaries)
    embedded = blob if options.embed_model else b""
    neural = len(embedded) + sum(table_sizes[place] for place in layout.coded)
    header = _header(layout, blob, options)
    with path.open("wb") as file, ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
        writer = Writer(file, header, layout.table.schema)
        writer.part(tables)
        writer.part(embedded)
        for group in range(header.groups):
            for is_neural, stream in _group(layout, header, group, pool):
                writer.part(stream)
                neural += len(stream) if is_neural else 0
            options.tell("encode", (group + 1) / header.groups)
        writer.finish(report.model_dump(mode="json", exclude_defaults=True))
    return Sizes(neural)


def _header(layout: Layout, blob: bytes, options: Options) -> Header:
    table = layout.table
    columns = max(1, table.num_columns)
    value_bytes = max((column.nbytes for column in table.columns), default=0) / max(1, table.num_rows)
    by_bytes = max(1, int(MAX_VALUE_BYTES / max(1.0, value_bytes)))
    block_rows = max(1, min(options.block_rows, MAX_GROUP_CELLS // 2 // columns, by_bytes))
    group_rows = min(MAX_GROUP_ROWS, MAX_GROUP_CELLS // 2 // columns, by_bytes)
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


def _group(
    layout: Layout, header: Header, group: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[bool, bytes]]:
    """The streams of a group in order, each with whether the model's choice is answerable for it."""
    part = layout.table.slice(group * header.group_rows, header.group_rows)
    gridded = [(place, grid) for place, grid in enumerate(layout.grids) if grid is not None]
    encoded = pool.map(lambda pair: _encode(pair[1], part.column(pair[0])), gridded)
    coded = dict(zip((place for place, _ in gridded), encoded, strict=True))
    starts = range(0, part.num_rows, header.block_rows)
    streams = pool.map(
        lambda place: _column_stream(layout, part, place, coded, starts, header.block_rows), range(part.num_columns)
    )
    model, codes = layout.model, layout.codes
    for place, stream in enumerate(streams):
        yield layout.coders[place] == "neural", stream
    if model is None or codes is None:
        return
    codes = codes[group * header.group_rows :][: part.num_rows]
    shape = (part.num_rows, 0)
    symbols = np.stack([coded[p].symbols for p in layout.coded], 1) if layout.coded else np.zeros(shape, np.int64)
    states = np.stack([coded[p].state for p in layout.coded], 1) if layout.coded else np.zeros(shape, np.uint8)

    def encode(start: int) -> list[bytes]:
        rows = slice(start, start + header.block_rows)
        return model.encode_block(symbols[rows], states[rows], np.ascontiguousarray(codes[rows], np.int8))

    for block in pool.map(encode, starts):
        yield from ((True, stream) for stream in block)


def _column_stream(
    layout: Layout, part: pa.Table, place: int, coded: Mapping[int, Coded], starts: range, block_rows: int
) -> bytes:
    """What a group holds of a column outside its blocks."""
    names = layout.table.column_names
    coder, function = layout.coders[place], layout.derived[place]
    if coder == "rival":
        return pack(part.column(place)) if layout.grids[place] is None else blocks.pack_cells(coded[place])
    if function is not None:
        grids = {g.name: g for g in layout.grids if g is not None}

        def get(name: str) -> Cells:
            source = coded[names.index(name)]
            return Cells(source.symbols, source.state)

        return blocks.pack_exceptions(coded[place], function.evaluate(grids, get, part.num_rows))
    escaped = coded[place].state == State.ESCAPE
    counts = [int(escaped[start : start + block_rows].sum()) for start in starts]
    return blocks.pack_escapes(counts, coded[place].escapes)


def _verify(
    layout: Layout, path: Path, target: Path, report: StoredReport, seconds: Seconds, options: Options
) -> ArchiveReport:
    """Decode what was written and compare it; then write down what was found."""
    started = time.perf_counter()
    model = None if options.embed_model else layout.model
    try:
        with Archive(path, model, threads=options.threads) as archive:
            errors = archive.verify(layout.table, lambda share: options.tell("verify", share))
    except ArchiveError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ArchiveError(f"{target}: not written: it would not have read back: {why}") from error
    seconds = seconds.model_copy(update={"verify": time.perf_counter() - started})
    columns = [
        column.model_copy(update={"max_error": errors[name]})
        for name, column in zip(layout.table.column_names, report.per_column, strict=True)
    ]
    report = report.model_copy(update={"per_column": tuple(columns), "seconds": seconds})
    replace_report(path, report.model_dump(mode="json", exclude_defaults=True))
    with Archive(path, inspect=True) as archive:
        return archive.report()
