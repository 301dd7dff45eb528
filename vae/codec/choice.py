"""How each column of a table is to be stored: coders chosen by size, measured on a block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from data.bounds import effective_bound
from data.errors import BoundError, SchemaError
from data.grid import Coded, ColumnGrid, TableGrid
from data.gridfit import fit_column
from data.imagegrid import TOP
from data.images import image_shape
from data.largetable import AnyTable, is_large
from data.onehot import group_cells
from data.stored import one_array
from data.sums import find_sums, is_addend
from vae.codec import blocks, structure
from vae.codec.blocks import BlockModel, Codes, CodesOf, undress
from vae.codec.columns import pack
from vae.codec.container import DEFAULT_BLOCK_ROWS
from vae.codec.structure import Cells, Derived, Structure

SEARCH_ROWS = 1 << 20
"""Rows on which columns that follow from others are looked for, if the caller did not."""
SAMPLE_VALUES = 1 << 22
"""Most values of an array or image column in the block by which coders are judged."""
LARGE_SEARCH_CELLS = 1 << 22
"""Cells on which they are in a table that is not held in memory."""


class Layout(NamedTuple):
    """How each column of a table, and after them each one-hot group, is to be stored."""

    table: AnyTable
    names: list[str]
    """Of the table's columns, then of the groups."""
    grids: list[ColumnGrid | None]
    derived: list[Derived | None]
    dictionaries: list[pa.Array | None]
    coders: list[str]
    coded: list[int]
    """Neural columns in coding order."""
    bounds: list[float]
    """Of the table's columns."""
    model: BlockModel | None
    codes: Codes | CodesOf | None


class _Sample:
    """The cells of columns and groups in a block from the middle of a table."""

    def __init__(self, table: AnyTable, grids: Mapping[str, ColumnGrid]) -> None:
        self._table = table
        self._grids = grids
        self._known: dict[str, Coded] = {}

    def __getitem__(self, name: str) -> Coded:
        if name not in self._known:
            grid = self._grids[name]
            if grid.one_hot:
                members = {member: self[member] for member in grid.values}
                self._known[name] = group_cells(grid, [*self._grids.values()], members)
            else:
                self._known[name] = encode(grid, _sample(self._table))
        return self._known[name]

    def cells(self, name: str) -> Cells:
        """The same, without escapes."""
        return Cells(self[name].symbols, self[name].state)


def lay_out(
    table: AnyTable,
    bounds: Mapping[str, float] | None,
    model: BlockModel | None,
    grid: TableGrid | None,
    codes: Codes | CodesOf | None,
    derived: Sequence[Derived] | None,
) -> Layout:
    """The layout of an archive; arguments and errors as for `vae.codec.archive.write`."""
    own = table.column_names
    for name in own:
        if own.count(name) > 1:
            raise SchemaError(f"column name {name!r} occurs twice; rename one of the columns")
    neural = [] if model is None else model.columns
    groups = [] if grid is None or derived is None else [g for g in grid.columns if g.one_hot]
    for name in neural:
        if name not in own and name not in {g.name for g in groups}:
            raise SchemaError(
                f"the model codes column {name!r}, which the table lacks; use a model of this table"
            )
    codes = _checked_codes(table, model, codes)
    grids = _grids(table, bounds, grid, neural)
    wanted = [0.0 if g is None else g.bound for g in grids]
    usable = {g.name: g for g in grids if g is not None}
    if derived is None:
        found = _search(table, usable, keep=neural)
        derived, groups = found.derived, [g for g in found.grid.columns if g.one_hot]
    usable |= {g.name: g for g in groups if all(name in usable for name in g.values)}
    sample = _Sample(table, usable)
    functions = {d.name: d for d in derived if d.name not in neural and _possible(d, usable)}
    functions = {name: d for name, d in functions.items() if _function_pays(table, d, usable, sample)}
    kept = [g for g in groups if g.name in neural or _group_pays(table, g, functions, sample)]
    dropped = {g.name for g in groups} - {g.name for g in kept}
    functions = {n: d for n, d in functions.items() if n not in dropped and not dropped & set(d.sources)}
    names = [*own, *(g.name for g in kept)]
    sources = {source for d in functions.values() for source in d.sources}
    sources |= {name for g in kept for name in g.values}
    coders = ["neural" if n in neural else "derived" if n in functions else "rival" for n in names]
    dictionaries: list[pa.Array | None] = []
    free = {name for place, name in enumerate(own) if coders[place] == "rival"} - sources
    for place, name in enumerate(own):
        g = grids[place]
        if g is not None and name in free and g.bound == 0:
            grids[place] = g if _grid_pays(table, g) else None
    own_grids = dict(zip(own, grids, strict=True))
    sums = _sums(table, own_grids, free)
    grids = [sums.get(name, g) for name, g in own_grids.items()]
    for place, name in enumerate(own):
        dictionaries.append(_dictionary(table, name) if grids[place] is not None else None)
    return Layout(
        table, names, [*grids, *kept], [functions.get(name) for name in names],
        [*dictionaries, *(None for _ in kept)], coders, [names.index(name) for name in neural], wanted, model, codes,
    )  # fmt: skip


