"""Which grid a column gets: found from its values and its bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc

from data.bounds import effective_bound
from data.errors import BoundError
from data.fractions import denominator
from data.grid import (
    MAX_DECIMALS,
    MAX_RANGE,
    MAX_SIDE,
    MAX_SPAN,
    MAX_STORED,
    MAX_SYMBOL,
    ColumnGrid,
    State,
    TableGrid,
)
from data.imagegrid import MAX_PIXELS, holds_images, levels_within
from data.images import Shape, image_shape
from data.lattice import fit_lattice
from data.phases import PHASES, description_bits, first_offset, sampled
from data.stored import Mask, Numbers, is_numeric, one_array, plain_array, stored_numbers

if TYPE_CHECKING:
    from data.largetable import AnyTable

pc = cast(Any, _pc)

MAX_CATEGORIES = 20_000
"""Largest number of distinct strings kept as categories."""
MAX_RANKS = 65_536
"""Largest number of distinct floats kept as ranks of a table."""
SPARSE_DECIMALS = 4
"""Decimals of which fewer than one in this many occurs are a lattice of something else, better kept by rank."""
MANY_RANKS = 64
"""Ranks from which on it is worth saying what they are multiples of."""
_PIECE = 1 << 18
"""Values that are tried at once: some copies of a large column would be more than the column's grid is worth."""


def fit_table(table: AnyTable, bounds: Mapping[str, float] | None = None) -> TableGrid:
    """A grid for each column; `bounds` are absolute widths, 0 or absent is exact."""
    bounds = dict(bounds or {})
    unknown = set(bounds) - set(table.column_names)
    if unknown:
        raise BoundError(f"bound for unknown column {min(unknown)!r}; columns: {table.column_names}")
    return TableGrid(
        columns=tuple(
            fit_column(name, table.column(name), bounds.get(name, 0.0), image_shape(table.schema, name))
            for name in table.column_names
        )
    )


def fit_column(name: str, column: pa.ChunkedArray, bound: float, shape: Shape | None = None) -> ColumnGrid:
    """The grid of one column: of `bound` if it is above 0, else an exact one; opaque where none fits.

    `shape` is that of its images, if it holds any (`data.images.image_shape`).
    """
    if shape is not None:
        return _fit_images(name, column, bound, shape)
    kind = column.type.value_type if isinstance(column.type, pa.DictionaryType) else column.type
    opaque = ColumnGrid(name=name, kind="opaque")
    if pa.types.is_boolean(kind):
        return ColumnGrid(name=name, kind="category", scale="names", high=1, values=(False, True))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _fit_names(name, column) or opaque
    if isinstance(column.type, pa.DictionaryType) or not is_numeric(kind):
        return opaque
    numbers, missing = stored_numbers(one_array(column))
    present = _only(numbers, ~missing)
    if numbers.dtype.kind == "f":
        return _fit_floats(name, _only(present, np.isfinite(present)), bound) or opaque
    width = effective_bound(bound, kind)
    return _fit_integers(name, present, width, clock=pa.types.is_integer(kind)) or opaque


def _only(values: Numbers, wanted: Mask) -> Numbers:
    """The wanted ones; no copy where all are, for a column may be large."""
    return values if wanted.all() else values[wanted]


