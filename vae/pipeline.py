"""From a table to a trained model, and from a model to codes and an archive: what the flows and `vae.compress` call."""

from __future__ import annotations

import functools
import gc
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.bounds import effective_bound
from data.errors import BoundError, ModelError
from data.grid import Coded, TableGrid
from data.gridfit import fit_table
from data.kinds import listed
from data.largetable import AnyTable, is_large, part_of
from data.onehot import encode_table
from data.schema import Schema
from data.split import TEST, TRAIN, VALIDATION
from vae.codec import archive, blocks, columns, structure
from vae.codec.container import DEFAULT_BLOCK_ROWS
from vae.codec.integer import IntegerModel
from vae.codes import encode_symbols
from vae.features import Arrays, Layout, blank_model, block, fill, make_layout, read_grid, training_arrays
from vae.judging import MOST_HELD, Judged, alone, held_out
from vae.model import SparseVAE
from vae.planning import is_series, make_plan, usual_width
from vae.settings import Codes, ModelSettings, TrainSettings, latents_of
from vae.store import TrainedModel, load, save

Progress = Callable[[dict[str, Any]], None]
Split = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

MAX_TRAIN_ROWS = 1_000_000
"""Rows that training reads; of a larger table, some."""
FEWEST_RUNS = 64
"""Of a sorted table some few runs show hardly anything."""
MAX_SEEN_BLOCKS = 128
"""Blocks from which these rows are drawn, at most: four million rows are looked at for them."""
LARGE_TRAIN_CELLS = 3 << 20
"""Cells that training reads of a table that is too large for memory: a cell takes up to 80 bytes there."""
RUN_ROWS = 4_096
"""Rows of a run."""


class NothingToModelError(ModelError):
    """No column of the table is left for a model; an archive does without one."""


class Prepared(NamedTuple):
    """A table on its grid, with what was found out about it before training."""

    grid: TableGrid
    coded: dict[str, Coded]
    derived: tuple[structure.Derived, ...]
    names: list[str]
    """Columns that the model codes."""
    rows: npt.NDArray[np.int64] | None
    """The rows that `coded` is of; None if of all."""


class Score(NamedTuple):
    """What a registry's gate weighs, measured on held-out rows."""

    model_bytes: int
    """Weights as an archive holds them, and the tables of grids and functions."""
    bits_per_row: float
    """Code, columns and what the model leaves to other coders, with hard codes and the codec's weights."""
    code_score: float
    """Mean over the modelled columns of R² or accuracy above the majority share, from the code alone."""
    rows: int


def prepare(table: AnyTable, bounds: Mapping[str, float] | None = None) -> Prepared:
    """Grids of all columns, the columns that follow from others, and the rest: those that the model codes.

    Grids are fitted to all rows, a column at a time; what follows from what is looked for on the rows that training
    reads, and where other rows are otherwise, archives have exceptions.
    """
    grid = fit_table(table, bounds)
    rows = _sample_rows(table.num_rows, table.num_columns)
    sample = table if rows is None else table.take(pa.array(rows))
    found = structure.analyse(grid, encode_table(grid, sample.column))
    follow = {d.name for d in found.derived}
    return Prepared(*found, [name for name in found.coded if name not in follow], rows)


