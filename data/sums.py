"""Float columns that are the sum or difference of two others, by float64 or rounded to 15 significant digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from data.grid import ColumnGrid, State
from data.lattice import MAX_NUDGE, Floats, Ints, halves, last_digit, unit_digits
from data.stored import Mask, one_array, stored_numbers

MAX_ADDENDS = 64
"""Columns among which addends are looked for."""
SEARCH_ROWS = 1 << 15
_FEW, _MANY = 16, 1024
"""Rows on which all pairs are tried, and on which those are that did well."""
_SHARE = 0.75
"""Share of rows on which they must do well."""


def is_addend(kind: pa.DataType) -> bool:
    """Whether a column may be made of others, and others of it."""
    return bool(kind == pa.float64())


def find_sums(table: pa.Table, among: Sequence[str], wanted: Sequence[str]) -> list[ColumnGrid]:
    """What columns of `wanted` are sums or differences of, `among` columns that `is_addend` allows; every way.

    >>> net, tax = [k / 7 for k in range(99)], [k**0.5 for k in range(99)]
    >>> gross = [a + b for a, b in zip(net, tax)]
    >>> table = pa.table({"net": net, "tax": tax, "gross": gross})
    >>> [(grid.scale, grid.sources, grid.digits) for grid in find_sums(table, ["net", "tax"], ["gross"])]
    [('sum', ('net', 'tax'), 0)]
    """
    values: dict[str, Floats] = {}
    largest: dict[str, float] = {}
    for name in dict.fromkeys([*among[:MAX_ADDENDS], *wanted]):
        column = stored_numbers(one_array(table[name]))[0]
        largest[name] = float(np.abs(column[np.isfinite(column)]).max(initial=0))
        values[name] = column[:: max(1, len(column) // SEARCH_ROWS)]
    found: list[ColumnGrid] = []
    for name in wanted:
        others = [other for other in among[:MAX_ADDENDS] if other != name]
        found += _ways(name, others, values, largest)
    return found


def _ways(
    name: str, others: Sequence[str], values: Mapping[str, Floats], largest: Mapping[str, float]
) -> Iterator[ColumnGrid]:
    rows = _telling(values[name])
    digits = unit_digits(max(largest[other] for other in (name, *others)))
    if len(others) < 2 or len(rows) < _FEW or not digits:
        return
    few = rows[:: len(rows) // _FEW][:_FEW]
    for scale, first, second in _pairs(name, {n: halves(values[n][few], digits) for n in (name, *others)}):
        whole, *addends = (pa.array(values[n][rows]) for n in (name, first, second))
        for kept in (unit_digits(max(largest[name], largest[first], largest[second])), 0):
            grid = ColumnGrid(name=name, kind="number", scale=scale, digits=kept, sources=(first, second))
            if np.mean(grid.encode(whole, addends).state == State.VALUE) >= _SHARE:
                yield grid


def _telling(values: Floats) -> Ints:
    """Rows of different values, spread over all."""
    rows = np.sort(np.unique(np.where(np.isfinite(values), values, 0.0), return_index=True)[1])
    return rows[:: max(1, len(rows) // _MANY)]


def _pairs(name: str, numbers: Mapping[str, Ints]) -> Iterator[tuple[Literal["sum", "difference"], str, str]]:
    """Pairs that make `name` on most of a few rows."""
    others = [other for other in numbers if other != name]
    whole = np.stack([numbers[other] for other in others])
    for place, first in enumerate(others):
        sums, differences = whole[place] + whole[place + 1 :], whole[place] - whole
        for k in np.flatnonzero(_near(numbers[name], sums).mean(axis=1) >= _SHARE):
            yield "sum", first, others[place + 1 + int(k)]
        for k in np.flatnonzero(_near(numbers[name], differences).mean(axis=1) >= _SHARE):
            if k != place:
                yield "difference", first, others[int(k)]


def _near(numbers: Ints, made: Ints) -> Mask:
    """Whether a nudge tells the one from the other."""
    return np.abs(numbers - made) <= MAX_NUDGE * last_digit(made)