def _fit_images(name: str, column: pa.ChunkedArray, bound: float, shape: Shape) -> ColumnGrid:
    if math.prod(shape) > MAX_PIXELS or max(shape) > MAX_SIDE or not holds_images(column):
        return ColumnGrid(name=name, kind="opaque")
    levels, step = levels_within(bound)
    within = effective_bound(min(bound, step // 2), column.type)
    return ColumnGrid(
        name=name, kind="image", scale="step", high=levels - 1, step=step, bound=within, shape=shape
    )


def _fit_names(name: str, column: pa.ChunkedArray) -> ColumnGrid | None:
    most = min(MAX_CATEGORIES, max(64, len(column) // 4))
    distinct: set[str] = set()
    # chunk by chunk: text of more than 2 GiB does not fit one array
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        distinct.update(pc.drop_null(pc.unique(plain_array(chunk))).to_pylist())
        if len(distinct) > most:
            return None
    if not distinct:
        return None
    values = tuple(sorted(distinct))
    return ColumnGrid(name=name, kind="category", scale="names", high=len(values) - 1, values=values)


def _fit_integers(name: str, values: Numbers, bound: float, *, clock: bool) -> ColumnGrid | None:
    if len(values) == 0:
        return None
    low, high = int(values.min()), int(values.max())
    if high >= MAX_STORED or low <= -MAX_STORED or high - low >= MAX_RANGE:
        return None
    if bound == 0 and clock and _is_clock(values, low, high):
        return ColumnGrid(name=name, kind="number", scale="clock", low=0, high=1440)
    whole = int(min(bound, high - low))  # more than the range changes nothing
    step = 2 * whole + 1 if bound > 0 else _common_step(values, low)
    top = (high - low + step // 2) // step
    if top >= MAX_SPAN:
        return None
    if bound == 0 and step == 1 and abs(low) < MAX_SPAN and abs(high) < MAX_SPAN:
        return ColumnGrid(name=name, kind="number", scale="step", low=low, high=high)
    if bound == 0:
        return ColumnGrid(name=name, kind="number", scale="step", high=top, offset=low, step=step)
    # the bin that begins lowest has its middle half a step above, those of later phases below it
    offsets = {low + whole - phase * step // PHASES: None for phase in range(PHASES)}
    bins = (
        ColumnGrid(
            name=name,
            kind="number",
            scale="step",
            high=(high - offset + whole) // step,
            offset=offset,
            step=step,
            bound=bound,
        )
        for offset in offsets
    )
    return _cheapest(bins, values)


def _common_step(values: Numbers, low: int) -> int:
    """The greatest common divisor of all distances from `low`; 1 if there are none."""
    pieces = (values[start : start + _PIECE] for start in range(0, len(values), _PIECE))
    return math.gcd(*(int(np.gcd.reduce(piece.astype(np.int64) - low)) for piece in pieces)) or 1


def _cheapest(grids: Iterable[ColumnGrid], values: Numbers) -> ColumnGrid:
    """Of the grids of one column the one whose symbols take fewest bits."""
    sample = pa.array(sampled(values))

    def bits(grid: ColumnGrid) -> float:
        coded = grid.encode(sample)
        return description_bits(coded.symbols[coded.state == State.VALUE], len(coded.escapes))

    return min(grids, key=bits)


def _is_clock(values: Numbers, low: int, high: int) -> bool:
    """HHMM times: none with 60 minutes or more, and enough of them for that to be no accident."""
    whole_hours = low >= 0 and 1200 <= high <= 2400
    return bool(whole_hours and (values % 100 < 60).all() and len(np.unique(values)) > 100)


def _fit_floats(name: str, values: Numbers, bound: float) -> ColumnGrid | None:
    """`values` are finite, in the column's own type."""
    if len(values) == 0:
        return None
    wide = values.astype(np.float64, copy=False)
    low, high = float(wide.min()), float(wide.max())
    if bound > 0:
        step = 2.0 * bound
        if not np.isfinite(step) or (high - low) / step >= MAX_SPAN - 1:
            return None
        first = first_offset(low, bound, values.dtype)
        offsets = (first - phase / PHASES * step for phase in range(PHASES))
        bins = (
            ColumnGrid(
                name=name,
                kind="number",
                scale="uniform",
                high=max(0, math.ceil((high - offset) / step - 0.5)),
                offset=offset,
                step=step,
                bound=bound,
            )
            for offset in offsets
        )
        return _cheapest(bins, values)
    table = np.unique(wide)
    ranked = len(table) <= min(MAX_RANKS, max(16, len(values) // 8))
    digits = _decimals(values)
    if digits is not None:
        first, last = float(np.rint(low * 10**digits)), float(np.rint(high * 10**digits))
        sparse = ranked and last - first > SPARSE_DECIMALS * len(table)
        if not sparse and last - first < MAX_SPAN and max(abs(first), abs(last)) <= MAX_SYMBOL:
            return ColumnGrid(
                name=name, kind="number", scale="decimal", low=int(first), high=int(last), digits=digits
            )
    if digits is None and len(table) >= MANY_RANKS and values.dtype == np.float64:
        lattice = _fit_lattice(name, values, table)
        if lattice and (not ranked or lattice.high - lattice.low < SPARSE_DECIMALS * len(table)):
            return lattice
    if ranked:
        ranks = tuple(float(v) + 0.0 for v in table)  # + 0.0: the table's zero is never negative
        parts = denominator(table, digits, widest=MAX_SPAN) if digits and len(table) >= MANY_RANKS else 0
        return ColumnGrid(
            name=name,
            kind="number",
            scale="ranks",
            high=len(ranks) - 1,
            values=ranks,
            digits=digits if digits and parts else 0,
            parts=parts,
        )
    return None


def _fit_lattice(name: str, values: Numbers, table: Numbers) -> ColumnGrid | None:
    fitted = fit_lattice(values, table, widest=MAX_SPAN)
    if fitted is None or max(abs(fitted.low), abs(fitted.high)) > MAX_SYMBOL:
        return None
    low, high, own = fitted.low, fitted.high, fitted.lattice._asdict()
    return ColumnGrid(name=name, kind="number", scale="lattice", low=low, high=high, **own)


def _decimals(values: Numbers) -> int | None:
    """The fewest decimals that give nearly all values back exactly (the rest become escapes), or None."""
    sample = values if len(values) <= 10_000 else values[:: len(values) // 10_000]
    for digits in range(MAX_DECIMALS + 1):
        unit = float(10**digits)
        if all(_restored(part, unit) >= 0.999 * len(part) for part in (sample, values)):
            return digits
    return None


def _restored(values: Numbers, unit: float) -> int:
    """How many values come back from whole numbers of 1 / unit."""
    count = 0
    for start in range(0, len(values), _PIECE):
        piece = values[start : start + _PIECE]
        with np.errstate(over="ignore"):
            restored = (np.rint(piece.astype(np.float64) * unit) / unit).astype(values.dtype)
        count += int(np.count_nonzero(restored == piece))
    return count