def fit(
    table: AnyTable,
    schema: Schema,
    *,
    bounds: Mapping[str, float] | None = None,
    model: ModelSettings | None = None,
    training: TrainSettings | None = None,
    split: Split | None = None,
    out: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedModel:
    """Train a model of `table`; with `out`, save it there, and go on where a killed training was.

    `split` (rows,): 0 train, 1 validation, 2 test; without it all rows are trained on, and nothing that is reported
    speaks of generalisation. Grids, which are the archive's format, are made from all rows. Of more than a million rows
    all else is made from a million: lookup tables and the model's shape from evenly spread runs, weights from rows
    drawn from evenly spread blocks. The record keeps the score of the code on test rows.

    Raises:
        NothingToModelError: All columns follow from others, or have no grid.
        ModelError: Training diverged.
    """
    model, training = model or ModelSettings(), training or TrainSettings()
    lesson = _lesson(table, bounds, model, split)
    from vae import train  # Lightning takes seconds to import, and 170 MB that fitting grids may want

    layout = lesson.layout
    module, record = train.fit(
        lambda: SparseVAE(layout, model),
        train.Rows(lesson.arrays, lesson.learn, lesson.held),
        training,
        columns=len(layout.plan.columns),
        folder=out,
        on_progress=on_progress,
    )
    grid, tested = lesson.grid, lesson.tested
    del lesson
    gc.collect()  # the trainer and its modules hold each other, and the rows with them
    record = {**record, "bounds": {name: float(width) for name, width in (bounds or {}).items()}}
    trained = TrainedModel(module=module, grid=grid, schema=schema, training=training, record=record)
    if len(tested) and layout.plan.latents:
        score = alone(trained, table.take(pa.array(tested)))
        record |= {"code_score": round(score, 4), "code_score_rows": len(tested)}
    if out is not None:
        save(trained, out)
        train.forget(out)
    return trained


class _Lesson(NamedTuple):
    """What a training reads, and no more of a table than that."""

    grid: TableGrid
    layout: Layout
    arrays: Arrays
    learn: Rows
    """Of the arrays, those to train on."""
    held: Rows
    """Of the arrays, those that validate."""
    tested: Rows
    """Of the table, those on which the code is scored."""


def _lesson(
    table: AnyTable, bounds: Mapping[str, float] | None, model: ModelSettings, split: Split | None
) -> _Lesson:
    """What is learnt from a table; NothingToModelError where there is nothing."""
    prepared = prepare(table, bounds)
    if not prepared.names:
        raise NothingToModelError(
            "no column of this table can be modelled: each is constant, follows from others or is of a kind that no "
            "model reads; train on other columns, or make an archive, which needs no model: svae compress"
        )
    part = split if split is None or prepared.rows is None else split[prepared.rows]
    count = table.num_rows if prepared.rows is None else len(prepared.rows)
    learn = np.arange(count) if part is None else np.flatnonzero(part == TRAIN)
    seen = {name: _rows_of(prepared.coded[name], learn) for name in prepared.names}
    layout = _layout(prepared, seen, model, table.num_rows)
    tested = np.zeros(0, np.int64) if split is None else np.flatnonzero(split == TEST)
    if prepared.rows is None:
        blank, names = blank_model(layout.plan), layout.plan.names
        arrays = training_arrays(layout, blank, *block(prepared.coded, names), DEFAULT_BLOCK_ROWS)
        held = np.zeros(0, np.int64) if split is None else np.flatnonzero(split == VALIDATION)
        return _Lesson(prepared.grid, layout, arrays, learn, held, tested)
    rows = _training_rows(table.num_rows, len(prepared.rows), split)
    part = np.zeros(len(rows), np.uint8) if split is None else split[rows]
    arrays = _arrays_of(table, prepared.grid, layout, rows)
    learn, held = np.flatnonzero(part == TRAIN), np.flatnonzero(part == VALIDATION)
    return _Lesson(prepared.grid, layout, arrays, learn, held, _spread(tested))


def _training_rows(rows: int, most: int, split: Split | None) -> Rows:
    """Rows of a table that training reads, `most` at most and none to test on: drawn from evenly spread blocks."""
    blocks = -(-rows // DEFAULT_BLOCK_ROWS)
    chosen = np.unique(np.linspace(0, blocks - 1, min(blocks, MAX_SEEN_BLOCKS)).astype(np.int64))
    random = np.random.Generator(np.random.Philox(key=0))
    parts: list[Rows] = []
    for start in (chosen * DEFAULT_BLOCK_ROWS).tolist():
        inside = np.arange(start, min(rows, start + DEFAULT_BLOCK_ROWS))
        inside = inside if split is None else inside[split[inside] != TEST]
        parts.append(np.sort(random.permutation(inside)[: most // len(chosen)]))
    return np.concatenate(parts)


def _arrays_of(table: AnyTable, grid: TableGrid, layout: Layout, rows: Rows) -> Arrays:
    """What training reads of some rows, each seen in its whole block, as the archive's decoder will see it (which has
    shorter blocks where a table is very wide).

    Runs of rows that are put side by side look otherwise: what a block remembers, and for how long a column has been
    what it is, is not what it is in the table.
    """
    read, blank = read_grid(grid, layout.plan.names), blank_model(layout.plan)
    columns = [own.name for own in read.columns if not own.one_hot]
    arrays: Arrays = {}
    for start in np.unique(rows // DEFAULT_BLOCK_ROWS * DEFAULT_BLOCK_ROWS).tolist():
        first, last = np.searchsorted(rows, [start, start + DEFAULT_BLOCK_ROWS])
        coded = encode_table(read, part_of(table, columns, start, DEFAULT_BLOCK_ROWS).column)
        whole = training_arrays(layout, blank, *block(coded, layout.plan.names), DEFAULT_BLOCK_ROWS)
        drawn = {name: array[rows[first:last] - start] for name, array in whole.items()}
        fill(arrays, drawn, len(rows), slice(first, last))
    return arrays


def _spread(rows: Rows) -> Rows:
    """Rows to score a code on, of a table that training reads only some of: no more than tell the score."""
    return rows[:: -(-len(rows) // MOST_HELD) or 1]


def _layout(prepared: Prepared, seen: dict[str, Coded], model: ModelSettings, rows: int) -> Layout:
    """The model's shape by the rows that training may see; `rows` are the table's."""
    series = is_series(prepared.grid, seen)
    latents, width = latents_of(model, series=series), model.width or usual_width(rows)
    plan = make_plan(prepared.grid, seen, latents=latents, width=width)
    found = {"derived": prepared.derived, "rows": rows, "series": series}
    return make_layout(plan, seen).model_copy(update=found)


def integer_model(trained: TrainedModel) -> IntegerModel:
    """The decoder as the codec runs it; ModelError where its sums could overflow."""
    return IntegerModel(trained.layout.plan, trained.module.stencil.integers())


def check_table(trained: TrainedModel, table: AnyTable) -> None:
    """Raises ModelError where the table's columns are not the model's."""
    have, want = table.column_names, trained.schema.names
    if have != want:
        lacking = [name for name in want if name not in have]
        extra = [name for name in have if name not in want]
        what = (
            f"lacks column {lacking[0]!r}"
            if lacking
            else f"has an unknown column {extra[0]!r}"
            if extra
            else ""
        )
        what = what or "has its columns in another order"
        raise ModelError(f"the model is for another schema: this table {what}; train a model for it")
    for mine, field in zip(trained.schema.to_arrow(), table.schema, strict=True):
        if mine.type != field.type:
            raise ModelError(
                f"the model is for another schema: column {field.name!r} is {field.type}, not {mine.type}; "
                f"train a model for it, or {_way_out(mine.type, field.type)}"
            )


def _way_out(wanted: pa.DataType, found: pa.DataType) -> str:
    if pa.types.is_integer(wanted) and pa.types.is_floating(found):
        return "write its whole numbers without a point (pandas: frame.convert_dtypes() before to_csv)"
    return "name its type in a schema file"


def own_bounds(trained: TrainedModel) -> dict[str, float]:
    """The error that the model's archives keep to, of each column that need not be exact; absolute."""
    return _on_grid(trained, trained.record.get("bounds", {}))


def check_bounds(trained: TrainedModel, bounds: Mapping[str, float]) -> None:
    """Raises BoundError where the model keeps less than is asked; one that keeps more serves as well."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    for name, width in own.items():
        if asked.get(name, 0.0) < width:
            raise BoundError(
                f"bound {bounds.get(name, 0.0):.9g} for column {name!r}: the model keeps it within {width:.9g} only; "
                f"ask for --bound '{name}={width!r}' or more, for --bound model to take its own, "
                "or compress without --model"
            )


def kept_tighter(trained: TrainedModel, bounds: Mapping[str, float]) -> dict[str, float]:
    """Columns that the model keeps within less than is asked, and within how much."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    return {name: own.get(name, 0.0) for name, width in asked.items() if own.get(name, 0.0) < width}


def check_same_bounds(trained: TrainedModel, bounds: Mapping[str, float]) -> None:
    """Raises BoundError where the model is for other bounds, tighter or wider: bits a row do not compare then."""
    own, asked = own_bounds(trained), _on_grid(trained, bounds)
    for name in trained.schema.names:
        have, want = own.get(name, 0.0), asked.get(name, 0.0)
        if not math.isclose(have, want, rel_tol=1e-12):
            raise BoundError(f"bound {want:g} for column {name!r}: the model was trained with {have:g}")


def _on_grid(trained: TrainedModel, bounds: Mapping[str, float]) -> dict[str, float]:
    """Widths as the grids have them, without those that allow no error; what has no grid is exact."""
    names = trained.schema.names
    for name in bounds:
        if name not in names:
            raise BoundError(f"there is no column {name!r} to bound; {listed(names)}")
    gridded = {grid.name for grid in trained.grid.columns if grid.kind != "opaque"} & bounds.keys()
    widths = {
        name: effective_bound(bounds[name], trained.schema.column(name).type)
        for name in names
        if name in gridded
    }
    return {name: width for name, width in widths.items() if width > 0}


def compress(
    table: AnyTable,
    path: str | Path,
    *,
    bounds: Mapping[str, float] | None = None,
    model: TrainedModel | str | Path | None = None,
    settings: ModelSettings | None = None,
    training: TrainSettings | None = None,
    rivals: bool = False,
    embed_model: bool = True,
    facts: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> archive.ArchiveReport:
    """Write the verified archive of a table; without `model`, train one for this very table, of all its rows but a few
    on which its code is scored.

    Args:
        table: Any Arrow table, or one on disk (`data.largetable`).
        path: Where to; a file of that name is replaced when the new one has been read back and compared.
        bounds: Largest |x - restored| of columns, absolute, in the column's unit; 0 or absent is exact. None takes
            those of `model`, which keeps its own where they are tighter than asked.
        model: A trained model, or the folder that holds one (`svae train`, `vae.pipeline.fit`).
        settings: Of the model that is trained, if none is given.
        training: How it is trained, if none is given.
        rivals: Measure also what CSV, Parquet and pcodec make of the table.
        embed_model: Or refer to it by its digest; the archive then opens with the model beside it only.
        facts: For the report: `source_bytes` (of the source as handed over) and `stored_bytes` (on disk).
        on_progress: Called with a dictionary now and then, in training and writing.

    The model is left out where the archive is smaller without it.

    Raises:
        ModelError: The model cannot be loaded, or is for another schema.
        BoundError: The model keeps a column less exactly than asked.

    >>> import pyarrow as pa, vae
    >>> from vae.settings import TrainSettings
    >>> table = pa.table({"at": [k / 8 for k in range(1_000)], "shop": ["north", "south"] * 500})
    >>> report = vae.compress(table, "sales.svae", bounds={"at": 0.5}, training=TrainSettings(steps=20))
    >>> with vae.open("sales.svae") as sales:
    ...     sales.verify(table)
    {'at': 0.5, 'shop': 0.0}
    """
    began, fitted = time.perf_counter(), model is None
    if model is None:
        model = _fit_or_none(table, bounds, settings, training, on_progress)
        facts = {"train_seconds": time.perf_counter() - began, **(facts or {})}
    else:
        model = model if isinstance(model, TrainedModel) else load(model)
        check_table(model, table)
        if bounds is not None:
            check_bounds(model, bounds)

    if model is None:
        return archive.write(table, path, bounds=bounds, rivals=rivals, facts=facts, progress=on_progress)
    known = {key: model.record[key] for key in ("code_score", "code_score_rows") if key in model.record}
    return archive.write(
        table,
        path,
        bounds=own_bounds(model),
        grid=model.grid,
        derived=model.layout.derived,
        model=integer_model(model),
        codes=functools.partial(encode_symbols, model),
        family=model.settings.family.value,
        embed_model=embed_model,
        rivals=rivals,
        facts={**known, **(facts or {})},
        progress=on_progress,
        fitted=fitted,
    )


def score(trained: TrainedModel, table: pa.Table, split: Split, judged: Judged | None = None) -> Score:
    """What the gate weighs, on the rows that `split` says are test rows; ModelError where there are none.

    The code is scored on `judged`, by default on what this model codes; two models are compared on the same.
    """
    from vae.evaluate import model_bits

    check_table(trained, table)
    rows = np.flatnonzero(split == TEST)
    if not len(rows):
        raise ModelError("no held-out rows to score a model on; give a larger table")
    bits = float(model_bits(trained, encode_table(trained.grid, table.column), rows)["total"])
    held = table.take(pa.array(rows))
    bits += 8 * _bytes_beside(trained, held) / len(rows)
    return Score(_format_bytes(trained), bits, alone(trained, held, judged), len(rows))


def _bytes_beside(trained: TrainedModel, table: pa.Table) -> int:
    """What an archive of these rows holds beside code and modelled columns: exceptions, escapes, other coders'."""
    coded = encode_table(trained.grid, table.column)
    grids = {c.name: c for c in trained.grid.columns}
    derived = {d.name: d for d in trained.layout.derived}

    def cells(name: str) -> structure.Cells:
        return structure.Cells(coded[name].symbols, coded[name].state)

    total = 0
    for name, grid in grids.items():
        if name in trained.layout.plan.names:
            total += len(blocks.pack_nudges(coded[name]))
            total += len(columns.pack(coded[name].escapes)) if len(coded[name].escapes) else 0
        elif name in derived:
            predicted = derived[name].evaluate(grids, cells, table.num_rows)
            total += len(blocks.pack_nudges(coded[name])) + len(
                blocks.pack_exceptions(coded[name], predicted)
            )
        else:
            total += len(blocks.pack_cells(coded[name]) if grid.one_hot else columns.pack(table[name]))
    return total


def _format_bytes(trained: TrainedModel) -> int:
    """Bytes that every archive of this model pays: its weights, and the tables of its grids and functions."""
    derived = {d.name: d for d in trained.layout.derived}
    kept = {*trained.layout.plan.names, *derived}
    grids = [c if c.name in kept else None for c in trained.grid.columns]
    tables, _ = blocks.pack_tables(grids, [derived.get(c.name) for c in trained.grid.columns], [])
    return len(integer_model(trained).to_bytes()) + len(tables)


def _fit_or_none(
    table: AnyTable,
    bounds: Mapping[str, float] | None,
    settings: ModelSettings | None,
    training: TrainSettings | None,
    on_progress: Progress | None,
) -> TrainedModel | None:
    """A model for this very table, trained on all rows but those on which its code is scored; None where nothing can
    be modelled.
    """
    if table.num_rows == 0:
        return None
    schema = Schema.from_arrow(table.schema)
    split = np.zeros(table.num_rows, np.uint8)
    if settings is None or settings.codes is not Codes.none:
        split[held_out(table.num_rows)] = TEST
    try:
        return fit(
            table,
            schema,
            bounds=bounds,
            model=settings,
            training=training,
            split=split if split.any() else None,
            on_progress=on_progress,
        )
    except NothingToModelError:
        return None


def _rows_of(coded: Coded, rows: npt.NDArray[np.int64]) -> Coded:
    """Symbols and states of some rows, beside all escapes: who learns from them looks at neither these nor nudges."""
    return Coded(coded.symbols[rows], coded.state[rows], coded.escapes)


def _sample_rows(rows: int, columns: int) -> npt.NDArray[np.int64] | None:
    """Evenly spread runs of RUN_ROWS rows (shorter where they would be few), as many as training reads in all; None if
    that is every row.
    """
    most = MAX_TRAIN_ROWS
    if is_large(rows, columns):
        most = min(most, max(RUN_ROWS, LARGE_TRAIN_CELLS // columns))
    if rows <= most:
        return None
    length = min(RUN_ROWS, most // FEWEST_RUNS)
    runs = np.linspace(0, rows - length, most // length).astype(np.int64)
    return np.unique((runs[:, None] + np.arange(length)).ravel())
