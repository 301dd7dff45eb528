"""Float columns that are the sum or difference of two others, but for rounding to 15 significant digits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from data.grid import ColumnGrid
from data.lattice import MAX_NUDGE, Floats, Ints, halves, last_digit, unit_digits
from data.stored import Mask, one_array, stored_numbers

MAX_ADDENDS = 64
"""Columns among which addends are looked for."""
_FEW, _MANY = 16, 1024
"""Rows on which all pairs are tried, and on which those are that did well."""
_SHARE = 0.75
"""Share of rows on which they must do well."""


def is_addend(kind: pa.DataType) -> bool:
    """Whether a column may be made of others, and others of it."""
    return bool(kind == pa.float64())


def find_sums(name: str, table: pa.Table, among: Sequence[str]) -> list[ColumnGrid]:
    """What `name` is a sum or difference of, by the rows of a table; columns are those of `is_addend`.

    >>> net, tax = [k / 7 for k in range(99)], [k**0.5 for k in range(99)]
    >>> gross = [a + b for a, b in zip(net, tax)]
    >>> table = pa.table({"net": net, "tax": tax, "gross": gross})
    >>> [(grid.scale, grid.sources) for grid in find_sums("gross", table, ["net", "tax"])]
    [('sum', ('net', 'tax'))]
    """
    others = [other for other in among if other != name][:MAX_ADDENDS]
    values = {other: stored_numbers(one_array(table[other]))[0] for other in (name, *others)}
    largest = {other: float(np.abs(column[np.isfinite(column)]).max(initial=0)) for other, column in values.items()}
    rows = _telling(values[name])
    if len(others) < 2 or len(rows) < _FEW:
        return []
    found: list[ColumnGrid] = []
    digits = unit_digits(max(largest.values()))
    if not digits:
        return []
    few, many = rows[:: len(rows) // _FEW][:_FEW], rows
    for scale, first, second in _pairs(name, others, {n: halves(v[few], digits) for n, v in values.items()}):
        own = unit_digits(max(largest[name], largest[first], largest[second]))
        parts = {other: halves(values[other][many], own) for other in (name, first, second)}
        made = parts[first] + parts[second] if scale == "sum" else parts[first] - parts[second]
        if np.mean(_near(parts[name], made)) >= _SHARE:
            found.append(ColumnGrid(name=name, kind="number", scale=scale, digits=own, sources=(first, second)))
    return found


def _telling(values: Floats) -> Ints:
    """Rows of different values, spread over all."""
    rows = np.sort(np.unique(np.where(np.isfinite(values), values, 0.0), return_index=True)[1])
    return rows[:: max(1, len(rows) // _MANY)]


def _pairs(
    name: str, others: Sequence[str], numbers: Mapping[str, Ints]
) -> Iterator[tuple[Literal["sum", "difference"], str, str]]:
    """Pairs that make `name` on most of a few rows."""
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