def _checked_codes(
    table: AnyTable, model: BlockModel | None, codes: Codes | CodesOf | None
) -> Codes | CodesOf | None:
    """The codes, empty ones for a model without latents; ValueError if they are not the model's."""
    if callable(codes) or model is None:
        return codes
    if codes is not None and codes.shape == (table.num_rows, model.latents):
        return codes
    if model.latents or codes is not None:
        shape = "none" if codes is None else codes.shape
        raise ValueError(f"codes: {shape}; the model asks for {(table.num_rows, model.latents)}")
    return np.zeros((table.num_rows, 0), np.int8)


def _grids(
    table: AnyTable, bounds: Mapping[str, float] | None, grid: TableGrid | None, neural: Sequence[str]
) -> list[ColumnGrid | None]:
    """A grid for each column that has one; those of the model as they are."""
    names = table.column_names
    for name in bounds or {}:
        if name not in names:
            raise BoundError(f"there is no column {name!r} to bound; the columns are {', '.join(names)}")
    given = {} if grid is None else {g.name: g for g in grid.columns if not g.sources}
    out: list[ColumnGrid | None] = []
    for name, kind in zip(names, table.schema.types, strict=True):
        own = given.get(name)
        bound = (own.bound if own is not None else 0.0) if bounds is None else bounds.get(name, 0.0)
        if own is None or not _same_bound(own, bound, kind):
            if name in neural:
                have = "none" if own is None else f"{own.bound:g}"
                raise BoundError(f"column {name!r}: bound {bound:g}, but the grid of the model is of {have}")
            own = fit_column(name, table.column(name), bound, image_shape(table.schema, name))
        dictionary = isinstance(kind, pa.DictionaryType) and name not in neural
        out.append(None if own.kind == "opaque" or dictionary else own)
    return out


def _same_bound(grid: ColumnGrid, bound: float, kind: pa.DataType) -> bool:
    bound = min(bound, TOP) if grid.shape else bound
    return math.isclose(grid.bound, effective_bound(bound, kind), rel_tol=1e-9)


def _possible(function: Derived, grids: Mapping[str, ColumnGrid]) -> bool:
    return all(name in grids for name in (function.name, *function.sources))


