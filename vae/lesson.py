"""What a training reads of a table: the columns that a model codes, its shape, and rows as the codec will see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as _pc

from data.errors import ModelError
from data.grid import Coded, ColumnGrid, State, TableGrid
from data.gridfit import fit_table
from data.kinds import listed
from data.largetable import AnyTable, is_large, part_of
from data.onehot import encode_table
from data.split import TEST, TRAIN, VALIDATION
from data.textgrid import as_large
from vae.codec import structure
from vae.codec.container import DEFAULT_BLOCK_ROWS
from vae.features import Arrays, Layout, blank_model, block, fill, make_layout, read_grid, training_arrays
from vae.images import HELD_VALUES, MODELLED_VALUES, ImageLayout, moving
from vae.images import make_layout as images_layout
from vae.judging import MOST_HELD
from vae.planning import is_series, make_plan, usual_width
from vae.settings import ModelSettings, TrainSettings, latents_of
from vae.texts import HELD_TEXTS, MODELLED_LENGTH, WORD_ROWS, TextLayout, text_arrays
from vae.texts import make_layout as texts_layout

pc = cast(Any, _pc)
Split = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

FEWEST_TEXTS = 64
"""Strings of which no more differ are names."""
FEWEST_RUNS = 64
"""Of a sorted table some few runs show hardly anything."""
MAX_SEEN_BLOCKS = 128
"""Blocks from which these rows are drawn, at most: four million rows are looked at for them."""
LARGE_TRAIN_CELLS = 3 << 20
"""Cells that training reads of a table that is too large for memory: a cell takes up to 80 bytes there."""
RUN_ROWS = 4_096
"""Rows of a run."""
TEXT_ROWS = 8_192
"""Texts that are read at once."""


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


def prepare(table: AnyTable, bounds: Mapping[str, float] | None, most: int) -> Prepared:
    """Grids of all columns, the columns that follow from others, and the rest: those that the model codes.

    Grids are fitted to all rows, a column at a time; what follows from what is looked for on the rows that training
    reads, `most` at most, and where other rows are otherwise, archives have exceptions.
    """
    grid = fit_table(table, bounds)
    rows = _sample_rows(table.num_rows, table.num_columns, most)
    sample = table if rows is None else table.take(pa.array(rows))
    found = structure.analyse(grid, encode_table(grid, sample.column))
    follow = {d.name for d in found.derived}
    return Prepared(*found, [name for name in found.coded if name not in follow], rows)


class Lesson(NamedTuple):
    """What a training reads, and no more of a table than that."""

    grid: TableGrid
    layout: Layout | ImageLayout | TextLayout
    arrays: Arrays
    learn: Rows
    """Of the arrays, those to train on."""
    held: Rows
    """Of the arrays, those that validate."""
    tested: Rows
    """Of the table, those on which the code is scored."""


def lesson_of(
    table: AnyTable,
    bounds: Mapping[str, float] | None,
    model: ModelSettings,
    split: Split | None,
    most: int = TrainSettings().rows,
    *,
    texts: bool = True,
) -> Lesson:
    """What is learnt from a table, of `most` rows at most; NothingToModelError where there is nothing.

    Without `texts` these are left alone, whatever the settings say: archives hold them by other coders.
    """
    prepared = prepare(table, bounds, most)
    images = [name for name in prepared.names if _tells(prepared, name)]
    names = [name for name in prepared.names if not prepared.grid[name].shape]
    written = [name for name in table.column_names if _is_text(table, prepared, name)]
    if model.column is not None:
        images, written = _chosen(model.column, table.column_names, images, written)
        names = []
    prepared = prepared._replace(names=images + names)
    if not prepared.names and written and texts:
        return _texts_lesson(prepared, table, written[0], model, split)
    if not prepared.names:
        raise NothingToModelError(
            "no column of this table can be modelled: each is constant, follows from others or is of a kind that no "
            "model reads; train on other columns, or make an archive, which needs no model: svae compress"
        )
    if images:
        return _images_lesson(prepared, images[0], table.num_rows, model, split)
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
        return Lesson(prepared.grid, layout, arrays, learn, held, tested)
    rows = _training_rows(table.num_rows, len(prepared.rows), split)
    part = np.zeros(len(rows), np.uint8) if split is None else split[rows]
    arrays = _arrays_of(table, prepared.grid, layout, rows)
    learn, held = np.flatnonzero(part == TRAIN), np.flatnonzero(part == VALIDATION)
    return Lesson(prepared.grid, layout, arrays, learn, held, _spread(tested))


def _chosen(
    column: str, names: Sequence[str], images: list[str], texts: list[str]
) -> tuple[list[str], list[str]]:
    """The column that the settings name, among images or among texts."""
    if column in images or column in texts:
        return [name for name in images if name == column], [name for name in texts if name == column]
    if column not in names:
        raise ModelError(f"there is no column {column!r} to model; {listed(names)}")
    raise ModelError(
        f"column {column!r} is not of images or texts that differ, which alone are modelled by themselves; "
        "leave out the setting `column`"
    )


def _is_text(table: AnyTable, prepared: Prepared, name: str) -> bool:
    """Whether a column is of texts: of strings, more than a few of which differ."""
    kind = table.schema.field(name).type
    plain = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
        return False
    grid = prepared.grid[name]
    return grid.kind == "opaque" or len(grid.values) > FEWEST_TEXTS


def _texts_lesson(
    prepared: Prepared, table: AnyTable, name: str, model: ModelSettings, split: Split | None
) -> Lesson:
    """What is learnt from texts; each stands by itself, as images do."""
    rows = table.num_rows
    read = np.arange(rows) if prepared.rows is None else prepared.rows
    column = (
        part_of(table, [name], 0, rows).column(name) if prepared.rows is None else _taken(table, name, read)
    )
    own = ColumnGrid(name=name, kind="text", length=max(1, min(MODELLED_LENGTH, _longest(column))))
    part = np.zeros(len(read), np.uint8) if split is None else split[read]
    there = pc.is_valid(column).to_numpy()
    learn, held = np.flatnonzero(there & (part == TRAIN)), np.flatnonzero(there & (part == VALIDATION))
    some = column.take(pa.array(learn[:: max(1, len(learn) // WORD_ROWS)]))
    layout = texts_layout(name, cast("npt.NDArray[np.uint8]", own.encode(some).symbols), model)
    # what a text tells as a name it no longer tells as a row of bytes
    derived = tuple(d for d in prepared.derived if name not in (d.name, *d.sources))
    arrays: Arrays = {}
    for start in range(0, len(read), TEXT_ROWS):  # as bytes, all texts would take a thousand each
        coded = own.encode(column.slice(start, TEXT_ROWS))
        inside = slice(start, start + len(coded.state))
        fill(arrays, text_arrays(cast(Any, coded.symbols), layout), len(read), inside)
    held = _some_held(learn, held, HELD_TEXTS)
    grid = TableGrid(columns=tuple(own if g.name == name else g for g in prepared.grid.columns))
    layout = layout.model_copy(update={"derived": derived})
    return Lesson(grid, layout, arrays, learn, held, _tested(split, prepared))


def _longest(column: pa.ChunkedArray) -> int:
    """Bytes of the longest text."""
    lengths = (pc.max(pc.binary_length(as_large(chunk))).as_py() for chunk in column.chunks)
    return max((length or 0 for length in lengths), default=0)


def _taken(table: AnyTable, name: str, rows: Rows) -> pa.ChunkedArray:
    return table.take(pa.array(rows)).column(name)


def _some_held(learn: Rows, held: Rows, most: int) -> Rows:
    """Rows that validate, `most` of them; if there are none, as many of those that are learnt."""
    held = held[spread_evenly(len(held), most)]
    return learn[spread_evenly(len(learn), most)] if not len(held) and len(learn) > most else held


def _tested(split: Split | None, prepared: Prepared) -> Rows:
    """Rows on which the code is scored."""
    tested = np.zeros(0, np.int64) if split is None else np.flatnonzero(split == TEST)
    return tested if prepared.rows is None else _spread(tested)


def _tells(prepared: Prepared, name: str) -> bool:
    """Whether a column is of images that a model can learn something from: not all alike or null, nor very large."""
    grid = prepared.grid[name]
    if not grid.shape or grid.values_of_image > MODELLED_VALUES:
        return False
    coded = prepared.coded[name]
    there = coded.symbols[coded.state == State.VALUE]
    return len(there) > 1 and bool((there != there[:1]).any())


def _images_lesson(
    prepared: Prepared, name: str, rows: int, model: ModelSettings, split: Split | None
) -> Lesson:
    """What is learnt from images; each stands by itself, so those that were looked at are those that are learnt."""
    coded = prepared.coded[name]
    read = np.arange(rows) if prepared.rows is None else prepared.rows
    part = np.zeros(len(read), np.uint8) if split is None else split[read]
    there = coded.state == State.VALUE
    learn, held = np.flatnonzero(there & (part == TRAIN)), np.flatnonzero(there & (part == VALIDATION))
    images = cast("npt.NDArray[np.uint8]", coded.symbols)
    layout = images_layout(prepared.grid[name], images[learn], model, rows)
    layout = layout.model_copy(update={"derived": prepared.derived})
    held = _some_held(learn, held, max(64, HELD_VALUES // layout.plan.pixels))
    shape = prepared.grid[name].shape
    arrays: Arrays = {"pixels": images, "moving": moving(images.reshape(-1, *shape))}
    return Lesson(prepared.grid, layout, arrays, learn, held, _tested(split, prepared))


def spread_evenly(count: int, most: int) -> Rows:
    """Places of all of so many, or of `most` that are evenly spread."""
    return (
        np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
        if count
        else np.zeros(0, np.int64)
    )


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


def _rows_of(coded: Coded, rows: npt.NDArray[np.int64]) -> Coded:
    """Symbols and states of some rows, beside all escapes: who learns from them looks at neither these nor nudges."""
    return Coded(coded.symbols[rows], coded.state[rows], coded.escapes)


def _sample_rows(rows: int, columns: int, most: int) -> npt.NDArray[np.int64] | None:
    """Evenly spread runs of RUN_ROWS rows (shorter where they would be few), `most` rows in all, or fewer of a table
    that is too large for memory; None if that is every row.
    """
    if is_large(rows, columns):
        most = min(most, max(RUN_ROWS, LARGE_TRAIN_CELLS // columns))
    if rows <= most:
        return None
    length = min(RUN_ROWS, most // FEWEST_RUNS)
    runs = np.linspace(0, rows - length, most // length).astype(np.int64)
    return np.unique((runs[:, None] + np.arange(length)).ravel())