def _search(table: AnyTable, grids: Mapping[str, ColumnGrid], keep: Sequence[str]) -> Structure:
    rows, columns = table.num_rows, max(1, table.num_columns)
    most = max(LARGE_SEARCH_CELLS // columns, 17 * 256) if is_large(rows, columns) else SEARCH_ROWS
    if rows <= most:
        sample = table.slice(0, rows)
    else:
        sample = pa.concat_tables([table.slice(start, most // 17) for start in range(0, rows, rows // 16)])
    coded = {name: encode(g, sample) for name, g in grids.items()}
    return structure.analyse(TableGrid(columns=tuple(grids.values())), coded, keep=keep)


def _dictionary(table: AnyTable, name: str) -> pa.Array | None:
    kind = table.schema.field(name).type
    if not isinstance(kind, pa.DictionaryType):
        return None
    chunks = cast(Any, table.column(name)).unify_dictionaries().chunks
    return chunks[0].dictionary if chunks else pa.array([], kind.value_type)


def encode(grid: ColumnGrid, table: pa.Table) -> Coded:
    """A column of a table on its grid."""
    column, *sources = (undress(one_array(table.column(name))) for name in (grid.name, *grid.sources))
    return grid.encode(column, sources)


def _sample(table: AnyTable) -> pa.Table:
    wide = [cast(Any, kind).list_size for kind in table.schema.types if pa.types.is_fixed_size_list(kind)]
    rows = max(1, min(DEFAULT_BLOCK_ROWS, SAMPLE_VALUES // max(1, *wide, 1)))
    return table.slice(max(0, table.num_rows - rows) // 2, rows)


def _grid_pays(table: AnyTable, grid: ColumnGrid) -> bool:
    """Whether a column is smaller on its exact grid than as it is, judged by a block."""
    if grid.shape:  # the same values in a wider type
        return False
    sample = _sample(table)
    on_grid, as_it_is = (_stored_bytes(sample, table.num_rows, grid.name, g) for g in (grid, None))
    return (grid.kind == "category" and table.num_rows > sample.num_rows) or on_grid < as_it_is


def _stored_bytes(sample: pa.Table, rows: int, name: str, grid: ColumnGrid | None) -> float:
    """What a block of a table of so many rows takes of a stored column, with its share of the grid's table."""
    if grid is None:
        return len(pack(sample.column(name), quick=True))
    values = blocks.pack_tables([grid], [None], [None])[1][0]
    return _cell_bytes(encode(grid, sample)) + sample.num_rows / max(1, rows) * values


def _cell_bytes(coded: Coded) -> int:
    return len(blocks.pack_nudges(coded, quick=True)) + len(blocks.pack_cells(coded, quick=True))


def _sums(
    table: AnyTable, grids: Mapping[str, ColumnGrid | None], free: AbstractSet[str]
) -> dict[str, ColumnGrid]:
    """Grids of columns that are smaller as sums of others, judged by a block; what they are made of are no sums."""
    exact = {name for name, grid in grids.items() if grid is None or grid.bound == 0}
    addends = [field.name for field in table.schema if is_addend(field.type) and field.name in exact]
    found = find_sums(table, addends, [name for name in addends if name in free])
    sample = _sample(table)
    now = {name: _stored_bytes(sample, table.num_rows, name, grids[name]) for name in {g.name for g in found}}
    gains = [(now[grid.name] - _cell_bytes(encode(grid, sample)), grid) for grid in found]
    chosen: dict[str, ColumnGrid] = {}
    for gain, grid in sorted(gains, key=lambda pair: -pair[0]):
        used = {name for other in chosen.values() for name in other.sources}
        if gain > 0 and grid.name not in {*chosen, *used} and not chosen.keys() & set(grid.sources):
            chosen[grid.name] = grid
    return chosen


def rival_bytes(layout: Layout, place: int) -> int:
    """What the rival coders need for a column, judged by a block."""
    grid = layout.grids[place]
    if grid is None:
        raise ValueError(f"column {layout.names[place]!r} has no grid")
    cells = _Sample(layout.table, {g.name: g for g in layout.grids if g is not None})[grid.name]
    table = blocks.pack_tables([grid], [None], [None])[1][0]
    return table + _cell_bytes(cells) * layout.table.num_rows // max(1, len(cells.symbols))


def _function_pays(
    table: AnyTable, function: Derived, grids: Mapping[str, ColumnGrid], sample: _Sample
) -> bool:
    """Whether a derived column is smaller than by the rival coders, judged by a block."""
    cells = sample[function.name]
    rows = len(cells.symbols)
    wrong = len(blocks.pack_exceptions(cells, function.evaluate(grids, sample.cells, rows)))
    wrong += len(blocks.pack_nudges(cells, quick=True))
    shared = blocks.pack_tables([None], [function], [None])[1][0] * rows / max(1, table.num_rows)
    return wrong + shared < _cell_bytes(cells)


def _group_pays(
    table: AnyTable,
    group: ColumnGrid,
    functions: Mapping[str, Derived],
    sample: _Sample,
) -> bool:
    """Whether a group that the model does not code is smaller than the members that follow from it."""
    members = [name for name in group.values if name in functions and group.name in functions[name].sources]
    if not members:
        return False
    if group.name in functions:
        return True
    apart = sum(len(blocks.pack_cells(sample[name], quick=True)) for name in members)
    cells = sample[group.name]
    padded = [group, *(None for _ in members[1:])]
    tables, _ = blocks.pack_tables(padded, [functions[name] for name in members], [])
    share = len(cells.symbols) / max(1, table.num_rows)
    return len(blocks.pack_cells(cells, quick=True)) + len(tables) * share < apart
